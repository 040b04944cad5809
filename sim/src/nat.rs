//! Masquerading routers: turmoil's network has none, so a host plays one.
//!
//! Whoever is behind a router dials the rest of the world through it, and the far side sees the
//! router's address; dialling that address reaches the router's own listeners and nobody behind it.
//! [`Routes`] says which way a dial goes (asked by [`crate::transport`]), [`masquerade`] is what the
//! router runs.

use ipnet::Ipv4Net;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use topology::Fleet;
use turmoil::net::{TcpListener, TcpStream};

/// Where a router takes dials from inside. No node listens on so low a port.
const PORT: u16 = 1;

/// One router and the network behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// The network whose hosts are hidden.
    pub inside: Ipv4Net,
    /// The router's one address; what the outside sees.
    pub router: IpAddr,
}

/// How hosts reach each other's addresses. Without any masquerade, everybody reaches everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes(Vec<Masquerade>);

/// Which way a dial goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Straight there.
    Direct,
    /// Through the masquerade of the router at this address.
    Through(IpAddr),
}

impl Routes {
    /// With these masquerades. Networks behind different routers do not reach each other.
    pub fn new(masquerades: Vec<Masquerade>) -> Routes {
        Routes(masquerades)
    }

    /// The masquerades of a fleet.
    pub fn of(fleet: &Fleet) -> Routes {
        let inside = |name: &str| fleet.networks.get(name).map(|network| network.cidr);
        let one = |m: &topology::Masquerade| Some(Masquerade { inside: inside(&m.inside)?, router: m.address.into() });
        Routes(fleet.masquerades.iter().filter_map(one).collect())
    }

    /// The masquerades, for starting their routers.
    pub fn masquerades(&self) -> &[Masquerade] {
        &self.0
    }

    /// Which way a dial from `me` to `to` goes.
    ///
    /// # Errors
    /// `NetworkUnreachable` when `to` is hidden behind a router that is not `me`, in another network.
    pub fn way(&self, me: IpAddr, to: IpAddr) -> io::Result<Way> {
        let behind = |ip: IpAddr| self.0.iter().find(|masq| holds(&masq.inside, ip));
        match (behind(me), behind(to)) {
            (mine, theirs) if mine == theirs => Ok(Way::Direct),
            (Some(mine), None) if mine.router == to => Ok(Way::Direct),
            (None, Some(theirs)) if theirs.router == me => Ok(Way::Direct),
            (Some(mine), None) => Ok(Way::Through(mine.router)),
            _ => Err(io::Error::new(io::ErrorKind::NetworkUnreachable, format!("no route from {me} to {to}"))),
        }
    }
}

fn holds(network: &Ipv4Net, ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if network.contains(&ip))
}

/// Dials `to` through the router's masquerade.
///
/// # Errors
/// When the router cannot be reached, or cannot reach `to`.
pub async fn connect_through(router: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let SocketAddr::V4(v4) = to else { return Err(io::ErrorKind::Unsupported.into()) };
    let mut stream = TcpStream::connect((router, PORT)).await?;
    let mut head = [0; 6];
    head[..4].copy_from_slice(&v4.ip().octets());
    head[4..].copy_from_slice(&v4.port().to_be_bytes());
    stream.write_all(&head).await?;
    // A byte comes back once the outer connection stands: a refused dial then looks refused.
    match stream.read_u8().await {
        Ok(_) => Ok(stream),
        Err(_) => Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("{to} refused, through {router}"))),
    }
}

/// Plays the router for the hosts of `inside`, on the host that this is called on. Ends only by an error.
///
/// # Errors
/// When it cannot listen.
pub async fn masquerade(inside: Ipv4Net) -> io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    loop {
        let (mut stream, from) = listener.accept().await?;
        if holds(&inside, from.ip()) {
            tokio::task::spawn_local(async move {
                // An error closes both ends, which is all that either side would see of it.
                let _ = carry(&mut stream).await;
            });
        }
    }
}

async fn carry(inner: &mut TcpStream) -> io::Result<()> {
    let mut head = [0; 6];
    inner.read_exact(&mut head).await?;
    let [a, b, c, d, port @ ..] = head;
    let to = SocketAddrV4::new([a, b, c, d].into(), u16::from_be_bytes(port));
    let mut outer = TcpStream::connect(SocketAddr::V4(to)).await?;
    inner.write_u8(1).await?;
    copy_bidirectional(inner, &mut outer).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_fleet_hides_one_site_behind_its_gateway() {
        let routes = Routes::of(&Fleet::alpha_centauri().unwrap());
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let gateway = ip("10.42.0.199");
        let way = |me: &str, to: &str| routes.way(ip(me), ip(to)).ok();
        assert_eq!(way("192.168.20.77", "10.42.0.201"), Some(Way::Through(gateway)));
        assert_eq!(way("192.168.20.77", "192.168.20.196"), Some(Way::Direct));
        assert_eq!(way("192.168.20.77", "10.42.0.199"), Some(Way::Direct));
        assert_eq!(way("10.42.0.199", "192.168.20.77"), Some(Way::Direct));
        assert_eq!(way("10.42.0.203", "192.168.20.77"), None);
        assert_eq!(way("10.42.0.203", "10.42.0.199"), Some(Way::Direct));
    }
}
