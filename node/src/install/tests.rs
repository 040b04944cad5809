//! Plans done, done again, undone, below a root that is not running; and what the look at it finds.

use super::check::{Severity, check};
use super::door::{Door, key_of};
use super::*;
use mesh::identity::Keys;
use std::collections::BTreeSet;

const FOLDER: &str = "/var/lib/mesh";

/// A machine's files, as far as they matter here.
struct Image(tempfile::TempDir);

impl Image {
    fn new(init: Init) -> Image {
        let image = Image(tempfile::tempdir().unwrap());
        match init {
            Init::Systemd => image.write("usr/lib/systemd/systemd", "", 0o755),
            Init::OpenRc => {
                image.write("sbin/openrc-run", "", 0o755);
                fs::create_dir_all(image.root().join("etc/logrotate.d")).unwrap();
            }
        }
        image.write("usr/sbin/sshd", "", 0o755);
        image.write("bin/bash", "", 0o755);
        image.write("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n", 0o644);
        image.write("etc/shadow", "root:*:1::::::\n", 0o600);
        image.write("../programs/mesh", "the daemon", 0o755);
        image.write("../programs/mesh-guard", "the guard", 0o755);
        image
    }
    fn root(&self) -> PathBuf {
        let root = self.0.path().join("root");
        fs::create_dir_all(&root).unwrap();
        root.canonicalize().unwrap()
    }
    fn write(&self, path: &str, text: &str, mode: u32) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }
    fn files(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.root()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                match entry.file_type().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false => _ = found.insert(entry.path()),
                }
            }
        }
        found
    }
    fn wish(&self, init: Init, door: bool) -> Wish {
        let door =
            door.then(|| Door { port: 7_422, host_key: key_of(&keys()).0, sshd: "/usr/sbin/sshd".into(), pam: false });
        let program = self.root().join("../programs/mesh");
        Wish { init, folder: FOLDER.into(), user: None, program, door }
    }
    fn install(&self, init: Init, door: bool) -> Vec<PathBuf> {
        Plan::of(&self.wish(init, door), &self.root()).unwrap().apply(&self.root()).unwrap()
    }
    fn found(&self) -> Vec<(Severity, String)> {
        let found = check(&self.root(), Path::new(FOLDER), &keys());
        assert!(found.iter().all(|f| !f.advice.is_empty()));
        found.into_iter().map(|f| (f.severity, f.what)).collect()
    }
    /// Exactly one thing is wrong, and it is this.
    #[track_caller]
    fn finds(&self, words: &str) {
        let found = self.found();
        assert!(found.len() == 1 && found[0].1.contains(words), "{words}: {found:?}");
    }
}

fn keys() -> Keys {
    Keys::from_seed([3; 32])
}

/// Whether these tests can make files that sshd would take for root's.
fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn what_is_installed_twice_changes_nothing_and_uninstalled_nothing_is_left() {
    for (init, files) in [(Init::Systemd, 8), (Init::OpenRc, 9)] {
        let image = Image::new(init);
        assert_eq!(Init::installed(&image.root()), Some(init));
        let before = image.files();
        assert_eq!(image.install(init, true).len(), files, "{init:?}");
        assert_eq!(image.install(init, true), Vec::<PathBuf>::new());
        // Without the door it stays as it is.
        assert_eq!(image.install(init, false), Vec::<PathBuf>::new());
        assert_eq!(image.read("usr/local/lib/mesh/mesh-guard"), "the guard");

        let (would, kept) = remove(&image.root(), false, true).unwrap();
        assert_eq!((would.len(), kept.len()), (files, 0));
        assert_eq!(remove(&image.root(), true, false).unwrap().0.len(), 4, "the door alone");
        let (gone, _) = remove(&image.root(), false, false).unwrap();
        assert_eq!(gone.len(), files - 4);
        assert_eq!(image.files(), before);
        assert!(!image.root().join("etc/mesh-guard").exists());
        assert_eq!(remove(&image.root(), false, false).unwrap().0, Vec::<PathBuf>::new());
    }
}

#[test]
fn what_others_wrote_is_neither_replaced_nor_removed() {
    let image = Image::new(Init::Systemd);
    image.write("etc/systemd/system/mesh.service", "[Service]\nExecStart=/opt/mine\n", 0o644);
    let before = image.files();
    let plan = Plan::of(&image.wish(Init::Systemd, true), &image.root()).unwrap();
    let error = plan.apply(&image.root()).expect_err("somebody else's");
    assert!(matches!(&error, InstallError::Foreign(path) if path.ends_with("mesh.service")), "{error}");
    assert_eq!(image.files(), before, "nothing is written when not all can be");
    let (gone, kept) = remove(&image.root(), false, false).unwrap();
    assert_eq!((gone.len(), kept.len()), (0, 1));
    assert_eq!(image.files(), before);
}

