//! The addresses that this machine has, and which of them it would use to reach another one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// An address of one of this machine's network interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface's name, such as `eth0`.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
    /// Whether the interface is switched on.
    pub is_up: bool,
}

/// Returns the addresses of all interfaces, in the system's order.
pub fn interface_addresses() -> io::Result<Vec<InterfaceAddress>> {
    let mut found = Vec::new();
    for entry in getifaddrs()? {
        // An interface also has an entry for its hardware address, and one that has no address has nothing else.
        let Some(address) = &entry.address else { continue };
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let v6 = address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
        let is_up = entry.flags.contains(InterfaceFlags::IFF_UP);
        let interface = entry.interface_name;
        found.extend(v4.or(v6).map(|address| InterfaceAddress { interface, address, is_up }));
    }
    Ok(found)
}

/// Returns the address that this machine would connect to `peer` from. Nothing is sent: connecting a UDP socket only
/// makes the kernel look at its routes.
pub fn address_towards(peer: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(peer)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_an_interface_and_leads_to_itself() {
        let addresses = interface_addresses().unwrap();
        let loopback = addresses.iter().find(|found| found.address == Ipv4Addr::LOCALHOST).unwrap();
        assert!(loopback.is_up && loopback.interface.starts_with("lo"), "{addresses:?}");
        assert_eq!(address_towards("127.0.0.1:9".parse().unwrap()).unwrap(), Ipv4Addr::LOCALHOST);
    }

    #[test]
    fn the_way_to_an_address_of_this_machine_begins_at_it() {
        for InterfaceAddress { address, is_up, .. } in interface_addresses().unwrap() {
            let is_link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
            if is_up && !is_link_local {
                assert_eq!(address_towards(SocketAddr::new(address, 9)).unwrap(), address);
            }
        }
    }
}
