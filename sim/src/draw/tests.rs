//! What is drawn: in order, of what there is, the same for a seed.

use super::*;

fn fleets() -> Vec<Ground> {
    let shipped = crate::scenarios::fleets::shipped().unwrap();
    shipped.into_iter().map(|(name, fleet)| Ground::new(name, fleet)).collect()
}

fn plan(tier: Tier, seed: u64, fleets: &[Ground]) -> Plan {
    draw(&Asked { scenario: "chaos", tier, seed, fleets, faults: None }).unwrap()
}

/// Every host that an action names.
fn named(action: &Action) -> Vec<&str> {
    match action {
        Action::Join { host, by } | Action::Evict { host, by } => vec![host, by],
        Action::Submit { host, tasks, .. } => {
            let broken = tasks.iter().flat_map(|task| &task.breaks_on).map(String::as_str);
            std::iter::once(host.as_str()).chain(broken).collect()
        }
        Action::Cut { from, to } | Action::Mend { from, to } => vec![from, to],
        Action::TakeAddress { host, of } => vec![host, of],
        Action::SwapAddresses { a, b } => vec![a, b],
        Action::ForgetMasquerade { router } => vec![router],
        Action::Loss { .. } | Action::Network { .. } => vec![],
        Action::Cancel { host, .. }
        | Action::Retry { host, .. }
        | Action::Leave { host }
        | Action::Stranger { host }
        | Action::Forge { host, .. }
        | Action::Order { host, .. }
        | Action::ReplayLate { host }
        | Action::Crash { host }
        | Action::Start { host }
        | Action::PowerCut { host }
        | Action::PowerOn { host }
        | Action::Suspend { host }
        | Action::Resume { host }
        | Action::SlowSync { host, .. }
        | Action::LyingSync { host, .. }
        | Action::EmptyDisk { host }
        | Action::Backup { host }
        | Action::Restore { host }
        | Action::Clone { host }
        | Action::Unclone { host }
        | Action::ClockRate { host, .. }
        | Action::ClockJump { host, .. } => vec![host],
    }
}

#[test]
fn a_thousand_plans_are_in_order_name_what_there_is_and_do_everything() {
    let fleets = fleets();
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    let mut forgeries = BTreeSet::new();
    let mut sizes = BTreeSet::new();
    for (seed, tier) in (0..1_000).flat_map(|seed| [(seed, Tier::Cores), (seed, Tier::Nodes)]) {
        let plan = plan(tier, seed, &fleets);
        let fleet = &fleets.iter().find(|ground| ground.name == plan.topology).unwrap().fleet;
        sizes.insert(plan.hosts.len());
        assert!(plan.hosts.len() <= if tier == Tier::Cores { 8 } else { 6 });
        assert!(plan.actions.windows(2).all(|pair| pair[0].at_ms <= pair[1].at_ms), "seed {seed}");
        assert!(plan.actions.iter().all(|timed| timed.at_ms < plan.safety_ms), "seed {seed}");
        assert_eq!(Plan::parse("p.toml", &plan.to_text()), Ok(plan.clone()), "seed {seed}");
        let founder = plan.hosts[0].as_str();
        let ground = fleets.iter().find(|ground| ground.name == plan.topology).unwrap();
        assert!(plan.hosts[1..].iter().all(|host| ground.can_dial(host, founder)), "seed {seed}: some cannot join");
        let (mut evicted, mut frail) = (BTreeSet::new(), BTreeSet::new());
        for Timed { action, .. } in &plan.actions {
            *kinds.entry(action.kind()).or_default() += 1;
            for host in named(action) {
                assert!(host == LEADER || fleet.host(host).is_some(), "seed {seed}: {action:?}");
            }
            match action {
                Action::Evict { host, by } => {
                    assert!(host != founder && by == founder, "seed {seed}: the last signer is evicted");
                    evicted.insert(host.clone());
                }
                Action::Join { host, .. } | Action::Stranger { host } => {
                    assert!(!plan.hosts.contains(host), "seed {seed}: {host} is enrolled already");
                }
                Action::EmptyDisk { host } | Action::Restore { host } | Action::Clone { host } => {
                    frail.insert(host);
                }
                Action::LyingSync { host, .. } => {
                    frail.insert(host);
                }
                Action::Network { network, .. } => assert!(fleet.networks.contains_key(network), "seed {seed}"),
                Action::Forge { what, .. } => {
                    forgeries.insert(format!("{what:?}"));
                }
                _ => {}
            }
        }
        assert!(plan.hosts.len() - evicted.len() >= 2, "seed {seed}: nobody is left");
        let builder = |name: &&String| !evicted.contains(*name) && fleet.host(name).unwrap().cores > 0;
        assert!(plan.hosts.iter().any(|name| builder(&name)), "seed {seed}: nobody is left who builds");
        assert!(frail.len() <= 1, "seed {seed}: {frail:?} all lose what their disks promised");
    }
    // One of each, so that this list cannot lag behind the actions unnoticed: the compiler asks for `named`.
    assert_eq!(kinds.len(), 32, "some kind of action is never drawn: {kinds:?}");
    assert_eq!(forgeries.len(), 6);
    assert!(sizes.len() >= 3, "{sizes:?}");
}

