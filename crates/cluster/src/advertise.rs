//! The address at which this node tells the others to reach it.
//!
//! What an operator wrote counts; else the address that the peer listener is bound to; else the one from which this
//! machine would connect to the nodes it knows of. A node that advertises what nobody can reach looks alive and is
//! not, so loopback is never guessed while the others are elsewhere, and what cannot be told is an error with
//! everything that was seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use runtime::InterfaceAddress;

use crate::host::{AnyHost, Expected, HostPort, parse_with_port};

/// Where the default routes lead: addresses for documentation (RFC 5737, RFC 3849), to which nothing is sent. IPv4
/// first, as a node without it is rarer than one whose IPv6 prefix its provider changes.
const ELSEWHERE: [&str; 2] = ["198.51.100.1:9", "[2001:db8::1]:9"];

/// Peers whose routes are looked at.
const PEERS_MAX: usize = 64;

/// What an operator says about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Advertise {
    /// Nothing.
    #[default]
    Automatic,
    /// This host; with the listener's port if there is none.
    Host(AnyHost, Option<u16>),
    /// The first global or unique local address of this interface, IPv6 before IPv4.
    Interface(String),
}

impl FromStr for Advertise {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Advertise, Expected> {
        let (host, port) = parse_with_port(text)?;
        match host {
            AnyHost::Address(address) if address.is_unspecified() || address.is_multicast() => {
                Err("is not an address that others can connect to".to_string())
            }
            host => Ok(Advertise::Host(host, port)),
        }
    }
}

/// What the others are told, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertised {
    /// The host and port.
    pub address: HostPort,
    /// Why this one, for the log and the status page.
    pub reason: String,
}

/// It cannot be told at which address others reach this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot tell at which address other nodes reach this one: {reason}. This machine has {seen}. Set --advertise, or \
     --advertise-interface (no-advertised-address)"
)]
pub struct AdvertiseError {
    reason: String,
    seen: String,
}

/// Decides what this node, which listens on `listeners`, advertises to nodes some of which are at `peers`.
///
/// Looks at the machine's interfaces and routes as they are now; ask again when they, or the peers, have changed.
pub fn advertised(
    advertise: &Advertise,
    listeners: &[SocketAddr],
    peers: &BTreeSet<SocketAddr>,
) -> Result<Advertised, AdvertiseError> {
    let machine = Machine::look(peers);
    choose(advertise, listeners, &machine)
        .map_err(|reason| AdvertiseError { reason, seen: Seen(&machine.interfaces).to_string() })
}

/// Says where others reach a service that listens on `listeners`, such as the HTTP port, of a node that advertises
/// `host`; none if it listens nowhere that others could be told of.
///
/// Where nothing listens on that host, the service's own address is told: it is there alone.
pub fn service_address(listeners: &[SocketAddr], host: &AnyHost) -> Option<HostPort> {
    let is_wildcard = |listener: &&SocketAddr| listener.ip().is_unspecified();
    let port = match host {
        AnyHost::Address(address) => port_for(listeners, *address),
        AnyHost::Name(_) => listeners.iter().find(is_wildcard).map(SocketAddr::port),
    };
    match port {
        Some(port) => Some(HostPort { host: host.clone(), port }),
        None => listeners.iter().find(|listener| !is_wildcard(listener)).map(|listener| (*listener).into()),
    }
}

/// What counts of this machine.
#[derive(Debug, Default)]
struct Machine {
    interfaces: Vec<InterfaceAddress>,
    /// From which address it would connect to which peer.
    routes: Vec<(SocketAddr, IpAddr)>,
    /// From which addresses it would connect to the rest of the world.
    default_routes: Vec<IpAddr>,
}

impl Machine {
    fn look(peers: &BTreeSet<SocketAddr>) -> Machine {
        let towards = |peer: SocketAddr| runtime::address_towards(peer).ok();
        let default_routes = ELSEWHERE.iter().filter_map(|elsewhere| towards(elsewhere.parse().ok()?));
        Machine {
            // Without them there is only less to choose from and to tell.
            interfaces: runtime::interface_addresses().unwrap_or_default(),
            routes: peers.iter().take(PEERS_MAX).filter_map(|peer| Some((*peer, towards(*peer)?))).collect(),
            default_routes: default_routes.collect(),
        }
    }

    /// The addresses of an interface that is up, and that others could connect to.
    fn addresses_of(&self, interface: &str) -> Vec<IpAddr> {
        let of_it = self.interfaces.iter().filter(|found| found.interface == interface && found.is_up);
        of_it.map(|found| found.address).filter(|address| is_reachable(*address)).collect()
    }
}

