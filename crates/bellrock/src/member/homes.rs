//! Carries parts of requests between nodes: to the homes of their series, and from others to this node's writer.

use std::time::Duration;

use bytes::Bytes;
use cluster::{CallError, Message, Peers, Refusal, RefusalKind};
use futures::FutureExt;
use futures::future::BoxFuture;
use ingester::{Homes, Ingester, NotTaken, PartError};
use model::NodeId;

use super::Member;
use crate::logging::chain;

/// Parts above this (a single series is so large then) are decoded on a thread of their own.
const INLINE_BYTES_MAX: usize = 2 << 20;

/// The writers of the other nodes.
pub struct PeerHomes(pub Peers);

impl PeerHomes {
    fn call(
        &self,
        node: NodeId,
        message: Message,
        body: Bytes,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Bytes, NotTaken>> {
        let peers = self.0.clone();
        async move { peers.call(node, message, body, limit).await.map_err(|error| not_taken(&error)) }.boxed()
    }
}

impl Homes for PeerHomes {
    fn append(&self, node: NodeId, part: Bytes, limit: Duration) -> BoxFuture<'static, Result<Bytes, NotTaken>> {
        self.call(node, Message::Append, part, limit)
    }

    fn ask(&self, node: NodeId, limit: Duration) -> BoxFuture<'static, Result<(), NotTaken>> {
        let asked = self.call(node, Message::TakesParts, Bytes::new(), limit);
        async move { asked.await.map(|_empty| ()) }.boxed()
    }
}

fn not_taken(error: &CallError) -> NotTaken {
    match error {
        CallError::Refused { refusal, .. } => NotTaken::Refused(refusal.text.clone()),
        CallError::Unreachable { .. } | CallError::Unknown { .. } | CallError::Timeout { .. } => {
            NotTaken::Silent(error.to_string())
        }
    }
}

/// Says whether this node takes parts now.
pub fn takes_parts(member: &Member, ingester: &Ingester) -> Result<Bytes, Refusal> {
    if member.has_no_leader() {
        return Err(no_leader());
    }
    ingester.takes_parts().map(|()| Bytes::new()).map_err(|error| unavailable(&error))
}

/// Takes a part of another node's request; answers when it is durable.
pub async fn append(member: &Member, ingester: &Ingester, part: Bytes) -> Result<Bytes, Refusal> {
    if member.has_no_leader() {
        return Err(no_leader());
    }
    let taken = if part.len() > INLINE_BYTES_MAX {
        let (ingester, part) = (ingester.clone(), part);
        runtime::blocking(move || ingester.take_part(&part)).await
    } else {
        ingester.take_part(&part)
    };
    let durable = taken.map_err(|error| match error {
        PartError::Malformed(_) => Refusal::new(RefusalKind::Invalid, error.to_string()),
        PartError::Push(error) => unavailable(&error),
    })?;
    member.while_led(durable).await.ok_or_else(no_leader)?.map_err(|error| unavailable(&error))
}

fn unavailable(error: &ingester::PushError) -> Refusal {
    Refusal::new(RefusalKind::Unavailable, chain(error))
}

fn no_leader() -> Refusal {
    Refusal::new(RefusalKind::Unavailable, "the index has no leader here")
}
