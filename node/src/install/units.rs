//! The files of the services: systemd units and OpenRC scripts. Text and nothing else; where they go says [`super`].
//!
//! A daemon that is root makes sandboxes for builds, so its own cage may not take what bubblewrap needs. Left out, each
//! because a build or a deed of the daemon breaks by it: `ProtectHostname` (a build's host name is set), `PrivateDevices` and
//! `ProtectClock` (their device rules reach into builds), `RestrictNamespaces`, `MemoryDenyWriteExecute`,
//! `RestrictSUIDSGID`, `LockPersonality` and `SystemCallArchitectures` (compilers, JITs, packages with setuid files,
//! 32-bit builds), `ProtectKernelTunables` for a user's daemon (an unprivileged sandbox may mount no /proc under it).

use super::door::{self, Door};
use super::{Init, MARK};

/// Where OpenRC's log is turned over.
pub const LOGROTATE: &str = "/etc/logrotate.d/mesh";

/// What a daemon's service is made of; every text is plain (see [`super::InstallError::OddPath`]).
#[derive(Clone, Copy, Debug)]
pub struct Service<'a> {
    /// The state folder.
    pub folder: &'a str,
    /// The program.
    pub program: &'a str,
    /// Whom it runs as, when not root.
    pub user: Option<&'a str>,
    /// The folder is below /tmp, which must then be everybody's.
    pub in_tmp: bool,
}

/// The capabilities of a daemon that is root: sandboxes (SYS_ADMIN, SYS_CHROOT, NET_ADMIN for their loopback), the build user
/// (SETUID, SETGID, SETPCAP), its files (CHOWN, DAC_*, FOWNER, FSETID), its processes (KILL, SYS_PTRACE to see whose
/// folder one is in, SYS_RESOURCE and SYS_NICE), low ports (NET_BIND_SERVICE), and reboot (SYS_BOOT).
const CAPABILITIES: &str = "CAP_SYS_ADMIN CAP_SYS_CHROOT CAP_NET_ADMIN CAP_SETUID CAP_SETGID CAP_SETPCAP CAP_CHOWN \
                            CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SYS_PTRACE \
                            CAP_SYS_RESOURCE CAP_SYS_NICE CAP_NET_BIND_SERVICE CAP_SYS_BOOT";

/// The daemon's.
pub fn daemon(init: Init, service: &Service<'_>) -> String {
    match init {
        Init::Systemd => daemon_unit(service),
        Init::OpenRc => daemon_script(service),
    }
}

/// The door's.
pub fn door(init: Init, door: &Door) -> String {
    match init {
        Init::Systemd => door_unit(door),
        Init::OpenRc => door_script(door),
    }
}

fn daemon_unit(service: &Service<'_>) -> String {
    let Service { folder, program, user, in_tmp } = *service;
    let who = match user {
        // Whoever sets `reboot_command` for it lets it ask PID 1 by a polkit rule: no program gives it more rights.
        Some(user) => format!("User={user}\nNoNewPrivileges=yes"),
        None => format!("CapabilityBoundingSet={CAPABILITIES}\nProtectKernelTunables=yes\nProtectKernelLogs=yes"),
    };
    let private_tmp = if in_tmp { "no" } else { "yes" };
    format!(
        "# {MARK}: `mesh uninstall` removes it, `mesh install` writes it anew.\n\
         [Unit]\n\
         Description=mesh, builds with and for the other hosts\n\
         Wants=network-online.target\n\
         After=network-online.target nss-lookup.target time-sync.target\n\
         # A host that was put out of its mesh stays out.\n\
         ConditionPathExists=!{folder}/outcast\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={program} --dir {folder} up\n\
         Restart=always\n\
         RestartSec=2\n\
         # A mistake in mesh.toml is mended by a person.\n\
         RestartPreventExitStatus=64\n\
         TimeoutStartSec=5min\n\
         TimeoutStopSec=30\n\
         WatchdogSec=3min\n\
         # Builds end with the daemon, and one that takes too much memory ends alone.\n\
         KillMode=mixed\n\
         OOMPolicy=continue\n\
         OOMScoreAdjust=-500\n\
         TasksMax=infinity\n\
         LimitNOFILE=65536\n\
         {who}\n\
         ProtectSystem=full\n\
         ProtectHome={}\n\
         PrivateTmp={private_tmp}\n\
         ProtectKernelModules=yes\n\
         RestrictRealtime=yes\n\
         RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK\n\
         SystemCallFilter=~@clock @cpu-emulation @module @obsolete @raw-io @swap\n\
         SystemCallErrorNumber=EPERM\n\
         KeyringMode=private\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        if home(folder) { "no" } else { "read-only" }
    )
}

