//! The project's own tree: where it is, and which files git knows in it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The top of the work tree.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("crate `tests` is a folder of the workspace").to_owned()
}

/// Files that git tracks, and new ones that it does not ignore, relative to the top.
pub fn files() -> Vec<String> {
    let out = Command::new("git")
        .current_dir(root())
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .expect("git");
    assert!(out.status.success(), "git ls-files: {}", String::from_utf8_lossy(&out.stderr));
    let mut files: Vec<String> = out
        .stdout
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8(name.to_vec()).expect("file names are UTF-8"))
        .filter(|name| root().join(name).exists()) // removed, but not yet from the index
        .collect();
    files.sort();
    files.dedup();
    files
}

/// The Rust sources below a folder of the project, sorted.
pub fn rust_sources(folder: &str) -> Vec<PathBuf> {
    let prefix = format!("{folder}/");
    files().into_iter().filter(|f| f.starts_with(&prefix) && f.ends_with(".rs")).map(|f| root().join(f)).collect()
}