/// Says whether other machines may reach it: not loopback, and not bound to one link.
fn is_reachable(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(is_link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

fn choose(advertise: &Advertise, listeners: &[SocketAddr], machine: &Machine) -> Result<Advertised, String> {
    let first = listeners.first().ok_or("no address is listened on for peers")?;
    match advertise {
        Advertise::Host(host, port) => Ok(Advertised {
            address: HostPort { host: host.clone(), port: port.unwrap_or(first.port()) },
            reason: "set by advertise".to_string(),
        }),
        Advertise::Interface(interface) => of_interface(interface, listeners, machine),
        Advertise::Automatic => automatic(listeners, machine),
    }
}

/// The port of the listener that takes connections to `address`.
fn port_for(listeners: &[SocketAddr], address: IpAddr) -> Option<u16> {
    let takes = |listener: &&SocketAddr| match listener.ip() {
        // Dual stack: `runtime::listen` takes IPv4 here too.
        IpAddr::V6(own) if own.is_unspecified() => true,
        IpAddr::V4(own) if own.is_unspecified() => address.is_ipv4(),
        own => own == address,
    };
    listeners.iter().find(takes).map(SocketAddr::port)
}

fn of_interface(interface: &str, listeners: &[SocketAddr], machine: &Machine) -> Result<Advertised, String> {
    let mut addresses = machine.addresses_of(interface);
    if addresses.is_empty() {
        let is_there = machine.interfaces.iter().any(|found| found.interface == interface);
        let what = if is_there { "has no address that others could reach, or is down" } else { "has no address" };
        return Err(format!("interface {interface} {what}"));
    }
    // The order among those of one family is the system's.
    addresses.sort_by_key(IpAddr::is_ipv4);
    let with_port = addresses.iter().find_map(|address| Some((*address, port_for(listeners, *address)?)));
    let Some((address, port)) = with_port else {
        let (on, has) = (list(listeners), list(&addresses));
        return Err(format!("interface {interface} has {has}, and peers are listened to on {on} only"));
    };
    Ok(Advertised { address: SocketAddr::new(address, port).into(), reason: format!("address of {interface}") })
}

fn automatic(listeners: &[SocketAddr], machine: &Machine) -> Result<Advertised, String> {
    let advertise = |address: IpAddr, reason: &str| {
        let port = port_for(listeners, address)?;
        Some(Advertised { address: SocketAddr::new(address, port).into(), reason: reason.to_string() })
    };
    // Those that are here as well say nothing about the others, unless there are no others.
    let are_all_here = machine.routes.iter().all(|(peer, _)| peer.ip().is_loopback());
    let towards_peers = most_frequent(machine.routes.iter().filter_map(|(_, own)| {
        let is_usable = is_reachable(*own) || (are_all_here && own.is_loopback());
        (is_usable && port_for(listeners, *own).is_some()).then_some(*own)
    }));
    if let [only] = listeners
        && !only.ip().is_unspecified()
    {
        if only.ip().is_loopback() && !are_all_here {
            return Err(format!("peers are listened to on {only} only, and other nodes are on other machines"));
        }
        return Ok(Advertised { address: (*only).into(), reason: "address that is listened on".to_string() });
    }
    if let Some(own) = towards_peers
        && let Some(advertised) = advertise(own, "address towards the nodes found by join")
    {
        return Ok(advertised);
    }
    let concrete = listeners.iter().map(SocketAddr::ip).filter(|ip| is_reachable(*ip));
    let is_single = |address: &&InterfaceAddress| is_reachable(address.address) && address.is_up;
    let interfaces: BTreeSet<&str> =
        machine.interfaces.iter().filter(is_single).map(|found| found.interface.as_str()).collect();
    let of_only_interface = match interfaces.first() {
        Some(only) if interfaces.len() == 1 => machine.addresses_of(only),
        _ => Vec::new(),
    };
    let default_routes = machine.default_routes.iter().copied().filter(|own| is_reachable(*own));
    let guesses = concrete
        .map(|address| (address, "address that is listened on"))
        .chain(default_routes.map(|address| (address, "address of the default route")))
        .chain(of_only_interface.into_iter().map(|address| (address, "address of the only interface")));
    guesses.into_iter().find_map(|(address, reason)| advertise(address, reason)).ok_or_else(|| {
        let on = list(listeners);
        match machine.routes.len() {
            0 => format!("peers are listened to on {on}, no other node is known, and there is no default route"),
            _ => format!("peers are listened to on {on}, which no route to the other nodes begins at"),
        }
    })
}

/// The address that comes most often; the first of those that do.
fn most_frequent(addresses: impl Iterator<Item = IpAddr>) -> Option<IpAddr> {
    let mut counts: BTreeMap<IpAddr, (usize, std::cmp::Reverse<usize>)> = BTreeMap::new();
    for (at, address) in addresses.enumerate() {
        counts.entry(address).or_insert((0, std::cmp::Reverse(at))).0 += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(address, _)| address)
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Writes what interfaces a machine has: `lo 127.0.0.1, ::1; eth0 10.0.0.1`.
struct Seen<'a>(&'a [InterfaceAddress]);

impl fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no addresses");
        }
        let mut by_name: Vec<(&str, Vec<String>)> = Vec::new();
        for InterfaceAddress { interface, address, is_up } in self.0 {
            let address = if *is_up { address.to_string() } else { format!("{address} (down)") };
            match by_name.iter_mut().find(|(name, _)| name == interface) {
                Some((_, addresses)) => addresses.push(address),
                None => by_name.push((interface, vec![address])),
            }
        }
        let texts: Vec<String> =
            by_name.iter().map(|(name, addresses)| format!("{name} {}", addresses.join(", "))).collect();
        f.write_str(&texts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with `interface address` pairs, routes as `peer from` pairs and default routes.
    fn machine(interfaces: &[&str], routes: &[&str], default_routes: &[&str]) -> Machine {
        let pair = |text: &&str| text.split_once(' ').map(|(a, b)| (a.to_string(), b.to_string())).unwrap();
        let interface = |text: &&str| {
            let (interface, address) = pair(text);
            InterfaceAddress { interface, address: address.parse().unwrap(), is_up: true }
        };
        let route = |text: &&str| (pair(text).0.parse().unwrap(), pair(text).1.parse().unwrap());
        Machine {
            interfaces: interfaces.iter().map(interface).collect(),
            routes: routes.iter().map(route).collect(),
            default_routes: default_routes.iter().map(|address| address.parse().unwrap()).collect(),
        }
    }

    fn home() -> Machine {
        let interfaces = [
            "lo 127.0.0.1",
            "eth0 192.168.1.5",
            "eth0 fe80::1",
            "eth0 2001:db8:1::5",
            "mesh 10.9.0.1",
            "mesh fd00::1",
            "lo ::1",
        ];
        machine(&interfaces, &[], &["192.168.1.5", "2001:db8:1::5"])
    }

    fn with_routes(machine: Machine, routes: &[&str]) -> Machine {
        Machine { routes: self::machine(&[], routes, &[]).routes, ..machine }
    }

    #[track_caller]
    fn check(advertise: &Advertise, listeners: &[&str], machine: &Machine, expected: Result<&str, &str>) {
        let listeners: Vec<SocketAddr> = listeners.iter().map(|listener| listener.parse().unwrap()).collect();
        let found = choose(advertise, &listeners, machine).map(|advertised| advertised.address.to_string());
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            _ => panic!("{found:?} is not {expected:?}"),
        }
    }

    #[test]
    fn what_is_set_counts_with_the_listeners_port_unless_it_has_its_own() {
        let check = |text: &str, expected| check(&text.parse().unwrap(), &["127.0.0.1:9010"], &home(), expected);
        check("node1.example", Ok("node1.example:9010"));
        check("node1.example:7", Ok("node1.example:7"));
        check("fd00::1", Ok("[fd00::1]:9010"));
        check("[fd00::1]:7", Ok("[fd00::1]:7"));
        check("10.0.0.1", Ok("10.0.0.1:9010"));
        assert!("0.0.0.0".parse::<Advertise>().is_err() && "[::]:1".parse::<Advertise>().is_err());
    }

    #[test]
    fn an_interface_gives_its_first_address_that_is_listened_on() {
        let check = |name: &str, listeners: &[&str], expected| {
            check(&Advertise::Interface(name.to_string()), listeners, &home(), expected);
        };
        check("mesh", &["[::]:1"], Ok("[fd00::1]:1"));
        check("mesh", &["0.0.0.0:1"], Ok("10.9.0.1:1"));
        check("mesh", &["192.168.1.5:1", "10.9.0.1:2"], Ok("10.9.0.1:2"));
        check("eth0", &["[::]:1"], Ok("[2001:db8:1::5]:1"));
        check("mesh", &["192.168.1.5:1"], Err("has fd00::1, 10.9.0.1, and peers are listened to on 192.168.1.5:1"));
        check("wg0", &["[::]:1"], Err("interface wg0 has no address"));
        check("lo", &["[::]:1"], Err("interface lo has no address that others could reach"));
    }

    #[test]
    fn the_only_address_that_is_listened_on_is_advertised() {
        let check = |listeners: &[&str], routes: &[&str], expected| {
            check(&Advertise::Automatic, listeners, &with_routes(home(), routes), expected);
        };
        check(&["10.9.0.1:1"], &["192.168.1.6:1 192.168.1.5"], Ok("10.9.0.1:1"));
        check(&["127.0.0.1:1"], &[], Ok("127.0.0.1:1"));
        check(&["[::1]:1"], &["127.0.0.1:2 127.0.0.1"], Ok("[::1]:1"));
        check(&["127.0.0.1:1"], &["192.168.1.6:1 192.168.1.5"], Err("on 127.0.0.1:1 only, and other nodes are on"));
    }

    #[test]
    fn the_address_towards_the_others_is_advertised() {
        let check = |listeners: &[&str], routes: &[&str], expected| {
            check(&Advertise::Automatic, listeners, &with_routes(home(), routes), expected);
        };
        let mesh = ["10.9.0.2:1 10.9.0.1", "10.9.0.3:1 10.9.0.1", "192.168.1.6:1 192.168.1.5"];
        check(&["[::]:1"], &mesh, Ok("10.9.0.1:1"));
        check(&["192.168.1.5:1", "10.9.0.1:2"], &mesh, Ok("10.9.0.1:2"));
        check(&["0.0.0.0:1"], &["[fd00::2]:1 fd00::1", "[fd00::3]:1 fd00::1", mesh[0]], Ok("10.9.0.1:1"));
        // Those on this machine tell nothing while others are elsewhere.
        check(&["[::]:1"], &["127.0.0.1:1 127.0.0.1", "127.0.0.2:1 127.0.0.1", mesh[0]], Ok("10.9.0.1:1"));
        check(&["[::]:1"], &["127.0.0.1:1 127.0.0.1", "127.0.0.1:2 127.0.0.1"], Ok("127.0.0.1:1"));
        check(&["[::]:1"], &["[::1]:1 ::1"], Ok("[::1]:1"));
    }

    #[test]
    fn without_others_the_default_route_or_the_only_interface_is_taken() {
        let check = |listeners: &[&str], machine: &Machine, expected| {
            check(&Advertise::Automatic, listeners, machine, expected);
        };
        check(&["[::]:1"], &home(), Ok("192.168.1.5:1"));
        check(&["10.9.0.1:1", "127.0.0.1:1"], &home(), Ok("10.9.0.1:1"));
        let island = ["lo 127.0.0.1", "eth0 fe80::1", "eth0 fd00::7"];
        check(&["[::]:1"], &machine(&island, &[], &[]), Ok("[fd00::7]:1"));
        check(&["0.0.0.0:1"], &machine(&island, &[], &[]), Err("there is no default route"));
        check(&["[::]:1"], &machine(&["lo 127.0.0.1"], &[], &[]), Err("no other node is known"));
        let two = ["eth0 10.0.0.1", "eth1 10.1.0.1"];
        check(&["[::]:1"], &machine(&two, &[], &[]), Err("no other node is known"));
        check(&[], &home(), Err("no address is listened on"));
    }

    #[test]
    fn a_service_is_where_it_listens() {
        let check = |listeners: &[&str], host: &str, expected: Option<&str>| {
            let listeners: Vec<SocketAddr> = listeners.iter().map(|listener| listener.parse().unwrap()).collect();
            let found = service_address(&listeners, &host.parse().unwrap()).map(|found| found.to_string());
            assert_eq!(found.as_deref(), expected, "{listeners:?} {host}");
        };
        check(&["[::]:9009"], "10.0.0.1", Some("10.0.0.1:9009"));
        check(&["127.0.0.1:1", "0.0.0.0:2"], "n1.example", Some("n1.example:2"));
        check(&["127.0.0.1:9009"], "10.0.0.1", Some("127.0.0.1:9009"));
        check(&["127.0.0.1:9009"], "n1.example", Some("127.0.0.1:9009"));
        check(&["127.0.0.1:1", "10.0.0.1:2"], "10.0.0.1", Some("10.0.0.1:2"));
        check(&["0.0.0.0:9009"], "fd00::1", None);
        check(&[], "10.0.0.1", None);
    }

    #[test]
    fn the_error_says_what_was_seen() {
        let mut machine = machine(&["lo 127.0.0.1", "eth0 10.0.0.1", "eth1 10.1.0.1", "lo ::1"], &[], &[]);
        machine.interfaces[2].is_up = false;
        assert_eq!(Seen(&machine.interfaces).to_string(), "lo 127.0.0.1, ::1; eth0 10.0.0.1; eth1 10.1.0.1 (down)");
        assert_eq!(Seen(&[]).to_string(), "no addresses");
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let here = BTreeSet::from(["127.0.0.1:1".parse().unwrap()]);
        let found = advertised(&Advertise::Automatic, &["0.0.0.0:7".parse().unwrap()], &here).unwrap();
        assert_eq!(found.address.to_string(), "127.0.0.1:7");
        let missing = Advertise::Interface("no-such-one".to_string());
        let error = advertised(&missing, &["0.0.0.0:7".parse().unwrap()], &here).unwrap_err().to_string();
        assert!(error.contains("interface no-such-one has no address. This machine has lo 127.0.0.1"), "{error}");
    }
}
