//! What became of the orders of a run, in numbers.

use std::collections::BTreeMap;
use std::fmt;

/// Counts of one run, or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Hosts that there were, copies included.
    pub hosts: u64,
    /// Orders by hand that stood in the ledger.
    pub by_hand: u64,
    /// Orders of a leader that stood in the ledger.
    pub leaders: u64,
    /// Orders that somebody forged, or bent.
    pub forged: u64,
    /// Old warrants that were brought again.
    pub replayed: u64,
    /// Deeds.
    pub acts: u64,
    /// Orders that came again to their target, which gave its receipt again and did nothing.
    pub again: u64,
    /// Refusals of targets, by name.
    pub refused: BTreeMap<String, u64>,
    /// Objections of voters and signers, by name.
    pub withheld: BTreeMap<String, u64>,
    /// Rules that held a step of healing back, by name.
    pub held: BTreeMap<String, u64>,
    /// Orders that the ledger did not take.
    pub unwritten: u64,
    /// Entries of liars that the ledger did not take.
    pub denied: u64,
    /// What befell hosts, by name.
    pub harm: BTreeMap<&'static str, u64>,
    /// Lies, by name.
    pub lies: BTreeMap<&'static str, u64>,
    /// How often each invariant had something to judge.
    pub judged: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// All orders.
    pub fn orders(&self) -> u64 {
        self.by_hand + self.leaders + self.forged + self.replayed
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Counts) {
        for (mine, theirs) in [
            (&mut self.hosts, other.hosts),
            (&mut self.by_hand, other.by_hand),
            (&mut self.leaders, other.leaders),
            (&mut self.forged, other.forged),
            (&mut self.replayed, other.replayed),
            (&mut self.acts, other.acts),
            (&mut self.again, other.again),
            (&mut self.unwritten, other.unwritten),
            (&mut self.denied, other.denied),
        ] {
            *mine += theirs;
        }
        other.refused.iter().for_each(|(name, n)| *self.refused.entry(name.clone()).or_default() += n);
        other.held.iter().for_each(|(name, n)| *self.held.entry(name.clone()).or_default() += n);
        other.withheld.iter().for_each(|(name, n)| *self.withheld.entry(name.clone()).or_default() += n);
        for (mine, theirs) in
            [(&mut self.harm, &other.harm), (&mut self.lies, &other.lies), (&mut self.judged, &other.judged)]
        {
            theirs.iter().for_each(|(name, n)| *mine.entry(*name).or_default() += n);
        }
    }
}

/// The name of what something is, without what it says.
pub(super) fn kind(value: &impl fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { by_hand, leaders, forged, replayed, acts, again, unwritten, denied, hosts, .. } = self;
        writeln!(
            f,
            "orders    {}: {by_hand} by hand, {leaders} of leaders, {forged} forged, {replayed} replayed",
            self.orders()
        )?;
        writeln!(f, "hosts     {hosts}")?;
        writeln!(f, "acts      {acts}; {again} came again and did nothing")?;
        writeln!(f, "ledger    did not take {unwritten} orders and {denied} entries of liars")?;
        let list = |f: &mut fmt::Formatter<'_>, what: &str, all: Vec<(&str, u64)>| {
            let mut all = all;
            all.sort_by_key(|(name, n)| (std::cmp::Reverse(*n), *name));
            let sum: u64 = all.iter().map(|(_, n)| n).sum();
            let each: Vec<String> = all.iter().map(|(name, n)| format!("{name} {n}")).collect();
            writeln!(f, "{what:<9} {sum}: {}", each.join(", "))
        };
        list(f, "refused", self.refused.iter().map(|(name, n)| (name.as_str(), *n)).collect())?;
        list(f, "withheld", self.withheld.iter().map(|(name, n)| (name.as_str(), *n)).collect())?;
        list(f, "held back", self.held.iter().map(|(name, n)| (name.as_str(), *n)).collect())?;
        list(f, "lies", self.lies.iter().map(|(name, n)| (*name, *n)).collect())?;
        list(f, "harm", self.harm.iter().map(|(name, n)| (*name, *n)).collect())?;
        list(f, "judged", self.judged.iter().map(|(name, n)| (*name, *n)).collect())
    }
}
