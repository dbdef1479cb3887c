//! Every setting, one row each; see docs/decisions/0001.
//!
//! A row's key is the flag without its dashes. The environment variable and the key in the file follow
//! from it: `querier.max-samples` is `--querier.max-samples`, `BELLROCK_QUERIER_MAX_SAMPLES` and
//! `querier: {max_samples: …}`.

/// A setting, as far as sources, help and reloading go. What its value means is `settings.rs`'s.
#[derive(Debug)]
pub struct Row {
    /// Owner first, dotted, kebab-case.
    pub key: &'static str,
    /// What stands for the value in the help.
    pub value: &'static str,
    /// The text that is read when no source gives one; empty where there is no value by default.
    pub default: &'static str,
    /// Whether SIGHUP applies a change.
    pub is_live: bool,
    /// Whether a tenant may have a value of its own.
    pub is_per_tenant: bool,
    /// Whether it may be given more than once.
    pub may_repeat: bool,
    /// Whether its value must not be seen: taken from the environment and the file, never from a flag, and never shown.
    pub is_secret: bool,
    /// What it does, and when to change it.
    pub help: &'static str,
}

/// A setting that a restart applies.
const fn fixed(key: &'static str, value: &'static str, default: &'static str, help: &'static str) -> Row {
    Row { key, value, default, is_live: false, is_per_tenant: false, may_repeat: false, is_secret: false, help }
}

/// A setting that a reload applies.
const fn live(key: &'static str, value: &'static str, default: &'static str, help: &'static str) -> Row {
    Row { is_live: true, ..fixed(key, value, default, help) }
}

/// A limit that a reload applies and that a tenant may have its own value of.
const fn limit(key: &'static str, value: &'static str, default: &'static str, help: &'static str) -> Row {
    Row { is_per_tenant: true, ..live(key, value, default, help) }
}

/// A setting that a restart applies and that may be given more than once.
const fn repeated(key: &'static str, value: &'static str, default: &'static str, help: &'static str) -> Row {
    Row { may_repeat: true, ..fixed(key, value, default, help) }
}

