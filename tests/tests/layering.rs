//! The arrows of the house: who may use whom, and what the core may not touch.
//!
//! Each rule is tested twice: the sources keep it, and a planted violation is caught.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use tests::source::{Token, program_tokens};
use tests::tree::{root, rust_sources};

/// A crate and those of the project that it may use: everything to its left in
/// `topology, mesh < node < sim < tests`, and `topology` by `sim` and `tests` only.
const ARROWS: [(&str, &[&str]); 5] = [
    ("topology", &[]),
    ("mesh", &[]),
    ("node", &["mesh"]),
    ("sim", &["topology", "mesh", "node"]),
    ("tests", &["topology", "mesh", "node", "sim"]),
];

/// What `mesh` may depend on outside of tests: data in, data out. No tokio, no libp2p but its identity crate.
const CORE_MAY_USE: [&str; 11] = [
    "blake3",
    "ciborium",
    "ed25519-dalek",
    "libp2p-identity",
    "litemap",
    "serde",
    "serde_bytes",
    "serde_repr",
    "serde_tuple",
    "thiserror",
    "tracing",
];

/// Crates that it names in no path. A method may well be called `libp2p`.
const CORE_NEVER_CALLS: [&str; 6] = ["async_std", "futures", "getrandom", "libp2p", "rand", "tokio"];

/// Words that have no place in the core: clocks, sockets, randomness, hash order, async.
const CORE_NEVER_SAYS: [&str; 19] = [
    "Instant",
    "SystemTime",
    "TcpListener",
    "TcpStream",
    "ToSocketAddrs",
    "UdpSocket",
    "UnixDatagram",
    "UnixListener",
    "UnixStream",
    "HashMap",
    "HashSet",
    "RandomState",
    "DefaultHasher",
    "OsRng",
    "SysRng",
    "ThreadRng",
    "thread_rng",
    "async",
    "await",
];

/// Modules of the standard library that the core never opens.
const CORE_NEVER_OPENS: [&str; 5] = ["fs", "thread", "env", "process", "os"];

#[test]
fn no_crate_depends_to_its_right() {
    for (name, allowed) in ARROWS {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).expect("manifest");
        assert_eq!(forbidden_arrows(&manifest, allowed), Vec::<String>::new(), "{name}/Cargo.toml");
    }
    let naive = "[dependencies]\nmesh.workspace = true\n[dev-dependencies]\nsim.workspace = true";
    assert_eq!(forbidden_arrows(naive, &["mesh"]), ["sim"]);
    let target = "[target.'cfg(unix)'.dependencies]\nx = { path = \"../node\", package = \"node\" }";
    assert_eq!(forbidden_arrows(target, &["mesh"]), ["node"]);
}

#[test]
fn every_member_has_its_place() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("manifest");
    let manifest: toml::Table = toml::from_str(&manifest).expect("TOML");
    let members: BTreeSet<&str> =
        manifest["workspace"]["members"].as_array().expect("members").iter().filter_map(|m| m.as_str()).collect();
    let mut known: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    known.insert("sim/futures-timer"); // a stand-in of libp2p's timers, over tokio's clock
    known.insert("node/base2histogram"); // a stand-in of openraft's histograms, without their tables
    assert_eq!(members, known, "a new crate needs a place in ARROWS");
}

#[test]
fn the_core_depends_on_data_alone() {
    let manifest = fs::read_to_string(root().join("mesh/Cargo.toml")).expect("manifest");
    assert_eq!(strange_dependencies(&manifest), Vec::<String>::new(), "mesh/Cargo.toml");
    let naive = "[dependencies]\nblake3 = \"1\"\ntokio.workspace = true\n[dev-dependencies]\nproptest = \"1\"";
    assert_eq!(strange_dependencies(naive), ["tokio"]);
}

#[test]
fn the_core_is_sans_io() {
    assert_eq!(in_sources("mesh/src", core_violations), Vec::<String>::new());
}

