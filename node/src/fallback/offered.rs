//! `mesh-guard authkeys`: which keys the guard's sshd lets in, and to what. Those of voters and of signers, as far as this
//! host knows them without its daemon; each may run `mesh-guard run` and nothing else. Prints a line or none, and writes
//! nothing: whoever gets in still has to bring a warrant.

use data_encoding::BASE64;
use mesh::identity::PeerKey;
use mesh::warrant::Known;

/// OpenSSH's name of the one kind of key that is a host's.
pub const KIND: &str = "ssh-ed25519";

/// The key that a client offers, from what sshd gives as `%t` and `%k`.
pub fn key_of(kind: &str, base64: &str) -> Option<PeerKey> {
    if kind != KIND || base64.len() > 128 {
        return None;
    }
    // RFC 8709, 4: two strings, each with its length before it.
    let blob = BASE64.decode(base64.as_bytes()).ok()?;
    let (name, key) = blob.split_at_checked(4 + KIND.len())?;
    let named = name == [&(KIND.len() as u32).to_be_bytes()[..], KIND.as_bytes()].concat();
    let key: [u8; 32] = key.strip_prefix(&32u32.to_be_bytes()[..])?.try_into().ok()?;
    let key = PeerKey::from_bytes(key);
    (named && key.is_strong()).then_some(key)
}

/// A key as OpenSSH writes it.
pub fn base64_of(key: &PeerKey) -> String {
    let name = [&(KIND.len() as u32).to_be_bytes()[..], KIND.as_bytes()].concat();
    BASE64.encode(&[&name[..], &32u32.to_be_bytes(), key.as_bytes()].concat())
}

/// Whether a key may bring orders, as far as this host knows.
pub fn may_bring(known: &Known, key: &PeerKey) -> bool {
    let votes = known.voters().voters().contains(key) && !known.is_revoked(key);
    votes || known.is_signer(key)
}

/// The line for sshd. Program and folder come from sshd's own configuration, which holds no characters that would need
/// quoting.
pub fn line(program: &str, folder: &str, key: &PeerKey) -> String {
    format!("restrict,command=\"{program} run --dir {folder} --peer {key}\" {KIND} {}", base64_of(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::fixture;
    use mesh::identity::Keys;
    use mesh::ledger::Ledger;

    #[test]
    fn a_key_is_read_as_openssh_writes_it_and_nothing_else_is() {
        let key = Keys::from_seed([1; 32]).key();
        let text = base64_of(&key);
        let theirs = russh::keys::ssh_key::PublicKey::from_openssh(&format!("{KIND} {text}")).unwrap();
        assert_eq!(theirs.key_data().ed25519().unwrap().0, *key.as_bytes());
        assert_eq!(key_of(KIND, &text), Some(key));
        assert_eq!(key_of("ssh-rsa", &text), None);
        for bad in ["", "AAAA", &text[..text.len() - 4], &format!("{text}AAAA"), "!!!!", &"A".repeat(4_000)] {
            assert_eq!(key_of(KIND, bad), None, "{bad}");
        }
        assert_eq!(key_of(KIND, &base64_of(&PeerKey::from_bytes([0; 32]))), None, "a weak key is nobody's");
    }

    #[test]
    fn only_who_may_bring_orders_is_let_in() {
        let (founder, other) = (Keys::from_seed([1; 32]), Keys::from_seed([2; 32]));
        let known = Known::of(&Ledger::found(&fixture::genesis(&founder)).unwrap());
        assert!(may_bring(&known, &founder.key()));
        assert!(!may_bring(&known, &other.key()));
        let line = line("/p/mesh-guard", "/var/lib/mesh", &founder.key());
        assert!(line.starts_with("restrict,command=\"/p/mesh-guard run --dir /var/lib/mesh --peer 12D3Koo"), "{line}");
        assert!(line.ends_with(&format!("\" {KIND} {}", base64_of(&founder.key()))), "{line}");
    }
}
