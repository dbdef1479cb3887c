//! Names to addresses, by the system's nameservers or one of the operator's: the only door to `hickory`.
//!
//! `/etc/resolv.conf` and `/etc/hosts` are looked at before each question, so a machine whose network comes up late,
//! or moves, is no special case. Nothing is kept from one question to the next: the nameserver caches by the records'
//! TTL, and discovery keeps the last good answer.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use parking_lot::Mutex;
use runtime::Clock;

use super::asking::Answer;
use super::source::Source;
use crate::host::{AnyHost, DnsName, HostPort};

/// How long a nameserver may take for one attempt; those of a local network take milliseconds.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// Attempts after the first.
const RETRIES: usize = 1;

/// How long a whole question may take, with all its names, records and nameservers.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Targets of SRV records that are looked up for one source.
const TARGETS_MAX: usize = 128;

/// The files that say how names are looked up on this machine.
const SYSTEM_FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// Looks names up. Clones share it.
#[derive(Clone)]
pub struct Resolver {
    nameserver: Option<SocketAddr>,
    clock: Arc<dyn Clock>,
    // The files as they were when the resolver was made of them. Locked for moments only, never across an await.
    made: Arc<Mutex<Option<(SystemFiles, TokioResolver)>>>,
}

type SystemFiles = [Vec<u8>; SYSTEM_FILES.len()];

/// A name that could not be looked up; says why in words that follow the name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{host} {error}")]
pub struct ResolveError {
    /// What was looked up.
    pub host: HostPort,
    /// Why it has no addresses.
    pub error: String,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("nameserver", &self.nameserver).finish_non_exhaustive()
    }
}

impl Resolver {
    /// Creates a resolver that asks `nameserver`, or those of `/etc/resolv.conf` if there is none. One that is given
    /// knows no search domains: names are asked for as they are written.
    pub fn new(nameserver: Option<SocketAddr>, clock: Arc<dyn Clock>) -> Resolver {
        Resolver { nameserver, clock, made: Arc::default() }
    }

    /// Returns the addresses of a host, at least one: itself, or its A and AAAA records and those in `/etc/hosts`.
    ///
    /// Takes five seconds at most.
    pub async fn resolve(&self, host: &HostPort) -> Result<Vec<SocketAddr>, ResolveError> {
        let name = match &host.host {
            AnyHost::Address(address) => return Ok(vec![SocketAddr::new(*address, host.port)]),
            AnyHost::Name(name) => name.clone(),
        };
        let answer = self.ask(&Source::Addresses { name, port: host.port }).await;
        match answer.error {
            Some(error) if answer.addresses.is_empty() => Err(ResolveError { host: host.clone(), error }),
            _ => Ok(answer.addresses.into_iter().collect()),
        }
    }

    /// Asks a source for its addresses. Without an error they are all, and at least one.
    pub(super) async fn ask(&self, source: &Source) -> Answer {
        let question = async {
            let resolver = match self.resolver().await {
                Ok(resolver) => resolver,
                Err(error) => return Answer { error: Some(error), ..Answer::default() },
            };
            match source {
                Source::Address(address) => Answer { addresses: BTreeSet::from([*address]), error: None },
                Source::Addresses { name, port } => addresses(&resolver, name.as_str(), *port).await,
                Source::Services { name } => services(&resolver, name).await,
            }
        };
        match runtime::timeout(&*self.clock, QUESTION_TIMEOUT, question).await {
            Ok(answer) => answer,
            Err(timed_out) => Answer { error: Some(format!("cannot be looked up: {timed_out}")), ..Answer::default() },
        }
    }

    async fn resolver(&self) -> Result<TokioResolver, String> {
        let has_nameserver = self.nameserver.is_some();
        let files = runtime::blocking(move || read_system_files(has_nameserver)).await?;
        let mut made = self.made.lock();
        if let Some((made_of, resolver)) = &*made
            && *made_of == files
        {
            return Ok(resolver.clone());
        }
        let resolver = make(self.nameserver, &files)?;
        *made = Some((files, resolver.clone()));
        Ok(resolver)
    }
}

#[allow(clippy::disallowed_methods, reason = "the two files by which every program on a machine finds names")]
fn read_system_files(has_nameserver: bool) -> Result<SystemFiles, String> {
    let [resolv_conf, hosts] = SYSTEM_FILES;
    let nameservers = match has_nameserver {
        true => Vec::new(),
        false => {
            std::fs::read(resolv_conf).map_err(|error| format!("cannot be looked up: read {resolv_conf}: {error}"))?
        }
    };
    // A machine may do without it.
    Ok([nameservers, std::fs::read(hosts).unwrap_or_default()])
}