#[test]
fn a_core_with_a_clock_a_file_or_hash_order_is_caught() {
    let planted = [
        ("use std::time::Instant;", "Instant"),
        ("use std::{collections::BTreeMap, fs};", "std::fs"),
        ("fn f() { let _ = std::fs::read(\"x\"); }", "std::fs"),
        ("use std::{io::{self, Read}, thread as t};", "std::thread"),
        ("use std::net::{IpAddr, UdpSocket};", "UdpSocket"),
        ("use std::collections::HashMap as Map;", "HashMap"),
        ("use libp2p::PeerId;", "libp2p"),
        ("async fn f() {}", "async"),
        ("fn f() -> u8 { rand::random() }", "rand"),
        ("fn f() { ::std::env::var(\"X\"); }", "std::env"),
    ];
    for (source, what) in planted {
        let found = core_violations(&program_tokens(source));
        assert!(found.iter().any(|(_, text)| text == what), "`{source}` passed: {found:?}");
    }
    let honest = "//! No tokio, no std::fs, no Instant.\nuse std::net::IpAddr; use std::time::Duration;\nuse \
                  libp2p_identity::PeerId; use std::io::{Read, Write};\nstruct S { env: u8, process: u8 }\nimpl S { fn libp2p(&self) {} }\nconst T: \
                  &str = \"std::fs rand\";";
    assert_eq!(core_violations(&program_tokens(honest)), []);
}

#[test]
fn the_node_can_be_simulated() {
    assert_eq!(in_sources("node/src", node_violations), Vec::<String>::new());
}

#[test]
fn a_node_on_the_real_clock_or_with_a_random_select_is_caught() {
    for naive in [
        "use std::time::{Duration, Instant};",
        "let t = std::time::Instant::now();",
        "tokio::select! { a = x => {} }",
        "use tokio::sync::{mpsc, watch};",
        "std::thread::spawn(f);",
    ] {
        assert_ne!(node_violations(&program_tokens(naive)), [], "`{naive}` passed");
    }
    let honest = "use tokio::time::Instant; use std::time::Duration; select! { biased; a = x => {} }";
    assert_eq!(node_violations(&program_tokens(honest)), []);
}

/// What a file says that it should not: line and word.
type Violations = Vec<(usize, String)>;

fn core_violations(tokens: &[Token]) -> Violations {
    let words = tokens.iter().filter(|t| CORE_NEVER_SAYS.contains(&t.text.as_str()));
    let mut found: Violations = words.map(|t| (t.line, t.text.clone())).collect();
    for name in CORE_NEVER_CALLS {
        found.extend(paths(tokens, name).into_iter().map(|(line, _)| (line, name.to_owned())));
    }
    for (line, path) in paths(tokens, "std") {
        if CORE_NEVER_OPENS.iter().any(|m| path.first() == Some(m)) {
            found.push((line, format!("std::{}", path[0])));
        }
    }
    found
}

/// `select!` without `biased;` polls in random order; the clock, threads and `watch` of the real world
/// are out of the simulator's reach.
fn node_violations(tokens: &[Token]) -> Violations {
    let mut found = Violations::new();
    for (line, path) in paths(tokens, "std") {
        // Counting the cores starts no thread.
        let thread = path.starts_with(&["thread"]) && !path.ends_with(&["available_parallelism"]);
        if path.starts_with(&["time", "Instant"]) || thread {
            found.push((line, format!("std::{}", path.join("::"))));
        }
    }
    for (line, path) in paths(tokens, "tokio") {
        if path.starts_with(&["sync", "watch"]) || path.ends_with(&["block_in_place"]) {
            found.push((line, format!("tokio::{}", path.join("::"))));
        }
    }
    for window in tokens.windows(4) {
        let [name, bang, _, first] = window else { continue };
        if name.text == "select" && bang.text == "!" && first.text != "biased" {
            found.push((name.line, "select! without `biased;`".into()));
        }
    }
    found
}

