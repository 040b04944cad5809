use super::*;
use crate::identity::Keys;

fn key(n: u8) -> PeerKey {
    Keys::from_seed([n; 32]).key()
}
fn at(seconds: u64) -> Time {
    Time::from_millis(seconds * 1_000)
}
fn ip(text: &str) -> IpAddr {
    text.parse().expect("an IP")
}

const GATEWAY: &str = "/ip4/10.42.0.199/tcp/7400";
const DRONE: &str = "/ip4/192.168.20.7/tcp/7400";

/// The orchestrator's table: a gateway that was dialled and proved, a drone behind its masquerade.
fn site_a() -> (Addresses, PeerKey, PeerKey) {
    let (me, gateway, drone) = (key(1), key(2), key(3));
    let mut table = Addresses::new(me);
    assert!(table.learn(me, "/ip4/10.42.0.10/tcp/7400", Source::Interface, None, at(0)));
    assert!(table.learn(gateway, GATEWAY, Source::Configured, None, at(0)));
    table.proved(gateway, GATEWAY, at(1));
    table.learn_presence(drone, &[DRONE.to_owned()], at(1));
    table.observed(drone, ip("10.42.0.199"), at(2));
    (table, gateway, drone)
}

#[test]
fn incident_1_the_masquerade_is_named_and_never_dialled() {
    let (mut table, gateway, drone) = site_a();
    assert_eq!(table.nat_of(&drone, "10.42.0.199"), Some(gateway));
    assert_eq!(table.leads(&drone, at(3)), [DRONE]);
    let rows = table.rows(&drone, at(3));
    let observed = rows.iter().find(|r| r.source == Source::Observed).expect("shown");
    assert_eq!((observed.addr.as_str(), observed.nat_of, observed.proved), ("10.42.0.199", Some(gateway), false));
    // identify makes up the router's address with the drone's port: nobody falls for it.
    assert!(table.learn(drone, GATEWAY, Source::Identify, Some(drone), at(4)));
    assert!(table.learn(drone, "/ip4/10.42.0.199/tcp/7401", Source::Identify, Some(drone), at(4)));
    assert_eq!(table.leads(&drone, at(5)), [DRONE]);
    // The naive table dials the source of the traffic, which is how the gateway came to be rebooted.
    let naive: Vec<String> = table.rows(&drone, at(5)).into_iter().map(|r| r.addr).collect();
    assert!(naive.iter().any(|addr| addr == GATEWAY) && naive.iter().any(|addr| addr == "10.42.0.199"));
    // The gateway itself is nobody's masquerade.
    assert_eq!(table.nat_of(&gateway, GATEWAY), None);
    // The drone has nobody else to be reached through, until an address of its own is proved.
    assert_eq!(table.only_behind(&drone, at(5)), BTreeSet::from([gateway]));
    assert_eq!(table.only_behind(&gateway, at(5)), BTreeSet::new());
    table.proved(drone, DRONE, at(6));
    assert_eq!(table.only_behind(&drone, at(6)), BTreeSet::new());
}

#[test]
fn a_masquerade_by_this_host_itself_is_seen() {
    let (me, drone) = (key(1), key(3));
    let mut table = Addresses::new(me);
    table.learn(me, GATEWAY, Source::Interface, None, at(0));
    table.observed(drone, ip("::ffff:10.42.0.199"), at(1));
    assert_eq!(table.nat_of(&drone, "10.42.0.199"), Some(me));
    assert_eq!(table.leads(&drone, at(1)), Vec::<String>::new());
}

