//! `mesh.toml`: what a host's owner decides for it. A missing file means all defaults.
//!
//! Read once at start, never written but by `mesh init` and `mesh join`. Unknown keys are errors: a
//! misspelt `allow_none` must not pass for a decision. Errors name line and column.

use libp2p::Multiaddr;
use mesh::limits::CORES_MAX;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use toml::Spanned;

/// The port when none is given, TCP and UDP.
pub const DEFAULT_PORT: u16 = 7400;

/// Larger configuration files are somebody's mistake.
const FILE_BYTES_MAX: usize = 1 << 20;

/// Leads and listening addresses at most.
const ADDRESSES_MAX: usize = 64;

/// A TOML file that says something it cannot: where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}:{column}: {message}", path.display())]
pub struct TextError {
    /// The file.
    pub path: PathBuf,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// Line and column, from 1, of a byte offset. The column counts characters.
pub fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

/// A file's text with what is needed to point into it.
pub(crate) struct Source<'a> {
    pub(crate) path: &'a Path,
    pub(crate) text: &'a str,
}

impl Source<'_> {
    pub(crate) fn error(&self, offset: usize, message: impl Into<String>, hint: impl Into<String>) -> TextError {
        let (line, column) = line_column(self.text, offset);
        TextError { path: self.path.to_owned(), line, column, message: message.into(), hint: hint.into() }
    }

    pub(crate) fn toml<T: serde::de::DeserializeOwned>(&self, hint: &str) -> Result<T, TextError> {
        toml::from_str(self.text).map_err(|error| {
            // Only the first line: the rest repeats what stands in the file.
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            self.error(error.span().map_or(0, |span| span.start), message, hint)
        })
    }
}

/// Reads a text file of bounded size; broken UTF-8 is pointed at like any other mistake.
pub(crate) fn read_text(path: &Path, bytes_max: usize) -> Result<String, TextError> {
    let plain = |message: String, hint: &str| TextError {
        path: path.to_owned(),
        line: 1,
        column: 1,
        message,
        hint: hint.into(),
    };
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path)
        .and_then(|file| std::io::Read::read_to_end(&mut std::io::Read::take(file, bytes_max as u64 + 1), &mut bytes));
    if let Err(error) = read {
        return Err(plain(format!("cannot read the file: {error}"), "check the path"));
    }
    if bytes.len() > bytes_max {
        return Err(plain(format!("the file is larger than {bytes_max} bytes"), "split it"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes());
        Source { path, text: &text }.error(valid, "the file is not UTF-8 text", "save it as UTF-8")
    })
}

/// What a host's owner decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where to listen.
    pub listen: Vec<Multiaddr>,
    /// Where others may be found.
    pub leads: Vec<Multiaddr>,
    /// Cores offered to builds; all when not given.
    pub cores: Option<u32>,
    /// Tags offered to builds.
    pub tags: Vec<String>,
    /// What may be done to the host.
    pub machine: MachineConfig,
    /// What builds may do on the host.
    pub sandbox: SandboxConfig,
    /// Who may use the API.
    pub api: ApiConfig,
    /// How quick the mesh is.
    pub timing: TimingConfig,
    /// Where the host is.
    pub network: NetworkConfig,
}

/// `[machine]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MachineConfig {
    /// Reboots the host; the system's own way when empty.
    pub reboot_command: Vec<String>,
    /// Restarts the mesh's service.
    pub restart_command: Vec<String>,
    /// Whether the mesh may reboot the host at all.
    pub allow_reboot: bool,
    /// Whether the mesh must leave the host alone.
    pub protected: bool,
    /// Whether something starts the mesh at boot, where neither systemd nor OpenRC can be asked.
    pub at_boot: Option<bool>,
}

/// `[sandbox]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxConfig {
    /// Whether builds without a sandbox may run here.
    pub allow_none: bool,
    /// Whether builds may use the network here.
    pub allow_network: bool,
    /// More paths that builds see, read-only.
    pub paths: Vec<PathBuf>,
    /// The build user.
    pub build_uid: Option<u32>,
    /// Where builds run, instead of the state folder's `work/`.
    pub work: Option<PathBuf>,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        SandboxConfig { allow_none: false, allow_network: true, paths: vec![], build_uid: None, work: None }
    }
}

/// `[api]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    /// A group whose members may use the socket too.
    pub group: Option<String>,
}

/// `[timing]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimingConfig {
    /// Ten times quicker consensus, for hosts that share one network.
    pub lan: bool,
}

