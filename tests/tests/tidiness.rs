//! The tree itself: what lies at the top, one version of everything, files that can be read in one sitting.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tests::tree::{files, root};

const TOP: [&str; 11] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "mesh",
    "node",
    "scripts",
    "sim",
    "tests",
    "topology",
];

/// Past this a file is two ideas.
const LINES_MAX: usize = 600;

#[test]
fn the_top_of_the_tree_has_what_the_house_has() {
    let top: BTreeSet<String> = files().iter().map(|f| f.split('/').next().unwrap_or(f).to_owned()).collect();
    let strange: Vec<&String> = top.iter().filter(|n| !n.starts_with('.') && !TOP.contains(&n.as_str())).collect();
    assert!(strange.is_empty(), "{strange:?}: longer explanations live beside their code, settings in dot-files");
    let absent: Vec<&&str> = TOP.iter().filter(|n| !top.contains(**n)).collect();
    assert!(absent.is_empty(), "missing: {absent:?}");
}

#[test]
fn versions_stand_in_the_workspace_table_only() {
    let mut strange = Vec::new();
    // The stand-in of a published crate is built wherever that crate is.
    let manifests = files().into_iter().filter(|f| f.ends_with("/Cargo.toml") && f != "sim/futures-timer/Cargo.toml");
    for file in manifests {
        strange.extend(own_versions(&read(&file)).into_iter().map(|name| format!("{file}: {name}")));
    }
    assert!(strange.is_empty(), "say `NAME.workspace = true`: {strange:?}");
    let naive = "[dependencies]\na.workspace = true\nb = \"1\"\n[dev-dependencies]\nc = { version = \"2\" }";
    assert_eq!(own_versions(naive), ["b", "c"]);
}

#[test]
fn no_dependency_is_listed_and_not_used() {
    let manifest: toml::Table = toml::from_str(&read("Cargo.toml")).expect("TOML");
    let listed = manifest["workspace"]["dependencies"].as_table().expect("the workspace's table");
    let members: String = files().iter().filter(|f| f.ends_with("/Cargo.toml")).map(|f| read(f)).collect();
    let used =
        |name: &str| members.lines().any(|l| l.starts_with(&format!("{name}.")) || l.starts_with(&format!("{name} ")));
    let is_ours = |what: &toml::Value| what.get("path").is_some();
    let idle: Vec<&String> = listed.iter().filter(|(n, what)| !is_ours(what) && !used(n)).map(|(n, _)| n).collect();
    assert!(idle.is_empty(), "in the workspace's table, used by no crate: {idle:?}");
}

#[test]
fn a_file_is_one_idea() {
    let long: Vec<String> = files()
        .iter()
        .filter(|f| f.ends_with(".rs"))
        .map(|f| (f, read(f).lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(f, lines)| format!("{f}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn modules_say_what_they_are() {
    let silent: Vec<String> = files()
        .into_iter()
        .filter(|f| f.ends_with(".rs") && !f.ends_with("_tests.rs"))
        .filter(|f| !read(f).trim_start().starts_with("//!"))
        .collect();
    assert!(silent.is_empty(), "begin with `//!`: {silent:?}");
}

#[test]
fn nothing_is_left_undone_in_the_code() {
    let marks = [["FIX", "ME"], ["#[ig", "nore"]].map(|parts| parts.concat()); // apart, so that this file is not found
    let found: Vec<String> = files()
        .iter()
        .filter(|f| f.ends_with(".rs") || f.starts_with("scripts/"))
        .flat_map(|f| {
            read(f).lines().enumerate().map(|(n, l)| (format!("{f}:{}", n + 1), l.to_owned())).collect::<Vec<_>>()
        })
        .filter(|(_, line)| marks.iter().any(|m| line.contains(m.as_str())))
        .map(|(place, line)| format!("{place}: {}", line.trim()))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn texts_are_texts() {
    let mut faults = Vec::new();
    for file in files() {
        let bytes = fs::read(root().join(&file)).expect("readable");
        let Ok(text) = String::from_utf8(bytes) else { continue };
        if !text.is_empty() && !text.ends_with('\n') {
            faults.push(format!("{file}: no newline at its end"));
        }
        if text.contains('\r') {
            faults.push(format!("{file}: carriage return"));
        }
        if !file.ends_with(".md") && text.lines().any(|l| l.ends_with([' ', '\t'])) {
            faults.push(format!("{file}: space at a line's end"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// A mirror is the user's choice and stands in the configuration of the user's machine.
#[test]
fn no_package_host_is_named() {
    let hosts = [
        ["crates", ".io/"],
        ["static.rust", "-lang"],
        ["deb.deb", "ian"],
        ["pypi", ".org"],
        ["registry.npm", "js"],
        ["security.deb", "ian"],
    ];
    let mut found = Vec::new();
    for file in files().iter().filter(|f| *f != "Cargo.lock") {
        let Ok(text) = fs::read_to_string(root().join(file)) else { continue };
        found.extend(hosts.iter().filter(|h| text.contains(&h.concat())).map(|h| format!("{file}: {}", h.concat())));
    }
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn scripts_can_be_run() {
    for file in files().iter().filter(|f| f.starts_with("scripts/") || *f == ".ci/run") {
        let text = read(file);
        if !text.starts_with("#!") {
            continue; // sourced by the others
        }
        let mode = fs::metadata(root().join(file)).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{file} cannot be executed: chmod +x {file}");
        assert!(
            text.lines().nth(1).is_some_and(|l| l.starts_with("# ")) || file == ".ci/run",
            "{file} does not say what it does"
        );
    }
}

/// Every `scripts/NAME` and every path in backquotes that the README names is there.
#[test]
fn the_readme_names_what_exists() {
    let readme = read("README.md");
    let all = files();
    let exists = |path: &str| {
        let folder = format!("{}/", path.trim_end_matches('/'));
        all.iter().any(|f| f == path || f.starts_with(&folder))
    };
    let quoted = readme.split('`').skip(1).step_by(2);
    let named = quoted
        .chain(readme.split_whitespace())
        .map(|w| w.split_whitespace().next().unwrap_or("").trim_matches(['(', ')', ',', '.', '`']));
    let absent: BTreeSet<&str> = named
        .filter(|w| w.starts_with("scripts/") || w.starts_with("./scripts/"))
        .filter(|w| !exists(w.trim_start_matches("./")))
        .collect();
    assert!(absent.is_empty(), "README.md names {absent:?}");
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

fn own_versions(manifest: &str) -> Vec<String> {
    let manifest: toml::Table = toml::from_str(manifest).expect("TOML");
    let mut out = Vec::new();
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        for (name, what) in manifest.get(kind).and_then(|t| t.as_table()).into_iter().flatten() {
            if what.is_str() || what.get("version").is_some() {
                out.push(name.clone());
            }
        }
    }
    out
}
