//! What the host is, read from /proc, /etc and the configuration.

use super::MachineConfig;
use crate::seams::Facts;
use mesh::limits::{CORES_MAX, MEMORY_MIB_MAX};
use std::fs;
use std::path::Path;

pub(super) fn facts(config: &MachineConfig) -> Facts {
    Facts {
        cores: config.cores.unwrap_or_else(cores).clamp(1, CORES_MAX),
        memory_mib: config.memory_mib.unwrap_or_else(memory_mib).min(MEMORY_MIB_MAX),
        tags: config.tags.clone(),
        boot_id: boot_id(),
        machine_id: machine_id(&config.fallback_machine_id),
        boot_enabled: boot_enabled(Path::new("/")).or(config.at_boot),
        allow_none: config.allow_none,
        allow_network: config.allow_network,
    }
}

/// Honours affinity and the quota of the cgroup.
fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u32)
}

fn memory_mib() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total =
        info.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    total.map_or(0, |kib| kib / 1_024)
}

/// The kernel's boot id and the start of PID 1: containers restart while their kernel goes on.
pub fn boot_id() -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("mesh/boot-id/v1");
    hasher.update(fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().as_bytes());
    let stat = fs::read_to_string("/proc/1/stat").unwrap_or_default();
    // Field 22, counted from behind the name, which may hold anything.
    let start = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19)).unwrap_or_default();
    hasher.update(b"\0").update(start.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    id
}

/// Hashed: machine-id(5) asks that the id itself never leaves its host.
pub fn machine_id(fallback: &[u8; 32]) -> [u8; 32] {
    let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    match id.trim() {
        "" | "uninitialized" => {
            *blake3::Hasher::new_derive_key("mesh/machine-id/fallback/v1").update(fallback).finalize().as_bytes()
        }
        id => *blake3::Hasher::new_derive_key("mesh/machine-id/v1").update(id.as_bytes()).finalize().as_bytes(),
    }
}

/// Whether the service manager starts the mesh at boot, by the links that enabling makes.
pub fn boot_enabled(root: &Path) -> Option<bool> {
    // A service's link may dangle in a test's root: look at the link, not through it.
    let wanted = |folder: &str, ends: fn(&str) -> bool, name: &str| {
        fs::read_dir(root.join(folder)).into_iter().flatten().flatten().any(|entry| {
            ends(&entry.file_name().to_string_lossy()) && fs::symlink_metadata(entry.path().join(name)).is_ok()
        })
    };
    if root.join("run/systemd/system").is_dir() {
        let ends = |name: &str| name.ends_with(".wants") || name.ends_with(".requires");
        return Some(wanted("etc/systemd/system", ends, "mesh.service"));
    }
    if root.join("run/openrc").is_dir() || root.join("etc/runlevels").is_dir() {
        return Some(wanted("etc/runlevels", |_| true, "mesh"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_facts_and_they_stay() {
        let config = MachineConfig::new("/nonexistent", [1; 32]);
        let facts = facts(&config);
        assert!(facts.cores >= 1 && facts.memory_mib > 16);
        assert_eq!(facts.boot_id, boot_id());
        assert_ne!(facts.boot_id, [0; 16]);
        assert_eq!(super::facts(&MachineConfig { cores: Some(3), memory_mib: Some(5), ..config }).cores, 3);
    }

    #[test]
    fn enabled_at_boot_means_a_link_of_the_service_manager() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(boot_enabled(root), None);
        fs::create_dir_all(root.join("etc/runlevels/default")).unwrap();
        assert_eq!(boot_enabled(root), Some(false));
        std::os::unix::fs::symlink("/etc/init.d/mesh", root.join("etc/runlevels/default/mesh")).unwrap();
        assert_eq!(boot_enabled(root), Some(true));
        fs::create_dir_all(root.join("run/systemd/system")).unwrap();
        fs::create_dir_all(root.join("etc/systemd/system/multi-user.target.wants")).unwrap();
        assert_eq!(boot_enabled(root), Some(false), "systemd runs here, whatever OpenRC has");
        std::os::unix::fs::symlink("/x", root.join("etc/systemd/system/multi-user.target.wants/mesh.service")).unwrap();
        assert_eq!(boot_enabled(root), Some(true));
    }
}
