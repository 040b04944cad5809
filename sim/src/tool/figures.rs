//! `sim figures`: how quickly deaths are known, and what watching costs, in meshes of many hosts.
//!
//! The table goes to standard output; `--out FOLDER` writes it as `figures.md`, with its plot beside it. A row of many
//! hosts takes long, so each is kept there as soon as it is measured: rows of the same seed that an earlier run left are
//! in table and plot too. After a change of what is measured the folder has to be emptied. What is measured, and how, is
//! [`crate::figures`]'s affair.

use super::{Figures, Io, Wrong};
use crate::figures::{Effort, Figures as Measured, Row, row};
use mesh::wire::{decode, encode};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

/// A row has a dozen numbers, and three of each kind of message.
const ROW_BYTES_MAX: usize = 4_096;

/// Measures and tells.
pub fn figures(args: &Figures, io: &mut Io) -> Result<u8, Wrong> {
    let effort = if args.quick { Effort::SMALL } else { Effort::FULL };
    let keep = args.out.as_deref().filter(|_| !args.quick);
    let wrong = |error: io::Error| {
        let folder = args.out.as_deref().unwrap_or(Path::new("")).display();
        Wrong::new(format!("{folder}: {error}"), "give a folder that can be written to with --out")
    };
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).map_err(wrong)?;
    }
    let mut rows = keep.map_or_else(|| Ok(BTreeMap::new()), |folder| kept(folder, args.seed)).map_err(wrong)?;
    for hosts in &args.hosts {
        for loss in args.losses.iter().map(|percent| u32::from(*percent)) {
            let row = row(*hosts, loss, args.seed, effort);
            if let Some(folder) = keep {
                let name = format!("{}{hosts}-{loss}.row", prefix(args.seed));
                std::fs::write(folder.join(name), encode(&row)).map_err(wrong)?;
            }
            rows.insert((*hosts, loss), row);
        }
    }
    let found = Measured { rows: rows.into_values().collect(), seed: args.seed };
    let table = found.to_markdown();
    let _ = writeln!(io.out, "{table}");
    if let Some(folder) = &args.out {
        std::fs::write(folder.join("figures.md"), table).map_err(wrong)?;
        std::fs::write(folder.join("figures.svg"), found.to_svg()).map_err(wrong)?;
    }
    Ok(0)
}

fn prefix(seed: u64) -> String {
    format!("seed-{seed}-")
}

/// Rows that earlier runs left. What cannot be read is none: it is measured again when it is asked for.
fn kept(folder: &Path, seed: u64) -> io::Result<BTreeMap<(usize, u32), Row>> {
    let mut rows = BTreeMap::new();
    for file in std::fs::read_dir(folder)? {
        let file = file?;
        let name = file.file_name().to_string_lossy().into_owned();
        if name.starts_with(&prefix(seed))
            && name.ends_with(".row")
            && let Ok(row) = decode::<Row>(&std::fs::read(file.path())?, ROW_BYTES_MAX)
        {
            rows.insert((row.hosts, row.loss), row);
        }
    }
    Ok(rows)
}
