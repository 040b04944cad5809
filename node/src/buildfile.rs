//! `mesh build FILE`: builds written as TOML.
//!
//! ```toml
//! [defaults]                      # applied to every build that does not say otherwise
//! timeout = "10m"
//!
//! [build.lib]
//! command = "make lib"            # a string is run by `sh -c`, an array as it stands
//! workspace = "."                 # this folder, .gitignore respected
//! outputs = ["lib.a"]
//!
//! [build.app]
//! command = ["make", "app"]
//! inputs = ["app.c", "../shared"] # files and folders; one from outside is placed by its last name
//! needs = ["lib"]
//! ```
//! Paths are relative to the file. Everything is checked here, before anything is sent, and errors name
//! line and column; blobs are made by [`crate::cli`].

use crate::config::{Source, TextError, read_text, shorten};
use mesh::build::{BuildSpec, InputKind, Sandbox};
use mesh::limits::SUBMISSION_BUILDS_MAX;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use toml::{Spanned, Value};

/// Larger build files are somebody's mistake.
const FILE_BYTES_MAX: usize = 8 << 20;

/// Something on this disk that a build starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalInput {
    /// Where it is.
    pub source: PathBuf,
    /// Where it goes in the build's folder; empty for the folder itself.
    pub path: String,
    /// A file as it is, or a folder as an archive.
    pub kind: InputKind,
}

/// A build and what it starts from. `spec.inputs` is empty: the blobs are not made yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalBuild {
    /// The build.
    pub spec: BuildSpec,
    /// Its inputs.
    pub inputs: Vec<LocalInput>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    defaults: Table,
    #[serde(default)]
    build: BTreeMap<Spanned<String>, Spanned<Table>>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Table {
    command: Option<Spanned<Value>>,
    inputs: Option<Vec<Spanned<String>>>,
    workspace: Option<Spanned<String>>,
    outputs: Option<Vec<String>>,
    env: BTreeMap<String, String>,
    needs: Option<Vec<Spanned<String>>>,
    cores: Option<Spanned<i64>>,
    memory: Option<Spanned<Value>>,
    tags: Option<Vec<String>>,
    timeout: Option<Spanned<String>>,
    retries: Option<Spanned<i64>>,
    network: Option<bool>,
    sandbox: Option<Spanned<String>>,
    confirm: Option<Spanned<i64>>,
}

impl Table {
    /// What this table says, and where it is silent, what the defaults say.
    fn over(self, defaults: &Table) -> Table {
        let d = defaults.clone();
        let mut env = d.env;
        env.extend(self.env);
        Table {
            command: self.command.or(d.command),
            inputs: self.inputs.or(d.inputs),
            workspace: self.workspace.or(d.workspace),
            outputs: self.outputs.or(d.outputs),
            env,
            needs: self.needs.or(d.needs),
            cores: self.cores.or(d.cores),
            memory: self.memory.or(d.memory),
            tags: self.tags.or(d.tags),
            timeout: self.timeout.or(d.timeout),
            retries: self.retries.or(d.retries),
            network: self.network.or(d.network),
            sandbox: self.sandbox.or(d.sandbox),
            confirm: self.confirm.or(d.confirm),
        }
    }
}

/// Reads a build file.
///
/// # Errors
/// The first mistake in it, or an input that is not there.
pub fn load(path: &Path) -> Result<Vec<LocalBuild>, TextError> {
    parse(&read_text(path, FILE_BYTES_MAX)?, path)
}

/// Reads the text of a build file; inputs are looked for in the folder of `path`.
///
/// # Errors
/// The first mistake in it, or an input that is not there.
pub fn parse(text: &str, path: &Path) -> Result<Vec<LocalBuild>, TextError> {
    let source = Source { path, text };
    let file: File =
        source.toml("a build is a table [build.NAME] with at least `command`; see README.md, \"build files\"")?;
    if file.build.is_empty() {
        return Err(source.error(0, "there is no build in this file", "add a table [build.NAME] with a `command`"));
    }
    if file.build.len() > SUBMISSION_BUILDS_MAX {
        let message = format!("{} builds are more than {SUBMISSION_BUILDS_MAX}", file.build.len());
        return Err(source.error(0, message, "split the file"));
    }
    let base = path.parent().unwrap_or(Path::new(""));
    let mut builds = Vec::new();
    let mut needs = BTreeMap::new();
    for (name, table) in file.build {
        let at = name.span().start;
        let table = table.into_inner().over(&file.defaults);
        needs.insert(name.get_ref().clone(), table.needs.clone().unwrap_or_default());
        builds.push(one(&source, name.get_ref(), at, table, base)?);
    }
    check_needs(&source, &needs)?;
    Ok(builds)
}

