//! One `--join`: where the addresses of other nodes come from.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::host::{AnyHost, DnsName, Expected, HostPort};

/// Where addresses of nodes come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// `dns+name:port`: every A and AAAA record of the name, with this port.
    Addresses {
        /// The name.
        name: DnsName,
        /// The port of every node.
        port: u16,
    },
    /// `dnssrv+name`: every SRV record of the name says a port and a host, whose A and AAAA records count. All of
    /// them are nodes of one kind, so priorities and weights mean nothing here.
    Services {
        /// The name, such as `_bellrock-peer._tcp.example`.
        name: DnsName,
    },
    /// `10.0.0.1:9010` or `[fd00::1]:9010`.
    Address(SocketAddr),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Addresses { name, port } => write!(f, "dns+{name}:{port}"),
            Source::Services { name } => write!(f, "dnssrv+{name}"),
            Source::Address(address) => address.fmt(f),
        }
    }
}

impl FromStr for Source {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Source, Expected> {
        if let Some(name) = text.strip_prefix("dnssrv+") {
            return match name.parse() {
                Ok(name) => Ok(Source::Services { name }),
                Err(_) if name.contains(':') => Err("has a port, and dnssrv+ takes ports from the records".to_string()),
                Err(expected) => Err(expected),
            };
        }
        if let Some(host) = text.strip_prefix("dns+") {
            return match host.parse::<HostPort>()? {
                HostPort { host: AnyHost::Name(name), port } => Ok(Source::Addresses { name, port }),
                address => Err(format!("has an address where dns+ takes a name; write {address} alone")),
            };
        }
        match text.parse::<HostPort>() {
            Ok(HostPort { host: AnyHost::Address(address), port }) => {
                Ok(Source::Address(SocketAddr::new(address, port)))
            }
            Ok(name) => Err(format!("is a name without a way to look it up; write dns+{name}")),
            Err(_) => Err("is none of dns+name:port, dnssrv+name, 10.0.0.1:9010, [fd00::1]:9010".to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_and_written_alike() {
        for text in ["dns+nodes.example:9010", "dnssrv+_peer._tcp.example", "10.0.0.1:9010", "[fd00::1]:9010"] {
            assert_eq!(text.parse::<Source>().map(|source| source.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_is_no_source_is_told_how_to_become_one() {
        let check = |text: &str, expected: &str| {
            let found = text.parse::<Source>().unwrap_err();
            assert!(found.contains(expected), "{text}: {found}");
        };
        check("nodes.example:9010", "write dns+nodes.example:9010");
        check("dns+nodes.example", "has no port");
        check("dns+10.0.0.1:9010", "write 10.0.0.1:9010 alone");
        check("dnssrv+nodes.example:9010", "takes ports from the records");
        check("dnssrv+", "is not a host name");
        check("http://nodes", "is none of dns+name:port");
        check("10.0.0.1", "is none of dns+name:port");
        check("", "is none of dns+name:port");
    }
}
