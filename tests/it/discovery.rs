//! Addresses of nodes come from a real nameserver, whose records change, vanish and come back.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use cluster::{Discovery, DiscoveryParts, DiscoverySettings, Snapshot};
use runtime::{Clock, Random, Registry, Shutdown, SystemClock, Tasks};
use tests::dns::{Dns, Records};
use tests::wait_for;

/// A name, in the tests' domain.
const NODES: &str = "nodes.bellrock.test";
const PEERS: &str = "_peer._tcp.bellrock.test";

/// Discovery at work on threads of its own.
struct Found {
    discovery: Discovery,
    registry: Registry,
    executor: tokio::runtime::Runtime,
}

impl Found {
    fn start(dns: &Dns, sources: &[String]) -> Found {
        let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let _inside = executor.enter();
        let registry = Registry::new();
        let settings = DiscoverySettings {
            sources: sources.iter().map(|source| source.parse().unwrap()).collect(),
            nameserver: Some(dns.address()),
        };
        let parts = DiscoveryParts {
            clock: SystemClock::shared(),
            random: Random::from_system().unwrap(),
            registry: registry.clone(),
            tasks: Tasks::new(Shutdown::new()),
        };
        let discovery = Discovery::start(settings, parts);
        Found { discovery, registry, executor }
    }

    /// Waits until these are the addresses.
    #[track_caller]
    fn wait_for(&self, addresses: &[&str]) -> Snapshot {
        let expected: BTreeSet<SocketAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        wait_for(&format!("{addresses:?}"), || {
            Some(self.discovery.snapshot()).filter(|snapshot| snapshot.addresses == expected)
        })
    }

    /// Waits until a source complains like this.
    #[track_caller]
    fn wait_for_complaint(&self, expected: &str) -> Snapshot {
        wait_for(expected, || {
            let snapshot = self.discovery.snapshot();
            let complaints = snapshot.complaints(SystemClock.now_ms());
            complaints.iter().any(|complaint| complaint.contains(expected)).then_some(snapshot)
        })
    }

    /// Waits until nothing is complained of.
    #[track_caller]
    fn wait_for_peace(&self) {
        wait_for("no complaint", || self.discovery.snapshot().complaints(0).is_empty().then_some(()));
    }
}

/// A nameserver; none, after saying so, where dnsmasq is not installed.
#[track_caller]
fn dns(records: Records) -> Option<Dns> {
    Some(Dns::start(tests::dns::find()?, records).unwrap())
}

fn nodes(addresses: &[&str]) -> Records {
    addresses.iter().fold(Records::new(), |records, address| records.address(NODES, address))
}

#[test]
fn a_name_has_the_addresses_of_its_a_and_aaaa_records() {
    let records = nodes(&["10.0.0.1", "10.0.0.2", "fd00::1"]).alias("alias.bellrock.test", NODES);
    let Some(dns) = dns(records) else { return };
    let all = ["10.0.0.1:9010", "10.0.0.2:9010", "[fd00::1]:9010"];
    let found = Found::start(&dns, &[format!("dns+{NODES}:9010")]);
    let snapshot = found.wait_for(&all);
    assert!(snapshot.is_asked() && snapshot.sources[0].last_success_ms.is_some());
    found.wait_for_peace();
    let metrics = found.registry.encode();
    assert!(metrics.contains("bellrock_cluster_discovery_addresses 3\n"), "{metrics}");

    let found = Found::start(&dns, &["dns+alias.bellrock.test:9010".to_string()]);
    found.wait_for(&all);
    let host = format!("{NODES}:7").parse().unwrap();
    let resolver = found.discovery.resolver().clone();
    let resolved = found.executor.block_on(resolver.resolve(&host)).unwrap();
    assert_eq!(resolved.len(), 3, "{resolved:?}");
    let host = "missing.bellrock.test:7".parse().unwrap();
    let error = found.executor.block_on(resolver.resolve(&host)).unwrap_err();
    assert_eq!(error.to_string(), "missing.bellrock.test:7 does not resolve: there is no such name");
}

