//! Carries shares of aggregations between nodes.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use cluster::{CallError, Message, Peers, Refusal, RefusalKind};
use futures::FutureExt;
use futures::future::BoxFuture;
use model::NodeId;
use querier::{Nodes, Querier, ShareError, ShareRefused};

use crate::index_log::IndexGroup;

/// The other nodes of the cluster, as the querier asks them.
pub struct ClusterNodes {
    /// This node.
    pub node: NodeId,
    /// How they are reached.
    pub peers: Peers,
    /// Says who is there: whoever has a live writer.
    pub group: IndexGroup,
}

impl Nodes for ClusterNodes {
    fn others(&self) -> Vec<NodeId> {
        let live: BTreeSet<NodeId> = self.group.read(|index| {
            let live = index.writers().filter(|(_, writer)| writer.stage == index::Stage::Live);
            live.map(|(_, writer)| writer.node).collect()
        });
        live.into_iter().filter(|node| *node != self.node && self.peers.address(*node).is_some()).collect()
    }

    fn ask(&self, node: NodeId, question: Bytes, limit: Duration) -> BoxFuture<'static, Result<Bytes, ShareError>> {
        let peers = self.peers.clone();
        async move {
            let answer = peers.call(node, Message::Share, question, limit).await;
            answer.map_err(|error| match error {
                CallError::Refused { refusal, .. } if refusal.kind == RefusalKind::Again => {
                    ShareError::PlanAgain(refusal.text)
                }
                error => ShareError::Failed(error.to_string()),
            })
        }
        .boxed()
    }
}

/// Answers another node's question.
pub async fn answer(querier: &Querier, question: &[u8]) -> Result<Bytes, Refusal> {
    let answer = querier.answer_share(question).await.map_err(|refused| {
        let kind = match &refused {
            ShareRefused::Invalid(_) => RefusalKind::Invalid,
            ShareRefused::PlanAgain(_) => RefusalKind::Again,
            ShareRefused::Failed(_) => RefusalKind::Failed,
        };
        Refusal::new(kind, refused.to_string())
    })?;
    if answer.len() > Message::Share.answer_bytes_max() {
        let text = format!("the share of {} bytes is larger than nodes send one another", answer.len());
        return Err(Refusal::new(RefusalKind::Failed, text));
    }
    Ok(answer.into())
}
