//! Doors for guards on a lab's hosts: `mesh install --ssh` as on an image, a real sshd on it, and stand-ins for restart and
//! reboot that write down which host they were run on. Nothing of the machine itself is written to or restarted.

use super::Lab;
use super::command::{Done, Trouble};
use crate::daemon::{PATIENCE, signal};
use crate::program::mesh;
use crate::wait_for;
use std::fs;

/// The port of a lab's doors.
pub const PORT: u16 = 7_422;

/// The lines below `[machine]` of a host whose acts are stand-ins.
pub const MACHINE: &str =
    "allow_reboot = true\nat_boot = true\nrestart_command = [\"/root/restart\"]\nreboot_command = [\"/root/reboot\"]";

impl Lab {
    /// Puts the stand-ins on a host: either writes its name into `/root/acts`; a restart also does what it says.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn stand_ins(&self, host: &str) -> Done {
        let note = "#!/bin/sh\necho \"$MESH_ACT $(hostname)\" >> /root/acts\n";
        let mesh = mesh().display();
        let again = format!(
            "kill -9 \"$(cat /var/lib/mesh/lock)\"\nfor try in 1 2 3 4 5 6 7 8 9; do\n  \
             setsid {mesh} --dir /var/lib/mesh up --detach </dev/null >/dev/null 2>&1 && exit 0\n  sleep 0.2\ndone\nexit 1\n"
        );
        for (name, text) in [("restart", format!("{note}{again}")), ("reboot", note.to_owned())] {
            let path = self.folder(host).join("root").join(name);
            fs::write(&path, text)?;
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        }
        Ok(())
    }

    /// What was done to a host by the stand-ins, a line for each.
    pub fn acts(&self, host: &str) -> Vec<String> {
        let text = fs::read_to_string(self.folder(host).join("root/acts")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Gives a host that has joined a door, and starts its daemon anew so that it attests it.
    ///
    /// # Errors
    /// sshd or the daemon does not start.
    pub fn door(&self, host: &str) -> Done {
        let run = |words: &[&str]| -> Done {
            let out = self.command(host, words)?.output()?;
            match out.status.success() {
                true => Ok(()),
                false => Err(Trouble(format!("{host}: {words:?}: {}\n{}", out.status, crate::daemon::said(&out)))),
            }
        };
        // What an image has: an init system to look at, and a place for programs that is this host's own.
        run(&["mkdir", "-p", "/run/systemd/system"])?;
        run(&["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/usr/local/lib"])?;
        self.mesh_ok(host, &["install", "--ssh", "--root", "/"])?;
        // Its log says whether anybody got as far as authentication.
        run(&["/usr/sbin/sshd", "-f", "/etc/mesh-guard/sshd_config", "-E", "/root/sshd.log", "-o", "LogLevel=DEBUG1"])?;
        self.end_daemon(host)?;
        self.mesh_up(host)
    }

    /// What a host's guard's sshd has logged.
    pub fn door_log(&self, host: &str) -> String {
        let bytes = fs::read(self.folder(host).join("root/sshd.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The daemon of a host, as this machine numbers its process.
    ///
    /// # Errors
    /// None runs.
    pub fn daemon_pid(&self, host: &str) -> Done<u32> {
        let own = fs::read_to_string(self.mesh_folder(host).join("lock"))?.trim().to_owned();
        let init = self.init(host)?;
        let namespace = fs::read_link(format!("/proc/{}/ns/pid", init.pid))?;
        let is_it = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            numbers.and_then(|n| n.split_whitespace().last()) == Some(&own)
                && fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|ns| ns == namespace)
        };
        let pids = fs::read_dir("/proc")?.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
        pids.into_iter().find(is_it).ok_or_else(|| Trouble(format!("{host} runs no daemon")))
    }

    /// SIGSTOPs a host's daemon: its connections stand, and nobody answers.
    ///
    /// # Errors
    /// None runs.
    pub fn freeze_daemon(&self, host: &str) -> Done {
        signal(self.daemon_pid(host)?, libc::SIGSTOP);
        Ok(())
    }

    /// SIGKILLs a host's daemon.
    ///
    /// # Errors
    /// None runs.
    pub fn kill_daemon(&self, host: &str) -> Done {
        signal(self.daemon_pid(host)?, libc::SIGKILL);
        Ok(())
    }

    fn end_daemon(&self, host: &str) -> Done {
        let pid = self.daemon_pid(host)?;
        signal(pid, libc::SIGTERM);
        let gone = || self.daemon_pid(host).is_err().then_some(());
        wait_for(PATIENCE, gone).ok_or_else(|| Trouble(format!("{host}: process {pid} does not end")))
    }
}
