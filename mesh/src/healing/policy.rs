//! The policy of healing: a value that lives in the ledger, the same for leader and voters.
//!
//! As text it is `key = value` lines, as `mesh policy` prints them. A key that is unknown, given twice or out of its
//! range is an error that names line, key and what is allowed; what is not given keeps its default. Some things are no
//! policy and cannot be set: one host at a time, two observers, two signing voters, a target's own veto.

use crate::blame::Rules;
use crate::limits::POLICY_BYTES_MAX;
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// How healing goes about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Policy {
    /// Whether anything is healed at all; 0 or 1.
    pub heal: u64,
    /// The share of the members that may be healed in a day, in percent; at least one host always may.
    pub budget_percent: u64,
    /// The least time between two steps on one host, in milliseconds; twice as much after each step of the last day.
    pub cool_ms: u64,
    /// What the time between two steps grows to at most, in milliseconds.
    pub cool_ms_max: u64,
    /// After so many restarts or reboots in a row that did not help, healing freezes.
    pub storm: u64,
    /// A freeze ends by itself after this time without a step, in milliseconds.
    pub quiet_ms: u64,
    /// How many distinct hosts must accuse one that is down.
    pub observers: u64,
    /// How long a host is set aside at most while no canary decides, in milliseconds.
    pub aside_ms: u64,
    /// How long an ordered restart may take until the host proves it, in milliseconds.
    pub proof_ms: u64,
    /// How long running builds may take to end before a restart, in milliseconds.
    pub grace_ms: u64,
    /// From when on somebody is to blame.
    pub blame: Rules,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            heal: 1,
            budget_percent: 20,
            cool_ms: 600_000,
            cool_ms_max: 24 * 3_600_000,
            storm: 3,
            quiet_ms: 3_600_000,
            observers: 2,
            aside_ms: 4 * 3_600_000,
            proof_ms: 900_000,
            grace_ms: 60_000,
            blame: Rules::default(),
        }
    }
}

/// Why a policy as text was refused. No policy was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PolicyError {
    /// Too much of it.
    #[error("a policy has at most {POLICY_BYTES_MAX} bytes")]
    TooLong,
    /// Not `key = value`.
    #[error("line {line}: `{text}` is not `key = value`")]
    NoPair {
        /// Which.
        line: usize,
        /// What it says.
        text: String,
    },
    /// Not a key.
    #[error("line {line}: there is no key `{key}`; the keys are {}", keys())]
    Unknown {
        /// Which.
        line: usize,
        /// What it says.
        key: String,
    },
    /// Given before.
    #[error("line {line}: `{key}` is given twice")]
    Twice {
        /// Which.
        line: usize,
        /// The key.
        key: String,
    },
    /// Not a value of this key.
    #[error("line {line}: {key} = `{value}`: {allowed} is allowed")]
    Value {
        /// Which.
        line: usize,
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// The range, in words.
        allowed: String,
    },
}

/// What a value counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    OnOff,
    Count,
    Percent,
    Time,
}

/// A key: its name, what it counts, what is allowed (times in milliseconds), and where it is.
struct Key {
    name: &'static str,
    unit: Unit,
    least: u64,
    most: u64,
    of: fn(&mut Policy) -> &mut u64,
}

const fn key(name: &'static str, unit: Unit, least: u64, most: u64, of: fn(&mut Policy) -> &mut u64) -> Key {
    Key { name, unit, least, most, of }
}

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

