//! One hearing from hello to deed, over a pipe, with the papers on a real disk: what is taken on is done once by the owner's
//! own command, and what is not leaves nothing.

use super::*;
use crate::guard::fixture;
use mesh::ledger::Ledger;
use mesh::roster::Cosignature;
use mesh::warrant::{Approval, Hello, Order, OrderHash, OrderId, Receipt, Warrant};
use mesh::wire::{Label, encode, signed_bytes};
use std::fs;
use tokio::io::{DuplexStream, duplex};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

/// A host that founded its mesh, and so may order itself about by hand. Its reboot writes down for which order it was.
struct Bench {
    folder: StateFolder,
    keys: Keys,
    tmp: tempfile::TempDir,
}

impl Bench {
    fn new(more: &str) -> Bench {
        let tmp = tempfile::tempdir().unwrap();
        let folder = StateFolder::create(&tmp.path().join("mesh")).unwrap();
        let keys = folder.keys().unwrap();
        let genesis = fixture::genesis(&keys);
        crate::guard::provide(folder.path(), &keys, &genesis).unwrap();
        folder.write_genesis(&encode(&genesis)).unwrap();
        let done = tmp.path().join("done").display().to_string();
        let reboot = format!("reboot_command = ['sh', '-c', 'echo $MESH_ACT $MESH_REASON >> {done}']");
        folder.write_config(&format!("[machine]\nallow_reboot = true\n{reboot}\n{more}\n")).unwrap();
        let bench = Bench { folder, keys, tmp };
        let store = papers(&bench.folder).unwrap().1;
        let life = Life { boot: BootId(boot_id()), start: 4, protected: false, allow_reboot: true };
        store.begin_life(&life).unwrap();
        // The roster is young: this is the daemon's word of a moment ago.
        store.keep_known(&mesh::warrant::Known::of(&Ledger::found(&genesis).unwrap())).unwrap();
        bench
    }

    fn done(&self) -> String {
        fs::read_to_string(self.tmp.path().join("done")).unwrap_or_default()
    }

    fn order(&self, target: mesh::identity::PeerKey, id: u8) -> Signed {
        let mesh = papers(&self.folder).unwrap().1.guard().unwrap().mesh();
        fixture::reboot(&self.keys, mesh, target, id, (BootId(boot_id()), 4))
    }

    /// One session of a guard: what the bringer is told, and what the guard made of it.
    async fn session(&self, bring: impl AsyncFnOnce(Signed, &mut Compat<DuplexStream>)) -> (Frame, bool) {
        let house = Guardhouse::open(&self.folder).unwrap();
        let (mut bringer, theirs) = {
            let (a, b) = duplex(64 << 10);
            (a.compat(), b.compat())
        };
        let (mut input, mut output) = futures::AsyncReadExt::split(theirs);
        let told = async {
            let mut magic = vec![0; MAGIC.len()];
            bringer.read_exact(&mut magic).await.unwrap();
            assert_eq!(magic, MAGIC);
            let frame = read_frame(&mut bringer, WARRANT_FRAME_BYTES_MAX).await.unwrap();
            let Ok(Frame::Hello(hello)) = Frame::read(&frame) else { panic!("no hello first") };
            assert_eq!(hello.by, self.keys.key());
            bring(hello, &mut bringer).await;
            let answer = read_frame(&mut bringer, WARRANT_FRAME_BYTES_MAX).await.unwrap();
            bringer.close().await.unwrap();
            Frame::read(&answer).unwrap()
        };
        let (answer, heard) = futures::join!(told, house.hear(&mut input, &mut output));
        let licence = heard.unwrap_or(None);
        if let Some(licence) = &licence {
            house.act(licence).await.unwrap();
        }
        (answer, licence.is_some())
    }

    /// What an honest signer's program would refuse to sign when hello and order are not of one host.
    fn approval(&self, order: &Signed, hello: &Signed) -> Vec<u8> {
        let Hello { mesh, nonce, boot, start, epoch, .. } = hello.open().unwrap();
        let target = order.open::<Order>().unwrap().target;
        encode(&Approval { mesh, order: OrderHash::of(order), target, nonce, boot, start, epoch })
    }

    async fn bring(&self, order: &Signed) -> (Frame, bool) {
        self.session(async |hello, stream| {
            assert_eq!(hello.open::<Hello>().unwrap().start, 4);
            let approval = self.approval(order, &hello);
            let sig = self.keys.sign(&signed_bytes(Approval::LABEL, &approval));
            let cosignatures = vec![Cosignature { by: self.keys.key(), sig }];
            let warrant = Frame::Warrant(Warrant { order: order.clone(), approval, cosignatures });
            write_frame(stream, &warrant.write()).await.unwrap();
        })
        .await
    }
}

#[tokio::test]
async fn an_order_is_carried_out_once_and_its_receipt_given_again() {
    let bench = Bench::new("");
    let order = bench.order(bench.keys.key(), 1);
    let (first, acted) = bench.bring(&order).await;
    let Frame::Receipt(receipt) = &first else { panic!("{first:?}") };
    assert!(acted && receipt.open::<Receipt>().unwrap().id == OrderId([1; 16]));
    assert_eq!(bench.done(), "reboot it hangs\n");
    let (again, acted) = bench.bring(&order).await;
    assert_eq!((again, acted), (first, false));
    assert_eq!(bench.done(), "reboot it hangs\n", "once");
}

#[tokio::test]
async fn an_order_for_another_host_a_veto_and_noise_do_nothing() {
    let bench = Bench::new("");
    let (answer, acted) = bench.bring(&bench.order(Keys::from_seed([50; 32]).key(), 1)).await;
    assert!(matches!(&answer, Frame::Refused(why) if why.contains("not this host")), "{answer:?}");
    assert!(!acted);
    let noise = bench.session(async |_, stream| write_frame(stream, b"reboot, please").await.unwrap()).await;
    assert!(matches!(&noise.0, Frame::Refused(why) if why.contains("not a frame")), "{noise:?}");
    let huge = bench.session(async |_, stream| stream.write_all(&[0x7f; 64]).await.unwrap()).await;
    assert!(matches!(&huge.0, Frame::Refused(why) if why.contains("larger than")), "{huge:?}");

    // What the daemon read at its start is not the last word: the owner's file is.
    let bench = Bench::new("protected = true");
    let (answer, _) = bench.bring(&bench.order(bench.keys.key(), 2)).await;
    assert!(matches!(&answer, Frame::Refused(why) if why.contains("protected")), "{answer:?}");
    assert_eq!(bench.done(), "");
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_told_so_after_ten_seconds() {
    let bench = Bench::new("");
    let (answer, acted) = bench.session(async |_, _| {}).await;
    assert!(matches!(&answer, Frame::Refused(why) if why.contains("within 10 s")), "{answer:?}");
    assert!(!acted);
}

#[test]
fn without_papers_nobody_is_heard() {
    let bench = Bench::new("");
    fs::remove_dir_all(bench.folder.path().join("guard")).unwrap();
    assert!(matches!(Guardhouse::open(&bench.folder), Err(SessionError::Store(StoreError::Missing(_)))));
}
