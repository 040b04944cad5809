//! Fleets by name: those that are shipped with the program, and files.

use std::path::Path;
use topology::{FLEETS, Fleet};

/// The fleets that are shipped, with their names.
///
/// # Errors
/// Never, as a test shows.
pub fn shipped() -> Result<Vec<(String, Fleet)>, String> {
    let parse = |(file, text): &(&str, &str)| {
        let fleet = Fleet::parse(file, text).map_err(|error| error.to_string())?;
        Ok((file.trim_end_matches(".toml").to_owned(), fleet))
    };
    FLEETS.iter().map(parse).collect()
}

/// A shipped fleet by its name, `lan-N` for N hosts on one wire, or the fleet of a file by its path.
///
/// # Errors
/// When there is neither, or the file is no fleet; in words.
pub fn find(name: &str) -> Result<Fleet, String> {
    let shipped = shipped()?;
    if let Some((_, fleet)) = shipped.iter().find(|(known, _)| known == name) {
        return Ok(fleet.clone());
    }
    if name.starts_with("lan-") {
        return crate::nodes::fleet(name);
    }
    if !Path::new(name).exists() {
        let names: Vec<&str> = shipped.iter().map(|(name, _)| name.as_str()).collect();
        return Err(format!("no fleet and no file is called `{name}`; shipped are {}", names.join(", ")));
    }
    Fleet::load(Path::new(name)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_shipped_fleet_is_found_by_its_name() {
        for (name, fleet) in super::shipped().unwrap() {
            assert_eq!(super::find(&name), Ok(fleet));
        }
        assert!(super::find("no-such").unwrap_err().contains("alpha-centauri"));
    }
}