const KEYS: [Key; 17] = [
    key("heal", Unit::OnOff, 0, 1, |p| &mut p.heal),
    key("budget", Unit::Percent, 0, 50, |p| &mut p.budget_percent),
    key("cool-down", Unit::Time, MINUTE, DAY, |p| &mut p.cool_ms),
    key("cool-down-max", Unit::Time, MINUTE, 7 * DAY, |p| &mut p.cool_ms_max),
    key("storm", Unit::Count, 1, 10, |p| &mut p.storm),
    key("quiet", Unit::Time, 10 * MINUTE, DAY, |p| &mut p.quiet_ms),
    key("observers", Unit::Count, 2, 8, |p| &mut p.observers),
    key("aside", Unit::Time, 10 * MINUTE, 7 * DAY, |p| &mut p.aside_ms),
    key("proof", Unit::Time, MINUTE, HOUR, |p| &mut p.proof_ms),
    key("grace", Unit::Time, 0, crate::limits::GRACE_MS_MAX, |p| &mut p.grace_ms),
    key("blame-window", Unit::Time, 10 * MINUTE, 7 * DAY, |p| &mut p.blame.window_ms),
    key("blame-recent", Unit::Count, 3, 100, |p| &mut p.blame.recent),
    key("blame-packages", Unit::Count, 2, 50, |p| &mut p.blame.packages),
    key("fast", Unit::Time, 0, 10 * MINUTE, |p| &mut p.blame.fast_ms),
    key("fast-failures", Unit::Count, 2, 100, |p| &mut p.blame.fast_failures),
    key("rest", Unit::Time, 1_000, HOUR, |p| &mut p.blame.rest_ms),
    key("rest-max", Unit::Time, 1_000, DAY, |p| &mut p.blame.rest_ms_max),
];

fn keys() -> String {
    KEYS.map(|key| key.name).join(", ")
}

impl Key {
    fn show(&self, value: u64) -> String {
        match self.unit {
            Unit::OnOff => if value == 1 { "on" } else { "off" }.to_owned(),
            Unit::Count => value.to_string(),
            Unit::Percent => format!("{value}%"),
            Unit::Time => show_time(value),
        }
    }

    fn read(&self, text: &str) -> Option<u64> {
        let value = match self.unit {
            Unit::OnOff => match text {
                "on" => 1,
                "off" => 0,
                _ => return None,
            },
            Unit::Count => text.parse().ok()?,
            Unit::Percent => text.strip_suffix('%')?.trim_end().parse().ok()?,
            Unit::Time => read_time(text)?,
        };
        (self.least..=self.most).contains(&value).then_some(value)
    }

    fn allowed(&self) -> String {
        match self.unit {
            Unit::OnOff => "on or off".to_owned(),
            _ => format!("{} to {}", self.show(self.least), self.show(self.most)),
        }
    }
}

/// Units of time, the largest first.
const UNITS: [(&str, u64); 5] = [("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", 1_000), ("ms", 1)];

/// A time in its largest whole unit: `10m`, `90s`.
fn show_time(ms: u64) -> String {
    let whole = UNITS.iter().find(|(_, unit)| ms.is_multiple_of(*unit) && ms >= *unit);
    whole.map_or_else(|| "0s".to_owned(), |(name, unit)| format!("{}{name}", ms / unit))
}

fn read_time(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*unit)
}

impl Policy {
    /// What differs from another one, as `key = value` pairs.
    pub fn changes(&self, from: &Policy) -> String {
        let (mut new, mut old) = (*self, *from);
        let differs = KEYS.iter().filter_map(|key| {
            let value = *(key.of)(&mut new);
            (value != *(key.of)(&mut old)).then(|| format!("{} = {}", key.name, key.show(value)))
        });
        let changes: Vec<String> = differs.collect();
        if changes.is_empty() { "nothing is different".to_owned() } else { changes.join(", ") }
    }

    /// This policy with one value set, given as text.
    ///
    /// # Errors
    /// [`PolicyError`], of a policy of one line.
    pub fn with(&self, key: &str, value: &str) -> Result<Policy, PolicyError> {
        let asked: Policy = format!("{key} = {value}").parse()?;
        let (mut asked, mut policy) = (asked, *self);
        if let Some(key) = KEYS.iter().find(|known| known.name == key.trim()) {
            *(key.of)(&mut policy) = *(key.of)(&mut asked);
        }
        Ok(policy)
    }

