//! What is dropped, and what is not.

use super::super::tests::grown;
use super::*;
use std::io;
use std::sync::{Arc, Mutex};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::SubscriberExt;

/// What is logged at ERROR on this thread until the guard is dropped.
#[derive(Clone, Default)]
pub(in super::super) struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub fn start(&self, quiet: bool) -> DefaultGuard {
        let log = self.clone();
        let plain = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::ERROR)
            .with_writer(move || log.clone())
            .finish();
        match quiet {
            true => tracing::subscriber::set_default(plain.with(Quiet)),
            false => tracing::subscriber::set_default(plain),
        }
    }
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[test]
fn only_the_two_records_are_dropped() {
    let log = Log::default();
    let _guard = log.start(true);
    tracing::error!(
        target: "openraft::core::heartbeat::worker",
        "HeartbeatWorker(id=a, target=b) failed to send HeartbeatProgress(..) to RaftCore; when:(send HeartbeatProgress)"
    );
    tracing::error!(target: "openraft::core::raft_core", "failed to report metrics, error: closed, id: a");
    assert_eq!(log.text(), "");
    tracing::error!(target: "openraft::core::heartbeat::worker", "one");
    tracing::error!(target: "openraft::core::raft_core", "RaftCore received Notification::StorageError: two");
    tracing::error!(target: "openraft::raft::raft_inner", "failed to send RaftMsg to RaftCore: three");
    tracing::error!(target: "node::consensus::store", "failed to report metrics, error: four, id: a");
    assert_eq!(log.text().lines().count(), 4, "{}", log.text());
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_store_is_logged() {
    let log = Log::default();
    let _guard = log.start(true);
    let (_net, hosts) = grown(1).await;
    hosts[0].disk.fail();
    let _ = hosts[0].consensus.propose(b"x".to_vec()).await;
    hosts[0].consensus.ended().await;
    assert!(log.text().contains("openraft"), "{}", log.text());
    assert!(log.text().contains("the disk is on fire"), "{}", log.text());
}