#[test]
fn incident_2_a_container_that_shares_its_hosts_address_stays_another_identity() {
    let (me, workstation, container) = (key(1), key(2), key(3));
    let mut table = Addresses::new(me);
    let (first, second) = ("/ip4/10.42.0.50/tcp/7400", "/ip4/10.42.0.50/tcp/7401");
    table.learn_presence(workstation, &[first.to_owned()], at(0));
    table.proved(workstation, first, at(1));
    // It claims the shared address, on a port of its own, and answers there.
    table.learn_presence(container, &[second.to_owned(), first.to_owned()], at(2));
    table.observed(container, ip("10.42.0.50"), at(2));
    assert_eq!(table.nat_of(&container, "10.42.0.50"), None, "it lists the address as its own");
    assert_eq!(table.leads(&container, at(2)), [second], "not the one on which the workstation answered");
    table.proved(container, second, at(3));
    assert_eq!(table.leads(&workstation, at(4)), [first]);
    // With a broken bridge it dials out only: then the address is the workstation's masquerade.
    let mut table = Addresses::new(me);
    table.learn_presence(workstation, &[first.to_owned()], at(0));
    table.proved(workstation, first, at(1));
    table.observed(container, ip("10.42.0.50"), at(2));
    assert_eq!(table.nat_of(&container, "10.42.0.50"), Some(workstation));
}

#[test]
fn many_daemons_on_loopback_are_told_apart_by_port() {
    let (me, a, b) = (key(1), key(2), key(3));
    let mut table = Addresses::new(me);
    table.learn(me, "/ip4/127.0.0.1/tcp/7400", Source::Interface, None, at(0));
    table.proved(a, "/ip4/127.0.0.1/tcp/7401", at(0));
    table.learn_presence(b, &["/ip4/127.0.0.1/tcp/7402".to_owned()], at(0));
    table.observed(b, ip("127.0.0.1"), at(0));
    assert_eq!(table.nat_of(&b, "127.0.0.1"), None);
    assert_eq!(table.leads(&b, at(0)), ["/ip4/127.0.0.1/tcp/7402"]);
}

#[test]
fn who_answers_for_another_gets_the_address() {
    let (mut table, gateway, drone) = site_a();
    let wrong = "/ip4/10.42.0.77/tcp/7400";
    table.learn(drone, wrong, Source::Configured, None, at(3));
    assert_eq!(table.leads(&drone, at(3)), [wrong, DRONE]);
    table.failed(drone, wrong, Failure::Peer(gateway), at(4));
    assert_eq!(table.leads(&drone, at(100)), [DRONE]);
    assert_eq!(table.leads(&gateway, at(100))[0], wrong, "proved last");
    // DHCP gives it to the drone after all (incident 17): proved anew, it is the drone's.
    table.proved(drone, wrong, at(200));
    assert_eq!(table.leads(&drone, at(201))[0], wrong);
    // A stranger that answers gets no line.
    table.failed(drone, DRONE, Failure::Peer(key(99)), at(202));
    assert!(table.rows(&key(99), at(202)).is_empty());
}

#[test]
fn failures_back_off_and_success_forgives() {
    let (mut table, _, drone) = site_a();
    let mut pauses = Vec::new();
    let mut now = at(10);
    for _ in 0..9 {
        table.failed(drone, DRONE, Failure::Timeout, now);
        assert!(table.leads(&drone, now).is_empty());
        let next = table.next_try(&drone, now).expect("there is a lead");
        pauses.push(next.since(now).as_millis());
        now = next;
        assert_eq!(table.leads(&drone, now), [DRONE]);
    }
    assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 5_000, 5_000, 5_000, 5_000, 5_000]);
    table.proved(drone, DRONE, now);
    assert_eq!(table.next_try(&drone, now), Some(now));
    assert_eq!(table.next_try(&key(9), now), None);
}

#[test]
fn leads_expire_and_are_bounded() {
    let (mut table, gateway, drone) = site_a();
    let day = 24 * 3_600;
    assert_eq!(table.leads(&drone, at(day + 2)), Vec::<String>::new());
    assert_eq!(table.leads(&gateway, at(9 * day)), [GATEWAY], "configured: the owner's word does not expire");
    table.expire(at(day + 3));
    assert!(table.rows(&drone, at(0)).is_empty());
    for n in 0..100 {
        table.learn(gateway, &format!("/ip4/10.9.0.{n}/tcp/1"), Source::Gossip, Some(gateway), at(n));
        table.observed(gateway, ip(&format!("10.8.0.{n}")), at(n));
    }
    assert_eq!(table.rows(&gateway, at(100)).len(), LEADS_MAX + OBSERVED_MAX);
    assert_eq!(table.leads(&gateway, at(100))[0], GATEWAY);
    table.set_members(&BTreeSet::new());
    assert!(table.rows(&gateway, at(100)).is_empty());
}

