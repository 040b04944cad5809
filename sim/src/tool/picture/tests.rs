//! Pictures of runs made by hand: spans, marks, and well-formed XML.

use super::*;
use crate::plan::{Tier, Timed};
use mesh::identity::PeerKey;
use mesh::lease::Fence;

fn key(n: u8) -> PeerKey {
    PeerKey::from_bytes([n; 32])
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A host that leads, builds, is suspended and crashes; another that sees it; and a rule that breaks.
fn picture() -> Picture {
    let (a, b) = ("a<&>", "b");
    let build = (BuildId(4), Attempt(1));
    let fence = Fence { epoch: 0, term: 7 };
    let suspend = Action::Suspend { host: a.into() };
    let began = Fact::Began { host: a.into(), key: key(1), build: build.0, attempt: build.1, fence: Some(fence) };
    let believes = Fact::Believes { host: b.into(), of: key(1), state: State::Down };
    let what = vec![
        (0, a, Kept::Fact(Fact::Started { host: a.into(), key: key(1), start: 1 })),
        (0, b, Kept::Fact(Fact::Started { host: b.into(), key: key(2), start: 1 })),
        (1_000, a, Kept::Lease(Some(fence))),
        (1_500, WORLD, Kept::Fault(TOGETHER.into())),
        (2_000, a, Kept::Fact(began)),
        (3_000, b, Kept::Ended(build.0, build.1, key(1), "done")),
        (4_000, a, Kept::Acted(suspend)),
        (6_000, a, Kept::Acted(Action::Resume { host: a.into() })),
        (6_500, b, Kept::Acted(Action::Crash { host: b.into() })),
        (6_500, b, Kept::Skipped("it is down".into())),
        (7_000, a, Kept::Acted(Action::Crash { host: a.into() })),
        (7_000, a, Kept::Fact(Fact::Stopped { host: a.into() })),
        (8_000, b, Kept::Fact(believes)),
    ];
    let entry = |(n, (at, host, what)): (usize, (u64, &str, Kept))| Entry {
        number: n as u64,
        at: ms(at),
        host: host.to_owned(),
        what,
    };
    let history: Vec<Entry> = what.into_iter().enumerate().map(entry).collect();
    let keys = [(key(1), a.into()), (key(2), b.into())].into();
    let violation = crate::invariants::Violation { invariant: "one-leader", at: ms(9_000), text: "<two>".into() };
    let none = BTreeMap::new;
    let played = Played {
        failure: Some(Failure::Safety(violation)),
        ended: ms(10_000),
        done: none(),
        skipped: none(),
        exercised: none(),
    };
    let summary = Summary {
        hash: "0123456789abcdef".into(),
        records: 3,
        bytes: 0,
        commits: 0,
        errors_count: 0,
        errors: vec![],
        elapsed: ms(10_000),
    };
    let plan = Plan {
        scenario: "chaos".into(),
        tier: Tier::Cores,
        seed: 5,
        topology: "t".into(),
        mutant: None,
        hosts: vec![a.into(), b.into()],
        safety_ms: 1,
        liveness_ms: 1,
        actions: Vec::<Timed>::new(),
        expect: vec![],
    };
    Picture::new(Some(&plan), &history, &keys, &played, &summary)
}

#[test]
fn what_happened_becomes_spans_and_marks_of_its_host() {
    let picture = picture();
    let names: Vec<&str> = picture.lanes.iter().map(|lane| lane.name.as_str()).collect();
    assert_eq!(names, ["a<&>", "b"]);
    let a = &picture.lanes[0];
    let spans = |spans: &[Span]| spans.iter().map(|s| (s.look, s.from, s.to)).collect::<Vec<_>>();
    assert_eq!(spans(&a.process), [(Look::Up, ms(0), ms(7_000)), (Look::Suspended, ms(4_000), ms(6_000))]);
    assert_eq!(spans(&a.leases), [(Look::Lease, ms(1_000), ms(7_000))]);
    assert_eq!(spans(&a.builds[0]), [(Look::Done, ms(2_000), ms(3_000))]);
    let looks: Vec<Look> = a.marks.iter().map(|mark| mark.look).collect();
    assert_eq!(looks, [Look::Fault, Look::End, Look::Fault]);
    let b = &picture.lanes[1];
    assert_eq!(spans(&b.process), [(Look::Up, ms(0), ms(10_000))]);
    assert_eq!((b.beliefs[0].look, b.beliefs[0].at, b.marks[0].look), (Look::Down, ms(8_000), Look::Skipped));
    assert_eq!(picture.failure_at, Some(ms(9_000)));
}

#[test]
fn the_picture_is_xml_with_a_lane_for_each_host_and_always_the_same() {
    let svg = picture().to_svg();
    assert_eq!(svg, picture().to_svg());
    assert!(svg.contains("id=\"lane-a&lt;&amp;&gt;\"") && svg.contains("id=\"lane-b\""), "{svg}");
    assert!(svg.contains("one-leader") && !svg.contains("<two>"));
    assert_eq!(well_formed(&svg), Ok(()));
    assert!(well_formed(&svg.replace("</svg>", "")).is_err());
    assert!(well_formed(&svg.replace("&amp;", "&")).is_err());
    assert!(well_formed(&svg.replace("/title>", "title>")).is_err());
}

/// The part of XML's grammar that the picture uses: elements nest, attributes are quoted, texts are escaped.
fn well_formed(xml: &str) -> Result<(), String> {
    let mut open: Vec<&str> = vec![];
    let mut rest = xml;
    while let Some(at) = rest.find('<') {
        entities(&rest[..at])?;
        let end = rest[at..].find('>').ok_or("a tag without an end")? + at;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop() != Some(name) {
                return Err(format!("`{name}` ends what did not begin"));
            }
            continue;
        }
        let (tag, single) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        if name.is_empty() || !name.chars().all(|letter| letter.is_ascii_alphanumeric()) {
            return Err(format!("`{name}` is no name"));
        }
        let parts: Vec<&str> = attributes.split('"').collect();
        if parts.len().is_multiple_of(2) || parts.chunks(2).any(|pair| pair.len() == 2 && !pair[0].ends_with('=')) {
            return Err(format!("attributes of `{name}`: {attributes}"));
        }
        entities(attributes)?;
        if !single {
            open.push(name);
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("{open:?} do not end")) }
}

fn entities(text: &str) -> Result<(), String> {
    for (at, _) in text.match_indices('&') {
        if !["&amp;", "&lt;", "&gt;", "&quot;"].iter().any(|known| text[at..].starts_with(known)) {
            return Err(format!("an `&` that is none: {}", &text[at..]));
        }
    }
    Ok(())
}