/// Whether a folder is where people live: the service has to write there.
fn home(folder: &str) -> bool {
    ["/home/", "/root/", "/run/user/"].iter().any(|place| folder.starts_with(place))
}

fn daemon_script(service: &Service<'_>) -> String {
    let Service { folder, program, user, .. } = *service;
    let who = user.map(|user| format!("command_user=\"{user}\"\n")).unwrap_or_default();
    format!(
        "#!/sbin/openrc-run\n\
         # {MARK}: `mesh uninstall` removes it, `mesh install` writes it anew.\n\
         \n\
         name=\"mesh\"\n\
         description=\"builds with and for the other hosts\"\n\
         supervisor=\"supervise-daemon\"\n\
         command=\"{program}\"\n\
         command_args=\"--dir {folder} up\"\n\
         {who}\
         pidfile=\"/run/mesh.pid\"\n\
         output_log=\"/var/log/mesh.log\"\n\
         error_log=\"/var/log/mesh.log\"\n\
         respawn_delay=2\n\
         respawn_max=0\n\
         retry=\"TERM/30/KILL/5\"\n\
         \n\
         depend() {{\n\
         \tuse localmount net dns ntp-client logger\n\
         \tafter firewall bootmisc\n\
         }}\n\
         \n\
         start_pre() {{\n\
         \tif [ -e \"{folder}/outcast\" ]; then\n\
         \t\teerror \"this host was put out of its mesh: join anew with a fresh state folder\"\n\
         \t\treturn 1\n\
         \tfi\n\
         }}\n"
    )
}

/// OpenRC's log is a file that nobody else turns over.
pub fn logrotate() -> String {
    format!(
        "# {MARK}\n/var/log/mesh.log {{\n\tsize 10M\n\trotate 4\n\tcompress\n\tmissingok\n\tnotifempty\n\tcopytruncate\n}}\n"
    )
}

/// The privilege separation folder is shared with the machine's own sshd: kept when this service stops.
fn door_unit(door: &Door) -> String {
    let (sshd, config) = (door.sshd.display(), door::config());
    format!(
        "# {MARK} --ssh: `mesh uninstall` removes it, `mesh install --ssh` writes it anew.\n\
         [Unit]\n\
         Description=mesh-guard, takes warrants over SSH while the mesh's daemon does not answer\n\
         After=network.target\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         ExecStartPre={sshd} -t -f {config}\n\
         ExecStart={sshd} -D -e -f {config}\n\
         Restart=always\n\
         RestartSec=2\n\
         KillMode=mixed\n\
         RuntimeDirectory=sshd\n\
         RuntimeDirectoryMode=0755\n\
         RuntimeDirectoryPreserve=yes\n\
         TasksMax=256\n\
         NoNewPrivileges=yes\n\
         ProtectSystem=full\n\
         ProtectHome=read-only\n\
         ProtectKernelModules=yes\n\
         ProtectKernelTunables=yes\n\
         ProtectControlGroups=yes\n\
         RestrictNamespaces=yes\n\
         RestrictRealtime=yes\n\
         RestrictSUIDSGID=yes\n\
         LockPersonality=yes\n\
         MemoryDenyWriteExecute=yes\n\
         RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK\n\
         KeyringMode=private\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        config = config.display()
    )
}

fn door_script(door: &Door) -> String {
    let (sshd, config) = (door.sshd.display(), door::config());
    format!(
        "#!/sbin/openrc-run\n\
         # {MARK} --ssh: `mesh uninstall` removes it, `mesh install --ssh` writes it anew.\n\
         \n\
         name=\"mesh-guard\"\n\
         description=\"takes warrants over SSH while the mesh's daemon does not answer\"\n\
         supervisor=\"supervise-daemon\"\n\
         command=\"{sshd}\"\n\
         command_args=\"-D -f {config}\"\n\
         pidfile=\"/run/mesh-guard.pid\"\n\
         respawn_delay=2\n\
         respawn_max=0\n\
         \n\
         depend() {{\n\
         \tuse localmount net logger\n\
         \tafter firewall bootmisc\n\
         }}\n\
         \n\
         start_pre() {{\n\
         \tcheckpath --directory --mode 0755 /run/sshd\n\
         \t{sshd} -t -f {config}\n\
         }}\n",
        config = config.display()
    )
}
