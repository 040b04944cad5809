//! Facts as bytes for the hash, and as lines for people.

use crate::invariants::{Fact, Name};
use mesh::identity::PeerKey;
use std::collections::BTreeMap;

/// What keys are called, as far as hosts have started.
pub type Keys = BTreeMap<PeerKey, Name>;

/// The host that a fact is about, if it is about one.
pub fn host(fact: &Fact) -> Option<&Name> {
    match fact {
        Fact::Started { host, .. }
        | Fact::Stopped { host }
        | Fact::Fit { host, .. }
        | Fact::Believes { host, .. }
        | Fact::Began { host, .. }
        | Fact::Spoke { host, .. }
        | Fact::Carried { host, .. }
        | Fact::Well { host, .. }
        | Fact::CutOff { host, .. }
        | Fact::Wiped { host } => Some(host),
        Fact::Accepted { .. } | Fact::Asked { .. } | Fact::Proposed { .. } | Fact::Ended { .. } => None,
    }
}

/// Everything of a fact but its host, for the hash; no formatting.
pub fn bytes(fact: &Fact, mut add: impl FnMut(&[u8])) {
    let mut number = |kind: u8, numbers: &[u64], keys: &[&PeerKey], names: &[&str]| {
        add(&[kind]);
        numbers.iter().for_each(|number| add(&number.to_le_bytes()));
        keys.iter().for_each(|key| add(key.as_bytes()));
        names.iter().for_each(|name| add(name.as_bytes()));
    };
    match fact {
        Fact::Started { key, start, .. } => number(0, &[*start], &[key], &[]),
        Fact::Stopped { .. } => number(1, &[], &[], &[]),
        Fact::Fit { fit, .. } => number(2, &[u64::from(*fit)], &[], &[]),
        Fact::Believes { of, state, .. } => number(3, &[*state as u64], &[of], &[]),
        Fact::Accepted { request, builds } => {
            number(4, &[*request, builds.len() as u64], &[], &[]);
            builds.iter().for_each(|build| number(4, &[build.0], &[], &[]));
        }
        Fact::Began { key, build, attempt, fence, .. } => {
            let fence = fence.map_or([0, 0, 0], |fence| [1, fence.epoch, fence.term]);
            number(5, &[build.0, u64::from(attempt.0), fence[0], fence[1], fence[2]], &[key], &[]);
        }
        Fact::Spoke { with, .. } => number(6, &[], &[with], &[]),
        Fact::Carried { key, named, order, fence, .. } => {
            number(7, &[*order, fence.epoch, fence.term], &[key, named], &[]);
        }
        Fact::Wiped { .. } => number(8, &[], &[], &[]),
        Fact::Asked { key, request, names } => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            number(9, &[*request, names.len() as u64], &[key], &names);
        }
        Fact::Proposed { key, fence, build, attempt, to } => {
            number(10, &[fence.epoch, fence.term, build.0, u64::from(attempt.0)], &[key, to], &[]);
        }
        Fact::Ended { key, build, attempt } => number(11, &[build.0, u64::from(attempt.0)], &[key], &[]),
        Fact::Well { well, .. } => number(12, &[u64::from(*well)], &[], &[]),
        Fact::CutOff { from, .. } => {
            let from: Vec<&str> = from.iter().map(|name| &**name).collect();
            number(13, &[from.len() as u64], &[], &from);
        }
    }
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
        Fact::Carried { named, order, fence, .. } => {
            format!("carries out order {order} for {}, fence {fence}", called(keys, named))
        }
        Fact::Wiped { .. } => "has lost what was on its disk".to_owned(),
        Fact::Asked { key, request, names } => {
            format!("{} asks for {} by request {request}", called(keys, key), names.join(" "))
        }
        Fact::Proposed { key, fence, build, attempt, to } => {
            let (key, to) = (called(keys, key), called(keys, to));
            format!("{key} puts forward {build} attempt {attempt} for {to}, fence {fence}")
        }
        Fact::Ended { key, build, attempt } => format!("{build} attempt {attempt} ends on {}", called(keys, key)),
        Fact::Well { well: true, .. } => "is well in itself".to_owned(),
        Fact::Well { well: false, .. } => "is not well in itself".to_owned(),
        Fact::CutOff { from, .. } if from.is_empty() => "reaches everybody".to_owned(),
        Fact::CutOff { from, .. } => format!("is cut off from {}", from.join(" ")),
    }
}
