//! A host and a port as people write them: `10.0.0.1:9010`, `[fd00::1]:9010`, `node1.example:9010`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// The longest name that DNS can spell, in bytes.
const NAME_BYTES_MAX: usize = 253;

/// The longest part of a name between two dots.
const LABEL_BYTES_MAX: usize = 63;

/// What is expected of a text that cannot be read; it follows the text in a message.
pub type Expected = String;

/// A name that DNS can be asked for; a final dot says that nothing is to be appended to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(String);

impl DnsName {
    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DnsName {
    type Err = Expected;

    fn from_str(text: &str) -> Result<DnsName, Expected> {
        let expected = || "is not a host name of letters, digits, - and _ between dots".to_string();
        let labels = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            let is_known = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(is_known)
        };
        if labels.len() > NAME_BYTES_MAX || !labels.split('.').all(is_label) {
            return Err(expected());
        }
        // Nothing else ends in a number, so this is an address that was cut short or mistyped.
        let is_number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
        if labels.rsplit('.').next().is_some_and(is_number) { Err(expected()) } else { Ok(DnsName(text.to_string())) }
    }
}

/// An address, or a name that one is found for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnyHost {
    /// `10.0.0.1`, `fd00::1`.
    Address(IpAddr),
    /// `node1.example`.
    Name(DnsName),
}

impl fmt::Display for AnyHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnyHost::Address(address) => address.fmt(f),
            AnyHost::Name(name) => name.fmt(f),
        }
    }
}

impl FromStr for AnyHost {
    type Err = Expected;

    fn from_str(text: &str) -> Result<AnyHost, Expected> {
        let in_brackets = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        match in_brackets.unwrap_or(text).parse() {
            Ok(address) => Ok(AnyHost::Address(address)),
            Err(_) if in_brackets.is_some() => Err("is not an IPv6 address in brackets".to_string()),
            Err(_) => text.parse().map(AnyHost::Name),
        }
    }
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// The host.
    pub host: AnyHost,
    /// The port, never 0.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            // With its brackets.
            AnyHost::Address(address) => SocketAddr::new(*address, self.port).fmt(f),
            AnyHost::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> HostPort {
        HostPort { host: AnyHost::Address(address.ip()), port: address.port() }
    }
}

impl HostPort {
    /// Reads a host with a port, or without one, which is then `port`.
    pub fn parse_or(text: &str, port: u16) -> Result<HostPort, Expected> {
        let (host, own) = parse_with_port(text)?;
        Ok(HostPort { host, port: own.unwrap_or(port) })
    }
}

impl FromStr for HostPort {
    type Err = Expected;

    fn from_str(text: &str) -> Result<HostPort, Expected> {
        match parse_with_port(text)? {
            (host, Some(port)) => Ok(HostPort { host, port }),
            (_, None) => Err("has no port, such as node1:9010 or [fd00::1]:9010".to_string()),
        }
    }
}

/// Reads a host with or without a port. An IPv6 address has a port only behind brackets.
pub fn parse_with_port(text: &str) -> Result<(AnyHost, Option<u16>), Expected> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((AnyHost::Address(address), None));
    }
    let (host, port) = match text.rsplit_once(':') {
        // The last colon of `[fd00::1]` is the address's.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    if host.contains(':') && !host.starts_with('[') {
        return Err("is no address; IPv6 with a port is written [fd00::1]:9010".to_string());
    }
    let port = port.map(|port| match port.parse() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err("has no port of 1 to 65535 behind its last colon".to_string()),
    });
    Ok((host.parse()?, port.transpose()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let found = text.parse::<HostPort>().ok().map(|host| host.to_string());
        assert_eq!(found.as_deref(), expected, "{text}");
    }

    #[test]
    fn a_host_and_a_port_are_read_and_written_alike() {
        check("10.0.0.1:9010", Some("10.0.0.1:9010"));
        check("[fd00::1]:9010", Some("[fd00::1]:9010"));
        check("node-1.example:9010", Some("node-1.example:9010"));
        check("_peer._tcp.example.:1", Some("_peer._tcp.example.:1"));
        for text in ["", ":1", "a", "a:", "a:0", "a:65536", "fd00::1:9010", "[fd00::1]", "[a]:1", "a b:1", "a..b:1"] {
            check(text, None);
        }
        check("10.0.0:1", None);
        check(&format!("{}:1", "a".repeat(64)), None);
        check(&format!("{}a:1", "abcdefgh.".repeat(29)), None);
    }

    #[test]
    fn the_port_may_be_left_out_where_one_is_known() {
        let check = |text: &str, host: &str, port: Option<u16>| {
            let (found, found_port) = parse_with_port(text).unwrap();
            assert_eq!((found.to_string().as_str(), found_port), (host, port), "{text}");
        };
        check("fd00::1", "fd00::1", None);
        check("[fd00::1]", "fd00::1", None);
        check("[fd00::1]:7", "fd00::1", Some(7));
        check("10.0.0.1", "10.0.0.1", None);
        check("node1", "node1", None);
        check("node1:7", "node1", Some(7));
    }
}