/// `[network]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// What its owner calls the network that it is in; a tag `net:NAME` says so to others. Without it, its interfaces do.
    pub name: Option<String>,
    /// Whether members on the same network are looked for by mDNS, and those who look are answered. Anybody there sees
    /// this host's key and addresses then, and that it belongs to some mesh.
    pub mdns: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    leads: Vec<Spanned<String>>,
    cores: Option<Spanned<i64>>,
    #[serde(default)]
    tags: Vec<Spanned<String>>,
    #[serde(default)]
    machine: MachineConfig,
    sandbox: Option<Spanned<SandboxConfig>>,
    #[serde(default)]
    api: ApiConfig,
    #[serde(default)]
    timing: TimingConfig,
    network: Option<Spanned<NetworkConfig>>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: both(IpAddr::from([0, 0, 0, 0]), DEFAULT_PORT),
            leads: vec![],
            cores: None,
            tags: vec![],
            machine: MachineConfig::default(),
            sandbox: SandboxConfig::default(),
            api: ApiConfig::default(),
            timing: TimingConfig::default(),
            network: NetworkConfig::default(),
        }
    }
}

impl Config {
    /// Reads a file; defaults when there is none.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn load(path: &Path) -> Result<Config, TextError> {
        match path.try_exists() {
            Ok(false) => Ok(Config::default()),
            _ => Config::parse(&read_text(path, FILE_BYTES_MAX)?, path),
        }
    }

    /// Reads text; `path` is for errors only.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn parse(text: &str, path: &Path) -> Result<Config, TextError> {
        let source = Source { path, text };
        let file: File = source.toml("see the list of keys in README.md, \"mesh.toml\"")?;
        let addresses = |list: &[Spanned<String>], listening: bool| {
            if let Some(extra) = list.get(ADDRESSES_MAX) {
                return Err(source.error(extra.span().start, "too many addresses", format!("at most {ADDRESSES_MAX}")));
            }
            let parsed = list.iter().map(|entry| {
                parse_address(entry.get_ref(), listening)
                    .map_err(|(message, hint)| source.error(entry.span().start, message, hint))
            });
            Ok(parsed.collect::<Result<Vec<_>, _>>()?.concat())
        };
        let listen = match &file.listen {
            Some(list) => addresses(list, true)?,
            None => Config::default().listen,
        };
        let leads = addresses(&file.leads, false)?;
        let cores = match &file.cores {
            Some(n) if !(1..=i64::from(CORES_MAX)).contains(n.get_ref()) => {
                let message = format!("cores = {} is not between 1 and {CORES_MAX}", n.get_ref());
                return Err(source.error(n.span().start, message, "leave it out to offer every core"));
            }
            cores => cores.as_ref().map(|n| *n.get_ref() as u32),
        };
        if let Some(bad) = file.tags.iter().find(|t| !mesh::build::valid_build_name(t.get_ref())) {
            let message = format!("tag `{}`: use letters, digits and `+ - . _ :`", shorten(bad.get_ref()));
            return Err(source.error(bad.span().start, message, "for example tags = [\"amd64\"]"));
        }
        let at = file.sandbox.as_ref().map_or(0, |s| s.span().start);
        let sandbox = file.sandbox.map(Spanned::into_inner).unwrap_or_default();
        if let Some(bad) = sandbox.paths.iter().chain(&sandbox.work).find(|p| !p.is_absolute()) {
            let message = format!("`{}` is not an absolute path", bad.display());
            return Err(source.error(at, message, "begin it with /"));
        }
        let at = file.network.as_ref().map_or(0, |n| n.span().start);
        let network = file.network.map(Spanned::into_inner).unwrap_or_default();
        if let Some(bad) = network.name.as_ref().filter(|name| !mesh::build::valid_build_name(name)) {
            let message = format!("network `{}`: use letters, digits and `+ - . _ :`", shorten(bad));
            return Err(source.error(at, message, "for example name = \"cellar\""));
        }
        // First, so that it is not cut off where there are too many.
        let named = network.name.iter().map(|name| format!("{}{name}", mesh::membership::NETWORK_TAG));
        Ok(Config {
            listen,
            leads,
            cores,
            tags: named.chain(file.tags.into_iter().map(Spanned::into_inner)).collect(),
            machine: file.machine,
            sandbox,
            api: file.api,
            timing: file.timing,
            network,
        })
    }

    /// The text of a `mesh.toml` that says this much and no more.
    pub fn text(listen: &[String]) -> String {
        let values: BTreeMap<&str, &[String]> = match listen {
            [] => BTreeMap::new(),
            listen => BTreeMap::from([("listen", listen)]),
        };
        toml::to_string(&values).unwrap_or_default()
    }
}

/// `HOST:PORT` (TCP and UDP), `HOST`, or a multiaddr. Listening needs an IP address.
///
/// # Errors
/// What is wrong with it, and a hint.
pub fn parse_address(text: &str, listening: bool) -> Result<Vec<Multiaddr>, (String, String)> {
    let bad = |why: &str| {
        let what = if listening { "an address to listen on" } else { "an address" };
        let hint = "write HOST:PORT, [IPV6]:PORT, or a multiaddr such as /ip4/0.0.0.0/tcp/7400".to_owned();
        (format!("`{}` is not {what}: {why}", shorten(text)), hint)
    };
    if text.starts_with('/') {
        return text.parse::<Multiaddr>().map(|a| vec![a]).map_err(|e| bad(&e.to_string()));
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Ok(both(socket.ip(), socket.port()));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(both(ip, DEFAULT_PORT));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().map_err(|_| bad("the port is not between 0 and 65535"))?),
        None => (text, DEFAULT_PORT),
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    if host.is_empty() || host.len() > 253 || !host.bytes().all(plain) {
        return Err(bad("that is no host name"));
    }
    if listening {
        return Err(bad("listening needs an IP address"));
    }
    [format!("/dns/{host}/tcp/{port}"), format!("/dns/{host}/udp/{port}/quic-v1")]
        .iter()
        .map(|a| a.parse::<Multiaddr>().map_err(|e| bad(&e.to_string())))
        .collect()
}

