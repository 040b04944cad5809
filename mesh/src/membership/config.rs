//! The numbers of the watchers, each with its reason and source.

use std::time::Duration;

/// How watchers judge. [`Config::default`] holds the values that met the goals in a model of 6 to
/// 1,000 hosts: a killed host known to all within 3 s, no false down in ten minutes at 25 % loss.
/// Sources: SWIM (Das, Gupta, Motivala, DSN 2002), Lifeguard (Dadgar, Phillips, Currey, 2017), Rapid
/// (Suresh et al., USENIX ATC 2018), RFC 6298 for round trips.
#[derive(Clone, Debug)]
pub struct Config {
    /// Between two probes of a healthy subject, jittered by a tenth: SWIM's protocol period. At least this.
    pub probe: Duration,
    /// A healthy subject is asked by one or another of its watchers so often: where many watch it, each of them asks more
    /// rarely. Silence is noticed as soon, for no watcher convicts alone.
    pub probe_share: Duration,
    /// A probe is missed no sooner than this, whatever the round trip: schedulers are late by that much.
    pub miss_min: Duration,
    /// And no later: a wild estimate must not hide a death.
    pub miss_max: Duration,
    /// Re-probes of a silent subject follow each other by this and up to twice this. Ten or more fit
    /// into `silence`, so that 25 % loss each way (44 % of probes) rarely makes an accusation.
    pub again: Duration,
    /// Silence after which a watcher accuses, from the first missed probe on. Doubled after each
    /// accusation that was refuted: a watcher with a bad link learns to doubt itself (Lifeguard).
    pub silence: Duration,
    /// Beyond it waits a watcher whose answers come late: by this many times the longest wait of late, whether of this
    /// subject or of most. All of it within what doublings may make of `silence`.
    pub late_factor: u32,
    /// So many false alarms of late in the whole mesh make a watcher whose answers are late twice as patient, as many
    /// more three times, and so on: what the mesh says in false alarms grows less than it does itself.
    pub alarms: u64,
    /// False alarms are forgotten by half in so long.
    pub alarms_half_life: Duration,
    /// The longest wait of late is forgotten by half in so long.
    pub late_half_life: Duration,
    /// Doublings at most: 1.6 s becomes 25.6 s.
    pub doublings_max: u32,
    /// A watcher whose accusations were not refuted for so long forgets a doubling.
    pub forgive: Duration,
    /// Silence after which a watcher accuses whom another accuses already, where answers come in time; where they do not,
    /// up to `silence`. Two that miss somebody at once are hardly both wrong, unless packets get lost. One that lies makes the
    /// others that much less patient, and convicts nobody.
    pub silence_joined: Duration,
    /// Silence after which a watcher accuses when the connection is closed: a crash closes at once,
    /// and a redial that fails says so at once. The close alone is no evidence.
    pub silence_closed: Duration,
    /// A newly enrolled host, and every host after our own start, has so long to be heard.
    pub newcomer: Duration,
    /// Distinct accusers that make a host down (H of Rapid; 3 of 8 watchers in the model).
    pub accusers: usize,
    /// The same with 2 to `few` watchers.
    pub accusers_few: usize,
    /// Up to so many watchers are few.
    pub few: usize,
    /// From the last accusation needed to down: one round of gossip for a refutation to arrive.
    pub grace: Duration,
    /// Where answers come late it is half of what they take (all of it where few watch: there two convict, and the third's
    /// word is the only one that can arrive), but no more than this.
    pub grace_max: Duration,
    /// Where answers are later than any busy host is, packets get lost, and what is sent again gets lost as well: then it
    /// is twice what they take less this, where that is more.
    pub grace_lost: Duration,
    /// Accusers of one network are enough when nobody elsewhere who could tell has been heard for so long: until then
    /// the networks may only be cut from each other, and nobody in the other is down. Heard is any word, also one that
    /// does not answer every accuser: liars may keep whom they like doubted, and cannot keep a signed word from arriving.
    /// So fewer liars than a verdict needs convict nobody; as many, of one network, convict whom they like only where
    /// neither it nor, for so long, any of its watchers in another network gets a word through. There honest hosts of that
    /// network would say the same, and the first word ends it. In which network a host is it says itself: that two are
    /// asked for protects from cuts, and only the number of accusers from liars.
    pub apart: Duration,
    /// With a single watcher nobody else can be asked: it waits so many silences.
    pub sole_factor: u32,
    /// A watcher that misses more than this share of its subjects at once (and more than one)
    /// suspects itself and keeps still (Lifeguard's local health, in percent).
    pub still_percent: usize,
    /// A loop that wakes later than asked by this was stalled itself: its windows start over.
    pub stall: Duration,
    /// Whoever is accused speaks for itself at once. Its other watchers ask it, and pass the answer on, when nobody's
    /// word has come within a random part of this; at once when one accusation more would make it down.
    pub vouch: Duration,
    /// A standing accusation without a verdict is repeated so soon, with a newer time of silence: it
    /// may have met a watcher that had heard the subject a moment before. Then after twice as long each time, up to
    /// `repeat`.
    pub repeat_undecided: Duration,
    /// The same after the verdict, for those that neither gossip nor a comparison has reached; and then whenever the
    /// silence has doubled, so that the dead cost nothing in the long run.
    pub repeat: Duration,
    /// It is repeated so often at least.
    pub repeat_max: Duration,
    /// An accusation that its accuser no longer repeats counts no more after this, and twice the silence that it tells
    /// of (as far as twice `repeat_max`).
    pub accusation_life: Duration,
    /// Own presence is published again so often; changes and probes carry it at once. More rarely in a mesh of
    /// more than 64, in proportion.
    pub presence: Duration,
    /// A host that this one begins to watch, and knows of, has so long to be connected; so has one that has started anew.
    pub acquaint: Duration,
    /// What was said of a host that is not watched is kept for so long after the last word of it. Less long in a mesh of
    /// more than 64, in proportion.
    pub linger: Duration,
    /// Between two comparisons with a random member.
    pub repair: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Config {
            probe: ms(1_000),
            probe_share: ms(250),
            miss_min: ms(100),
            miss_max: ms(1_000),
            again: ms(100),
            silence: ms(1_600),
            late_factor: 2,
            late_half_life: ms(120_000),
            alarms: 8,
            alarms_half_life: ms(30_000),
            doublings_max: 4,
            forgive: ms(60_000),
            silence_joined: ms(800),
            silence_closed: ms(500),
            newcomer: ms(10_000),
            accusers: 3,
            accusers_few: 2,
            few: 4,
            grace: ms(350),
            grace_max: ms(5_000),
            grace_lost: ms(2_000),
            apart: ms(20_000),
            sole_factor: 4,
            still_percent: 75,
            stall: ms(500),
            vouch: ms(1_000),
            repeat_undecided: ms(2_000),
            repeat: ms(10_000),
            repeat_max: ms(600_000),
            accusation_life: ms(35_000),
            presence: ms(300_000),
            acquaint: ms(3_000),
            linger: ms(600_000),
            repair: ms(30_000),
        }
    }
}
