//! The guard's door: an OpenSSH of its own beside the machine's, with its own port, key and configuration, that lets
//! members bring a warrant to `mesh-guard run` and nothing else. Used when the daemon does not answer.
//!
//! Its host key is derived from the host's seed, so that it can be made anew and is attested in the host's signed
//! presence together with the port: who dials pins it and sends no byte of authentication to anybody else. Nothing here
//! opens a socket; sshd's own rules about owners and bits are looked at by [`super::check`].

use super::{Item, MARK};
use mesh::identity::Keys;
use std::fs;
use std::path::{Path, PathBuf};

/// Where its files are. Nobody else's are in it.
pub const FOLDER: &str = "/etc/mesh-guard";

/// The port when none is given.
pub const DEFAULT_PORT: u16 = 7422;

/// What it takes to make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// Where it listens.
    pub port: u16,
    /// The host's key, as OpenSSH stores one.
    pub host_key: String,
    /// The machine's own sshd.
    pub sshd: PathBuf,
    /// Root's account is locked, so that sshd has to ask PAM instead of looking at the password.
    pub pam: bool,
}

/// Its configuration.
pub fn config() -> PathBuf {
    Path::new(FOLDER).join("sshd_config")
}

/// Its host key.
pub fn host_key() -> PathBuf {
    Path::new(FOLDER).join("host_key")
}

/// The host key of a host as OpenSSH stores a private key, and the public half as it is attested.
pub fn key_of(keys: &Keys) -> (String, [u8; 32]) {
    let seed = keys.ssh_host_seed();
    let pair = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&seed);
    let public = pair.public.0;
    let private = russh::keys::ssh_key::PrivateKey::from(pair);
    let text = private.to_openssh(russh::keys::ssh_key::LineEnding::LF).map(|text| text.to_string());
    (text.unwrap_or_default(), public)
}

/// Where the machine's sshd is, below a root.
pub fn find_sshd(root: &Path) -> Option<PathBuf> {
    ["/usr/sbin/sshd", "/usr/bin/sshd", "/sbin/sshd", "/usr/local/sbin/sshd"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| super::below(root, path).is_file())
}

/// Whether root's account is locked, which an sshd without PAM takes for "nobody may log in".
pub fn root_is_locked(root: &Path) -> bool {
    let shadow = fs::read_to_string(root.join("etc/shadow")).unwrap_or_default();
    shadow.lines().filter_map(|line| line.strip_prefix("root:")).any(|rest| rest.starts_with('!'))
}

/// Whether sshd could ask PAM.
pub fn has_pam(root: &Path) -> bool {
    root.join("etc/pam.d/sshd").is_file()
}

impl Door {
    /// Its files.
    pub(super) fn items(&self, folder: &str, guard: &str) -> [Item; 2] {
        [
            Item::File { path: host_key(), text: self.host_key.clone(), mode: 0o600 },
            Item::File { path: config(), text: self.text(folder, guard), mode: 0o600 },
        ]
    }

    /// `AuthorizedKeysCommandUser` is root because the roster's file is the daemon's alone; the command prints and writes
    /// nothing. Keys that are offered are members' or nobody's, and each may run one command.
    fn text(&self, folder: &str, guard: &str) -> String {
        let Door { port, pam, .. } = self;
        let (key, pam) = (host_key(), if *pam { "yes" } else { "no" });
        format!(
            "# {MARK} --ssh: an sshd for mesh-guard alone. `mesh install --check` looks at what it needs.\n\
             Port {port}\n\
             HostKey {}\n\
             HostKeyAlgorithms ssh-ed25519\n\
             PidFile none\n\
             AllowUsers root\n\
             PermitRootLogin forced-commands-only\n\
             AuthenticationMethods publickey\n\
             PubkeyAuthentication yes\n\
             PubkeyAcceptedAlgorithms ssh-ed25519\n\
             PasswordAuthentication no\n\
             KbdInteractiveAuthentication no\n\
             AuthorizedKeysFile none\n\
             AuthorizedKeysCommand {guard} authkeys --dir {folder} %t %k\n\
             AuthorizedKeysCommandUser root\n\
             UsePAM {pam}\n\
             StrictModes yes\n\
             DisableForwarding yes\n\
             PermitTTY no\n\
             PermitUserRC no\n\
             PermitUserEnvironment no\n\
             PermitTunnel no\n\
             MaxSessions 1\n\
             MaxAuthTries 2\n\
             MaxStartups 4:50:16\n\
             LoginGraceTime 15\n\
             ClientAliveInterval 15\n\
             ClientAliveCountMax 2\n\
             UseDNS no\n\
             PrintMotd no\n\
             PrintLastLog no\n\
             LogLevel VERBOSE\n",
            key.display()
        )
    }
}