/// Every path that starts at `origin`, with the groups of a `use` spelled out: `std::{a, b::{c, d}}`
/// gives `a`, `b::c` and `b::d`.
fn paths<'t>(tokens: &'t [Token], origin: &str) -> Vec<(usize, Vec<&'t str>)> {
    let mut found = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        let is_field = i > 0 && tokens[i - 1].text == ".";
        if token.text == origin && !is_field && is_separator(tokens, i + 1) {
            follow(tokens, i + 3, &mut Vec::new(), &mut found);
        }
    }
    found
}

fn follow<'t>(
    tokens: &'t [Token],
    mut i: usize,
    prefix: &mut Vec<&'t str>,
    found: &mut Vec<(usize, Vec<&'t str>)>,
) -> usize {
    let depth = prefix.len();
    while let Some(token) = tokens.get(i) {
        if token.text == "{" {
            i += 1;
            while tokens.get(i).is_some_and(|t| t.text != "}") {
                i = follow(tokens, i, prefix, found);
                while tokens.get(i).is_some_and(|t| t.text != "," && t.text != "}") {
                    i += 1; // `as name`
                }
                i += usize::from(tokens.get(i).is_some_and(|t| t.text == ","));
            }
            i += 1;
            break;
        }
        prefix.push(&token.text);
        i += 1;
        if !is_separator(tokens, i) {
            found.push((token.line, prefix.clone()));
            break;
        }
        i += 2;
    }
    prefix.truncate(depth);
    i
}

fn is_separator(tokens: &[Token], i: usize) -> bool {
    tokens.get(i).is_some_and(|t| t.text == ":") && tokens.get(i + 1).is_some_and(|t| t.text == ":")
}

fn in_sources(folder: &str, rule: fn(&[Token]) -> Violations) -> Vec<String> {
    let files: Vec<PathBuf> = rust_sources(folder).into_iter().filter(|f| !is_test_file(f)).collect();
    assert!(!files.is_empty(), "no sources in {folder}");
    let mut out = Vec::new();
    for file in files {
        let source = fs::read_to_string(&file).expect("source");
        let name = file.strip_prefix(root()).unwrap_or(&file).display();
        out.extend(rule(&program_tokens(&source)).iter().map(|(line, what)| format!("{name}:{line}: {what}")));
    }
    out
}

/// Tests of a long file stand beside it as `…_tests.rs`.
fn is_test_file(file: &std::path::Path) -> bool {
    file.file_stem().and_then(|s| s.to_str()).is_some_and(|s| s == "tests" || s.ends_with("_tests"))
}

/// Every dependency table of a manifest, with the real package names; `dev` says whether to look at those for tests too.
fn dependencies(manifest: &str, dev: bool) -> Vec<String> {
    let manifest: toml::Table = toml::from_str(manifest).expect("TOML");
    let mut tables = vec![&manifest];
    tables.extend(
        manifest
            .get("target")
            .and_then(|t| t.as_table())
            .into_iter()
            .flat_map(|t| t.values())
            .filter_map(|t| t.as_table()),
    );
    let kinds = ["dependencies", "build-dependencies", "dev-dependencies"];
    let mut out = Vec::new();
    for table in tables {
        for kind in kinds.iter().take(if dev { 3 } else { 2 }) {
            for (name, what) in table.get(*kind).and_then(|t| t.as_table()).into_iter().flatten() {
                out.push(what.get("package").and_then(|p| p.as_str()).unwrap_or(name).to_owned());
            }
        }
    }
    out
}

fn forbidden_arrows(manifest: &str, allowed: &[&str]) -> Vec<String> {
    let ours = |name: &String| ARROWS.iter().any(|(crate_name, _)| crate_name == name);
    dependencies(manifest, true).into_iter().filter(ours).filter(|n| !allowed.contains(&n.as_str())).collect()
}

fn strange_dependencies(manifest: &str) -> Vec<String> {
    dependencies(manifest, false).into_iter().filter(|n| !CORE_MAY_USE.contains(&n.as_str())).collect()
}
