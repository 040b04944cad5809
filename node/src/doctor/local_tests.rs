//! Each check finds what it is for, and nothing on a host that is well.

use super::super::fixture;
use super::*;

fn file(name: &str, mode: u32) -> FileFact {
    FileFact { name: name.into(), mode, owner: 0 }
}

fn well() -> LocalFacts {
    LocalFacts {
        folder: Some("/m".into()),
        enrolled: true,
        files: vec![file(".", 0o711), file("seed", 0o600), file("mesh.sock", 0o660), file("genesis", 0o600)],
        boot_enabled: Some(true),
        free_bytes: vec![("/m".into(), 100 << 30)],
        build_user: Some((7400, None)),
        ports: vec![7400],
        ..LocalFacts::default()
    }
}

fn codes(change: impl FnOnce(&mut LocalFacts)) -> Vec<String> {
    let mut facts = well();
    change(&mut facts);
    findings(&facts, None).into_iter().map(|finding| format!("{:?} {}", finding.severity, finding.code)).collect()
}

#[test]
fn a_host_that_is_well_has_no_findings() {
    assert_eq!(codes(|_| {}), Vec::<String>::new());
}

#[test]
fn each_fault_is_found_by_its_check_and_by_no_other() {
    assert_eq!(codes(|f| f.folder = None), ["Error no-folder"]);
    assert_eq!(codes(|f| f.enrolled = false), ["Error not-enrolled"]);
    assert_eq!(codes(|f| f.outcast = true), ["Error outcast"]);
    assert_eq!(codes(|f| f.config_error = Some("mesh.toml:1:1: x".into())), ["Error config"]);
    assert_eq!(codes(|f| f.no_daemon = Some("no daemon runs".into())), ["Error no-daemon"]);
    assert_eq!(codes(|f| f.boot_enabled = Some(false)), ["Warning not-at-boot"]);
    assert_eq!(codes(|f| f.boot_enabled = None), ["Note boot-unknown"]);
    assert_eq!(codes(|f| f.free_bytes[0].1 = 4 << 30), ["Warning disk"]);
    assert_eq!(codes(|f| f.free_bytes[0].1 = 1 << 20), ["Error disk"]);
    assert_eq!(codes(|f| f.no_sandbox = Some("not found".into())), ["Error no-sandbox"]);
    assert_eq!(codes(|f| f.build_user = None), ["Note build-user"]);
    assert_eq!(codes(|f| f.build_user = Some((0, Some("root".into())))), ["Error build-user"]);
    assert_eq!(codes(|f| f.build_user = Some((1000, Some("alice".into())))), ["Warning build-user"]);
    assert_eq!(codes(|f| f.build_user = Some((7400, Some("mesh-build".into())))), Vec::<String>::new());
    assert_eq!(codes(|f| f.firewall = Some(Rules::Ufw("Status: active".into()))), ["Warning port"]);
    assert_eq!(codes(|f| f.others = vec![Finding::new(Error, "sshd", "x", "y")]), ["Error sshd"]);
}

#[test]
fn where_nothing_is_the_sandbox_is_still_looked_at() {
    let found = codes(|f| {
        f.folder = None;
        f.no_sandbox = Some("not found".into());
    });
    assert_eq!(found, ["Error no-folder", "Error no-sandbox"]);
}

#[test]
fn who_allows_builds_without_a_sandbox_is_only_warned() {
    let found = codes(|f| {
        f.no_sandbox = Some("not found".into());
        f.allow_none = true;
    });
    assert_eq!(found, ["Warning no-sandbox"]);
}

#[test]
fn rights_and_owners_are_named_with_the_command_that_mends_them() {
    let found = |change: fn(&mut LocalFacts)| {
        let mut facts = well();
        change(&mut facts);
        let all = findings(&facts, None);
        assert_eq!(all.len(), 1, "{all:?}");
        (all[0].code.clone(), all[0].advice.clone())
    };
    let (code, advice) = found(|f| f.files[1].mode = 0o640);
    assert_eq!(code, "rights");
    assert!(advice.starts_with("chmod 600 /m/seed; if somebody may have read it"), "{advice}");
    assert_eq!(found(|f| f.files[0].mode = 0o777), ("rights".into(), "chmod 711 /m".into()));
    assert_eq!(found(|f| f.files[2].mode = 0o666), ("rights".into(), "chmod 600 /m/mesh.sock".into()));
    assert_eq!(found(|f| f.files[3].owner = 1000), ("owner".into(), "chown 0 /m/genesis".into()));
    let (code, _) = found(|f| {
        f.me = 1000;
        f.files.truncate(1);
    });
    assert_eq!(code, "not-yours");
}

#[test]
fn a_port_that_nobody_dials_is_told_when_there_was_somebody_who_could() {
    let mesh = |reached, up_ms, hosts: &[&str]| MeshFacts {
        up_ms,
        reached,
        hosts: hosts.iter().map(|name| fixture::host(name)).collect(),
        ..fixture::well()
    };
    let count = |mesh: &MeshFacts| findings(&well(), Some(mesh)).iter().filter(|f| f.code == "port").count();
    assert_eq!(count(&mesh(false, 600_000, &["a", "b"])), 1);
    assert_eq!(count(&mesh(true, 600_000, &["a", "b"])), 0);
    assert_eq!(count(&mesh(false, 600_000, &["a"])), 0, "alone");
    assert_eq!(count(&mesh(false, 10_000, &["a", "b"])), 0, "too early");
}
