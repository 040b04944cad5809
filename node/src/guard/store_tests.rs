use super::*;
use mesh::order::BootId;
use mesh::roster::mesh_id;
use mesh::warrant::{Frame, OrderId, Receipt, Warrant, approve_by_hand};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const HERE: Host = Host { boot: BootId([1; 16]), start: 3, protected: false, allow_reboot: true, wall_ms: 1_000_000 };
const NOW: Time = Time::from_millis(5_000);

/// A host that founded its mesh, and so may order itself about by hand.
struct Bench {
    keys: Keys,
    ledger: Ledger,
    store: Store,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let keys = Keys::from_seed([5; 32]);
        let genesis = fixture::genesis(&keys);
        let folder = tempfile::tempdir().unwrap();
        let vault = Arc::new(FolderVault::of(folder.path()));
        let ledger = Ledger::found(&genesis).unwrap();
        Bench { store: Store::new(vault, mesh_id(&genesis), keys.key()), keys, ledger, folder }
    }

    fn made() -> Bench {
        let bench = Bench::new();
        bench.store.make(&bench.ledger).unwrap();
        bench
    }

    fn file(&self, paper: Paper) -> std::path::PathBuf {
        self.folder.path().join("guard").join(paper.name())
    }

    fn order(&self, id: u8) -> Signed {
        fixture::reboot(&self.keys, self.ledger.mesh(), self.keys.key(), id, (HERE.boot, HERE.start))
    }

    /// One hearing of one order, from its nonce to what came of it.
    fn hear(&self, store: &Store, order: &Signed) -> Result<Heard, Refused> {
        let known = store.known()?;
        let (mut hearing, frame) = store.open(&self.keys, known, HERE, [3; 32], NOW)?;
        let Ok(Frame::Hello(hello)) = Frame::read(&frame) else { panic!("no hello") };
        let approved = approve_by_hand(&self.keys, order, &hello).unwrap();
        let (approval, cosignatures) = (approved.approval, vec![approved.cosignature]);
        let frame = Frame::Warrant(Warrant { order: order.clone(), approval, cosignatures });
        store.hear(&mut hearing, &frame.write(), || NOW)
    }
}

#[test]
fn papers_are_made_once_and_are_not_for_others() {
    let bench = Bench::new();
    assert!(matches!(bench.store.guard(), Err(StoreError::Missing(Paper::Guard))));
    assert!(matches!(bench.store.begin_life(&Life::unborn()), Err(StoreError::Missing(Paper::Life))));
    bench.store.make(&bench.ledger).unwrap();
    for paper in Paper::ALL {
        assert_eq!(fs::metadata(bench.file(paper)).unwrap().permissions().mode() & 0o777, 0o600, "{paper:?}");
    }
    assert_eq!(fs::metadata(bench.folder.path().join("guard")).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(bench.store.known().unwrap(), Known::of(&bench.ledger));
    let first = Life { start: 1, protected: false, ..Life::unborn() };
    assert_eq!(bench.store.begin_life(&first).unwrap(), None, "nothing was before");
    assert_eq!(bench.store.begin_life(&Life { start: 2, ..first.clone() }).unwrap(), Some(first));
}

#[test]
fn an_older_state_folder_gets_its_papers_once() {
    let bench = Bench::new();
    let genesis = bench.ledger.genesis();
    assert!(provide(bench.folder.path(), &bench.keys, genesis).unwrap(), "it had none");
    assert!(matches!(bench.hear(&bench.store, &bench.order(1)), Ok(Heard::Permit(_))));
    assert!(!provide(bench.folder.path(), &bench.keys, genesis).unwrap());
    assert!(matches!(bench.hear(&bench.store, &bench.order(1)), Ok(Heard::Again(_))));
    fs::remove_dir_all(bench.folder.path().join("guard")).unwrap();
    assert!(!provide(bench.folder.path(), &bench.keys, genesis).unwrap(), "what is lost is not made again");
    assert!(matches!(bench.store.guard(), Err(StoreError::Missing(_))));
}

#[test]
fn what_is_permitted_is_on_the_disk_and_is_permitted_once() {
    let bench = Bench::made();
    let order = bench.order(1);
    let Ok(Heard::Permit(licence)) = bench.hear(&bench.store, &order) else { panic!("refused") };
    // A guard in another process reads the same file.
    let guard = Store::new(Arc::new(FolderVault::of(bench.folder.path())), bench.ledger.mesh(), bench.keys.key());
    let Ok(Heard::Again(receipt)) = bench.hear(&guard, &order) else { panic!("acts twice") };
    assert_eq!(&receipt, licence.receipt());
    assert_eq!(receipt.open::<Receipt>().unwrap().id, OrderId([1; 16]));
    // The naive guard, to whom a missing file is an empty one, would act twice.
    fs::remove_file(bench.file(Paper::Guard)).unwrap();
    assert!(matches!(bench.hear(&bench.store, &order), Err(Refused::Store(StoreError::Missing(Paper::Guard)))));
    bench.store.make(&bench.ledger).unwrap();
    assert!(matches!(bench.hear(&bench.store, &order), Ok(Heard::Permit(_))));
}

#[test]
fn damaged_or_foreign_papers_permit_nothing() {
    let bench = Bench::made();
    fs::write(bench.file(Paper::Guard), b"\0torn").unwrap();
    let refused = bench.hear(&bench.store, &bench.order(1)).unwrap_err().to_string();
    assert!(refused.contains("`guard` is of no use"), "{refused}");
    let other = Guard::new(bench.ledger.mesh(), Keys::from_seed([50; 32]).key());
    fs::write(bench.file(Paper::Guard), other.bytes()).unwrap();
    assert!(bench.hear(&bench.store, &bench.order(1)).unwrap_err().to_string().contains("another host"));
    fs::write(bench.file(Paper::Notes), vec![0; GUARD_BYTES_MAX + 1]).unwrap();
    let unsigned = bench.store.cosign(|_| panic!("nobody judges by damaged notes")).unwrap_err().to_string();
    assert!(unsigned.contains("larger than"), "{unsigned}");
}

/// A disk that says yes and keeps nothing.
struct Liar(FolderVault);

impl Vault for Liar {
    fn lock(&self) -> io::Result<Box<dyn Send>> {
        self.0.lock()
    }
    fn read(&self, paper: Paper) -> io::Result<Option<Vec<u8>>> {
        self.0.read(paper)
    }
    fn write(&self, _: Paper, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_disk_that_does_not_keep_its_word_lets_nothing_happen() {
    let bench = Bench::made();
    let lying = Arc::new(Liar(FolderVault::of(bench.folder.path())));
    let store = Store::new(lying, bench.ledger.mesh(), bench.keys.key());
    assert!(matches!(bench.hear(&store, &bench.order(1)), Err(Refused::Store(StoreError::NotStored(_)))));
}

#[test]
fn a_lock_keeps_the_other_out_until_it_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (FolderVault::of(folder.path()), FolderVault::of(folder.path()));
    let held = one.lock().unwrap();
    let try_it = |root: &Path| {
        let file = fs::File::open(root.join("guard/lock")).unwrap();
        nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).is_ok()
    };
    assert!(!try_it(folder.path()));
    let stuck = other.lock().err().expect("the lock is held").to_string();
    assert!(stuck.contains("does not let go"), "{stuck}");
    drop(held);
    assert!(try_it(folder.path()));
    drop(other.lock().unwrap());
}
