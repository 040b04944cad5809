//! Small parts of the bare event loop: its one source of randomness, its queue, a machine's clocks.

use mesh::time::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Wall clock of all machines when a simulation begins, in milliseconds since 1970.
pub const WALL_MS: u64 = 1_767_225_600_000;

/// All randomness of a simulation: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.draw() % n.max(1)
    }

    /// Whether something of so many in a hundred happens.
    pub fn percent(&mut self, percent: u32) -> bool {
        percent > 0 && self.below(100) < u64::from(percent)
    }
}

struct Due<E> {
    at: u64,
    count: u64,
    event: E,
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.count) == (other.at, other.count)
    }
}
impl<E> Eq for Due<E> {}
impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Due<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.count).cmp(&(other.at, other.count))
    }
}

/// Events by true time in microseconds, then by the order in which they were put in.
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<Due<E>>>,
    count: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Queue { heap: BinaryHeap::new(), count: 0 }
    }
}

impl<E> Queue<E> {
    /// Puts an event in.
    pub fn push(&mut self, at: u64, event: E) {
        self.count += 1;
        self.heap.push(Reverse(Due { at, count: self.count, event }));
    }

    /// Takes the next event out, when it is due by `until`.
    pub fn pop_by(&mut self, until: u64) -> Option<(u64, E)> {
        if self.heap.peek()?.0.at > until {
            return None;
        }
        self.heap.pop().map(|Reverse(due)| (due.at, due.event))
    }
}

/// The clocks of a machine: one that only runs on (and may run fast or slow), and the wall clock beside it.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    base_true: u64,
    base_own: u64,
    ppm: i64,
    /// How far somebody has set the wall clock.
    pub wall_ms: i64,
}

impl Clock {
    /// The monotonic clock at a true time, in microseconds.
    pub fn own(&self, now: u64) -> Time {
        let passed = i128::from(now.saturating_sub(self.base_true)) * i128::from(1_000_000 + self.ppm) / 1_000_000;
        Time::from_micros(self.base_own + passed as u64)
    }

    /// The first true time at which the monotonic clock shows at least this.
    pub fn when(&self, own: Time) -> u64 {
        let left = i128::from(own.as_micros().saturating_sub(self.base_own)) * 1_000_000;
        let rate = i128::from(1_000_000 + self.ppm);
        self.base_true + ((left + rate - 1) / rate) as u64
    }

    /// From now on it runs faster or slower.
    pub fn set_rate(&mut self, now: u64, ppm: i64) {
        let own = self.own(now).as_micros();
        *self = Clock { base_true: now, base_own: own, ppm, wall_ms: self.wall_ms };
    }

    /// Whether both clocks are right, but for what a person would not notice.
    pub fn is_right(&self) -> bool {
        self.ppm == 0 && self.wall_ms.abs() < 1_000
    }

    /// The wall clock, in milliseconds since 1970.
    pub fn wall(&self, now: u64) -> u64 {
        (WALL_MS + self.own(now).as_millis()).saturating_add_signed(self.wall_ms)
    }
}

/// Microseconds of a duration.
pub fn us(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_and_its_inverse_agree_at_any_rate() {
        for ppm in [-50_000, 0, 300, 50_000] {
            let mut clock = Clock::default();
            clock.set_rate(7_000_000, ppm);
            for own in [7_000_001, 8_123_457, 99_000_000] {
                let at = clock.when(Time::from_micros(own));
                assert!(clock.own(at).as_micros() >= own, "{ppm}");
                assert!(clock.own(at - 1).as_micros() < own + 1, "{ppm}");
            }
        }
    }

    #[test]
    fn events_of_one_time_come_in_the_order_in_which_they_were_put_in() {
        let mut queue = Queue::default();
        for (at, event) in [(5, 'c'), (3, 'a'), (5, 'd'), (3, 'b'), (9, 'e')] {
            queue.push(at, event);
        }
        let mut out = String::new();
        while let Some((_, event)) = queue.pop_by(8) {
            out.push(event);
        }
        assert_eq!(out, "abcd");
    }
}
