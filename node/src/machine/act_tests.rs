use super::*;
use mesh::order::{Act, Gently};
use mesh::warrant::OrderId;
use std::fs;

fn errand(act: fn(Gently) -> Act) -> Errand {
    Errand {
        act: act(Gently { grace_ms: 0 }),
        order: OrderId([7; 16]),
        requester: "root on alpha".into(),
        reason: "two\nlines; $(touch x)".into(),
    }
}

#[test]
fn the_init_system_knows_how_unless_the_owner_does() {
    let dir = tempfile::tempdir().unwrap();
    let words = |commands: &Commands, reboot| commands.words(reboot, dir.path()).map(|words| words.join(" "));
    let none = Commands::default();
    assert!(words(&none, true).unwrap_err().to_string().contains("`reboot_command`"));
    assert!(words(&none, false).unwrap_err().to_string().contains("`restart_command`"));
    fs::create_dir_all(dir.path().join("run/openrc")).unwrap();
    assert_eq!(words(&none, false).unwrap(), "rc-service mesh restart");
    fs::create_dir_all(dir.path().join("run/systemd/system")).unwrap();
    assert_eq!(words(&none, true).unwrap(), "systemctl reboot");
    let own = Commands { reboot: vec!["kexec".into(), "-e".into()], ..none };
    assert_eq!(words(&own, true).unwrap(), "kexec -e");
    assert_eq!(words(&own, false).unwrap(), "systemctl --no-block restart mesh.service");
}

#[tokio::test]
async fn a_command_knows_what_it_is_for_and_its_failure_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("did");
    let script = format!("printf '%s|%s|%s' \"$MESH_ACT\" \"$MESH_ORDER\" \"$MESH_REASON\" > {}", file.display());
    let sh = |script: &str| vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
    let commands = Commands { reboot: sh(&script), restart: sh("echo 'no such unit' >&2; exit 5") };
    commands.carry_out(&errand(Act::Reboot)).await.unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "reboot|o07070707|two lines; $(touch x)");
    let failed = commands.carry_out(&errand(Act::Restart)).await.unwrap_err().to_string();
    assert_eq!(failed, "`sh` ended with exit status: 5: no such unit");
    let missing = Commands { restart: vec!["/nonexistent/x".into()], ..Commands::default() };
    assert!(missing.carry_out(&errand(Act::Restart)).await.unwrap_err().to_string().contains("cannot be started"));
}

#[test]
fn the_journal_gets_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let journal = UnixDatagram::bind(&path).unwrap();
    log_to(&path, &one_line("o1: reboot,\nordered")).unwrap();
    let mut bytes = [0; 256];
    let len = journal.recv(&mut bytes).unwrap();
    let text = std::str::from_utf8(&bytes[..len]).unwrap();
    assert!(text.starts_with("<28>mesh[") && text.ends_with("]: o1: reboot, ordered"), "{text}");
    assert!(log_to(&dir.path().join("nobody"), "x").is_err());
}