fn one(source: &Source<'_>, name: &str, at: usize, table: Table, base: &Path) -> Result<LocalBuild, TextError> {
    let Some(command) = &table.command else {
        let message = format!("build `{}` has no command", shorten(name));
        return Err(source.error(at, message, "add command = \"make\" or command = [\"make\", \"all\"]"));
    };
    let mut spec = BuildSpec::new(name, words(source, command)?);
    let mut where_is: Vec<(&str, usize)> = vec![("command", command.span().start)];
    let mut number = |field: &'static str, value: &Option<Spanned<i64>>, default: u32| match value {
        None => Ok(default),
        Some(n) => {
            where_is.push((field, n.span().start));
            u32::try_from(*n.get_ref()).map_err(|_| {
                let message = format!("build `{}`: {field} = {} is absurd", shorten(name), n.get_ref());
                source.error(n.span().start, message, "use a small number")
            })
        }
    };
    spec.cores = number("cores", &table.cores, spec.cores)?;
    spec.retries = number("retries", &table.retries, spec.retries)?;
    let confirm = number("confirm", &table.confirm, 1)?;
    spec.confirm = u8::try_from(confirm).unwrap_or(u8::MAX);
    if let Some(memory) = &table.memory {
        where_is.push(("memory", memory.span().start));
        spec.memory_mib = match memory.get_ref() {
            Value::Integer(mib) => u64::try_from(*mib).map_err(|_| "is negative".to_owned()),
            Value::String(text) => parse_memory_mib(text),
            _ => Err("is neither a text nor a number".into()),
        }
        .map_err(|why| {
            let hint = "write memory = \"2GiB\" or a number of MiB";
            source.error(memory.span().start, format!("build `{}`: memory {why}", shorten(name)), hint)
        })?;
    }
    if let Some(timeout) = &table.timeout {
        where_is.push(("timeout", timeout.span().start));
        spec.timeout_s = parse_timeout_s(timeout.get_ref()).map_err(|why| {
            let hint = "write timeout = \"10m\" or \"1h 30m\"";
            source.error(timeout.span().start, format!("build `{}`: timeout {why}", shorten(name)), hint)
        })?;
    }
    if let Some(sandbox) = &table.sandbox {
        spec.sandbox = parse_sandbox(sandbox.get_ref()).map_err(|why| {
            let hint = "leave it out for the sandbox; \"none\" runs only on hosts that allow it";
            source.error(sandbox.span().start, format!("build `{}`: {why}", shorten(name)), hint)
        })?;
    }
    spec.network = table.network.unwrap_or(false);
    spec.outputs = table.outputs.unwrap_or_default();
    spec.tags = table.tags.unwrap_or_default();
    spec.env = table.env.into_iter().collect();
    spec.needs = table.needs.iter().flatten().map(|n| n.get_ref().clone()).collect();
    spec.check().map_err(|message| {
        let field = message.split_once(": ").map_or("", |(_, rest)| rest);
        let offset = where_is.iter().find(|(f, _)| field.starts_with(f)).map_or(at, |(_, offset)| *offset);
        source.error(offset, shorten_line(&message), "see README.md, \"build files\", for what is allowed")
    })?;
    if let Some((key, _)) = spec.env.iter().find(|(key, value)| key.contains('\0') || value.contains('\0')) {
        return Err(source.error(at, format!("build `{name}`: env {} has a zero byte", shorten(key)), "remove it"));
    }
    let inputs = local_inputs(source, &table.workspace, &table.inputs, base)?;
    Ok(LocalBuild { spec, inputs })
}

