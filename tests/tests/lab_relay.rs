//! Two homes behind symmetric NAT on the real kernel: no hole can be punched, so another host of the mesh relays, and a
//! build goes there and comes back over it.

use std::fs;
use tests::lab::Lab;
use tests::lab::members::Common;

const ENDS: [&str; 2] = ["east-1", "west-1"];

#[test]
fn behind_symmetric_masquerades_on_both_sides_a_relay_carries_everything() {
    let fleet = topology::FLEETS.iter().find(|(name, _)| *name == "symmetric-both.toml").expect("shipped").1;
    let Some(lab) = Lab::for_test(fleet) else { return };
    assert_eq!(lab.found(&Common::default()).unwrap_or_else(|why| panic!("{why}")), Vec::<String>::new());
    for (host, other) in [(ENDS[0], ENDS[1]), (ENDS[1], ENDS[0])] {
        let relayed = lab.wait(host, "reached over a relay", |s| s.state(other) == "alive" && s.path(other) == "relay");
        let through =
            relayed.host(other).expect("listed")["relay"].as_str().expect("by a host that is named").to_owned();
        assert_eq!(through, "relay");
        let told = lab.mesh_ok(host, &["ping", other]).unwrap_or_else(|why| panic!("{why}"));
        assert!(told.contains("relay"), "{told}");
    }
    let text = "[build.x]\ncommand = \"head -c 300000 /dev/urandom > out; echo built; sha256sum < out > sum\"\noutputs = [\"out\", \"sum\"]\ntags = [\"on-west-1\"]\n";
    fs::write(lab.folder("east-1").join("root/build.toml"), text).expect("file");
    let log = lab.mesh_ok("east-1", &["build", "/root/build.toml"]).unwrap_or_else(|why| panic!("{why}"));
    assert!(log.contains("done") && log.contains("west-1"), "{log}");
    lab.mesh_ok("east-1", &["fetch", "b1", "--into", "/root/out"]).unwrap_or_else(|why| panic!("{why}"));
    let out = lab.exec("east-1", &["sh", "-c", "sha256sum < /root/out/out | cmp - /root/out/sum && echo same"]);
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "same");

    assert_eq!(lab.mesh_errors(&[]), Vec::<String>::new());
}