#[test]
fn what_leads_nowhere_is_not_taken() {
    let mut table = Addresses::new(key(1));
    for addr in ["/ip4/0.0.0.0/tcp/7400", "10.0.0.1", "/ip4/10.0.0.1/tcp/1/p2p/12D3KooW", "", "/ip4/224.0.0.1/udp/1"] {
        assert!(!table.learn(key(2), addr, Source::Configured, None, at(0)), "{addr}");
    }
    assert!(!table.learn(key(2), GATEWAY, Source::Observed, None, at(0)));
    assert!(!table.learn(key(2), "/ip6/fe80::1/tcp/1", Source::Gossip, None, at(0)));
    let circuit = circuit_through(&key(4));
    for addr in [OFFER, "/ip4/10.0.0.1/tcp/1/p2p/12D3KooW/p2p-circuit", "/p2p/12D3KooW/p2p-circuit", &circuit] {
        assert!(!table.learn(key(3), addr, Source::Gossip, None, at(0)), "{addr}");
    }
    for (peer, relay) in [(3, 3), (3, 1)] {
        let own = circuit_through(&key(relay));
        assert!(!table.learn(key(peer), &own, Source::Relay, None, at(0)), "a circuit through itself, or through us");
    }
    assert!(table.learn(key(2), "/dns4/host.lan/udp/7400/quic-v1", Source::Configured, None, at(0)));
    assert_eq!(table.leads(&key(2), at(0)).len(), 1);
}

#[test]
fn a_new_presence_replaces_the_old_ones_addresses() {
    let (mut table, _, drone) = site_a();
    let new = "/ip4/192.168.20.8/tcp/7400".to_owned();
    table.learn_presence(drone, std::slice::from_ref(&new), at(5));
    assert_eq!(table.leads(&drone, at(5)), [new]);
}

#[test]
fn incident_17_two_hosts_that_swap_addresses_still_look_for_each_other() {
    let (me, other) = (key(1), key(2));
    let (first, second) = ("/ip4/10.42.0.12/tcp/7400", "/ip4/10.42.0.14/tcp/7400");
    let mut table = Addresses::new(me);
    table.learn(me, first, Source::Interface, None, at(0));
    table.proved(other, second, at(0));
    table.learn_presence(other, &[second.to_owned()], at(0));
    // DHCP gives each the other's.
    table.learn(me, second, Source::Interface, None, at(10));
    table.learn_presence(other, &[first.to_owned()], at(11));
    // The naive table keeps what was its own, and so takes the other's new address for its own.
    assert!(!table.leads(&other, at(11)).contains(&first.to_owned()));
    table.forget_own(first);
    assert!(table.leads(&other, at(11)).contains(&first.to_owned()));
    assert_eq!(table.nat_of(&other, first), None);
    // Only where this host listens is forgotten in this way.
    table.forget_own(first);
    assert!(table.leads(&other, at(11)).contains(&first.to_owned()));
}

#[test]
fn incident_2_a_container_dials_the_host_that_invited_it_on_the_address_they_share() {
    let (container, workstation, third) = (key(1), key(2), key(3));
    let (first, second) = ("/ip4/10.42.0.50/tcp/7400", "/ip4/10.42.0.50/tcp/7401");
    let mut table = Addresses::new(container);
    table.learn(container, second, Source::Interface, None, at(0));
    table.learn(workstation, first, Source::Invitation, None, at(0));
    assert_eq!(table.nat_of(&workstation, first), None, "the invitation names it");
    assert_eq!(table.leads(&workstation, at(0)), [first]);
    // The presence says the same.
    table.learn_presence(workstation, &[first.to_owned()], at(1));
    assert_eq!(table.leads(&workstation, at(1)), [first]);
    // This host's own port is nobody else's, whoever names it.
    table.learn(third, second, Source::Invitation, None, at(1));
    assert_eq!(table.leads(&third, at(1)), Vec::<String>::new());
    // Once it names other addresses only, what is left is the masquerade of whoever has the address.
    let moved = "/ip4/192.168.20.9/tcp/7400";
    table.learn_presence(workstation, &[moved.to_owned()], at(2));
    assert_eq!(table.nat_of(&workstation, first), Some(container));
    assert_eq!(table.leads(&workstation, at(2)), [moved]);
}