#[test]
fn services_have_the_ports_of_their_records() {
    let records = Records::new()
        .service(PEERS, "node1.bellrock.test", 9010)
        .service(PEERS, "node2.bellrock.test", 9020)
        .address("node1.bellrock.test", "10.0.0.1")
        .address("node1.bellrock.test", "fd00::1")
        .address("node2.bellrock.test", "10.0.0.2");
    let Some(mut dns) = dns(records.clone()) else { return };
    let found = Found::start(&dns, &[format!("dnssrv+{PEERS}"), "10.0.0.9:9010".to_string()]);
    let all = ["10.0.0.1:9010", "[fd00::1]:9010", "10.0.0.2:9020", "10.0.0.9:9010"];
    found.wait_for(&all);

    // One target without an address does not take the others away, and is named.
    dns.set(records.service(PEERS, "node3.bellrock.test", 9030)).unwrap();
    let snapshot = found.wait_for_complaint("has the target node3.bellrock.test., which does not resolve");
    assert_eq!(snapshot.addresses.len(), all.len());
}

#[test]
fn a_name_that_does_not_resolve_yet_is_asked_for_until_it_does() {
    let Some(mut dns) = dns(Records::new()) else { return };
    let found = Found::start(&dns, &[format!("dns+{NODES}:9010"), format!("dnssrv+{PEERS}")]);
    for source in [format!("dns+{NODES}:9010"), format!("dnssrv+{PEERS}")] {
        found.wait_for_complaint(&format!("join {source} does not resolve: there is no such name: asked"));
    }
    assert!(found.discovery.snapshot().addresses.is_empty());
    dns.set(nodes(&["10.0.0.1"]).service(PEERS, NODES, 9020)).unwrap();
    found.wait_for(&["10.0.0.1:9010", "10.0.0.1:9020"]);
    found.wait_for_peace();
}

#[test]
fn an_empty_answer_and_a_silent_nameserver_take_nothing_away_and_are_told() {
    let Some(mut dns) = dns(nodes(&["10.0.0.1", "10.0.0.2"])) else { return };
    let found = Found::start(&dns, &[format!("dns+{NODES}:9010")]);
    let all = ["10.0.0.1:9010", "10.0.0.2:9010"];
    found.wait_for(&all);
    // The name stands, and has no addresses.
    dns.set(Records::new().text(NODES, "gone")).unwrap();
    found.wait_for_complaint("has neither A nor AAAA records");
    found.wait_for(&all);
    // The name is gone.
    dns.set(Records::new()).unwrap();
    found.wait_for_complaint("there is no such name");
    found.wait_for(&all);
    // Nobody answers.
    dns.stop().unwrap();
    let snapshot = found.wait_for_complaint("cannot be asked for");
    assert_eq!(snapshot.addresses.len(), all.len());
    let complaint = snapshot.complaints(SystemClock.now_ms()).concat();
    assert!(complaint.contains("the 2 addresses known are used"), "{complaint}");
    dns.set(nodes(&["10.0.0.3"])).unwrap();
    found.wait_for(&["10.0.0.3:9010"]);
    found.wait_for_peace();
}

#[test]
fn changed_records_change_the_addresses_and_wake_who_waits() {
    let Some(mut dns) = dns(nodes(&["10.0.0.1", "fd00::1"])) else { return };
    let found = Found::start(&dns, &[format!("dns+{NODES}:9010")]);
    found.wait_for(&["10.0.0.1:9010", "[fd00::1]:9010"]);
    let mut watch = found.discovery.watch();
    let expected: BTreeSet<SocketAddr> = ["10.0.0.2:9010", "[fd00::2]:9010"].map(|a| a.parse().unwrap()).into();
    dns.set(nodes(&["10.0.0.2", "fd00::2"])).unwrap();
    found.executor.block_on(watch.wait_for(|snapshot| snapshot.addresses == expected)).unwrap();
}

#[test]
fn a_large_answer_comes_over_tcp_and_the_nameserver_may_be_ipv6() {
    let Some(program) = tests::dns::find() else { return };
    let addresses: Vec<String> = (1..=120).map(|i| format!("fd00::{i:x}")).collect();
    let records = nodes(&addresses.iter().map(String::as_str).collect::<Vec<_>>());
    for nameserver in [IpAddr::from(Ipv6Addr::LOCALHOST), Ipv4Addr::LOCALHOST.into()] {
        let dns = Dns::start_on(program.clone(), nameserver, records.clone()).unwrap();
        let found = Found::start(&dns, &[format!("dns+{NODES}:9010")]);
        let all: Vec<String> = addresses.iter().map(|address| format!("[{address}]:9010")).collect();
        found.wait_for(&all.iter().map(String::as_str).collect::<Vec<_>>());
        found.wait_for_peace();
    }
}