    /// Whether every value is within its range: an entry from elsewhere may say anything.
    pub fn is_sound(&self) -> bool {
        let mut copy = *self;
        KEYS.iter().all(|key| (key.least..=key.most).contains((key.of)(&mut copy)))
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut copy = *self;
        KEYS.iter().try_for_each(|key| writeln!(f, "{} = {}", key.name, key.show(*(key.of)(&mut copy))))
    }
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Policy, PolicyError> {
        if text.len() > POLICY_BYTES_MAX {
            return Err(PolicyError::TooLong);
        }
        let mut policy = Policy::default();
        let mut given = BTreeSet::new();
        for (n, whole) in text.lines().enumerate() {
            let line = n + 1;
            let said = whole.split('#').next().unwrap_or_default().trim();
            if said.is_empty() {
                continue;
            }
            let Some((name, value)) = said.split_once('=').map(|(name, value)| (name.trim(), value.trim())) else {
                return Err(PolicyError::NoPair { line, text: said.to_owned() });
            };
            let Some(key) = KEYS.iter().find(|key| key.name == name) else {
                return Err(PolicyError::Unknown { line, key: name.to_owned() });
            };
            if !given.insert(key.name) {
                return Err(PolicyError::Twice { line, key: name.to_owned() });
            }
            let Some(read) = key.read(value) else {
                let (key, value, allowed) = (name.to_owned(), value.to_owned(), key.allowed());
                return Err(PolicyError::Value { line, key, value, allowed });
            };
            *(key.of)(&mut policy) = read;
        }
        Ok(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_policy_is_what_it_prints() {
        let text = Policy::default().to_string();
        assert!(text.starts_with("heal = on\nbudget = 20%\ncool-down = 10m\n"), "{text}");
        assert_eq!(text.parse(), Ok(Policy::default()));
        assert!(Policy::default().is_sound());
        let mended = "# night shift\nheal = off # for now\n\n cool-down=90s\n".parse::<Policy>().unwrap();
        assert_eq!(mended, Policy { heal: 0, cool_ms: 90_000, ..Policy::default() });
        assert_eq!("".parse(), Ok(Policy::default()));
    }

    #[test]
    fn errors_say_where_what_and_what_is_allowed() {
        let error = |text: &str| text.parse::<Policy>().unwrap_err().to_string();
        assert_eq!(error("heal"), "line 1: `heal` is not `key = value`");
        assert!(error("\nheel = on").starts_with("line 2: there is no key `heel`; the keys are heal, budget, "));
        assert_eq!(error("storm = 1\nstorm = 2"), "line 2: `storm` is given twice");
        assert_eq!(error("heal = yes"), "line 1: heal = `yes`: on or off is allowed");
        assert_eq!(error("budget = 20"), "line 1: budget = `20`: 0% to 50% is allowed");
        assert_eq!(error("budget = 100%"), "line 1: budget = `100%`: 0% to 50% is allowed");
        assert_eq!(error("observers = 1"), "line 1: observers = `1`: 2 to 8 is allowed");
        assert_eq!(error("cool-down = 1s"), "line 1: cool-down = `1s`: 1m to 1d is allowed");
        assert_eq!(error("quiet = 99999999999999999d"), "line 1: quiet = `99999999999999999d`: 10m to 1d is allowed");
        assert_eq!(error(&"#".repeat(POLICY_BYTES_MAX + 1)), "a policy has at most 8192 bytes");
        let unsound = Policy { observers: 1, ..Policy::default() };
        assert!(!unsound.is_sound());
    }

    #[test]
    fn one_value_is_set_and_what_differs_is_said() {
        let set = Policy::default().with("storm", "2").unwrap().with(" heal ", "off").unwrap();
        assert_eq!(set, Policy { storm: 2, heal: 0, ..Policy::default() });
        assert_eq!(set.changes(&Policy::default()), "heal = off, storm = 2");
        assert_eq!(set.changes(&set), "nothing is different");
        for (key, value) in [("heel", "on"), ("heal", "yes"), ("heal", "on\nstorm = 1"), ("", "")] {
            assert!(set.with(key, value).is_err() || set.with(key, value) == Ok(Policy { heal: 1, ..set }), "{key}");
        }
        assert!(set.with("storm\nheal", "off").is_err());
    }

    proptest! {
        #[test]
        fn every_sound_policy_survives_its_text(numbers in prop::collection::vec(any::<u64>(), KEYS.len())) {
            let mut policy = Policy::default();
            for (key, number) in KEYS.iter().zip(numbers) {
                *(key.of)(&mut policy) = key.least + number % (key.most - key.least + 1);
            }
            prop_assert!(policy.is_sound());
            prop_assert_eq!(policy.to_string().parse(), Ok(policy));
        }

        #[test]
        fn noise_is_an_error_or_a_sound_policy(text in ".{0,200}") {
            if let Ok(policy) = text.parse::<Policy>() {
                prop_assert!(policy.is_sound());
            }
        }
    }
}
