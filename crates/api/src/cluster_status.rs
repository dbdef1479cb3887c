//! `/api/v1/status/cluster`: which nodes there are, what they do, what is wrong, and what may be lost now.
//!
//! What is in the report is decided by whoever fills in [`ClusterStatus`]; here it is only written down. Ids and revisions
//! are strings, times and durations seconds.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use futures::future::BoxFuture;
use model::{Lease, NodeId, Revision, SegmentNumber, TimestampMs, WriterId};

use crate::json::{put_fmt, put_list, put_string, put_strings, put_time};
use crate::response::{ApiError, success};
use crate::router::Shared;
use crate::services::ServiceError;

/// The cluster as one node sees it, with the help of the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterReport {
    /// The cluster's id.
    pub cluster: u128,
    /// Bellrock's version here.
    pub version: String,
    /// Whose report it is: a node's name.
    pub answered_by: String,
    /// What is wrong and what to do, each with its id from docs/runbook.md; the node's name in front if it is one's own
    /// trouble. Empty: all is well.
    pub degraded: Vec<String>,
    /// What the report does not know.
    pub unknown: Vec<String>,
    /// Who leads the index, and in which term; `None`: nobody, as far as is known.
    pub leader: Option<(NodeId, u64)>,
    /// The revision that is applied here.
    pub applied: Revision,
    /// The revision up to which the bucket holds the index; only the leader knows.
    pub stored: Option<Revision>,
    /// Every node that the index knows, by name.
    pub nodes: Vec<NodeReport>,
    /// Every writer that is not closed, oldest first.
    pub writers: Vec<WriterReport>,
    /// Every lease that somebody holds.
    pub leases: Vec<LeaseReport>,
    /// What may be lost now.
    pub durability: DurabilityReport,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    /// Which.
    pub id: NodeId,
    /// What an operator calls it.
    pub name: String,
    /// Where other nodes reach it: `host:port`; empty if it takes none in.
    pub peer: String,
    /// Where clients reach it: a URL; empty if it does not say.
    pub api: String,
    /// What it does for the index.
    pub role: Role,
    /// Whether it was heard of lately.
    pub is_alive: bool,
    /// For how long it has not been heard of, by the leader; `None`: nobody knows.
    pub silent: Option<Duration>,
    /// The revision that it has applied; `None` if it does not answer.
    pub applied: Option<Revision>,
    /// Bytes of samples in its heads, in memory; `None` if it does not answer.
    pub head_bytes: Option<u64>,
}

/// What a node does for the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It votes, and leads.
    Leader,
    /// It votes.
    Voter,
    /// It follows.
    Learner,
    /// Nothing: not yet, or not any more. It is forgotten when it has been gone for long.
    None,
}

impl Role {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Voter => "voter",
            Role::Learner => "learner",
            Role::None => "none",
        }
    }
}

/// A writer that is not closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterReport {
    /// Which.
    pub id: WriterId,
    /// Where it runs or ran.
    pub node: NodeId,
    /// Whether nothing of it is accepted any more.
    pub is_fenced: bool,
    /// Who is to cut its head, if it is fenced.
    pub adopter: Option<NodeId>,
    /// Its last committed segment.
    pub added: SegmentNumber,
    /// Its last segment that a block holds.
    pub cut: SegmentNumber,
    /// Bytes of the segments between.
    pub segment_bytes: u64,
    /// The time of the first sample among them; `None` if they hold none.
    pub oldest: Option<TimestampMs>,
}

/// A right that somebody holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseReport {
    /// To do what.
    pub right: Right,
    /// Its number.
    pub number: Lease,
    /// Who holds it.
    pub holder: NodeId,
}

/// What a lease is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// To cut the head of this writer, which is fenced.
    Adopt(WriterId),
    /// To merge blocks.
    Compact,
}

/// What may be lost now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurabilityReport {
    /// How many more nodes may be lost, with their disks, before writes stop.
    pub node_losses: u64,
    /// Where segments and blocks lie, in words.
    pub bucket: String,
    /// The same in sentences, and what the bucket's own durability hangs on.
    pub text: Vec<String>,
}

/// Says how the cluster is.
pub trait ClusterStatus: Send + Sync + 'static {
    /// Asks the other nodes, for a second at most, and says what came of it. `Unavailable` while this node starts.
    fn report(&self) -> BoxFuture<'static, Result<ClusterReport, ServiceError>>;
}