#[test]
fn a_file_that_was_changed_is_written_anew() {
    let image = Image::new(Init::OpenRc);
    image.install(Init::OpenRc, false);
    let script = image.read("etc/init.d/mesh");
    image.write("etc/init.d/mesh", &script.replace("respawn_max=0", "respawn_max=1"), 0o755);
    fs::write(image.root().join("../programs/mesh"), "a newer daemon").unwrap();
    let changed = image.install(Init::OpenRc, false);
    assert_eq!(changed, [Path::new(PROGRAMS).join("mesh"), "/etc/init.d/mesh".into()]);
    assert_eq!(image.read("etc/init.d/mesh"), script);
    assert_eq!(image.read("usr/local/lib/mesh/mesh"), "a newer daemon");
}

#[test]
fn services_name_folder_user_and_program() {
    let image = Image::new(Init::Systemd);
    let wish = Wish { user: Some("alice".into()), folder: "/home/alice/m".into(), ..image.wish(Init::Systemd, false) };
    Plan::of(&wish, &image.root()).unwrap().apply(&image.root()).unwrap();
    let unit = image.read("etc/systemd/system/mesh.service");
    for line in [
        "ExecStart=/usr/local/lib/mesh/mesh --dir /home/alice/m up",
        "User=alice",
        "Type=notify",
        "ProtectHome=no",
        "Restart=always",
        "ConditionPathExists=!/home/alice/m/outcast",
    ] {
        assert!(unit.lines().any(|l| l == line), "no `{line}` in\n{unit}");
    }
    assert!(!unit.contains("Capability") && !unit.contains("ProtectKernelTunables"), "{unit}");
    let odd = Wish { folder: "/home/a b".into(), ..image.wish(Init::Systemd, false) };
    assert!(matches!(Plan::of(&odd, &image.root()), Err(InstallError::OddPath(_))));
    fs::remove_file(image.root().join("../programs/mesh-guard")).unwrap();
    assert!(matches!(Plan::of(&image.wish(Init::Systemd, true), &image.root()), Err(InstallError::NoGuard(_))));
}

#[test]
fn the_look_finds_what_sshd_would_not_forgive() {
    if !is_root() {
        return; // whose file something is cannot be changed, and every one would be found
    }
    let image = Image::new(Init::Systemd);
    image.finds("does not start the mesh at boot");
    image.install(Init::Systemd, true);
    assert_eq!(image.found(), vec![]);
    let root = image.root();
    let bits = |path: &str, mode| fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();

    for (path, bad, good, words) in [
        ("usr/local/lib/mesh", 0o775, 0o755, "/usr/local/lib/mesh can be written to by others"),
        ("usr/local/lib/mesh/mesh-guard", 0o757, 0o755, "mesh-guard can be written to by others"),
        ("usr/local/lib/mesh/mesh-guard", 0o644, 0o755, "cannot be executed"),
        ("etc/mesh-guard/host_key", 0o640, 0o600, "host_key is of user 0 and mode 0640"),
    ] {
        bits(path, bad);
        image.finds(words);
        bits(path, good);
    }
    std::os::unix::fs::chown(root.join("usr/local"), Some(1), None).unwrap();
    image.finds("/usr/local belongs to user 1");
    std::os::unix::fs::chown(root.join("usr/local"), Some(0), None).unwrap();

    image.write("etc/passwd", "root:x:0:0:root:/root:/usr/sbin/nologin\n", 0o644);
    image.finds("root's shell is /usr/sbin/nologin");
    image.write("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n", 0o644);
    image.write("etc/shadow", "root:!:1::::::\n", 0o600);
    image.finds("root's account is locked");
    image.write("etc/shadow", "root:*:1::::::\n", 0o600);

    let key = image.read("etc/mesh-guard/host_key");
    image.write("etc/mesh-guard/host_key", &key_of(&Keys::from_seed([4; 32])).0, 0o600);
    image.finds("another host key than this host attests");
    image.write("etc/mesh-guard/host_key", &key, 0o600);
    fs::remove_file(root.join("etc/systemd/system/multi-user.target.wants/mesh.service")).unwrap();
    image.finds("systemd does not start the mesh at boot");
    image.install(Init::Systemd, false);
    assert_eq!(image.found(), vec![]);
    let others = check(&root, Path::new("/elsewhere"), &keys());
    assert_eq!(others.len(), 2, "the service and the door are another folder's: {others:?}");
    fs::remove_file(root.join("usr/local/lib/mesh/mesh")).unwrap();
    image.finds("which is not there");
}

#[test]
fn a_host_key_is_derived_and_its_public_half_is_the_attested_one() {
    let (text, public) = key_of(&keys());
    let read = russh::keys::ssh_key::PrivateKey::from_openssh(&text).unwrap();
    assert_eq!(read.public_key().key_data().ed25519().unwrap().0, public);
    assert_ne!(public, *keys().key().as_bytes(), "the host's own key stays where it is");
    assert_eq!(key_of(&keys()), (text, public), "made anew it is the same");
}
