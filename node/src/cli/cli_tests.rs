use super::*;
use crate::api::server::tests::{sample_status, served};
use crate::api::types::{HostState, Level, Warning};
use bytes::Bytes;
use clap::CommandFactory;
use mesh::build::{BlobId, BuildId, Manifest, OutputFile};

const OUT: Out = Out { json: false, quiet: true };

#[test]
fn the_words_are_consistent() {
    Args::command().debug_assert();
    let parse = |line: &str| Args::try_parse_from(line.split(' '));
    assert!(matches!(parse("mesh up --detach").unwrap().command, Command::Up { detach: true }));
    let Command::Run(run) =
        parse("mesh run -o *.o --env A=b=c --memory 2GiB --timeout 10m -- cc -o x").unwrap().command
    else {
        panic!("run")
    };
    let spec = run::spec(&run).unwrap();
    assert_eq!((spec.name.as_str(), spec.memory_mib, spec.timeout_s, spec.retries), ("cc", 2048, 600, 0));
    assert_eq!(spec.env, [("A".to_owned(), "b=c".to_owned())]);
    for bad in ["mesh run cc", "mesh run --sandbox x -- a", "mesh logs bx", "mesh cancel", "mesh evict a", "mesh nope"]
    {
        assert!(parse(bad).is_err(), "{bad}");
    }
    assert_eq!(run::name_of(&["/usr/bin/g++".into()]), "g++");
    assert_eq!(run::name_of(&["é".into()]), "run");
    assert_eq!(daemon::own_name("Builder_1.example.org").as_deref(), Some("builder-1"));
    assert_eq!(daemon::own_name("---"), None);
}

#[test]
fn failures_have_their_codes() {
    let code = |failure: Failure| failure.code;
    assert_eq!(code(ClientError::NoDaemon("x".into()).into()), EXIT_NO_DAEMON);
    assert_eq!(code(ClientError::Api(ApiError::no_leader()).into()), EXIT_NO_LEADER);
    assert_eq!(code(ApiError::bad_request("x").into()), EXIT_USAGE);
    assert_eq!(code(ApiError::not_found("x").into()), EXIT_FAILED);
    assert_eq!(code(FolderError::Missing(vec![]).into()), EXIT_NO_DAEMON);
    assert_eq!(code(io::Error::from(io::ErrorKind::BrokenPipe).into()), EXIT_OK);
    assert_eq!(expires_ms("24h").unwrap(), 86_400_000);
    assert_eq!(expires_ms("soon").unwrap_err().code, EXIT_USAGE);
}

