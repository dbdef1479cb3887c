//! Listening sockets.
//!
//! Made by hand for two reasons: `[::]` is dual stack whatever the machine's `bindv6only` says, and a
//! port is free again at once after a restart.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn` (4096).
const BACKLOG: i32 = 4096;

/// Listens on every address, or says which ones failed and why; nothing is listened on then.
///
/// `[::]` takes IPv4 connections too, unless `0.0.0.0` with the same port is among the addresses.
/// Port 0 takes a free port. Must be called inside a tokio runtime.
pub fn listen(addresses: &[SocketAddr]) -> Result<Vec<tokio::net::TcpListener>, ListenError> {
    let mut listeners = Vec::new();
    let mut failed = Vec::new();
    for address in addresses {
        let is_v4_taken = addresses.contains(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())));
        match listen_on(*address, is_v4_taken && address.port() != 0) {
            Ok(listener) => listeners.push(listener),
            Err(error) => failed.push((*address, error)),
        }
    }
    if failed.is_empty() { Ok(listeners) } else { Err(ListenError { failed }) }
}

/// The addresses that cannot be listened on.
#[derive(Debug)]
pub struct ListenError {
    /// Each with what the system said.
    pub failed: Vec<(SocketAddr, io::Error)>,
}

impl std::fmt::Display for ListenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (address, error)) in self.failed.iter().enumerate() {
            let separator = if i == 0 { "listen on " } else { "; on " };
            write!(f, "{separator}{address}: {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ListenError {}

fn listen_on(address: SocketAddr, is_v6_only: bool) -> io::Result<tokio::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(is_v6_only)?;
    }
    // Answers are written whole; waiting for more to send only delays them. Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    tokio::net::TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_wildcard_takes_both_families() {
        let listeners = listen(&["[::]:0".parse().unwrap()]).unwrap();
        let port = listeners[0].local_addr().unwrap().port();
        for host in ["127.0.0.1", "::1"] {
            tokio::net::TcpStream::connect((host, port)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn every_address_that_failed_is_named() {
        let taken = listen(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let taken = taken[0].local_addr().unwrap();
        let elsewhere: SocketAddr = "192.0.2.1:9009".parse().unwrap();
        let error = listen(&[taken, "127.0.0.1:0".parse().unwrap(), elsewhere]).unwrap_err();
        let addresses: Vec<_> = error.failed.iter().map(|(address, _)| *address).collect();
        assert_eq!(addresses, [taken, elsewhere], "{error}");
    }
}
