//! The timers of libp2p are the simulated ones: cargo only warns when a patch is not used.
#![allow(clippy::unwrap_used)] // helpers of tests, which clippy does not exempt

use std::path::Path;

fn toml(path: &str) -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse().unwrap()
}

#[test]
fn the_patch_of_futures_timer_is_used() {
    let (lock, manifest) = (toml("../Cargo.lock"), toml("futures-timer/Cargo.toml"));
    let packages = lock["package"].as_array().unwrap();
    let timers: Vec<_> = packages.iter().filter(|p| p["name"].as_str() == Some("futures-timer")).collect();
    assert_eq!(timers.len(), 1, "a dependency brings a futures-timer of its own: {timers:?}");
    assert_eq!(timers[0]["version"], manifest["package"]["version"], "raise the version of the stand-in");
    // A package of this workspace has neither; one from the registry has both.
    assert!(timers[0].get("source").is_none() && timers[0].get("checksum").is_none(), "{:?}", timers[0]);
    let users = packages.iter().filter_map(|p| p.get("dependencies")?.as_array());
    let uses = |deps: &Vec<toml::Value>| deps.iter().any(|dep| dep.as_str() == Some("futures-timer"));
    assert!(users.filter(|deps| uses(deps)).count() >= 3, "libp2p takes its timers from elsewhere now");
}