/// `/api/v1/status/cluster`
pub(crate) async fn cluster(State(shared): State<Arc<Shared>>) -> Result<Response, ApiError> {
    let report = shared.cluster.report().await?;
    Ok(success(&report.unknown, |out| put_report(out, &report)))
}

fn put_report(out: &mut Vec<u8>, report: &ClusterReport) {
    put_fmt(out, format_args!("{{\"cluster\":\"{:032x}\",\"version\":", report.cluster));
    put_string(out, &report.version, true);
    out.extend_from_slice(b",\"answeredBy\":");
    put_string(out, &report.answered_by, true);
    put_fmt(out, format_args!(",\"isHealthy\":{},\"degraded\":", report.degraded.is_empty()));
    put_strings(out, report.degraded.iter().map(String::as_str));
    match report.leader {
        Some((node, term)) => put_fmt(out, format_args!(",\"leader\":{{\"node\":\"{node}\",\"term\":{term}}}")),
        None => out.extend_from_slice(b",\"leader\":null"),
    }
    put_fmt(out, format_args!(",\"revision\":{{\"applied\":\"{}\",\"stored\":", report.applied));
    put_option(out, report.stored, put_quoted);
    out.extend_from_slice(b"},\"nodes\":");
    put_list(out, &report.nodes, put_node);
    out.extend_from_slice(b",\"writers\":");
    put_list(out, &report.writers, put_writer);
    out.extend_from_slice(b",\"leases\":");
    put_list(out, &report.leases, put_lease);
    put_fmt(out, format_args!(",\"durability\":{{\"nodeLosses\":{},\"bucket\":", report.durability.node_losses));
    put_string(out, &report.durability.bucket, true);
    out.extend_from_slice(b",\"text\":");
    put_strings(out, report.durability.text.iter().map(String::as_str));
    out.extend_from_slice(b"}}");
}

fn put_node(out: &mut Vec<u8>, node: &NodeReport) {
    put_fmt(out, format_args!("{{\"id\":\"{}\",\"role\":\"{}\"", node.id, node.role.as_str()));
    for (key, text) in [("name", &node.name), ("peer", &node.peer), ("api", &node.api)] {
        put_fmt(out, format_args!(",\"{key}\":"));
        put_string(out, text, true);
    }
    put_fmt(out, format_args!(",\"isAlive\":{},\"silentSeconds\":", node.is_alive));
    put_option(out, node.silent, |out, silent| put_time(out, i64::try_from(silent.as_millis()).unwrap_or(i64::MAX)));
    out.extend_from_slice(b",\"applied\":");
    put_option(out, node.applied, put_quoted);
    out.extend_from_slice(b",\"headBytes\":");
    put_option(out, node.head_bytes, |out, bytes| put_fmt(out, format_args!("{bytes}")));
    out.push(b'}');
}

fn put_writer(out: &mut Vec<u8>, writer: &WriterReport) {
    let stage = if writer.is_fenced { "fenced" } else { "live" };
    let (id, node, added, cut, bytes) = (writer.id, writer.node, writer.added, writer.cut, writer.segment_bytes);
    put_fmt(out, format_args!("{{\"id\":\"{id}\",\"node\":\"{node}\",\"stage\":\"{stage}\",\"adopter\":"));
    put_option(out, writer.adopter, put_quoted);
    put_fmt(out, format_args!(",\"added\":{added},\"cut\":{cut},\"segmentBytes\":{bytes},\"oldestSample\":"));
    put_option(out, writer.oldest, put_time);
    out.push(b'}');
}

fn put_lease(out: &mut Vec<u8>, lease: &LeaseReport) {
    out.extend_from_slice(b"{\"right\":");
    match lease.right {
        Right::Adopt(writer) => put_fmt(out, format_args!("\"adopt\",\"writer\":\"{writer}\"")),
        Right::Compact => out.extend_from_slice(b"\"compact\""),
    }
    put_fmt(out, format_args!(",\"number\":\"{}\",\"holder\":\"{}\"}}", lease.number, lease.holder));
}

fn put_quoted(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    put_fmt(out, format_args!("\"{value}\""));
}

/// Writes a value, or null.
fn put_option<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        Some(value) => put(out, value),
        None => out.extend_from_slice(b"null"),
    }
}
