//! A simulated world: hosts, the links between them, and what goes wrong with both.
//!
//! A thin layer over turmoil that keeps its pitfalls in one place: it is always seeded, buffers are
//! large enough for Yamux, a cut holds segments instead of dropping them (a repaired stream would stay
//! stuck for ever), and a power cut lets nothing leave the host, while a crash sends FIN at once.
//! Every fault is in the trace.

use crate::det;
use crate::trace::{Event, Trace};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

/// Segments that a socket buffers; turmoil's 64 is less than one Yamux window.
const TCP_CAPACITY: usize = 4_096;

/// Longest simulation: a bound for scenarios that wait for something that never comes.
const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Why a simulation did not go as it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorldError {
    /// The program on a host ended with an error.
    #[error("a host failed {elapsed:?} into the simulation: {text}")]
    Host {
        /// When.
        elapsed: Duration,
        /// What it said.
        text: String,
    },
    /// Something that was waited for did not come.
    #[error("{what}: not so within {waited:?}, at {elapsed:?}")]
    Waited {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
        /// When the waiting ended.
        elapsed: Duration,
    },
    /// The scenario's expectation was not met.
    #[error("{0}")]
    Unexpected(String),
}

/// How a world is built.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Seeds latencies; everything else comes from [`det::run`].
    pub seed: u64,
    /// How finely time passes: 1 ms for a few hosts, up to 10 ms for many.
    pub tick: Duration,
    /// Shortest time a segment is under way.
    pub latency_min: Duration,
    /// Longest time a segment is under way.
    pub latency_max: Duration,
}

impl Settings {
    /// A small world on one site.
    pub fn lan(seed: u64) -> Settings {
        let ms = Duration::from_millis;
        Settings { seed, tick: ms(1), latency_min: ms(1), latency_max: ms(5) }
    }
}

/// Hosts and the links between them.
pub struct World {
    sim: turmoil::Sim<'static>,
    trace: Trace,
    hosts: BTreeMap<String, IpAddr>,
}

impl World {
    /// An empty world.
    pub fn new(settings: Settings, trace: Trace) -> World {
        let sim = turmoil::Builder::new()
            .rng_seed(settings.seed)
            .epoch(UNIX_EPOCH + Duration::from_secs(det::EPOCH_S))
            .tick_duration(settings.tick)
            .min_message_latency(settings.latency_min)
            .max_message_latency(settings.latency_max)
            .tcp_capacity(TCP_CAPACITY)
            .simulation_duration(DURATION_MAX)
            .build();
        World { sim, trace, hosts: BTreeMap::new() }
    }

    /// Adds a host and starts `software` on it, now and after each restart.
    pub fn host<F, Fut>(&mut self, name: &str, ip: IpAddr, software: F)
    where
        F: Fn() -> Fut + 'static,
        Fut: Future<Output = turmoil::Result> + 'static,
    {
        self.trace.call(ip, name);
        self.hosts.insert(name.to_owned(), ip);
        self.sim.host(ip, software);
    }

    /// How far the simulation has come.
    pub fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// When a host fails.
    pub fn run_for(&mut self, time: Duration) -> Result<(), WorldError> {
        let end = self.sim.elapsed() + time;
        while self.sim.elapsed() < end {
            self.step()?;
        }
        Ok(())
    }

    /// Lets time pass until something is so. `what` says it in words.
    ///
    /// # Errors
    /// When a host fails, or when it is not so within `limit`.
    pub fn run_until(&mut self, what: &str, limit: Duration, mut so: impl FnMut() -> bool) -> Result<(), WorldError> {
        let end = self.sim.elapsed() + limit;
        while !so() {
            if self.sim.elapsed() >= end {
                let (waited, elapsed) = (limit, self.sim.elapsed());
                return Err(WorldError::Waited { what: what.to_owned(), waited, elapsed });
            }
            self.step()?;
        }
        Ok(())
    }

    /// Lets one tick pass.
    ///
    /// # Errors
    /// When a host fails.
    pub fn step(&mut self) -> Result<(), WorldError> {
        let stepped = self.sim.step();
        let elapsed = self.sim.elapsed();
        det::set_elapsed(elapsed);
        self.trace.set_elapsed(elapsed);
        stepped.map(drop).map_err(|error| WorldError::Host { elapsed, text: error.to_string() })
    }

    fn fault(&self, what: &str) {
        self.trace.record("world", Event::Fault(what));
    }

    fn ip(&self, name: &str) -> IpAddr {
        match self.hosts.get(name) {
            Some(ip) => *ip,
            None => panic!("the scenario has no host `{name}`"),
        }
    }

    /// The program on a host dies; its kernel closes the connections.
    pub fn crash(&mut self, name: &str) {
        self.fault(&format!("crash {name}"));
        self.sim.crash(self.ip(name));
    }

    /// Starts the program on a host again.
    pub fn bounce(&mut self, name: &str) {
        self.fault(&format!("bounce {name}"));
        self.sim.bounce(self.ip(name));
    }

    /// The power of a host goes: it says nothing more to anybody.
    pub fn power_cut(&mut self, name: &str) {
        self.fault(&format!("power cut {name}"));
        let ip = self.ip(name);
        for other in self.hosts.values().filter(|other| **other != ip) {
            self.sim.partition(ip, *other);
        }
        self.sim.crash(ip);
    }

    /// The power of a host comes back, and its program starts.
    pub fn power_on(&mut self, name: &str) {
        self.fault(&format!("power on {name}"));
        let ip = self.ip(name);
        for other in self.hosts.values().filter(|other| **other != ip) {
            self.sim.repair(ip, *other);
        }
        self.sim.bounce(ip);
    }

    /// From now on packets between two hosts take so long.
    pub fn set_latency(&mut self, a: &str, b: &str, one_way: Duration) {
        self.sim.set_link_latency(self.ip(a), self.ip(b), one_way);
    }

    /// Cuts the link between two hosts; what is sent meanwhile waits.
    pub fn hold(&mut self, a: &str, b: &str) {
        self.fault(&format!("hold {a} {b}"));
        self.sim.hold(self.ip(a), self.ip(b));
    }

    /// Mends a link that was cut.
    pub fn release(&mut self, a: &str, b: &str) {
        self.fault(&format!("release {a} {b}"));
        self.sim.release(self.ip(a), self.ip(b));
    }
}
