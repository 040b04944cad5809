//! The lab of network namespaces by itself: a masquerade hides a host, a wall keeps packets out, and
//! nothing is left behind.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use tests::netns::Lab;

const ROUTER_OUT: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 2);
const ROUTER_IN: Ipv4Addr = Ipv4Addr::new(10, 9, 2, 1);
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 9, 2, 2);

/// far --- outside --- router (masquerade) --- inside --- near
fn behind_a_router() -> Option<Lab> {
    let mut lab = Lab::new()?;
    for host in ["far", "router", "near"] {
        lab.host(host);
    }
    for switch in ["outside", "inside"] {
        lab.switch(switch);
    }
    lab.plug("far", "eth0", &format!("{FAR}/24"), "outside");
    lab.plug("router", "out0", &format!("{ROUTER_OUT}/24"), "outside");
    lab.plug("router", "in0", &format!("{ROUTER_IN}/24"), "inside");
    lab.plug("near", "eth0", &format!("{NEAR}/24"), "inside");
    lab.default_route("near", ROUTER_IN.into());
    lab.masquerade("router", "out0");
    Some(lab)
}

#[test]
fn a_masqueraded_connection_comes_from_the_router() {
    let Some(lab) = behind_a_router() else { return };
    let server = lab.inside("far", || TcpListener::bind((FAR, 0))).expect("bind");
    let address = server.local_addr().expect("address");
    lab.watch("near", FAR.into(), "to-far");
    assert_eq!(lab.sent("near", "to-far"), 0);

    let mut client = lab.inside("near", || TcpStream::connect(address)).expect("near reaches far");
    assert_eq!(client.local_addr().map(|a| a.ip()).expect("address"), IpAddr::from(NEAR));
    let (mut served, seen_as) = server.accept().expect("accept");
    assert_eq!(seen_as.ip(), IpAddr::from(ROUTER_OUT), "far sees the router, not near");
    client.write_all(b"hello").expect("write");
    let mut heard = [0; 5];
    served.read_exact(&mut heard).expect("read");
    assert_eq!(&heard, b"hello");
    assert!(lab.sent("near", "to-far") > 0);

    let back = SocketAddr::from((NEAR, 9));
    let error = lab.inside("far", || TcpStream::connect_timeout(&back, Duration::from_millis(300)));
    assert!(error.is_err(), "far has no way to near but the connection that near opened");
}

#[test]
fn a_wall_and_a_cut_link_keep_packets_out() {
    let Some(lab) = behind_a_router() else { return };
    let server = lab.inside("far", || TcpListener::bind((FAR, 0))).expect("bind");
    let address = server.local_addr().expect("address");
    let connect = || lab.inside("near", || TcpStream::connect_timeout(&address, Duration::from_millis(500)));
    assert!(connect().is_ok());
    lab.link("near", "eth0", false);
    assert!(connect().is_err(), "the link is down");
    lab.link("near", "eth0", true);
    lab.default_route("near", ROUTER_IN.into()); // the kernel forgot it with the link
    assert!(connect().is_ok());
    lab.block("far", ROUTER_OUT.into());
    assert!(connect().is_err(), "the wall drops what comes from the router");
}

#[test]
fn a_lab_leaves_nothing_behind() {
    let Some(lab) = behind_a_router() else { return };
    let namespace = lab.namespace("near");
    let mut sleeper =
        std::process::Command::new("ip").args(["netns", "exec", &namespace, "sleep", "1000"]).spawn().expect("sleep");
    tests::wait_for(Duration::from_secs(10), || {
        let pids = std::process::Command::new("ip").args(["netns", "pids", &namespace]).output().expect("ip");
        (!pids.stdout.is_empty()).then_some(())
    })
    .expect("the process is in the namespace");
    drop(lab);
    assert!(!std::path::Path::new("/run/netns").join(&namespace).exists());
    assert!(!sleeper.wait().expect("our own child").success(), "killed with its namespace");
}