/// Seed 9062 of the bare cores: a container and its host were elsewhere for a while, and nobody else is left.
#[test]
fn incident_2_a_container_that_moved_back_with_its_host_dials_it_there() {
    let (container, workstation, third) = (key(1), key(2), key(3));
    let at_home = ("/ip4/10.42.0.50/tcp/7401", "/ip4/10.42.0.50/tcp/7400");
    let away = ("/ip4/10.42.0.51/tcp/7401", "/ip4/10.42.0.51/tcp/7400");
    let mut table = Addresses::new(container);
    table.set_members(&[container, workstation, third].into());
    table.learn(container, at_home.0, Source::Interface, None, at(0));
    table.learn_presence(workstation, &[at_home.1.to_owned()], at(0));
    table.proved(workstation, at_home.1, at(0));
    // Both move, and the third has the address that was theirs.
    table.forget_own(at_home.0);
    table.learn(container, away.0, Source::Interface, None, at(1));
    table.learn_presence(workstation, &[away.1.to_owned()], at(1));
    table.failed(workstation, at_home.1, Failure::Peer(third), at(1));
    assert_eq!(table.leads(&workstation, at(60)), [away.1], "the third answers there");
    // It leaves; both move back, and cannot tell each other.
    table.set_members(&[container, workstation].into());
    table.forget_own(away.0);
    table.learn(container, at_home.0, Source::Interface, None, at(2));
    assert_eq!(table.nat_of(&workstation, at_home.1), None);
    assert!(table.leads(&workstation, at(60)).contains(&at_home.1.to_owned()));
    // Whom it never met there is behind it, as ever.
    table.learn(third, at_home.1, Source::Identify, Some(third), at(3));
    assert_eq!(table.nat_of(&third, at_home.1), Some(container));
}

#[test]
fn a_host_behind_a_relay_says_so_itself_and_nobody_else_can() {
    let (mut table, gateway, drone) = site_a();
    let circuit = circuit_through(&gateway);
    assert_eq!(relay_in(&circuit), Some(gateway));
    table.learn_presence(drone, &[OFFER.to_owned(), circuit.clone(), DRONE.to_owned()], at(3));
    assert_eq!(table.leads(&drone, at(3)), [DRONE], "what is dialled directly names no relay");
    assert_eq!(table.relays(&drone, at(3)), [gateway]);
    assert!(table.offers_relay(&drone) && !table.offers_relay(&gateway));
    let rows = table.rows(&drone, at(3));
    let row = rows.iter().find(|r| r.addr == circuit).expect("shown");
    assert_eq!((row.source, row.nat_of, row.observer), (Source::Relay, None, Some(drone)));
    // Two hosts behind one relay share the address, and it is neither's masquerade.
    let other = key(4);
    table.learn_presence(other, std::slice::from_ref(&circuit), at(3));
    table.proved(other, &circuit, at(4));
    assert_eq!(table.relays(&drone, at(4)), [gateway]);
    assert!(!table.learn(drone, &circuit, Source::Identify, Some(other), at(4)));
    // It backs off like any lead, and is forgotten when the peer no longer says so, proved or not.
    table.failed(drone, &circuit, Failure::Timeout, at(5));
    assert_eq!(table.relays(&drone, at(5)), []);
    assert_eq!(table.relays(&drone, at(6)), [gateway]);
    table.proved(drone, &circuit, at(7));
    table.learn_presence(drone, &[DRONE.to_owned()], at(8));
    assert_eq!(table.relays(&drone, at(8)), []);
    assert!(!table.offers_relay(&drone));
}

#[test]
fn a_peer_fills_its_own_lines_and_no_others() {
    let (mut table, gateway, drone) = site_a();
    let of_drone = table.rows(&drone, at(3));
    let flood: Vec<String> = (0..1_000u32).map(|n| format!("/ip4/10.0.{}.{}/tcp/7400", n / 250, n % 250)).collect();
    let relays: Vec<String> = (10..200).map(|n| circuit_through(&key(n))).collect();
    table.learn_presence(gateway, &[flood, relays].concat(), at(3));
    assert!(table.rows(&gateway, at(3)).len() <= LEADS_MAX + OBSERVED_MAX);
    assert_eq!(table.rows(&drone, at(3)), of_drone);
    assert_eq!(table.leads(&gateway, at(3))[0], GATEWAY, "what is proved is not washed away");
}

