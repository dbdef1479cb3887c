//! Finds the other nodes and carries messages to them.

mod discovery;
mod host;

pub use discovery::{
    Discovery, DiscoveryParts, DiscoverySettings, Failure, ResolveError, Resolver, Snapshot, Source, SourceState,
};
pub use host::{DnsName, Host, HostPort};
