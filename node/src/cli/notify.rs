//! What a daemon tells the service manager that started it (sd_notify(3)): that it serves, that it stops, that it still
//! turns. Nothing happens where nobody asked for it.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Who started us, and how often it wants to hear of us.
#[derive(Debug)]
pub(super) struct Service {
    socket: Option<(UnixDatagram, SocketAddr)>,
    alive_every: Duration,
}

/// How often a daemon wakes for nothing when nobody wants to hear of it.
const SELDOM: Duration = Duration::from_secs(3_600);

impl Service {
    /// From NOTIFY_SOCKET and WATCHDOG_USEC.
    pub(super) fn from_env() -> Self {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let address = name.and_then(|name| match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest).ok(),
            _ => SocketAddr::from_pathname(name).ok(),
        });
        let socket = address.and_then(|address| {
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?; // a manager that does not read holds nobody up
            Some((socket, address))
        });
        let micros = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse::<u64>().ok());
        let ours = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let alive_every = micros.filter(|micros| ours && *micros > 0 && socket.is_some());
        // A third: two may be late before the manager loses its patience.
        Service { socket, alive_every: alive_every.map_or(SELDOM, |micros| Duration::from_micros(micros.div_ceil(3))) }
    }

    /// How often to say that we are alive.
    pub(super) fn alive_every(&self) -> Duration {
        self.alive_every
    }

    /// Says it. Who does not listen misses it.
    pub(super) fn say(&self, words: &str) {
        if let Some((socket, address)) = &self.socket {
            let _ = socket.send_to_addr(words.as_bytes(), address);
        }
    }
}