fn both(ip: IpAddr, port: u16) -> Vec<Multiaddr> {
    use libp2p::multiaddr::Protocol;
    let base = Multiaddr::from(ip);
    vec![base.clone().with(Protocol::Tcp(port)), base.with(Protocol::Udp(port)).with(Protocol::QuicV1)]
}

/// The beginning of a text that somebody else wrote, for an error about it.
pub(crate) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, TextError> {
        Config::parse(text, Path::new("mesh.toml"))
    }

    #[test]
    fn nothing_means_defaults_and_everything_can_be_said() {
        assert_eq!(parse("").unwrap(), Config::default());
        assert_eq!(Config::load(Path::new("/nonexistent/mesh.toml")).unwrap(), Config::default());
        let all = parse(
            "listen = ['127.0.0.1:7401', '/ip6/::1/udp/1/quic-v1']\nleads = ['build.example:7', '[::1]:9', '10.0.0.1']\n\
             cores = 8\ntags = ['amd64']\n[machine]\nreboot_command=['reboot']\nrestart_command=['x']\nallow_reboot=true\nprotected=true\nat_boot=true\n\
             [sandbox]\nallow_none=true\nallow_network=false\npaths=['/opt']\nbuild_uid=77\nwork='/w'\n[api]\ngroup='mesh'\n[timing]\nlan=true\n[network]\nname='cellar'",
        )
        .unwrap();
        let shown: Vec<String> = all.listen.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["/ip4/127.0.0.1/tcp/7401", "/ip4/127.0.0.1/udp/7401/quic-v1", "/ip6/::1/udp/1/quic-v1"]);
        assert_eq!(all.leads.len(), 6);
        assert_eq!(all.leads[5].to_string(), "/ip4/10.0.0.1/udp/7400/quic-v1");
        assert!(all.sandbox.allow_none && !all.sandbox.allow_network && all.timing.lan && all.machine.protected);
        assert_eq!(all.machine.at_boot, Some(true));
        assert_eq!((all.sandbox.build_uid, all.cores), (Some(77), Some(8)));
        assert_eq!(all.tags, ["net:cellar", "amd64"], "a build can ask for a network");
        let written = Config::text(&["127.0.0.1:1".into()]);
        assert_eq!(parse(&written).unwrap().listen.len(), 2);
        assert_eq!(parse(&Config::text(&[])).unwrap(), Config::default());
    }

    #[test]
    fn mistakes_are_pointed_at() {
        for (text, at, what) in [
            ("cores = 0", (1, 9), "cores = 0 is not between 1 and 4096"),
            ("tags = [\"ä\",\n  \"a b\"]", (1, 9), "tag `ä`"),
            ("\n\nlisten = ['0.0.0.0:1', 'x:99999']", (3, 24), "port is not between"),
            ("listen = ['build.example:1']", (1, 11), "needs an IP address"),
            ("[sandbox]\nallow_nome = true", (2, 1), "unknown field `allow_nome`"),
            ("cores = ", (1, 9), "string"),
            ("leads = ['a b']", (1, 10), "no host name"),
            ("leads = ['a\\u0000b']", (1, 10), "no host name"),
            ("[sandbox]\nwork = 'w'", (1, 1), "not an absolute path"),
            ("[network]\nname = 'a b'", (1, 1), "network `a b`"),
            ("listen = ['/ip4/300.1.1.1/tcp/1']", (1, 11), "not an address"),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!((error.line, error.column), at, "{text}: {error}");
            assert!(error.message.contains(what), "{text}: {error}");
            assert!(!error.hint.is_empty());
        }
        let long = parse(&format!("tags = ['{}']", "a".repeat(64 << 10))).expect_err("64 KiB");
        assert!(long.to_string().len() < 300);
    }

    #[test]
    fn broken_text_is_pointed_at() {
        let tmp = tempfile::tempdir().expect("tempdir");
        let path = tmp.path().join("mesh.toml");
        std::fs::write(&path, b"cores = 1\nx\xff").unwrap();
        let error = Config::load(&path).expect_err("not UTF-8");
        assert_eq!((error.line, error.column), (2, 2), "{error}");
        std::fs::write(&path, vec![b'#'; FILE_BYTES_MAX + 1]).unwrap();
        assert!(Config::load(&path).expect_err("large").message.contains("larger"));
    }
}
