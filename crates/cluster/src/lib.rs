//! Finds the other nodes and carries messages to them.
//!
//! A node listens on its peer port ([`serve`]) and calls the others through [`Peers`]: TLS 1.3 always, both sides prove
//! that they belong together ([`Security`]) and say who they are ([`Hello`]) before anything else is read; then
//! HTTP/2, so that a large answer does not hold up a heartbeat. What the messages mean is the [`Host`]'s business:
//! this crate bounds, authenticates and carries them.
//!
//! docs/formats/peer.md has the bytes.
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests set the scene with sockets and files of their own")
)]

mod advertise;
mod connect;
mod consul;
mod discovery;
mod error;
mod hello;
mod host;
mod members;
mod message;
mod metrics;
mod peers;
mod posts;
mod security;
mod serve;
mod sessions;
mod settings;
#[cfg(test)]
mod tests;

pub use advertise::{Advertise, AdvertiseError, Advertised, advertised, service_address};
pub use consul::{ConsulNode, ConsulParts, ConsulSettings, ConsulStatus, register_with_consul};
pub use discovery::{
    Discovery, DiscoveryParts, DiscoverySettings, Failure, ResolveError, Resolver, Snapshot, Source, SourceState,
};
pub use error::{CallError, Refusal, RefusalKind};
pub use hello::{Hello, PROTOCOL_VERSION};
pub use host::{AnyHost, DnsName, HostPort};
pub use members::{Change, Known, Rules, losses_survived, next_change, voters_wanted};
pub use message::Message;
pub use peers::{Peers, PeersParts, Reached};
pub use posts::split_posts;
pub use security::{Secret, Security, SecurityError};
pub use serve::serve;
pub use sessions::{Renewal, Sessions};
pub use settings::Settings;

use bytes::Bytes;
use futures::future::BoxFuture;

/// Whether to have anything to do with a node that says this of itself; `Err` in words for both sides.
pub type Judge = Box<dyn FnOnce(&Hello) -> Result<(), String> + Send>;

/// What this crate needs of the process that it carries messages for.
pub trait Host: Send + Sync + 'static {
    /// What this node says of itself, now.
    fn hello(&self) -> Hello;

    /// Takes note of what was seen of other nodes by now, to judge by it whoever says hello after this.
    fn judge(&self) -> Judge;

    /// Answers a message. The body is at most [`Message::request_bytes_max`] long; of [`Message::Consensus`] it is the posts
    /// that have just come, and the first error ends their stream.
    fn answer(&self, from: Hello, message: Message, body: Bytes) -> BoxFuture<'static, Result<Bytes, Refusal>>;
}
