//! Finds the other nodes and carries messages to them.

mod advertise;
mod consul;
mod discovery;
mod host;

pub use advertise::{Advertise, AdvertiseError, Advertised, advertised, service_address};
pub use consul::{ConsulNode, ConsulParts, ConsulSettings, ConsulStatus, register_with_consul};
pub use discovery::{
    Discovery, DiscoveryParts, DiscoverySettings, Failure, ResolveError, Resolver, Snapshot, Source, SourceState,
};
pub use host::{DnsName, Host, HostPort};
