//! One host is a complete mesh: the README's first two commands, without any configuration.

use std::fs;
use std::process::Command;
use tests::bounded;
use tests::daemon::said;
use tests::program::mesh;

const HELLO: &str = "#include <stdio.h>\nint main(void) { puts(\"hello, mesh\"); return 0; }\n";

/// Everything that a person would have: a home, a current folder, the default port and no option.
struct Home(tempfile::TempDir);

impl Home {
    fn mesh(&self, args: &[&str]) -> std::process::Output {
        let mut command = Command::new(mesh());
        command
            .args(args)
            .current_dir(self.0.path().join("project"))
            .env("MESH_DIR", self.0.path().join("state"))
            .env("HOME", self.0.path())
            .env("NO_COLOR", "1");
        bounded::output(&mut command)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.0.path().join("state/lock")).ok().and_then(|t| t.trim().parse().ok());
        if let Some(pid) = pid {
            tests::daemon::end_process(pid);
        }
    }
}

#[test]
fn a_host_alone_compiles_hello_without_any_configuration() {
    let home = Home(tempfile::Builder::new().prefix("mesh-alone-").tempdir().expect("folder"));
    fs::set_permissions(home.0.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).expect("permissions");
    let project = home.0.path().join("project");
    fs::create_dir(&project).expect("folder");
    fs::write(project.join("hello.c"), HELLO).expect("source");
    fs::write(project.join(".gitignore"), "secret\n").expect("file");
    fs::write(project.join("secret"), "not to be sent").expect("file");

    for command in [&["init"][..], &["up", "--detach"]] {
        let out = home.mesh(command);
        assert!(out.status.success(), "mesh {command:?}: {}\n{}", out.status, said(&out));
    }
    let out = home.mesh(&["run", "--", "cc", "-o", "hello", "hello.c"]);
    assert!(out.status.success(), "mesh run: {}\n{}", out.status, said(&out));
    let hello = bounded::output(&mut Command::new(project.join("hello")));
    assert_eq!(String::from_utf8_lossy(&hello.stdout), "hello, mesh\n");

    let out = home.mesh(&["run", "--", "sh", "-c", "ls; echo wrong >&2; exit 7"]);
    assert_eq!(out.status.code(), Some(7), "the command's own code\n{}", said(&out));
    let stdout = String::from_utf8_lossy(&out.stdout);
    assert!(stdout.contains("hello.c") && !stdout.contains("secret"), "{}", said(&out));
    let out = home.mesh(&["status"]);
    assert_eq!(out.status.code(), Some(0), "healthy\n{}", said(&out));
}
