//! Loopback addresses of a test's own, for servers that must know their port before they start.
//!
//! A port that the system chose on 127.0.0.1 and that is free again is anybody's: of the test beside this one, or of a
//! connection that goes out. All of 127.0.0.0/8 is this machine, connections go out from 127.0.0.1, and each caller gets
//! an address that nobody else is given: a port that was free there is still free when it is used, and while the server
//! is away.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use tokio::net::TcpSocket;

/// Counts what was given.
static GIVEN: AtomicU32 = AtomicU32::new(0);

/// An address that this process gives once, of 65,000; another process begins elsewhere among them.
pub fn own_address() -> Ipv4Addr {
    let given = GIVEN.fetch_add(1, Ordering::Relaxed);
    let number = std::process::id().wrapping_mul(251).wrapping_add(given) % (255 * 254);
    // 127.255.255.255 is a broadcast address; the test of `deploy/` takes those below 127.255.
    Ipv4Addr::new(127, 255, (number / 254) as u8, 1 + (number % 254) as u8)
}

/// So many different free ports on an address of their own.
pub fn own_addresses(count: usize) -> Result<Vec<SocketAddr>> {
    let ip = own_address();
    let bound: std::io::Result<Vec<TcpSocket>> = (0..count).map(|_| bind(ip)).collect();
    let addresses = bound.and_then(|bound| bound.iter().map(TcpSocket::local_addr).collect());
    addresses.with_context(|| format!("ports on {ip}"))
}

/// A port is taken, and not listened on: a process that is being started beside this one may have a copy of the socket
/// for a moment longer than we do, and that must not keep a server from the port.
fn bind(ip: Ipv4Addr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((ip, 0).into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn ports_are_different_and_can_be_listened_on_while_a_copy_of_the_socket_is_left() {
        let ip = own_address();
        assert_ne!(ip, own_address());
        let bound = [bind(ip).unwrap(), bind(ip).unwrap()];
        let [first, second] = bound.each_ref().map(|socket| socket.local_addr().unwrap());
        assert_ne!(first, second);
        let _server = TcpListener::bind(first).unwrap();
        assert!(TcpListener::bind(first).is_err());
    }
}
