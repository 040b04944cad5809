use super::*;
use crate::blobs::memory::MemoryBlobs;
use crate::builds::place::{check_manifest, load_manifest, place};

fn wanted(patterns: &[&str]) -> Wanted {
    Wanted { patterns: patterns.iter().map(|p| (*p).to_owned()).collect(), before: None, without_needs: true }
}

fn tree(root: &Path) {
    for (path, text) in
        [("out/a.o", "a"), ("out/deep/b.o", "b"), ("out-x", "x"), ("needs/n/lib.o", "n"), ("src.c", "c")]
    {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), text).unwrap();
    }
    fs::set_permissions(root.join("out-x"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("/etc", root.join("out/etc")).unwrap();
}

async fn names(root: &Path, patterns: &[&str]) -> Vec<String> {
    let store = MemoryBlobs::new(1 << 20);
    let found = collect(root, wanted(patterns), &store).await.unwrap();
    found.map_or(vec![], |(_, m)| m.files.into_iter().map(|f| f.path).collect())
}

#[tokio::test]
async fn patterns_take_files_folders_and_nothing_behind_a_link() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    assert_eq!(names(dir.path(), &["out/*.o"]).await, ["out/a.o"], "a star stops at a slash");
    assert_eq!(names(dir.path(), &["out"]).await, ["out/a.o", "out/deep/b.o", "out/etc"]);
    assert_eq!(names(dir.path(), &["out/**"]).await, ["out/a.o", "out/deep/b.o", "out/etc"]);
    assert_eq!(names(dir.path(), &["**/*.o"]).await, ["out/a.o", "out/deep/b.o"], "needs/ is not ours");
    assert_eq!(names(dir.path(), &["out-x", "./src.c"]).await, ["out-x", "src.c"]);
    assert!(names(dir.path(), &[]).await.is_empty());
    let store = MemoryBlobs::new(1 << 20);
    for missing in ["*.deb", "out/etc/passwd", "needs"] {
        let error = collect(dir.path(), wanted(&[missing]), &store).await.unwrap_err();
        assert!(error.to_string().contains(missing), "{error}");
    }
}

#[tokio::test]
async fn equal_folders_give_equal_manifests_and_come_back() {
    let store = MemoryBlobs::new(1 << 20);
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tree(one.path());
    tree(two.path());
    let first = collect(one.path(), wanted(&["."]), &store).await.unwrap().unwrap();
    let second = collect(two.path(), wanted(&["./"]), &store).await.unwrap().unwrap();
    assert_eq!(first, second);
    let manifest = load_manifest(&store, first.0).await.unwrap();
    let back = tempfile::tempdir().unwrap();
    place(&manifest, &store, back.path(), None).await.unwrap();
    let third = collect(back.path(), wanted(&["."]), &store).await.unwrap().unwrap();
    assert_eq!(first, third);
    let shifted = Manifest { files: manifest.files.iter().rev().cloned().collect() };
    assert!(check_manifest(&wire::encode(&shifted)).unwrap_err().contains("sorted"));
    let mut outside = manifest.clone();
    outside.files[0].path = "../x".into();
    outside.files.sort();
    assert!(check_manifest(&wire::encode(&outside)).unwrap_err().contains("leaves"));
    store.rot(manifest.files[0].blob);
    assert_eq!(place(&manifest, &store, back.path(), None).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
}