/// The settings under their headings, in the order of the help.
pub const GROUPS: &[(&str, &[Row])] = &[
    (
        "The server",
        &[
            fixed("config", "FILE", "", "Reads settings from a YAML file. SIGHUP reads it again."),
            Row {
                may_repeat: true,
                ..fixed(
                    "listen",
                    "ADDRESS",
                    "127.0.0.1:9009",
                    "Listens on this address and port; may be given more than once. [::]:9009 takes IPv4 and IPv6 \
                     from everywhere: nobody has to log in, so put a proxy in front or trust the network.",
                )
            },
            fixed(
                "data",
                "FOLDER",
                "./bellrock-data",
                "Keeps all data in this folder, created if missing; with --bucket only the index and what can be had again. \
                 Without, put it on the disk that is to hold the blocks.",
            ),
            fixed(
                "bucket",
                "URL",
                "",
                "Keeps blocks and segments here instead of in --data: s3://NAME/PREFIX, gs://NAME/PREFIX, \
                 az://CONTAINER/PREFIX, or file:///PATH for a directory that several nodes share (NFS). What follows \
                 belongs to it; in the file: bucket: {url: ..., endpoint: ...}. Try a store with bellrock bucket check.",
            ),
            fixed(
                "bucket.endpoint",
                "URL",
                "",
                "The object store's server, such as http://127.0.0.1:3900 for a Garage of your own. None: the provider's.",
            ),
            fixed(
                "bucket.region",
                "NAME",
                "",
                "The region that requests are signed for. Garage: its s3_region, which is garage as it comes. None: \
                 AWS_REGION, else us-east-1.",
            ),
            fixed(
                "bucket.path-style",
                "BOOLEAN",
                "",
                "Whether the bucket's name is in the path of a request, not in the host. None: true where an endpoint is \
                 given, as few servers of one's own have a DNS name for each bucket.",
            ),
            fixed(
                "bucket.credentials-file",
                "FILE",
                "",
                "Reads aws_access_key_id, aws_secret_access_key and perhaps aws_session_token below [default] of this file; \
                 of gs:// it is a service account's JSON. None: the environment (AWS_ACCESS_KEY_ID, ...), else the machine's.",
            ),
            fixed(
                "bucket.cache-memory-max",
                "SIZE",
                "64MiB",
                "Keeps copies of what queries have fetched from a remote bucket in this much memory; none switches it off. \
                 Raise it where the same dashboards are looked at often.",
            ),
            fixed(
                "bucket.cache-disk-max",
                "SIZE",
                "4GiB",
                "The same on the disk of --data, in its folder cache, which may be deleted at any time; none switches it \
                 off. The last GiB of the disk is left free.",
            ),
            fixed("bucket.ca-file", "FILE", "", "Trusts the certificates (PEM) in this file beside the system's."),
            fixed(
                "memory.max",
                "SIZE",
                "50%",
                "Memory that data being taken in may use, as a size or a share of the cgroup's or machine's memory; \
                 queries come on top. Heads are cut early to stay within it; above 80 % of it new series and at 100 % \
                 every write is answered 503, and comes again. Raise it on a machine of its own.",
            ),
            limit(
                "retention",
                "DURATION",
                "forever",
                "Refuses samples older than this. Nothing that is stored is deleted for its age yet.",
            ),
            fixed(
                "recover.wait",
                "DURATION",
                "25s",
                "How long bellrock recover waits for processes of before to see that their time is over; they look every \
                 10 s. Shorten it only when none can run any more.",
            ),
            live("log.level", "LEVEL", "info", "Logs what is at least this severe: error, warn, info, debug or trace."),
            fixed("log.format", "FORMAT", "logfmt", "Writes logfmt or json, to stderr."),
        ],
    ),
    (
        "The cluster",
        &[
            fixed(
                "node.name",
                "NAME",
                "",
                "What this node is called in logs and on the status page; the machine's name if left out. Only a label: \
                 a node is known by an id that it draws itself.",
            ),
            repeated(
                "peer.listen",
                "ADDRESS",
                "",
                "Listens for other nodes on this address and port, such as [::]:9010; may be given more than once. \
                 Without it this node is a cluster of its own. Needs a secret or certificates.",
            ),
            Row {
                is_secret: true,
                ..fixed(
                    "peer.secret",
                    "TEXT",
                    "",
                    "The secret that every node of the cluster knows, 16 bytes or more: openssl rand -hex 32 makes one. \
                     Never a flag, as those are seen by everybody on the machine.",
                )
            },
            fixed(
                "peer.secret-file",
                "FILE",
                "",
                "Reads that secret from a file, which only its owner should be able to read.",
            ),
            fixed(
                "peer.ca-file",
                "FILE",
                "",
                "Accepts other nodes by certificates (mTLS) that this authority has signed. With peer.cert-file and \
                 peer.key-file.",
            ),
            fixed("peer.cert-file", "FILE", "", "This node's certificate, with those that lead up to the authority."),
            fixed("peer.key-file", "FILE", "", "The private key of that certificate."),
            repeated(
                "join",
                "SOURCE",
                "",
                "Where the addresses of other nodes come from: dns+NAME:PORT (A and AAAA records), dnssrv+NAME (SRV \
                 records, with their ports), or an address with its port. May be given more than once, is asked again for \
                 ever, and may name this node too.",
            ),
            fixed(
                "join.nameserver",
                "ADDRESS",
                "",
                "Asks this nameserver, with its port or 53, instead of those in /etc/resolv.conf. In the file the key has its \
                 dot: join.nameserver.",
            ),
            fixed(
                "expect",
                "COUNT",
                "",
                "Begins a new cluster once this many nodes see one another and none of them has one. Give it to every node \
                 at the first start; it means nothing later. With join and without it, a node only joins a cluster.",
            ),
            fixed(
                "advertise",
                "HOST",
                "",
                "Where other nodes reach this one: an address or a host name, with a port if it is not peer.listen's. If left \
                 out, the address that is listened on, or the one that leads to the other nodes.",
            ),
            fixed(
                "advertise-interface",
                "NAME",
                "",
                "Advertises the first address of this network interface that others can reach, IPv6 before IPv4. For \
                 meshes, whose addresses are given out.",
            ),
            fixed(
                "consul.address",
                "ADDRESS",
                "",
                "Registers this node with the Consul agent there, such as 127.0.0.1:8500, by plain HTTP, and takes it away at \
                 the stop. Other nodes then find it by --join dnssrv+bellrock-peer.service.consul.",
            ),
            fixed(
                "consul.service",
                "NAME",
                "bellrock",
                "The name of the service at the HTTP port; that of the peer port has -peer behind it.",
            ),
            repeated("consul.tags", "TAG", "", "A tag of both services; may be given more than once."),
            repeated("consul.meta", "KEY=VALUE", "", "Metadata of both services; may be given more than once."),
            fixed("consul.token-file", "FILE", "", "Reads the token that may register the services from a file."),
        ],
    ),
    (
        "Writes",
        &[
            live(
                "api.request-bytes-max",
                "SIZE",
                "32MiB",
                "Refuses a larger body with 413. Raise it for senders with very large batches.",
            ),
            live(
                "api.request-decoded-bytes-max",
                "SIZE",
                "32MiB",
                "Refuses a body that is larger than this once decompressed with 413.",
            ),
            limit(
                "ingester.max-labels-per-series",
                "COUNT",
                "100",
                "Refuses series with more labels. Raise it for sources with very many labels.",
            ),
            limit("ingester.max-label-name-bytes", "SIZE", "1KiB", "Refuses series with a longer label name."),
            limit(
                "ingester.max-label-value-bytes",
                "SIZE",
                "8KiB",
                "Refuses series with a longer label value. Raise it where labels hold long texts such as queries.",
            ),
            limit(
                "ingester.max-future",
                "DURATION",
                "10m",
                "Refuses samples further ahead of this machine's clock. Raise it for senders whose clocks run ahead.",
            ),
            fixed(
                "ingester.cut-age-max",
                "DURATION",
                "10m",
                "Cuts what was taken in into a block after this time. Lower it for less memory and a quicker start after \
                 a crash, at the price of more and smaller blocks.",
            ),
        ],
    ),
    (
        "Queries",
        &[
            live("querier.timeout", "DURATION", "2m", "Stops a query that takes longer. Raise it for long reports."),
            live(
                "querier.max-samples",
                "COUNT",
                "50000000",
                "Stops a query that would hold more samples at once. Raise it, with querier.max-bytes, for long ranges over \
                 many series.",
            ),
            live(
                "querier.shard-samples-min",
                "COUNT",
                "5000000",
                "Spreads an aggregation over the nodes, a shard of its series each, when it reads so many samples of blocks.",
            ),
            live(
                "querier.max-bytes",
                "SIZE",
                "25%",
                "Stops a query whose series and results would take more memory, as a size or a share like memory.max.",
            ),
            limit(
                "querier.max-points-per-series",
                "COUNT",
                "11000",
                "Refuses a range query with more steps. 11000 suits a week in steps of a minute.",
            ),
            live(
                "querier.lookback",
                "DURATION",
                "5m",
                "How far a query looks back for a series' latest sample. Raise it above the scrape interval if that is \
                 longer than two minutes.",
            ),
        ],
    ),
];

/// All rows.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    GROUPS.iter().flat_map(|(_, rows)| rows.iter())
}

/// The row with this key.
pub fn row(key: &str) -> Option<&'static Row> {
    rows().find(|row| row.key == key)
}

impl Row {
    /// The flag, with its dashes.
    pub fn flag(&self) -> String {
        format!("--{}", self.key)
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("BELLROCK_{}", self.key.replace(['.', '-'], "_").to_ascii_uppercase())
    }

    /// The key in the file, dots between its levels.
    pub fn file_key(&self) -> String {
        self.key.replace('-', "_")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_follow_from_the_key_and_none_is_used_twice() {
        let row = row("querier.max-samples").unwrap();
        assert_eq!(row.flag(), "--querier.max-samples");
        assert_eq!(row.variable(), "BELLROCK_QUERIER_MAX_SAMPLES");
        assert_eq!(row.file_key(), "querier.max_samples");
        let variables: BTreeSet<String> = rows().map(Row::variable).collect();
        assert_eq!(variables.len(), rows().count());
    }
}
