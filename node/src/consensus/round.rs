//! Answers to one heartbeat, handed to openraft together.
//!
//! Voters answer a heartbeat within milliseconds of each other, and openraft gathers its metrics of all members anew
//! for each answer that it is told of by itself. So who has an answer waits for the others that were asked with it,
//! though never for long: one that is down holds nobody back. An answer counts from when its heartbeat was sent, so a lease
//! loses nothing by it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, timeout_at};

/// The present heartbeat. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Rounds(Arc<Mutex<Option<Round>>>);

struct Round {
    /// Nobody waits for longer.
    until: Instant,
    /// Who was asked and has neither an answer nor given up.
    open: usize,
    all_in: Arc<Notify>,
}

/// One question of a round.
pub(super) struct Ask {
    rounds: Rounds,
    until: Instant,
    all_in: Arc<Notify>,
}

impl Rounds {
    /// Joins the round that has begun no longer than `patience` ago, else begins one.
    pub fn ask(&self, patience: Duration) -> Ask {
        let now = Instant::now();
        let mut round = self.lock();
        let round = match &mut *round {
            Some(round) if now < round.until => round,
            other => other.insert(Round { until: now + patience, open: 0, all_in: Arc::default() }),
        };
        round.open += 1;
        Ask { rounds: self.clone(), until: round.until, all_in: round.all_in.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Round>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ask {
    /// Here is the answer: waits for those of the others.
    pub async fn answered(self) {
        let all_in = self.all_in.clone();
        let mut told = std::pin::pin!(all_in.notified());
        told.as_mut().enable(); // before this answer is counted: it may be the last
        let until = self.until;
        drop(self);
        let _ = timeout_at(until, told).await; // the others are late: this one goes on without them
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        let mut round = self.rounds.lock();
        if let Some(round) = round.as_mut().filter(|round| Arc::ptr_eq(&round.all_in, &self.all_in)) {
            round.open -= 1;
            if round.open == 0 {
                round.all_in.notify_waiters();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    /// Milliseconds after which each of these is let go on; `None` gives up at its time instead of answering.
    async fn let_go(answers: &[(u64, bool)]) -> Vec<u128> {
        let (rounds, begun) = (Rounds::default(), Instant::now());
        let asked: Vec<Ask> = answers.iter().map(|_| rounds.ask(PATIENCE)).collect();
        let one = |(asked, (after, well)): (Ask, &(u64, bool))| {
            let (after, well) = (Duration::from_millis(*after), *well);
            async move {
                tokio::time::sleep(after).await;
                if well {
                    asked.answered().await;
                }
                begun.elapsed().as_millis()
            }
        };
        futures::future::join_all(asked.into_iter().zip(answers).map(one)).await
    }

    #[tokio::test(start_paused = true)]
    async fn all_go_on_with_the_last() {
        assert_eq!(let_go(&[(3, true), (20, true), (7, true)]).await, [20, 20, 20]);
        assert_eq!(let_go(&[(5, true)]).await, [5], "one alone waits for nobody");
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_holds_nobody_back() {
        assert_eq!(let_go(&[(3, true), (20, false), (7, true)]).await, [20, 20, 20]);
        assert_eq!(let_go(&[(3, true), (4, false)]).await, [4, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_long() {
        let [early, late, later] = let_go(&[(3, true), (60, true), (900, true)]).await[..] else { panic!("three") };
        assert!((50..=51).contains(&early) && (60..=61).contains(&late) && (900..=901).contains(&later));
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_does_not_wait_for_the_one_before() {
        let rounds = Rounds::default();
        let late = rounds.ask(PATIENCE);
        tokio::time::sleep(2 * PATIENCE).await;
        let (a, b) = (rounds.ask(PATIENCE), rounds.ask(PATIENCE));
        let begun = Instant::now();
        drop(late);
        futures::future::join(a.answered(), b.answered()).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
