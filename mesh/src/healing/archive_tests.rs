use super::*;
use crate::healing::{Author, Clear, Denied, Entry};
use crate::identity::Keys;
use crate::lease::Fence;
use crate::mutants::{Mutant, with};

const MESH: MeshId = MeshId([9; 32]);
const DAY: u64 = 24 * 3_600_000;

fn author(leads: bool) -> Author {
    let leads = leads.then_some(Fence { epoch: 0, term: 1 });
    Author { key: Keys::from_seed([1; 32]).key(), signer: true, leads }
}

/// A record with so many lines, a minute apart.
fn record(lines: usize) -> Record {
    let mut record = Record::default();
    for n in 0..lines {
        let clear = Entry::Clear(Clear { host: None, why: format!("line {n}") });
        record.apply(clear, &author(false), MESH, n as u64 * 60_000).unwrap();
    }
    record
}

fn put_away(record: &mut Record, now_ms: u64) -> Option<Vec<u8>> {
    let archive = due(record, MESH, now_ms)?;
    record.apply(Entry::Archive(archive), &author(true), MESH, now_ms).unwrap();
    Some(record.take_put_away().pop().expect("its bytes"))
}

fn texts(chapter: &Chapter) -> Vec<&str> {
    chapter.lines.iter().map(|line| line.text.as_str()).collect()
}

#[test]
fn what_is_old_is_put_away_and_the_rest_stays() {
    let mut old = record(10);
    assert_eq!(due(&old, MESH, AUDIT_MS_MAX), None, "ninety days are kept");
    let now = AUDIT_MS_MAX + 3 * 60_000 + 1;
    let bytes = put_away(&mut old, now).unwrap();
    assert_eq!(old.audit().lines().count(), 6);
    let part = *old.parts().iter().next().unwrap();
    assert_eq!((part.first_ms, part.last_ms, part.lines), (0, 180_000, 4));
    let chapter = read_part(&bytes, part.blob, MESH).unwrap();
    assert_eq!((texts(&chapter), chapter.before), (vec!["line 0", "line 1", "line 2", "line 3"], None));
    assert_eq!(due(&old, MESH, now), None, "once");
    assert!(old.take_put_away().is_empty(), "given once");
}

/// Nothing of the trail is lost, however much happens: the chain and what is kept have every line, in order.
#[test]
fn the_chain_and_what_is_kept_have_every_line() {
    let mut record = Record::default();
    let mut blobs = std::collections::BTreeMap::new();
    for n in 0..3 * AUDIT_LINES_MAX {
        let now = n as u64 * 60_000;
        let clear = Entry::Clear(Clear { host: None, why: format!("line {n}") });
        record.apply(clear, &author(false), MESH, now).unwrap();
        if let Some(bytes) = put_away(&mut record, now) {
            blobs.insert(BlobId::of(&bytes), bytes);
        }
        assert!(record.audit().lines().count() < AUDIT_LINES_MAX);
    }
    let mut all: Vec<String> = record.audit().lines().map(|line| line.text.clone()).collect();
    let mut next = record.parts().iter().next_back().map(|part| part.blob);
    while let Some(blob) = next {
        let chapter = read_part(&blobs[&blob], blob, MESH).unwrap();
        all.splice(0..0, chapter.lines.iter().map(|line| line.text.clone()));
        next = chapter.before;
    }
    let want: Vec<String> = (0..3 * AUDIT_LINES_MAX).map(|n| format!("line {n}")).collect();
    assert_eq!(all, want);
}

#[test]
fn a_leader_that_puts_something_else_away_is_refused() {
    let mut record = record(10);
    let now = AUDIT_MS_MAX + 5 * 60_000;
    let good = due(&record, MESH, now).unwrap();
    let refused = |record: &mut Record, archive: Archive, author: Author| {
        let before = record.clone();
        let denied = record.apply(Entry::Archive(archive), &author, MESH, now).unwrap_err();
        assert_eq!(*record, before, "nothing is changed");
        denied
    };
    assert_eq!(refused(&mut record, good, author(false)), Denied::NotLeader);
    for bad in [
        Archive { lines: good.lines + 1, ..good },
        Archive { lines: 0, ..good },
        Archive { lines: u64::MAX, ..good },
        Archive { blob: BlobId([1; 32]), ..good },
    ] {
        assert_eq!(refused(&mut record, bad, author(true)), Denied::OtherPart, "{bad:?}");
    }
    // What is not old yet stays, though its bytes be right.
    let early = due(&record, MESH, now + DAY).unwrap();
    assert_eq!(refused(&mut record, early, author(true)), Denied::OtherPart);
    let lie = Archive { blob: BlobId([1; 32]), ..good };
    let naive = with(Some(Mutant::ArchiveUnchecked), || record.apply(Entry::Archive(lie), &author(true), MESH, now));
    assert_eq!(naive, Ok(()), "four lines are gone, and nobody can read them");
}

#[test]
fn bytes_that_were_changed_or_are_anothers_are_no_part() {
    let mut record = record(10);
    let bytes = put_away(&mut record, AUDIT_MS_MAX + 5 * 60_000).unwrap();
    let blob = BlobId::of(&bytes);
    for at in [0, bytes.len() / 2, bytes.len() - 1] {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        assert_eq!(read_part(&bad, blob, MESH), Err(PartError::OtherBytes(blob)));
    }
    assert_eq!(read_part(&bytes, blob, MeshId([8; 32])), Err(PartError::OtherMesh));
    assert!(matches!(read_part(b"x", BlobId::of(b"x"), MESH), Err(PartError::Malformed(_))));
    // A snapshot keeps the parts; one of before has none.
    let again: Record = ciborium::from_reader(&crate::wire::encode(&record)[..]).unwrap();
    assert_eq!(again.parts(), record.parts());
}
