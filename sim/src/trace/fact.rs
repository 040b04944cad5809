//! Facts as bytes for the hash, and as lines for people.

use crate::invariants::{Fact, Name};
use mesh::identity::PeerKey;
use std::collections::BTreeMap;

/// What keys are called, as far as hosts have started.
pub type Keys = BTreeMap<PeerKey, Name>;

/// The host that a fact is about, if it is about one that is known.
pub fn host<'a>(fact: &'a Fact, keys: &'a Keys) -> Option<&'a Name> {
    match fact {
        Fact::Started { host, .. }
        | Fact::Stopped { host }
        | Fact::Fit { host, .. }
        | Fact::Believes { host, .. }
        | Fact::Began { host, .. }
        | Fact::Spoke { host, .. }
        | Fact::Greeted { host, .. }
        | Fact::Refused { host, .. }
        | Fact::Ordered { host, .. }
        | Fact::Given { host, .. }
        | Fact::SetAside { host, .. }
        | Fact::LetBack { host, .. }
        | Fact::Well { host, .. }
        | Fact::CutOff { host, .. }
        | Fact::Wiped { host } => Some(host),
        Fact::Asked { key, .. } | Fact::Proposed { key, .. } | Fact::Ended { key, .. } => keys.get(key),
        Fact::Carried(deed) => Some(&deed.host),
        Fact::Signed(signature) => keys.get(&signature.by),
        Fact::SignedBlindly { by, .. } => keys.get(by),
        Fact::Lied { about, .. } => keys.get(about),
        Fact::Accepted { .. } | Fact::Held { .. } | Fact::Recovered { .. } => None,
    }
}

/// Everything of a fact but its host, for the hash; no formatting.
pub fn bytes(fact: &Fact, add: &mut dyn FnMut(&[u8])) {
    match fact {
        Fact::Started { key, start, .. } => number(add, 0, &[*start], &[key]),
        Fact::Stopped { .. } => number(add, 1, &[], &[]),
        Fact::Fit { fit, .. } => number(add, 2, &[u64::from(*fit)], &[]),
        Fact::Believes { of, state, .. } => number(add, 3, &[*state as u64], &[of]),
        Fact::Accepted { request, builds } => {
            number(add, 4, &[*request, builds.len() as u64], &[]);
            builds.iter().for_each(|build| number(add, 4, &[build.0], &[]));
        }
        Fact::Began { key, build, attempt, fence, .. } => {
            let fence = fence.map_or([0, 0, 0], |fence| [1, fence.epoch, fence.term]);
            number(add, 5, &[build.0, u64::from(attempt.0), fence[0], fence[1], fence[2]], &[key]);
        }
        Fact::Spoke { with, .. } => number(add, 6, &[], &[with]),
        Fact::Carried(deed) => {
            let fence = deed.order.fence;
            number(add, 7, &[fence.epoch, fence.term, deed.life.start], &[&deed.key, &deed.order.target]);
            add(&deed.hash.0);
        }
        Fact::Signed(signature) => {
            number(add, 14, &[signature.epoch], &[&signature.by, &signature.greeter]);
            add(&signature.hash.0);
            add(&signature.hello.nonce);
        }
        Fact::SignedBlindly { by, order, nonce, epoch } => {
            number(add, 22, &[*epoch], &[by]);
            add(&order.0);
            add(nonce);
        }
        Fact::Greeted { highest, .. } => number(add, 15, &[highest.epoch, highest.term], &[]),
        Fact::Refused { refusal, .. } => {
            number(add, 16, &[], &[]);
            add(refusal.to_string().as_bytes());
        }
        Fact::Given { against, .. } => number(add, 20, &[u64::from(against.is_some())], &[]),
        Fact::Held { package, against } => {
            number(add, 21, &[u64::from(against.is_some())], &[]);
            add(package.as_bytes());
        }
        Fact::Lied { about, ends } => number(add, 19, &[u64::from(*ends)], &[about]),
        Fact::Ordered { against, .. } => number(add, 17, &[u64::from(against.is_some())], &[]),
        Fact::SetAside { ails, against, .. } => {
            number(add, 18, &[u64::from(*ails), u64::from(against.is_some())], &[]);
        }
        Fact::LetBack { against, .. } => number(add, 23, &[u64::from(against.is_some())], &[]),
        Fact::Recovered { by_owner, fence, above } => {
            let fence = fence.map_or([0, 0, 0], |fence| [1, fence.epoch, fence.term]);
            number(add, 24, &[u64::from(*by_owner), fence[0], fence[1], fence[2], above.epoch, above.term], &[]);
        }
        Fact::Wiped { .. } => number(add, 8, &[], &[]),
        Fact::Asked { key, request, names } => {
            number(add, 9, &[*request, names.len() as u64], &[key]);
            for name in names {
                add(&(name.len() as u64).to_le_bytes());
                add(name.as_bytes());
            }
        }
        Fact::Proposed { key, fence, build, attempt, to } => {
            number(add, 10, &[fence.epoch, fence.term, build.0, u64::from(attempt.0)], &[key, to]);
        }
        Fact::Ended { key, build, attempt } => number(add, 11, &[build.0, u64::from(attempt.0)], &[key]),
        Fact::Well { well, .. } => number(add, 12, &[u64::from(*well)], &[]),
        Fact::CutOff { from, .. } => {
            number(add, 13, &[from.len() as u64], &[]);
            for name in from {
                add(&(name.len() as u64).to_le_bytes());
                add(name.as_bytes());
            }
        }
    }
}

