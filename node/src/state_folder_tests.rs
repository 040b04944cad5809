use super::*;
use std::process::Command;

fn child(test: &str, dir: &Path, setpriv: bool) -> Command {
    let exe = std::env::current_exe().expect("test binary");
    let mut command = if setpriv { Command::new("setpriv") } else { Command::new(&exe) };
    if setpriv {
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(copy_for_all(&exe, dir));
    }
    command.args(["--exact", &format!("state_folder::tests::{test}"), "--nocapture", "--test-threads=1"]);
    command.env("MESH_TEST_FOLDER", dir);
    command
}

/// The test binary may lie where the unprivileged user cannot go.
fn copy_for_all(exe: &Path, dir: &Path) -> PathBuf {
    let copy = dir.parent().expect("parent").join("test-binary");
    fs::copy(exe, &copy).expect("copy of the test binary");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("mode");
    copy
}

/// The folder that a parent test hands to its child. The two children below do nothing by themselves.
fn asked() -> Option<PathBuf> {
    std::env::var_os("MESH_TEST_FOLDER").map(PathBuf::from)
}

#[test]
fn a_folder_keeps_what_it_was_given() {
    let tmp = tempfile::tempdir().expect("tempdir");
    let path = tmp.path().join("a/b");
    let folder = StateFolder::create(&path).expect("creates");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o711);
    for file in ["seed", "store-id"] {
        assert_eq!(fs::metadata(path.join(file)).unwrap().mode() & 0o777, 0o600, "{file}");
    }
    let key = folder.keys().unwrap().key();
    assert!(matches!(folder.genesis(), Err(FolderError::Unfinished { what: "genesis", .. })));
    // An unfinished folder keeps its key, so that a join can be tried again.
    assert_eq!(StateFolder::create(&path).unwrap().keys().unwrap().key(), key);
    folder.write_credential(b"c").unwrap();
    folder.write_genesis(b"g").unwrap();
    assert!(matches!(StateFolder::create(&path), Err(FolderError::Enrolled(_))));
    let again = StateFolder::open(&path).unwrap();
    assert_eq!(again.genesis().unwrap(), b"g");
    assert_eq!(again.credential().unwrap(), b"c");
    assert!(matches!(again.found(), Err(FolderError::Unfinished { what: "found", .. })), "nobody yet");
    for found in [b"f", b"g"] {
        again.write_found(found).unwrap();
        assert_eq!(again.found().unwrap(), found);
    }
    assert_eq!(again.store_id().unwrap(), folder.store_id().unwrap());
    assert_ne!(&again.store_id().unwrap(), again.keys().unwrap().seed());
    assert!(fs::read_dir(&path).unwrap().all(|e| !e.unwrap().file_name().to_string_lossy().starts_with('.')));
}