#[test]
fn status_is_shown_and_judged() {
    let mut status = sample_status();
    let text = show::status(&status);
    assert!(text.contains("leader anna (epoch 1, term 2, lease 1.5 s)"), "{text}");
    assert!(text.contains("anna  alive  3/4    leader  self  1m 30s"), "{text}");
    assert_eq!(show::exit_code(&status), EXIT_OK);
    let warning = |code: &str, level| Warning { code: code.into(), level, host: None, text: format!("of {code}") };
    status.warnings = vec![warning("stranger", Level::Note)];
    assert_eq!(show::exit_code(&status), EXIT_OK, "a note does no harm");
    status.warnings.push(warning("clock", Level::Warning));
    assert_eq!(show::exit_code(&status), EXIT_FAILED);
    let text = show::status(&status);
    assert!(text.starts_with("warning: of clock\nnote: of stranger\nmesh "), "what is wrong comes first: {text}");
    // What stands for a while comes before all that; of a note alone nobody need take notice.
    let stands = |code: &str, level| crate::api::types::Standing {
        code: code.into(),
        level,
        host: None,
        text: format!("it is {code}"),
        until_ms: None,
        left_ms: None,
    };
    status.warnings = vec![warning("stranger", Level::Note)];
    status.standing = vec![stands("drained", Level::Note)];
    assert_eq!(show::exit_code(&status), EXIT_OK);
    status.standing.insert(0, stands("paused", Level::Warning));
    assert_eq!(show::exit_code(&status), EXIT_FAILED);
    let text = show::status(&status);
    assert!(text.starts_with("warning: it is paused\nnote: it is drained\nnote: of stranger\nmesh "), "{text}");
    status.standing.clear();
    status.hosts[0].kept = Some("blocked".into());
    assert!(show::status(&status).contains("leader,blocked  self"), "{}", show::status(&status));
    let older: Warning = serde_json::from_str(r#"{"code":"clock","host":null,"text":"t"}"#).unwrap();
    assert_eq!(older.level, Level::Warning, "a daemon that does not say means the worse");
    status.warnings.clear();
    status.hosts[0].state = HostState::Down;
    assert_eq!(show::exit_code(&status), EXIT_FAILED);
    status.leader = None;
    assert_eq!(show::exit_code(&status), EXIT_NO_LEADER);
    status.mesh.name = "a\x1b[2J".into();
    assert!(!show::status(&status).contains('\x1b'), "others' text cannot drive the terminal");
    assert_eq!(show::table(&[vec!["é".into(), "x".into()], vec!["ab".into(), "y".into()]]), "é   x\nab  y");
}

#[tokio::test]
async fn outputs_are_placed_and_never_outside() {
    let served = served();
    let into = served.folder.path().join("into");
    let put = |bytes: &'static [u8]| {
        let id = BlobId::of(bytes);
        served.fake.blobs.lock().unwrap().insert(id, Bytes::from_static(bytes));
        id
    };
    let file = |path: &str, bytes: &'static [u8], symlink| OutputFile {
        path: path.into(),
        executable: true,
        bytes: bytes.len() as u64,
        blob: put(bytes),
        symlink,
    };
    let manifest = |files: Vec<OutputFile>| {
        let bytes = mesh::wire::encode(&Manifest { files });
        let id = BlobId::of(&bytes);
        served.fake.blobs.lock().unwrap().insert(id, bytes.into());
        *served.fake.manifest.lock().unwrap() = Some(id);
    };
    manifest(vec![file("a/b", b"hello", false), file("a/l", b"b", true)]);
    assert_eq!(fetch::fetch(&served.client, OUT, BuildId(1), &into).await, Ok(EXIT_OK));
    assert_eq!(std::fs::read(into.join("a/l")).unwrap(), b"hello");
    assert_eq!(fetch::fetch(&served.client, OUT, BuildId(1), &into).await, Ok(EXIT_OK), "again, over itself");
    // A link that was there before leads out: it is not followed.
    std::os::unix::fs::symlink(served.folder.path(), into.join("out")).unwrap();
    for bad in [
        file("out/x", b"evil", false),
        file("../x", b"evil", false),
        file("/tmp/x", b"evil", false),
        file("l2", b"../x", true),
        OutputFile { bytes: 1, ..file("short", b"evil", false) },
    ] {
        let path = bad.path.clone();
        manifest(vec![bad]);
        let failure = fetch::fetch(&served.client, OUT, BuildId(1), &into).await.expect_err(&path);
        assert!(failure.hint.is_some(), "{failure}");
    }
    assert!(!served.folder.path().join("x").exists());
    // A link at a file's own place is replaced, not written through.
    std::fs::write(served.folder.path().join("victim"), "safe").unwrap();
    std::os::unix::fs::symlink(served.folder.path().join("victim"), into.join("v")).unwrap();
    manifest(vec![file("v", b"new", false)]);
    assert_eq!(fetch::fetch(&served.client, OUT, BuildId(1), &into).await, Ok(EXIT_OK));
    assert_eq!(std::fs::read(served.folder.path().join("victim")).unwrap(), b"safe");
    assert_eq!(std::fs::read(into.join("v")).unwrap(), b"new");
    let lie = BlobId([3; 32]);
    served.fake.blobs.lock().unwrap().insert(lie, Bytes::from_static(b"hello"));
    manifest(vec![OutputFile { blob: lie, ..file("z", b"hello", false) }]);
    assert!(fetch::fetch(&served.client, OUT, BuildId(1), &into).await.is_err(), "a damaged blob");
    assert!(std::fs::read_dir(&into).unwrap().all(|e| !e.unwrap().file_name().to_string_lossy().starts_with(".mesh-")));
}

#[test]
fn a_folder_is_the_same_archive_each_time() {
    let tmp = tempfile::tempdir().expect("tempdir");
    let at = |name: &str| tmp.path().join(name);
    std::fs::create_dir_all(at("sub/.git")).unwrap();
    for (name, text) in [(".gitignore", "*.o\n"), ("a.c", "x"), ("a.o", "x"), ("sub/b", ""), ("sub/.git/c", "x")] {
        std::fs::write(at(name), text).unwrap();
    }
    std::os::unix::fs::symlink("/nowhere", at("link")).unwrap();
    let pack = || {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut pack::archive(tmp.path()).unwrap(), &mut bytes).unwrap();
        bytes
    };
    let bytes = pack();
    assert_eq!(bytes, pack());
    let mut archive = tar::Archive::new(&bytes[..]);
    let names: Vec<_> = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(names, [".gitignore", "a.c", "link", "sub", "sub/b"]);
}
