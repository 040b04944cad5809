//! The guard's papers on a simulated disk: small files that are replaced whole, as `guard/` of a state folder is.
//!
//! They live and die with their [`Disk`]: its power goes in the middle of one as of any write, a disk that lies about
//! syncs forgets them in a power cut, and the handle of a life that is over writes nothing more.

use crate::disk::Disk;
use node::guard::{Paper, Vault};
use std::collections::BTreeMap;
use std::io;

/// What is on the disk of them.
#[derive(Clone, Default)]
pub struct Papers {
    current: BTreeMap<Paper, Vec<u8>>,
    durable: BTreeMap<Paper, Vec<u8>>,
}

impl Papers {
    pub(crate) fn put(&mut self, paper: Paper, bytes: &[u8], synced: bool) {
        self.current.insert(paper, bytes.to_vec());
        if synced {
            self.sync();
        }
    }

    pub(crate) fn sync(&mut self) {
        self.durable.clone_from(&self.current);
    }

    /// The power has gone: of what was not synced each paper made it, or did not.
    pub(crate) fn lose(&mut self, mut made_it: impl FnMut() -> bool) {
        for (paper, bytes) in std::mem::take(&mut self.current) {
            if self.durable.get(&paper) != Some(&bytes) && made_it() {
                self.durable.insert(paper, bytes);
            }
        }
        self.current.clone_from(&self.durable);
    }

    pub(crate) fn get(&self, paper: Paper) -> Option<&Vec<u8>> {
        self.current.get(&paper)
    }
}

/// The vault of one life of a host.
pub struct DiskVault {
    disk: Disk,
    life: u64,
}

impl DiskVault {
    /// Of the life that begins now.
    pub fn new(disk: &Disk) -> DiskVault {
        DiskVault { disk: disk.clone(), life: disk.life() }
    }
}

impl Vault for DiskVault {
    fn lock(&self) -> io::Result<Box<dyn Send>> {
        // A simulated host has one process, whose blocking work runs on the calling task: nobody else is in there.
        Ok(Box::new(()))
    }

    fn read(&self, paper: Paper) -> io::Result<Option<Vec<u8>>> {
        self.disk.read_paper(self.life, paper)
    }

    fn write(&self, paper: Paper, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_paper(self.life, paper, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Loss;
    use crate::trace::Trace;

    fn read(disk: &Disk) -> Option<Vec<u8>> {
        DiskVault::new(disk).read(Paper::Guard).unwrap()
    }

    #[test]
    fn what_is_written_stays_unless_the_disk_lies() {
        let disk = Disk::new("a", Trace::new(None));
        let vault = DiskVault::new(&disk);
        vault.write(Paper::Guard, b"one").unwrap();
        disk.crash(Loss::Unsynced);
        assert_eq!(read(&disk), Some(b"one".to_vec()));
        assert!(vault.write(Paper::Guard, b"two").is_err() && vault.read(Paper::Guard).is_err(), "its life is over");
        disk.lie(true);
        DiskVault::new(&disk).write(Paper::Guard, b"three").unwrap();
        disk.crash(Loss::Nothing);
        assert_eq!(read(&disk), Some(b"three".to_vec()), "the kernel has it");
        disk.crash(Loss::Unsynced);
        assert_eq!(read(&disk), Some(b"one".to_vec()));
    }

    #[test]
    fn power_that_goes_in_between_leaves_the_old_or_the_new() {
        for left in 0..6 {
            let disk = Disk::new("a", Trace::new(None));
            DiskVault::new(&disk).write(Paper::Guard, b"old").unwrap();
            disk.fail_after(left);
            let done = DiskVault::new(&disk).write(Paper::Guard, b"new").is_ok();
            disk.crash(Loss::Some(left));
            let there = read(&disk).unwrap();
            assert!(there == b"old" || there == b"new");
            assert!(!done || there == b"new", "what was said to be written is there, with {left} changes left");
        }
    }
}
