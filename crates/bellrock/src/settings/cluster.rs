//! The settings of a node among others: where it listens for them, how they trust and find one another.

use std::net::SocketAddr;
use std::path::PathBuf;

use cluster::{Advertise, ConsulSettings, DiscoverySettings, HostPort};
use runtime::Secret;

use super::sources::Fault;
use super::{Reader, table, values};

/// The port of a Consul agent.
const CONSUL_PORT: u16 = 8500;

/// Settings that mean nothing without another one.
const NEEDS: &[(&str, &str)] = &[
    ("join", "peer.listen"),
    // The nodes of a cluster share one.
    ("join", "bucket"),
    ("expect", "peer.listen"),
    ("join.nameserver", "join"),
    ("consul.service", "consul.address"),
    ("consul.tags", "consul.address"),
    ("consul.meta", "consul.address"),
    ("consul.token-file", "consul.address"),
];

/// Settings that answer the same question in two ways.
const EXCLUDES: &[(&str, &str)] = &[
    ("peer.secret", "peer.secret-file"),
    ("peer.secret", "peer.ca-file"),
    ("peer.secret-file", "peer.ca-file"),
    ("advertise", "advertise-interface"),
];

/// The files of mTLS, which come together.
const TLS_FILES: [&str; 3] = ["peer.ca-file", "peer.cert-file", "peer.key-file"];

/// This node among others.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterSettings {
    /// Its label; the machine's name if there is none.
    pub node_name: Option<String>,
    /// Where it listens for other nodes; nowhere if this is empty. Otherwise there is either a secret or certificates.
    pub peer_listen: Vec<SocketAddr>,
    /// What every node of the cluster knows.
    pub peer_secret: Option<Secret>,
    /// The certificates that nodes prove themselves with.
    pub peer_tls: Option<PeerTls>,
    /// Where the addresses of other nodes come from.
    pub discovery: DiscoverySettings,
    /// Nodes that begin a cluster together; 2 or more only with sources to find them by.
    pub expect: Option<u64>,
    /// Where others reach this node.
    pub advertise: Advertise,
    /// The Consul agent to register with.
    pub consul: Option<ConsulSettings>,
}

/// The files of mTLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerTls {
    /// The authority that signs nodes' certificates.
    pub ca_file: PathBuf,
    /// This node's certificate.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
}

impl Reader<'_> {
    pub(super) fn cluster(&mut self) -> ClusterSettings {
        let faults_before = self.faults.len();
        let secret = self.optional("peer.secret", values::cluster_secret);
        let secret_file = self.optional("peer.secret-file", |path| {
            let secret = values::secret_file(path)?;
            values::cluster_secret(secret.reveal()).map_err(|expected| format!("has a secret that {expected}"))
        });
        let tls_files = TLS_FILES.map(|key| self.optional(key, values::path));
        let advertise = self.optional("advertise", str::parse);
        let interface = self.optional("advertise-interface", interface);
        let settings = ClusterSettings {
            node_name: self.optional("node.name", values::name),
            peer_listen: self.any("peer.listen", values::address),
            peer_secret: secret.or(secret_file),
            peer_tls: match tls_files {
                [Some(ca_file), Some(cert_file), Some(key_file)] => Some(PeerTls { ca_file, cert_file, key_file }),
                _ => None,
            },
            discovery: DiscoverySettings {
                sources: self.any("join", str::parse),
                nameserver: self.optional("join.nameserver", values::nameserver),
            },
            expect: self.optional("expect", values::count),
            advertise: advertise.or(interface.map(Advertise::Interface)).unwrap_or_default(),
            consul: self.consul(),
        };
        // What cannot be read is not there, and would be missed here once more.
        if self.faults.len() == faults_before {
            self.judge(&settings);
        }
        settings
    }

    fn consul(&mut self) -> Option<ConsulSettings> {
        let address = self.optional("consul.address", consul_address);
        let settings = ConsulSettings {
            service: self.one("consul.service", values::name),
            tags: self.any("consul.tags", values::visible),
            meta: self.any("consul.meta", values::key_and_value).into_iter().collect(),
            token: self.optional("consul.token-file", values::secret_file),
            address: address?,
        };
        Some(settings)
    }

    /// Finds what is wrong with settings that are right one by one.
    fn judge(&mut self, settings: &ClusterSettings) {
        for (key, needed) in NEEDS {
            if let (Some(given), None) = (self.given(key), self.given(needed)) {
                let fault = Fault(format!("{} means nothing without {}", given.named, flag(needed)));
                self.faults.push(fault);
            }
        }
        for (one, other) in EXCLUDES {
            if let (Some(one), Some(other)) = (self.given(one), self.given(other)) {
                let fault = Fault(format!("{} and {} exclude one another", one.named, other.named));
                self.faults.push(fault);
            }
        }
        let given = TLS_FILES.map(|key| self.given(key).map(|given| given.named.clone()));
        let missing: Vec<String> =
            TLS_FILES.iter().filter(|key| self.given(key).is_none()).map(|key| flag(key)).collect();
        if let (Some(named), false) = (given.into_iter().flatten().next(), missing.is_empty()) {
            self.faults.push(Fault(format!("{named} needs {} as well", missing.join(" and "))));
        } else if let Some(listen) = self.given("peer.listen")
            && settings.peer_secret.is_none()
            && settings.peer_tls.is_none()
        {
            let trust =
                "needs --peer.secret-file, BELLROCK_PEER_SECRET or --peer.ca-file, so that not everybody is let in";
            let fault = Fault(format!("{} {trust}", listen.named));
            self.faults.push(fault);
        }
        if let (Some(given), Some(2..), true) =
            (self.given("expect"), settings.expect, settings.discovery.sources.is_empty())
        {
            let fault = Fault(format!("{} of more than this node means nothing without --join", given.named));
            self.faults.push(fault);
        }
    }
}

fn flag(key: &str) -> String {
    table::row(key).map(table::Row::flag).unwrap_or_default()
}

/// A name as the kernel has it.
fn interface(text: &str) -> Result<String, values::Expected> {
    match (1..16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/') {
        true => Ok(text.to_string()),
        false => Err("is not the name of a network interface, such as eth0".to_string()),
    }
}

/// `127.0.0.1:8500`, `http://consul.example`.
fn consul_address(text: &str) -> Result<HostPort, values::Expected> {
    if text.starts_with("https://") {
        return Err("is not plain HTTP; use the agent on this machine, such as 127.0.0.1:8500".to_string());
    }
    let host = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let expected = "is not the address of a Consul agent, such as 127.0.0.1:8500";
    HostPort::parse_or(host, CONSUL_PORT).map_err(|_| expected.to_string())
}
