//! What liars of one network can do to a host that others elsewhere watch: keep them doubted, but not make them unheard.

use super::world::*;
use super::*;

const HOSTS: usize = 24;
const LIARS: usize = 3;
const BEGIN_MS: u64 = 50_000;

/// This host, in the network of the even ones, and a host that it judges without watching it.
struct Scene {
    core: Membership,
    sequence: u64,
    accused: usize,
    /// Its watchers in this network: they lie, as many as a verdict needs.
    liars: Vec<usize>,
    /// Its watchers in the other.
    elsewhere: Vec<usize>,
}

impl Scene {
    fn new(config: Config) -> Scene {
        let members = Members::placed((0..HOSTS).map(|h| (keys(h).key(), (h % 2) as u64)), 0);
        let watched = members.subjects(&keys(0).key());
        let unwatched = |h: &usize| !watched.contains(&keys(*h).key());
        let watchers = |of: usize, network: usize| -> Vec<usize> {
            let all = members.watchers(&keys(of).key());
            (1..HOSTS).filter(|h| h % 2 == network && all.contains(&keys(*h).key())).collect()
        };
        let accused = (1..HOSTS).filter(unwatched).find(|h| watchers(*h, 0).len() >= LIARS).expect("four on a ring");
        let mut core = Membership::new(own(0, 1), 1, config, Time::from_millis(BEGIN_MS));
        core.set_members(&members, Time::from_millis(BEGIN_MS));
        let liars = watchers(accused, 0).into_iter().take(LIARS).collect();
        let mut scene = Scene { core, sequence: 0, accused, liars, elsewhere: watchers(accused, 1) };
        for host in 1..HOSTS {
            scene.word(host, 0, 0);
        }
        scene
    }

    fn take(&mut self, statement: &Statement, ms: u64) {
        self.core.handle(Input::Statement(encode(statement)), Time::from_millis(BEGIN_MS + ms));
    }

    /// What a host said of itself `back_ms` ago arrives.
    fn word(&mut self, of: usize, ms: u64, back_ms: u64) {
        let own = own(of, 1);
        let origin = origin(&own.store, &own.machine_id, &own.boot_id, own.nonce);
        let incarnation = Incarnation { start: 1, refutation: 0 };
        let alive = Alive { mesh: MESH, incarnation, stamp_us: (BEGIN_MS + ms - back_ms) * 1_000, origin };
        self.take(&Statement::Alive(Signed::seal(&own.keys, &alive)), ms);
    }

    fn accuse(&mut self, by: usize, of: usize, ms: u64) {
        self.sequence += 1;
        let evidence = Evidence { silent_ms: 0, attempts: 9, heard_ms: Some(0), relayed: false, connected: true };
        let accusation = Accusation {
            mesh: MESH,
            start: 1,
            sequence: self.sequence,
            subject: keys(of).key(),
            incarnation: Incarnation { start: 1, refutation: 0 },
            stamp_us: (BEGIN_MS + ms) * 1_000,
            evidence,
        };
        self.take(&Statement::Accusation(Signed::seal(&keys(by), &accusation)), ms);
    }

    /// The liars accuse one host, and everybody elsewhere who could tell, over and over; the words of these, each a little
    /// older than the last lie, arrive until `heard_ms`. When the accused went down.
    fn lie(&mut self, heard_ms: u64, end_ms: u64) -> Option<u64> {
        let (accused, liars, elsewhere) = (self.accused, self.liars.clone(), self.elsewhere.clone());
        for ms in (1_000..end_ms).step_by(10) {
            if ms % 500 == 0 {
                for (liar, of) in liars.iter().flat_map(|liar| elsewhere.iter().map(move |of| (*liar, *of))) {
                    self.accuse(liar, of, ms);
                }
                liars.iter().for_each(|liar| self.accuse(*liar, accused, ms));
            }
            if ms % 1_000 == 250 && ms <= heard_ms {
                elsewhere.iter().for_each(|of| self.word(*of, ms, 300));
            }
            self.core.handle_timeout(Time::from_millis(BEGIN_MS + ms));
            while self.core.poll().is_some() {}
            if ms > 2_000 {
                let doubted = |of: &usize| self.state(*of) == State::Suspect;
                assert!(elsewhere.iter().all(doubted), "the lie works as far as that: all are doubted, at {ms} ms");
            }
            if self.state(accused) == State::Down {
                return Some(ms);
            }
        }
        None
    }

    fn state(&self, of: usize) -> State {
        self.core.host(&keys(of).key()).expect("enrolled").state
    }
}

#[test]
fn whoever_is_heard_elsewhere_keeps_liars_of_one_network_from_a_verdict() {
    let mut scene = Scene::new(Config::default());
    assert!(scene.elsewhere.len() >= 2, "{:?}", scene.elsewhere);
    assert_eq!(scene.lie(90_000, 90_000), None, "all elsewhere are doubted all the while, and heard");
    assert!(scene.core.unreachable(&keys(scene.accused).key()));
    // Who asks only whether they are doubted now falls for it.
    let naive = Config { apart: Duration::ZERO, ..Config::default() };
    assert!(Scene::new(naive).lie(90_000, 90_000).is_some());
}

#[test]
fn when_nobody_elsewhere_is_heard_one_network_is_enough_in_the_end() {
    let config = Config::default();
    let (apart, grace) = (config.apart.as_millis() as u64, config.grace.as_millis() as u64);
    let down = Scene::new(config).lie(30_000, 90_000).expect("or a lost site would be suspect for ever");
    let silent = down - 29_250; // the last word
    assert!((apart..apart + grace + 20).contains(&silent), "{silent} ms after the last word from elsewhere");
}

#[test]
fn fewer_liars_than_a_verdict_needs_convict_nobody_however_long_nobody_is_heard() {
    let mut scene = Scene::new(Config::default());
    scene.liars.truncate(LIARS - 1);
    assert_eq!(scene.lie(0, 90_000), None);
    let naive = Config { accusers: LIARS - 1, ..Config::default() };
    let mut scene = Scene::new(naive);
    scene.liars.truncate(LIARS - 1);
    assert!(scene.lie(0, 90_000).is_some());
}