#[test]
fn a_seed_that_others_can_read_is_refused() {
    let tmp = tempfile::tempdir().expect("tempdir");
    let folder = StateFolder::create(tmp.path()).expect("creates");
    for mode in [0o640, 0o604, 0o660, 0o601] {
        fs::set_permissions(tmp.path().join("seed"), fs::Permissions::from_mode(mode)).unwrap();
        let error = StateFolder::open(tmp.path()).expect_err("open seed");
        assert!(matches!(error, FolderError::Open { .. }), "{error}");
        assert!(error.hint().starts_with("chmod 600 "), "{}", error.hint());
    }
    fs::set_permissions(tmp.path().join("seed"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(folder.keys().is_ok());
}

#[test]
fn damaged_files_are_named() {
    let tmp = tempfile::tempdir().expect("tempdir");
    let folder = StateFolder::create(tmp.path()).expect("creates");
    for bytes in [&b""[..], b"zz", b"\xff\xfe", &[b'a'; 63], &[b'0'; 70_000]] {
        fs::write(tmp.path().join("seed"), bytes).unwrap();
        assert!(matches!(folder.keys(), Err(FolderError::Damaged { .. })));
    }
    for bytes in [&b""[..], b"-1", b"1e9", b"\xff", b"18446744073709551615"] {
        fs::write(tmp.path().join("start"), bytes).unwrap();
        assert!(matches!(folder.next_start(), Err(FolderError::Damaged { .. })));
    }
    fs::remove_file(tmp.path().join("start")).unwrap();
    fs::write(folder.ledger(), b"").unwrap();
    assert!(matches!(folder.next_start(), Err(FolderError::Damaged { .. })), "a lost number is not a new one");
    fs::write(tmp.path().join("genesis"), vec![0; (SMALL_FILE_BYTES_MAX + 1) as usize]).unwrap();
    assert!(matches!(folder.genesis(), Err(FolderError::Damaged { .. })));
}

#[test]
fn one_daemon_a_folder() {
    let tmp = tempfile::tempdir().expect("tempdir");
    let folder = StateFolder::create(tmp.path()).expect("creates");
    let held = folder.lock().expect("free");
    let error = folder.lock().expect_err("held");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    drop(held);
    folder.lock().expect("free again");
}

#[test]
fn two_processes_never_share_a_start_number() {
    let tmp = tempfile::tempdir().expect("tempdir");
    let folder = StateFolder::create(tmp.path()).expect("creates");
    let run = || child("child_counts_starts", tmp.path(), false).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let children = [run(), run()];
    let mut numbers: Vec<u64> = Vec::new();
    for child in children {
        let out = child.wait_with_output().expect("child");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
        let text = String::from_utf8(out.stdout).expect("text");
        numbers.extend(text.lines().filter_map(|line| line.strip_prefix("start ")?.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=40).collect::<Vec<_>>());
    assert_eq!(folder.next_start().unwrap(), 41);
}

#[test]
fn child_counts_starts() {
    let Some(path) = asked() else { return };
    let folder = StateFolder::open(&path).expect("opens");
    println!();
    for _ in 0..20 {
        println!("start {}", folder.next_start().expect("counts"));
    }
}

#[test]
fn another_user_can_pass_through_but_not_read() {
    if !nix::unistd::geteuid().is_root() {
        let allowed = std::env::var("MESH_TESTS_WITHOUT_ROOT").is_ok_and(|v| v == "1");
        assert!(allowed, "this test needs root (it becomes another user); MESH_TESTS_WITHOUT_ROOT=1 skips it");
        return;
    }
    let tmp = tempfile::Builder::new().prefix("mesh-state").tempdir_in("/tmp").expect("tempdir");
    fs::set_permissions(tmp.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = tmp.path().join("state");
    let folder = StateFolder::create(&path).expect("creates");
    let job = folder.work().join("job");
    fs::create_dir(&job).unwrap();
    nix::unistd::chown(&job, Some(65_534.into()), Some(65_534.into())).unwrap();
    folder.write_genesis(b"g").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let _listener = crate::api::server::listen(&folder.socket_path().unwrap(), None).unwrap();
    let out = child("child_is_another_user", &path, true).output().expect("setpriv");
    assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(String::from_utf8_lossy(&out.stdout).contains("1 passed"), "the child ran no test");
}

#[test]
fn child_is_another_user() {
    let Some(path) = asked() else { return };
    assert_eq!(nix::unistd::geteuid().as_raw(), 65_534);
    fs::write(path.join("work/job/marker"), b"here").expect("the build user reaches its folder");
    assert!(fs::read_dir(&path).is_err(), "the folder cannot be listed");
    assert!(fs::read(path.join("seed")).is_err(), "the seed cannot be read");
    let error = StateFolder::open(&path).expect_err("not ours");
    assert!(matches!(&error, FolderError::Foreign { owner, .. } if owner == "root"), "{error}");
    let error = StateFolder::create(&path).expect_err("not ours");
    assert!(matches!(error, FolderError::Foreign { .. }), "{error}");
    // The socket of another user: seen, named, refused.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error =
        runtime.block_on(crate::api::client::Client::new(path.join("mesh.sock")).status()).expect_err("not ours");
    let failure = crate::cli::Failure::from(error);
    assert_eq!(failure.code, crate::cli::EXIT_NO_DAEMON);
    assert!(failure.message.contains("belongs to root, and you may not use it"), "{failure}");
}

#[test]
fn the_folder_is_found_in_order_and_whose_is_said() {
    let tmp = tempfile::tempdir().expect("tempdir");
    let at = |name: &str| tmp.path().join(name);
    let mut places = Places { home: Some(at("home")), system: at("system"), ..Places::default() };
    let missing = places.find().expect_err("nothing there");
    assert!(missing.to_string().contains("home/.local/state/mesh or "), "{missing}");
    StateFolder::create(&at("system")).unwrap();
    let found = places.find().unwrap();
    assert!(found.path == at("system") && found.note.expect("says whose").contains(&owner_of(tmp.path())));
    StateFolder::create(&at("home/.local/state/mesh")).unwrap();
    let found = places.find().unwrap();
    assert_eq!(found.path, at("home/.local/state/mesh"));
    assert!(found.note.expect("says there are two").contains("there is also"));
    places.xdg_state_home = Some(at("xdg"));
    assert_eq!(places.find().unwrap().path, at("system"));
    assert_eq!(places.for_new(), at("xdg/mesh"));
    places.mesh_dir = Some(at("home/.local/state/mesh"));
    assert_eq!(places.find().unwrap(), Found { path: at("home/.local/state/mesh"), note: None });
    places.flag = Some(at("nowhere"));
    assert!(matches!(places.find(), Err(FolderError::Missing(p)) if p == [at("nowhere")]));
}

#[test]
fn a_long_socket_path_is_refused_with_its_length() {
    let tmp = tempfile::tempdir().expect("tempdir");
    let error = StateFolder::create(&tmp.path().join("x".repeat(120))).expect_err("too long");
    assert!(error.to_string().contains("allows 107"), "{error}");
    assert_eq!(error.hint(), "use a shorter --dir");
}

#[test]
fn hexadecimal_digits_and_nothing_else() {
    assert_eq!(unhex(&hex(&[0, 1, 255])), Some(vec![0, 1, 255]));
    for bad in ["0", "0g", "+1", "é0"] {
        assert_eq!(unhex(bad), None, "{bad}");
    }
}