/// A fact's kind, numbers and keys.
fn number(add: &mut dyn FnMut(&[u8]), kind: u8, numbers: &[u64], keys: &[&PeerKey]) {
    add(&[kind]);
    numbers.iter().for_each(|number| add(&number.to_le_bytes()));
    keys.iter().for_each(|key| add(key.as_bytes()));
}

/// A key by its host's name, or by its own first characters.
pub fn called(keys: &Keys, key: &PeerKey) -> String {
    keys.get(key).map_or_else(|| key.short(), |name| name.to_string())
}

/// A fact in words, without its host.
pub fn text(fact: &Fact, keys: &Keys) -> String {
    match fact {
        Fact::Started { key, start, .. } => format!("starts for the {start}. time, key {}", key.short()),
        Fact::Stopped { .. } => "stops".to_owned(),
        Fact::Fit { fit: true, .. } => "is fit: healthy and reachable".to_owned(),
        Fact::Fit { fit: false, .. } => "is not fit".to_owned(),
        Fact::Believes { of, state, .. } => format!("believes {} {state}", called(keys, of)),
        Fact::Accepted { request, builds } => {
            let builds: Vec<String> = builds.iter().map(ToString::to_string).collect();
            format!("request {request} is accepted as {}", builds.join(" "))
        }
        Fact::Began { key, build, attempt, fence, host } => {
            let copy = if keys.get(key).is_none_or(|name| name == host) { "" } else { " with another's key" };
            let fence = fence.map_or(String::new(), |fence| format!(", fence {fence}"));
            format!("begins {build} attempt {attempt}{fence}{copy}")
        }
        Fact::Spoke { with, .. } => format!("speaks with {}", called(keys, with)),
        Fact::Carried(deed) => {
            let (order, named) = (&deed.order, called(keys, &deed.order.target));
            format!("carries out {} for {named}: a {}, fence {}: {}", order.id, order.act, order.fence, order.reason)
        }
        Fact::Signed(signature) => {
            let order = &signature.order;
            format!("signs {} for a hello of {}", order.id, called(keys, &signature.greeter))
        }
        Fact::SignedBlindly { .. } => "signs an order without looking".to_owned(),
        Fact::Refused { refusal, .. } => format!("does nothing: {refusal}"),
        Fact::Ordered { against: None, .. } => "is ordered about by the leader".to_owned(),
        Fact::Ordered { against: Some(what), .. } => format!("is ordered about by the leader, though {what}"),
        Fact::Lied { .. } => "is lied about".to_owned(),
        Fact::Given { .. } => "is given a build".to_owned(),
        Fact::Held { package, .. } => format!("{package} is held to be broken"),
        Fact::SetAside { .. } => "is set aside by the leader".to_owned(),
        Fact::LetBack { .. } => "is let back by the leader".to_owned(),
        Fact::Recovered { by_owner, .. } => {
            format!("the mesh is recovered by {}", if *by_owner { "its owner" } else { "somebody without its key" })
        }
        Fact::Greeted { highest, .. } => format!("says hello to who brings an order, highest fence {highest}"),
        Fact::Wiped { .. } => "has lost what was on its disk".to_owned(),
        Fact::Asked { request, names, .. } => format!("its owner asks for request {request}: {}", names.join(" ")),
        Fact::Proposed { fence, build, attempt, to, .. } => {
            format!("proposes {build} attempt {attempt} for {}, fence {fence}", called(keys, to))
        }
        Fact::Ended { build, attempt, .. } => format!("ends {build} attempt {attempt}"),
        Fact::Well { well, .. } => if *well { "is well in itself" } else { "is not well" }.to_owned(),
        Fact::CutOff { from, .. } if from.is_empty() => "is cut off from nobody".to_owned(),
        Fact::CutOff { from, .. } => format!("is cut off from {}", from.join(", ")),
    }
}
