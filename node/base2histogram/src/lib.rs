//! The API of `base2histogram` 0.2 as openraft uses it, without its tables.
//!
//! openraft counts the sizes of its batches in such histograms. The published crate makes lookup tables for sixteen
//! resolutions as soon as one histogram is made: 26 MiB of a daemon's memory, of which one table of 2 KiB is read. Here a
//! histogram has one bucket for each power of two and nothing beside it. Percentiles are therefore known up to a factor
//! of two; nothing in a daemon decides by them, and only openraft's own report (feature `runtime-stats`) shows them.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;

/// One for zero, and one for each length of a number in bits.
const BUCKETS: usize = u64::BITS as usize + 1;

/// How often values of each magnitude were seen.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Box<[u64; BUCKETS]>, // boxed: openraft's tasks hold a dozen of them, and are moved
    slots: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Histogram<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.percentile_stats(), f)
    }
}

impl<T> Histogram<T> {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Histogram { counts: Box::new([0; BUCKETS]), slots: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value as if seen `times` times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        let bucket = &mut self.counts[(u64::BITS - value.leading_zeros()) as usize];
        *bucket = bucket.saturating_add(times);
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The smallest value of the bucket in which the share `permille` of all values is reached.
    fn percentile(&self, permille: u64) -> u64 {
        let wanted = (u128::from(self.total()) * u128::from(permille)).div_ceil(1_000).max(1);
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += u128::from(*count);
            seen >= wanted
        });
        reached.and_then(|bits| bits.checked_sub(1)).map_or(0, |shift| 1 << shift)
    }

    /// The usual percentiles.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.percentile(1),
            p1: self.percentile(10),
            p5: self.percentile(50),
            p10: self.percentile(100),
            p50: self.percentile(500),
            p90: self.percentile(900),
            p99: self.percentile(990),
            p99_9: self.percentile(999),
        }
    }
}

/// Percentiles of a histogram, each up to a factor of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // each is its own name
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PercentileStats { samples, p50, p90, p99, .. } = self;
        write!(f, "[samples: {samples}, P50: {p50}, P90: {p90}, P99: {p99}]")
    }
}

/// Histograms below each other, one a line.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart {
    lines: Vec<String>,
}

impl AsciiChart {
    /// Nothing in it yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more line.
    #[allow(clippy::should_implement_trait)] // the published crate's name
    pub fn add(mut self, name: &str, histogram: Histogram) -> Self {
        self.lines.push(format!("{name}: {}", histogram.percentile_stats()));
        self
    }

    /// All that is known: the lines themselves.
    pub fn detailed(&self) -> &Self {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_up_to_a_factor_of_two() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!((histogram.total(), histogram.percentile_stats().p50), (0, 0));
        for value in 0..1_000 {
            histogram.record(value);
        }
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p0_1, stats.p50, stats.p99), (1_000, 0, 256, 512));
        for (exact, found) in [(49, stats.p5), (99, stats.p10), (499, stats.p50), (899, stats.p90), (998, stats.p99_9)]
        {
            assert!(found <= exact && exact < 2 * found, "{found} for {exact}");
        }
        histogram.record_n(u64::MAX, u64::MAX);
        assert_eq!(histogram.total(), u64::MAX);
        assert_eq!(histogram.percentile_stats().p50, 1 << 63);
    }

    /// cargo only warns when a patch is not used.
    #[test]
    fn openraft_uses_this_one() {
        let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock")).unwrap();
        let all: Vec<&str> =
            lock.split("[[package]]").filter(|p| p.contains("\nname = \"base2histogram\"\n")).collect();
        assert_eq!(all.len(), 1, "a dependency brings one of its own: {all:?}");
        assert!(
            all[0].contains(concat!("version = \"", env!("CARGO_PKG_VERSION"), "\"")),
            "raise the stand-in's version"
        );
        assert!(!all[0].contains("source = "), "the published one is used: {}", all[0]);
    }
}