fn make(nameserver: Option<SocketAddr>, files: &SystemFiles) -> Result<TokioResolver, String> {
    let (config, mut options) = match nameserver {
        Some(address) => {
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            server
                .connections
                .iter_mut()
                .for_each(|connection: &mut ConnectionConfig| connection.port = address.port());
            (ResolverConfig::from_parts(None, Vec::new(), vec![server]), ResolverOpts::default())
        }
        None => parse_resolv_conf(&files[0])
            .map_err(|error| format!("cannot be looked up: {}: {error}", SYSTEM_FILES[0]))?,
    };
    options.timeout = ATTEMPT_TIMEOUT;
    options.attempts = RETRIES;
    options.cache_size = 0;
    options.try_tcp_on_error = true;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build().map_err(|error| format!("cannot be looked up: {error}"))
}

/// The A and AAAA records of a name. An address of one kind is enough, unless the other kind could not be asked for.
async fn addresses(resolver: &TokioResolver, name: &str, port: u16) -> Answer {
    let (v4, v6) = futures::join!(lookup(resolver, name, RecordType::A), lookup(resolver, name, RecordType::AAAA));
    let mut answer = Answer::default();
    let mut is_known = false;
    for (kind, found) in [("A", v4), ("AAAA", v6)] {
        match found {
            Ok(Found::Records(records)) => {
                let with_port = |data: RData| data.ip_addr().map(|ip: IpAddr| SocketAddr::new(ip, port));
                answer.addresses.extend(records.into_iter().filter_map(with_port));
            }
            Ok(Found::NoRecords) => is_known = true,
            Ok(Found::NoName) => {}
            Err(error) => answer.error = Some(format!("cannot be asked for {kind} records: {error}")),
        }
    }
    if answer.addresses.is_empty() && answer.error.is_none() {
        let error = if is_known { "has neither A nor AAAA records" } else { "does not resolve: there is no such name" };
        answer.error = Some(error.to_string());
    }
    answer
}

/// The addresses of the targets of a name's SRV records, each with the port of its record.
async fn services(resolver: &TokioResolver, name: &DnsName) -> Answer {
    let failed = |error: String| Answer { error: Some(error), ..Answer::default() };
    let records = match lookup(resolver, name.as_str(), RecordType::SRV).await {
        Ok(Found::Records(records)) => records,
        Ok(Found::NoRecords) => return failed("has no SRV records".to_string()),
        Ok(Found::NoName) => return failed("does not resolve: there is no such name".to_string()),
        Err(error) => return failed(format!("cannot be asked for SRV records: {error}")),
    };
    let targets: BTreeSet<(String, u16)> = records
        .into_iter()
        .filter_map(|data| match data {
            // The root as target says that there is no such service (RFC 2782).
            RData::SRV(srv) if !srv.target.is_root() && srv.port != 0 => Some((srv.target.to_ascii(), srv.port)),
            _ => None,
        })
        .take(TARGETS_MAX)
        .collect();
    let mut answer = Answer::default();
    if targets.is_empty() {
        answer.error = Some("has SRV records that say there is no such service".to_string());
    }
    let found = join_all(targets.iter().map(|(target, port)| addresses(resolver, target, *port))).await;
    for ((target, _), of_target) in targets.iter().zip(found) {
        answer.addresses.extend(of_target.addresses);
        if let Some(error) = of_target.error {
            answer.error = Some(format!("has the target {target}, which {error}"));
        }
    }
    answer
}

/// What a nameserver says of a name.
enum Found {
    /// Records of the kind that was asked for, at least one; others may be among them.
    Records(Vec<RData>),
    /// The name has records, but none of this kind.
    NoRecords,
    /// There is no such name.
    NoName,
}

/// Asks for the records of one kind.
async fn lookup(resolver: &TokioResolver, name: &str, kind: RecordType) -> Result<Found, String> {
    match resolver.lookup(name, kind).await {
        // Names on the way (CNAME) are part of the answer.
        Ok(lookup) if lookup.answers().iter().any(|record| record.record_type() == kind) => {
            Ok(Found::Records(lookup.answers().iter().map(|record| record.data.clone()).collect()))
        }
        Ok(_) => Ok(Found::NoRecords),
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
            ResponseCode::NXDomain => Ok(Found::NoName),
            ResponseCode::NoError => Ok(Found::NoRecords),
            code => Err(format!("the nameserver answers {code}")),
        },
        Err(NetError::Dns(DnsError::ResponseCode(code))) => Err(format!("the nameserver answers {code}")),
        Err(NetError::Timeout) => Err("no nameserver answers in time".to_string()),
        Err(error) => Err(error.to_string()),
    }
}