#[test]
fn incident_17_a_member_that_no_address_is_known_of_is_found_where_another_was() {
    let (founder, late) = (key(2), key(3));
    let first = "/ip4/10.42.0.12/tcp/7400";
    let mut table = Addresses::new(key(1));
    table.learn(founder, first, Source::Invitation, None, at(0));
    // It joined after this host did, so nobody told where it is; DHCP gave it the founder's address meanwhile.
    table.set_members(&BTreeSet::from([key(1), founder, late]));
    table.failed(founder, first, Failure::Peer(late), at(1));
    assert_eq!(table.leads(&late, at(1)), [first]);
    assert_eq!(table.leads(&founder, at(100)), Vec::<String>::new());
}

#[test]
fn an_address_that_changed_hands_is_dialled_for_who_claims_it_now() {
    let (one, two) = (key(2), key(3));
    let (a, b) = ("/ip4/10.0.0.5/tcp/7400", "/ip4/10.0.0.6/tcp/7400");
    let mut table = Addresses::new(key(1));
    table.learn_presence(one, &[a.to_owned()], at(1));
    table.proved(one, a, at(1));
    table.learn(two, b, Source::Configured, None, at(1));
    table.failed(two, b, Failure::Timeout, at(1));
    // The first moves and is reached there; the second has its old address, and was never met.
    table.learn_presence(one, &[b.to_owned()], at(2));
    table.proved(one, b, at(2));
    table.learn_presence(two, &[a.to_owned()], at(3));
    assert_eq!(table.leads(&two, at(4)), [a], "nobody else claims it, and the proof is of before");
    table.failed(two, a, Failure::Peer(one), at(4));
    assert_eq!(table.leads(&two, at(60)), Vec::<String>::new(), "it is not asked for again");
    // Both go home.
    table.learn_presence(one, &[a.to_owned()], at(5));
    table.learn_presence(two, &[b.to_owned()], at(6));
    assert_eq!(table.leads(&two, at(7)), [b]);
    assert_eq!(table.leads(&one, at(7))[0], a);
}

#[test]
fn what_is_remembered_of_a_peer_does_not_depend_on_what_was_tried_lately() {
    let (mut table, gateway, drone) = site_a();
    let before = table.known(&drone, at(3));
    assert_eq!(before, [DRONE]);
    table.failed(drone, DRONE, Failure::Timeout, at(3));
    assert!(table.leads(&drone, at(3)).is_empty(), "it backs off");
    assert_eq!(table.known(&drone, at(3)), before);
    table.failed(drone, DRONE, Failure::Peer(gateway), at(4));
    assert!(table.known(&drone, at(4)).is_empty(), "it is another's");
}

#[test]
fn tcp_is_dialled_first_and_quic_where_it_fails() {
    const QUIC: &str = "/ip4/192.168.20.7/udp/7400/quic-v1";
    let peer = key(3);
    let mut table = Addresses::new(key(1));
    table.learn_presence(peer, &[DRONE.to_owned(), QUIC.to_owned()], at(1));
    assert_eq!(table.leads(&peer, at(1)).len(), 2);
    assert_eq!(table.first_leads(&peer, at(1)), [DRONE]);
    table.failed(peer, DRONE, Failure::Timeout, at(2));
    assert_eq!(table.first_leads(&peer, at(2)), [QUIC], "TCP backs off");
    assert_eq!(table.first_leads(&peer, at(60)).len(), 2, "whichever answers");
    table.proved(peer, DRONE, at(61));
    assert_eq!(table.first_leads(&peer, at(61)), [DRONE]);
    let mut table = Addresses::new(key(1));
    table.learn_presence(peer, &[QUIC.to_owned()], at(1));
    assert_eq!(table.first_leads(&peer, at(1)), [QUIC], "all that there is");
}

