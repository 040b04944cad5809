//! Numbers from a seed, the same on every machine.
//!
//! SplitMix64 (Steele, Lea & Flood, OOPSLA 2014) over a hash of seed and label. It asks nothing of the
//! system and of no other crate's generator, so that a plan stays the same when dependencies change.

/// A source of numbers.
pub struct Dice(u64);

impl Dice {
    /// The source of a seed for one purpose.
    pub fn new(seed: u64, label: &str) -> Dice {
        let hash = crate::det::derive(seed, label, 0);
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        Dice(u64::from_le_bytes(first))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to `end`, without it; 0 when `end` is. Lemire's product: as even as 64 bits allow.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.number()) * u128::from(end)) >> 64) as u64
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// One of them; none when there is none.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len() as u64) as usize)
    }

    /// Brings them into any order (Fisher & Yates).
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for n in (1..all.len()).rev() {
            all.swap(n, self.below(n as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed apart from this code, from the published algorithm: a change of it would change every plan.
    #[test]
    fn the_numbers_are_those_of_the_published_algorithm() {
        let mut dice = Dice(0);
        let first: Vec<u64> = (0..3).map(|_| dice.number()).collect();
        assert_eq!(first, [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4, 0x06C4_5D18_8009_454F]);
    }

    #[test]
    fn every_number_of_a_range_comes_about_as_often() {
        let mut dice = Dice::new(1, "test");
        let mut counts = [0; 7];
        for _ in 0..70_000 {
            counts[dice.between(3, 9) as usize - 3] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
        assert_eq!(dice.below(0), 0);
        assert_eq!(dice.one::<u8>(&[]), None);
    }
}
