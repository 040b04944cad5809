//! The `mesh` program under test, and `mesh-guard` beside it: found beside the test, built when it is missing or older than its sources.

use crate::tree::{root, rust_sources};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The path of an up-to-date `mesh`. `MESH_BIN` names another one to test instead.
pub fn mesh() -> &'static Path {
    static MESH: OnceLock<PathBuf> = OnceLock::new();
    MESH.get_or_init(|| match std::env::var_os("MESH_BIN") {
        Some(path) => path.into(),
        None => beside_us(),
    })
}

/// `target/debug/deps/join-1234` and `target/release/bench` both have it in the profile's folder.
fn beside_us() -> PathBuf {
    let us = std::env::current_exe().expect("a test has a path");
    let mut folder = us.parent().expect("a file is in a folder");
    if folder.ends_with("deps") {
        folder = folder.parent().expect("deps is in a folder");
    }
    let mesh = folder.join("mesh");
    if !is_fresh(&mesh) {
        let profile = if folder.ends_with("release") { "release" } else { "dev" };
        let built = Command::new(env!("CARGO"))
            .current_dir(root())
            .args(["build", "--quiet", "--locked", "-p", "node", "--bins", "--profile", profile, "--target-dir"])
            .arg(folder.parent().expect("a profile's folder is in the target folder"))
            .status()
            .expect("cargo");
        assert!(built.success(), "cargo build -p node --bins failed");
    }
    mesh
}

fn is_fresh(mesh: &Path) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    let Some(built) = changed(mesh) else { return false };
    let sources = ["mesh/src", "node/src"].into_iter().flat_map(rust_sources);
    sources.filter_map(|f| changed(&f)).max().unwrap_or(SystemTime::UNIX_EPOCH) <= built
}
