//! Which host a person means. Nothing is guessed: what fits no host, or more than one, is an error that lists the
//! names near it.

use super::Inner;
use crate::api::types::ApiError;
use mesh::identity::PeerKey;
use std::time::{Duration, UNIX_EPOCH};

/// Names that an error lists.
const NEAR_MAX: usize = 5;
/// The end of a peer id that says enough, as logs and warnings show it (eight characters) or a little less.
const PEER_END_MIN: usize = 6;

/// Why a text names no host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unfound {
    /// None is called so; these names are near.
    Nobody(Vec<String>),
    /// It fits all of these.
    Several(Vec<String>),
}

/// The host of this name, of this peer id, or whose peer id alone ends so.
pub(super) fn resolve(hosts: &[(&PeerKey, &str)], said: &str) -> Result<PeerKey, Unfound> {
    if let Some((peer, _)) = hosts.iter().find(|(_, name)| *name == said) {
        return Ok(**peer);
    }
    let ends = |peer: &PeerKey| said.len() >= PEER_END_MIN && peer.to_string().ends_with(said);
    let fitting: Vec<_> = hosts.iter().filter(|(peer, _)| ends(peer)).collect();
    match &fitting[..] {
        [] => {}
        [(peer, _)] => return Ok(**peer),
        several => return Err(Unfound::Several(several.iter().map(|(_, name)| (*name).to_owned()).collect())),
    }
    let mut near: Vec<(usize, &str)> =
        hosts.iter().filter_map(|(_, name)| distance(name, said).map(|far| (far, *name))).collect();
    near.sort_unstable();
    Err(Unfound::Nobody(near.into_iter().take(NEAR_MAX).map(|(_, name)| name.to_owned()).collect()))
}

/// How far a name is from what was said, when it may have been meant: 0 but for the case of letters, 1 when one begins
/// with the other, 2 when one holds the other, beyond that by letters that differ.
fn distance(name: &str, said: &str) -> Option<usize> {
    let (name, said) = (name.to_ascii_lowercase(), said.to_ascii_lowercase());
    if said.is_empty() {
        return None;
    }
    if name == said {
        return Some(0);
    }
    let edits = edits(name.as_bytes(), said.as_bytes());
    let allowed = name.len().max(said.len()).div_ceil(3);
    match () {
        () if name.starts_with(&said) || said.starts_with(&name) => Some(1),
        () if name.contains(&said) || said.contains(&name) => Some(2),
        () => (edits <= allowed).then_some(2 + edits),
    }
}

/// Levenshtein's distance (1966).
fn edits(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let best = (corner + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = std::mem::replace(&mut row[j + 1], best);
        }
    }
    row[b.len()]
}

impl Inner {
    /// The enrolled host that a person means.
    ///
    /// # Errors
    /// When none or several fit: with the names near it, and who took it out when it was one of us.
    pub(super) fn find_host(&self, said: &str) -> Result<PeerKey, ApiError> {
        let (found, gone) = self.shared.with(|l| {
            let roster = l.roster();
            let hosts: Vec<_> = roster.members().map(|(peer, m)| (peer, m.name.as_str())).collect();
            let found = resolve(&hosts, said);
            let gone = roster
                .all_revoked()
                .filter(|(peer, r)| r.name == said || peer.to_string() == said)
                .max_by_key(|(_, r)| r.at_ms)
                .map(|(_, r)| {
                    let by = roster.member(&r.by).map_or_else(|| r.by.short(), |m| m.name.clone());
                    (by, r.reason.clone(), r.at_ms)
                });
            (found, gone)
        });
        let unfound = match found {
            Ok(peer) => return Ok(peer),
            Err(unfound) => unfound,
        };
        let shown = crate::config::shorten(said);
        Err(match (unfound, gone) {
            (Unfound::Several(names), _) => {
                ApiError::conflict(format!("`{shown}` fits {}", names.join(" and "))).hint("use the host's name")
            }
            (Unfound::Nobody(_), Some((by, reason, at_ms))) => {
                let at = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(at_ms));
                ApiError::not_found(format!("`{shown}` is no longer enrolled: {by} took it out on {at} ({reason})"))
                    .hint(format!("`mesh invite {shown}` lets a host of that name in again"))
            }
            (Unfound::Nobody(near), None) => {
                let hint = match near.is_empty() {
                    true => "`mesh status` lists the hosts".to_owned(),
                    false => format!("did you mean {}? `mesh status` lists the hosts", near.join(" or ")),
                };
                ApiError::not_found(format!("no host `{shown}` is enrolled")).hint(hint)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::identity::Keys;

    fn said(names: &[&str], said: &str) -> Result<usize, Unfound> {
        let keys: Vec<PeerKey> = (0..names.len()).map(|n| Keys::from_seed([n as u8 + 1; 32]).key()).collect();
        let hosts: Vec<_> = keys.iter().zip(names.iter().copied()).collect();
        let found = resolve(&hosts, said)?;
        Ok(keys.iter().position(|key| *key == found).expect("one of them"))
    }

    fn near(names: &[&str], what: &str) -> Vec<String> {
        match said(names, what) {
            Err(Unfound::Nobody(near)) => near,
            other => panic!("{what}: {other:?}"),
        }
    }

    #[test]
    fn a_name_or_a_key_names_one_host() {
        let names = ["alpha", "beta"];
        assert_eq!(said(&names, "beta"), Ok(1));
        let key = Keys::from_seed([2; 32]).key();
        assert_eq!(said(&names, &key.to_string()), Ok(1));
        assert_eq!(said(&names, &key.short()), Ok(1), "as logs show it");
        assert_eq!(near(&names, &key.short()[5..]), Vec::<String>::new(), "three characters are too few");
    }

    #[test]
    fn nothing_is_guessed_and_what_is_near_is_listed() {
        let names = ["alpha", "alto", "Izar", "drone-Tarn", "drone-Lira"];
        assert_eq!(near(&names, "al"), ["alpha", "alto"]);
        assert_eq!(near(&names, "izar"), ["Izar"], "another case is another name");
        assert_eq!(near(&names, "alhpa"), ["alpha"]);
        assert_eq!(near(&names, "Tarn"), ["drone-Tarn"]);
        assert_eq!(near(&names, "drone"), ["drone-Lira", "drone-Tarn"]);
        assert_eq!(near(&names, "Alpha-Centauri"), ["alpha"]);
        assert_eq!(near(&names, "zzz"), Vec::<String>::new());
        assert_eq!(near(&names, ""), Vec::<String>::new());
        assert_eq!(near(&["a"; 30], "b").len(), NEAR_MAX);
    }

    #[test]
    fn what_fits_two_is_said_to() {
        // Two names of one key cannot be; two keys of one ending can, so the list decides, not the key.
        let key = Keys::from_seed([1; 32]).key();
        let hosts = [(&key, "alpha"), (&key, "beta")];
        let both = vec!["alpha".to_owned(), "beta".to_owned()];
        assert_eq!(resolve(&hosts, &key.short()), Err(Unfound::Several(both)));
    }

    #[test]
    fn edits_are_counted() {
        for (a, b, want) in [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("flaw", "lawn", 2)] {
            assert_eq!(edits(a.as_bytes(), b.as_bytes()), want, "{a} {b}");
        }
    }
}