#[test]
fn a_seed_gives_one_plan_and_seeds_differ() {
    let fleets = fleets();
    let texts: BTreeSet<String> = (0..200).map(|seed| plan(Tier::Cores, seed, &fleets).to_text()).collect();
    assert_eq!(texts.len(), 200);
    assert!((0..200).all(|seed| plan(Tier::Cores, seed, &fleets) == plan(Tier::Cores, seed, &fleets)));
}

#[test]
fn each_seed_leaves_about_half_of_the_kinds_out() {
    let fleets = fleets();
    let mut with = 0;
    for seed in 0..400 {
        let plan = plan(Tier::Cores, seed, &fleets);
        with += u64::from(plan.actions.iter().any(|timed| timed.action.kind() == "clock-jump"));
    }
    assert!((160..240).contains(&with), "{with} of 400");
}

#[test]
fn only_the_faults_that_are_asked_for_are_drawn() {
    let fleets = fleets();
    let only = BTreeSet::from(["suspend".to_owned()]);
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let asked = Asked { scenario: "chaos", tier: Tier::Cores, seed, fleets: &fleets, faults: Some(&only) };
        let plan = draw(&asked).unwrap();
        seen.extend(plan.actions.iter().filter(|timed| timed.action.is_fault()).map(|timed| timed.action.kind()));
    }
    assert_eq!(seen, BTreeSet::from(["suspend"]));
}

#[test]
fn faults_hit_right_after_a_submission_and_end_within_a_lease() {
    let fleets = fleets();
    let (mut soon, mut back) = (0, 0);
    for seed in 0..300 {
        let plan = plan(Tier::Cores, seed, &fleets);
        let at = |wanted: &'static str| {
            plan.actions.iter().filter(move |timed| timed.action.kind() == wanted).map(|timed| timed.at_ms)
        };
        soon += u64::from(at("crash").any(|crash| at("submit").any(|submit| (submit..=submit + 50).contains(&crash))));
        back += u64::from(at("crash").any(|crash| at("start").any(|start| (crash..=crash + 1_000).contains(&start))));
    }
    assert!(soon > 30 && back > 30, "{soon} and {back} of 300");
}

#[test]
fn a_fleet_without_three_hosts_that_meet_is_refused() {
    let text = "name = \"two\"\n[[network]]\nname = \"n\"\ncidr = \"10.0.0.0/24\"\n\
                [[host]]\nname = \"a\"\naddresses = { n = \"10.0.0.1\" }\ncores = 1\nrole = \"drone\"\n";
    let fleets = vec![Ground::new("two".to_owned(), Fleet::parse("two.toml", text).unwrap())];
    let asked = Asked { scenario: "chaos", tier: Tier::Cores, seed: 1, fleets: &fleets, faults: None };
    assert_eq!(draw(&asked), Err(DrawError::NoFleet));
}