fn words(source: &Source<'_>, command: &Spanned<Value>) -> Result<Vec<String>, TextError> {
    let bad = |what: &str| {
        source.error(
            command.span().start,
            what,
            "write command = \"make all\" (a shell runs it) or [\"make\", \"all\"]",
        )
    };
    let words = match command.get_ref() {
        Value::String(line) if line.trim().is_empty() => return Err(bad("the command is empty")),
        Value::String(line) => vec!["sh".into(), "-c".into(), line.clone()],
        Value::Array(words) => {
            let words = words.iter().map(|w| w.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
            words.ok_or_else(|| bad("a word of the command is not a text"))?
        }
        _ => return Err(bad("the command is neither a text nor a list of texts")),
    };
    match words.iter().any(|w| w.contains('\0')) {
        true => Err(bad("the command has a zero byte in it")),
        false => Ok(words),
    }
}

fn local_inputs(
    source: &Source<'_>,
    workspace: &Option<Spanned<String>>,
    inputs: &Option<Vec<Spanned<String>>>,
    base: &Path,
) -> Result<Vec<LocalInput>, TextError> {
    let mut local = Vec::new();
    let found = |entry: &Spanned<String>| {
        let path = base.join(entry.get_ref());
        let meta = std::fs::metadata(&path).map_err(|error| {
            let message = format!("input `{}`: {error}", shorten(entry.get_ref()));
            let folder = if base.as_os_str().is_empty() { Path::new(".") } else { base };
            source.error(entry.span().start, message, format!("paths are relative to {}", folder.display()))
        })?;
        Ok((path, meta.is_dir()))
    };
    if let Some(entry) = workspace {
        let (path, folder) = found(entry)?;
        if !folder {
            let message = format!("workspace `{}` is not a folder", shorten(entry.get_ref()));
            return Err(source.error(entry.span().start, message, "use inputs = […] for files"));
        }
        local.push(LocalInput { source: path, path: String::new(), kind: InputKind::Tar });
    }
    for entry in inputs.iter().flatten() {
        let (path, folder) = found(entry)?;
        let inside =
            Path::new(entry.get_ref()).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        let name = match inside {
            true => Path::new(entry.get_ref())
                .components()
                .filter_map(|c| if let Component::Normal(part) = c { part.to_str() } else { None })
                .collect::<Vec<_>>()
                .join("/"),
            false => path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned(),
        };
        if name.is_empty() && !(inside && folder) {
            let message = format!("input `{}` has no name to place it by", shorten(entry.get_ref()));
            return Err(source.error(entry.span().start, message, "name the file or folder itself"));
        }
        let kind = if folder { InputKind::Tar } else { InputKind::File };
        local.push(LocalInput { source: path, path: name, kind });
    }
    Ok(local)
}

/// Every need exists and none leads back to itself.
fn check_needs(source: &Source<'_>, needs: &BTreeMap<String, Vec<Spanned<String>>>) -> Result<(), TextError> {
    for (name, list) in needs {
        for need in list {
            if !needs.contains_key(need.get_ref()) {
                let message = format!("build `{name}` needs `{}`, which is not in this file", shorten(need.get_ref()));
                let known: Vec<&str> = needs.keys().take(10).map(String::as_str).collect();
                return Err(source.error(need.span().start, message, format!("there are: {}", known.join(", "))));
            }
        }
    }
    // Depth-first with a path of our own: a chain of two thousand builds must not use up the stack.
    let mut done = std::collections::BTreeSet::new();
    for start in needs.keys() {
        let mut path: Vec<(&str, usize)> = vec![(start, 0)];
        while let Some((name, next)) = path.last_mut() {
            let name = *name;
            let need = needs.get(name).and_then(|list| list.get(*next)).filter(|_| !done.contains(name));
            let Some(need) = need else {
                done.insert(name);
                path.pop();
                continue;
            };
            *next += 1;
            if let Some(from) = path.iter().position(|(seen, _)| *seen == need.get_ref()) {
                let mut circle: Vec<&str> = path[from..].iter().map(|(name, _)| *name).collect();
                circle.push(need.get_ref());
                let message = format!("builds need each other in a circle: {}", circle.join(" -> "));
                return Err(source.error(need.span().start, message, "remove one of these needs"));
            }
            path.push((need.get_ref(), 0));
        }
    }
    Ok(())
}

/// `2GiB`, `512 MiB`, `2G`, `512M`, or a number of MiB.
///
/// # Errors
/// What is wrong with it.
pub fn parse_memory_mib(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "M" | "MiB" => 1,
        "G" | "GiB" => 1 << 10,
        "T" | "TiB" => 1 << 20,
        _ => return Err(format!("`{}` has no unit that is known (MiB, GiB, TiB)", shorten(text))),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .ok_or_else(|| format!("`{}` is no size", shorten(text)))
}

/// `90s`, `10m`, `1h 30m`, rounded up to seconds; at least one.
///
/// # Errors
/// What is wrong with it.
pub fn parse_timeout_s(text: &str) -> Result<u64, String> {
    let duration = humantime::parse_duration(text).map_err(|e| format!("`{}`: {e}", shorten(text)))?;
    Ok(duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}

/// `bubblewrap` or `none`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_sandbox(text: &str) -> Result<Sandbox, String> {
    match text {
        "bubblewrap" => Ok(Sandbox::Bubblewrap),
        "none" => Ok(Sandbox::None),
        _ => Err(format!("sandbox `{}` is neither `bubblewrap` nor `none`", shorten(text))),
    }
}

fn shorten_line(text: &str) -> String {
    match text.chars().nth(400) {
        Some(_) => shorten(text),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_in(text: &str) -> Result<Vec<LocalBuild>, TextError> {
        let tmp = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir(tmp.path().join("src")).unwrap();
        std::fs::write(tmp.path().join("src/a.c"), "x").unwrap();
        parse(text, &tmp.path().join("builds.toml"))
    }

    #[test]
    fn a_whole_file() {
        let text = r#"
[defaults]
timeout = "10m"
cores = 2
env = { A = "1", B = "1" }
[build.lib]
command = "make lib"
workspace = "."
outputs = ["lib.a"]
[build.app]
command = ["make", "app"]
inputs = ["./src/a.c", "src", "/etc/passwd"]
needs = ["lib"]
cores = 4
memory = "2GiB"
env = { B = "2" }
sandbox = "none"
network = true
retries = 3
confirm = 2
tags = ["amd64"]
"#;
        let builds = parse_in(text).expect("parses");
        let (app, lib) = (&builds[0], &builds[1]);
        assert_eq!(lib.spec.command, ["sh", "-c", "make lib"]);
        assert_eq!((lib.spec.cores, lib.spec.timeout_s, lib.inputs[0].path.as_str()), (2, 600, ""));
        let spec = &app.spec;
        assert_eq!((spec.cores, spec.memory_mib, spec.retries, spec.confirm), (4, 2048, 3, 2));
        assert_eq!(spec.env, [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2".to_owned())]);
        assert!(spec.network && spec.sandbox == Sandbox::None && spec.needs == ["lib"]);
        let placed: Vec<_> = app.inputs.iter().map(|i| (i.path.as_str(), i.kind)).collect();
        assert_eq!(placed, [("src/a.c", InputKind::File), ("src", InputKind::Tar), ("passwd", InputKind::File)]);
    }

    #[test]
    fn mistakes_are_pointed_at() {
        let long = format!("[build.{}]\ncommand = 'x'", "n".repeat(64 << 10));
        for (text, at, what) in [
            ("", (1, 1), "no build"),
            ("[build.a]\ncores = 1", (1, 8), "build `a` has no command"),
            ("[build.a]\ncommand = 7", (2, 11), "neither a text nor"),
            ("[build.a]\ncommand = ['x', 7]", (2, 11), "not a text"),
            ("[build.a]\ncommand = ''", (2, 11), "empty"),
            ("[build.a]\ncommand = []", (2, 11), "command is empty"),
            ("[build.a]\ncommand = \"a\\u0000b\"", (2, 11), "zero byte"),
            ("[build.a]\ncommand = 'x'\ncoers = 1", (3, 1), "unknown field `coers`"),
            ("[build.a]\ncommand = 'x'\n[build.a]\ncommand = 'y'", (3, 8), "duplicate key"),
            ("[build.a]\ncommand = 'x'\ncores = 0", (3, 9), "cores = 0 is not between"),
            ("[build.a]\ncommand = 'x'\ncores = 99999999", (3, 9), "cores = 99999999 is not"),
            ("[build.a]\ncommand = 'x'\ncores = -1", (3, 9), "absurd"),
            ("[build.a]\ncommand = 'x'\nretries = 99", (3, 11), "retries = 99"),
            ("[build.a]\ncommand = 'x'\nconfirm = 300", (3, 11), "confirm = "),
            ("[build.a]\ncommand = 'x'\nmemory = '9999TiB'", (3, 10), "memory of"),
            ("[build.a]\ncommand = 'x'\nmemory = '2 parsecs'", (3, 10), "no unit"),
            ("[build.a]\ncommand = 'x'\nmemory = 1.5", (3, 10), "neither"),
            ("[build.a]\ncommand = 'x'\nmemory = '99999999999999999999G'", (3, 10), "no size"),
            ("[build.a]\ncommand = 'x'\ntimeout = 'soon'", (3, 11), "timeout `soon`"),
            ("[build.a]\ncommand = 'x'\ntimeout = '2weeks'", (3, 11), "timeout of"),
            ("[build.a]\ncommand = 'x'\ntimeout = '0s'", (3, 11), "timeout of 0"),
            ("[build.a]\ncommand = 'x'\nsandbox = 'chroot'", (3, 11), "sandbox `chroot`"),
            ("[build.a]\ncommand = 'x'\noutputs = ['../x']", (1, 8), "leaves the build's folder"),
            ("[build.a]\ncommand = 'x'\ninputs = ['src', 'gone.c']", (3, 18), "input `gone.c`"),
            ("[build.a]\ncommand = 'x'\ninputs = ['a\\u0000b', '']", (3, 11), "input `"),
            ("[build.a]\ncommand = 'x'\nworkspace = 'src/a.c'", (3, 13), "not a folder"),
            ("[build.a]\ncommand = 'x'\ninputs = ['/']", (3, 11), "no name"),
            ("[build.a]\ncommand = 'x'\nenv = { 'A=B' = '1' }", (1, 8), "no environment can hold"),
            ("[build.a]\ncommand = 'x'\nneeds = ['b']", (3, 10), "needs `b`, which is not"),
            ("[build.a]\ncommand = 'x'\nneeds = ['a']", (3, 10), "circle: a -> a"),
            (
                "[build.z]\ncommand='x'\nneeds=['a']\n[build.a]\ncommand='x'\nneeds=['b']\n[build.b]\ncommand='x'\nneeds=['a']",
                (9, 8),
                "circle: a -> b -> a",
            ),
            ("[build.'a/b']\ncommand = 'x'", (1, 8), "build name `a/b`"),
            (long.as_str(), (1, 8), "build name `nnn"),
            ("[build.é]\nä = ", (1, 8), "invalid unquoted key"),
        ] {
            let error = parse_in(text).expect_err(text);
            assert_eq!((error.line, error.column), at, "{}: {error}", shorten(text));
            assert!(error.message.contains(what), "{}: {error}", shorten(text));
            assert!(!error.hint.is_empty() && error.to_string().len() < 800);
        }
    }

    #[test]
    fn a_chain_as_long_as_allowed_is_no_circle_and_costs_no_stack() {
        let mut text = String::from("[build.n0]\ncommand='x'\n");
        for i in 1..SUBMISSION_BUILDS_MAX {
            text += &format!("[build.n{i}]\ncommand='x'\nneeds=['n{}']\n", i - 1);
        }
        assert_eq!(parse_in(&text).expect("a chain").len(), SUBMISSION_BUILDS_MAX);
        text += "[build.more]\ncommand='x'\n";
        assert!(parse_in(&text).expect_err("one more").message.contains("more than"));
    }

    #[test]
    fn missing_and_broken_files() {
        let error = load(Path::new("/nonexistent/b.toml")).expect_err("missing");
        assert!(error.message.contains("cannot read"), "{error}");
        let tmp = tempfile::tempdir().expect("tempdir");
        let path = tmp.path().join("b.toml");
        std::fs::write(&path, b"[build.a]\ncommand = '\xff'").unwrap();
        let error = load(&path).expect_err("not UTF-8");
        assert_eq!((error.line, error.column), (2, 12), "{error}");
    }
}