#[test]
fn what_mdns_says_is_tried_and_told_to_nobody_before_it_is_proved() {
    let (me, peer, other) = (key(1), key(2), key(3));
    let mut table = Addresses::new(me);
    let near = |n: u8| format!("/ip4/10.0.0.{n}/tcp/7400");
    assert!(table.learn(peer, &near(9), Source::Mdns, None, at(0)));
    assert_eq!(table.leads(&peer, at(0)), [near(9)]);
    assert_eq!(table.worth_telling(&peer, at(0)), Vec::<String>::new(), "the naive table tells all that it may dial");
    assert!(table.keep().is_empty());
    table.proved(peer, &near(9), at(1));
    assert_eq!(table.worth_telling(&peer, at(1)), [near(9)]);
    let rows = table.rows(&peer, at(1));
    assert_eq!((rows[0].source, rows[0].proved), (Source::Mdns, true));
    // What another turned out to be at is that one's, whoever said otherwise.
    assert!(table.learn(other, &near(9), Source::Mdns, None, at(2)));
    assert_eq!(table.leads(&other, at(2)), Vec::<String>::new());
}

#[test]
fn whoever_makes_up_neighbours_takes_no_room_from_other_leads() {
    let (me, peer) = (key(1), key(2));
    let mut table = Addresses::new(me);
    let presence: Vec<String> = (0..LEADS_MAX).map(|n| format!("/ip4/10.1.0.{n}/tcp/7400")).collect();
    table.learn_presence(peer, &presence, at(0));
    assert!(table.learn(peer, "/ip4/10.2.0.1/tcp/7400", Source::Mdns, None, at(0)));
    table.proved(peer, "/ip4/10.2.0.1/tcp/7400", at(1));
    let made_up: Vec<String> = (0..200).map(|n| format!("/ip4/10.3.0.{n}/tcp/7400")).collect();
    for (second, addr) in (2..).zip(&made_up) {
        table.learn(peer, addr, Source::Mdns, None, at(second));
        table.learn(peer, &presence[0], Source::Mdns, None, at(second));
    }
    let rows = table.rows(&peer, at(300));
    let known = |addr: &String| rows.iter().any(|row| row.addr == *addr);
    assert!(presence.iter().all(known), "{rows:#?}");
    assert!(known(&"/ip4/10.2.0.1/tcp/7400".to_owned()), "what was proved stays");
    assert_eq!(made_up.iter().filter(|addr| known(addr)).count(), MDNS_MAX - 1);
    // Nor does it keep alive what the peer itself no longer says.
    table.expire(at(0) + LEAD_LIFE);
    assert!(!table.rows(&peer, at(0) + LEAD_LIFE).iter().any(|row| row.addr == presence[0]));
}

/// Found by chaos on cores, seed 7860. A container and the host whose address it shares had swapped that with a third, and
/// back. The invitation still said where the third was, but that was where the host had been met meanwhile.
#[test]
fn who_was_met_elsewhere_since_keeps_no_address_from_who_was_invited_there() {
    let (me, host, third) = (key(1), key(2), key(3));
    let (at_hosts, invited) = ("/ip4/10.0.0.6/tcp/7401", "/ip4/10.0.0.6/tcp/7400");
    let mut table = Addresses::new(me);
    table.learn(third, invited, Source::Invitation, None, at(0));
    table.learn_presence(third, &["/ip4/10.0.0.5/tcp/7400".to_owned()], at(1));
    table.learn_presence(host, &[at_hosts.to_owned()], at(1));
    table.proved(host, at_hosts, at(1));
    let tries = |table: &Addresses, addr: &str, now| table.leads(&third, at(now)).iter().any(|lead| lead == addr);
    assert!(!tries(&table, invited, 2), "another was met there");
    table.failed(host, at_hosts, Failure::Timeout, at(3));
    assert!(tries(&table, invited, 4), "and is not there any more");
    // What identify makes up is nobody's word.
    let made_up = "/ip4/10.0.0.6/tcp/7402";
    table.learn(third, made_up, Source::Identify, None, at(4));
    assert!(!tries(&table, made_up, 4));
    table.proved(host, at_hosts, at(5));
    assert!(!tries(&table, invited, 6));
}
