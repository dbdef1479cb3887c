//! Reads heads wherever they are: in this process, on another node, or, if no head answers, from their segments.

use std::time::Duration;

use bytes::Bytes;
use cluster::{CallError, Message, Peers, Refusal, RefusalKind};
use futures::FutureExt;
use futures::future::BoxFuture;
use model::{DecodeError, Labels, Matcher, Metadata, NodeId, Samples, Shard, TenantId, TimeRange};
use querier::{HeadError, HeadPlan, HeadReader, SegmentHeads};

use super::wire::{self, HeadQuestion};
use crate::heads::LocalHeads;
use crate::index_log::IndexGroup;

/// What a node may take to answer from a head: its query's own deadline ends it earlier.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// The heads of the whole cluster.
pub struct ClusterHeads {
    /// This node.
    pub node: NodeId,
    /// Those of this process.
    pub local: LocalHeads,
    /// The other nodes, if there can be any.
    pub peers: Option<Peers>,
    /// Says where a writer's head is.
    pub group: IndexGroup,
    /// Reads segments when no head answers.
    pub segments: SegmentHeads,
}

impl ClusterHeads {
    /// The node that has a writer's head, if one should.
    fn holder(&self, plan: HeadPlan) -> Option<NodeId> {
        self.group.read(|index| {
            let writer = index.writer(plan.writer)?;
            match writer.stage {
                index::Stage::Live => Some(writer.node),
                index::Stage::Fenced => writer.adopter,
            }
        })
    }

    /// Asks the head where it is; `None` if none answers and its segments are to be read.
    async fn ask<T>(
        &self,
        message: Message,
        question: HeadQuestion,
        local: impl AsyncFnOnce(&LocalHeads, &HeadQuestion) -> Result<T, HeadError>,
        decode: impl FnOnce(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, HeadError> {
        let plan = question.plan;
        if self.local.has(plan) {
            match local(&self.local, &question).await {
                // Let go meanwhile, which changes no revision: it is looked for elsewhere.
                Err(HeadError::PlanAgain(_)) if !self.local.has(plan) => {}
                answered => return answered.map(Some),
            }
        }
        let Some(holder) = self.holder(plan) else {
            // Closed since the plan was made, or fenced and not yet granted to anybody.
            let is_closed = self.group.read(|index| index.writer(plan.writer).is_none());
            return if is_closed { Err(HeadError::PlanAgain(plan.writer)) } else { Ok(None) };
        };
        let Some(peers) = self.peers.as_ref().filter(|_| holder != self.node) else { return Ok(None) };
        let body = Bytes::from(question.encode());
        match peers.call(holder, message, body, ANSWER_LIMIT).await {
            Ok(answer) => {
                let read = decode(&answer);
                let read = read.map_err(|error| HeadError::Failed(format!("answer of node {holder}: {error}")))?;
                Ok(Some(read))
            }
            Err(CallError::Refused { refusal, .. }) if refusal.kind == RefusalKind::Again => {
                Err(HeadError::PlanAgain(plan.writer))
            }
            Err(CallError::Refused { refusal, .. }) if refusal.kind == RefusalKind::Failed => {
                Err(HeadError::Failed(refusal.text))
            }
            Err(error) => {
                tracing::debug!(writer = %plan.writer, %error, "head not reached, its segments are read");
                Ok(None)
            }
        }
    }
}

fn question(plan: HeadPlan, tenant: &TenantId, matchers: &[Matcher], range: TimeRange, label: &str) -> HeadQuestion {
    let (tenant, matchers, label) = (tenant.clone(), matchers.to_vec(), label.to_owned());
    HeadQuestion { plan, tenant, matchers, range, label, shard: Shard::WHOLE }
}

impl HeadReader for ClusterHeads {
    fn select<'a>(
        &'a self,
        plan: HeadPlan,
        tenant: &'a TenantId,
        matchers: &'a [Matcher],
        range: TimeRange,
        shard: Shard,
    ) -> BoxFuture<'a, Result<Vec<(Labels, Samples)>, HeadError>> {
        async move {
            let asked = HeadQuestion { shard, ..question(plan, tenant, matchers, range, "") };
            let local = async |heads: &LocalHeads, q: &HeadQuestion| {
                heads.select(q.plan, &q.tenant, &q.matchers, q.range, q.shard).await
            };
            match self.ask(Message::SelectHead, asked, local, wire::decode_series).await? {
                Some(answer) => Ok(answer),
                None => self.segments.select(plan, tenant, matchers, range, shard).await,
            }
        }
        .boxed()
    }

    fn series<'a>(
        &'a self,
        plan: HeadPlan,
        tenant: &'a TenantId,
        matchers: &'a [Matcher],
        range: TimeRange,
    ) -> BoxFuture<'a, Result<Vec<Labels>, HeadError>> {
        async move {
            let asked = question(plan, tenant, matchers, range, "");
            let local = async |heads: &LocalHeads, q: &HeadQuestion| {
                heads.series(q.plan, &q.tenant, &q.matchers, q.range).await
            };
            match self.ask(Message::HeadSeries, asked, local, wire::decode_label_sets).await? {
                Some(answer) => Ok(answer),
                None => self.segments.series(plan, tenant, matchers, range).await,
            }
        }
        .boxed()
    }

    fn label_names<'a>(
        &'a self,
        plan: HeadPlan,
        tenant: &'a TenantId,
        matchers: &'a [Matcher],
        range: TimeRange,
    ) -> BoxFuture<'a, Result<Vec<String>, HeadError>> {
        async move {
            let asked = question(plan, tenant, matchers, range, "");
            let local = async |heads: &LocalHeads, q: &HeadQuestion| {
                heads.label_names(q.plan, &q.tenant, &q.matchers, q.range).await
            };
            match self.ask(Message::HeadLabelNames, asked, local, wire::decode_texts).await? {
                Some(answer) => Ok(answer),
                None => self.segments.label_names(plan, tenant, matchers, range).await,
            }
        }
        .boxed()
    }

    fn label_values<'a>(
        &'a self,
        plan: HeadPlan,
        tenant: &'a TenantId,
        name: &'a str,
        matchers: &'a [Matcher],
        range: TimeRange,
    ) -> BoxFuture<'a, Result<Vec<String>, HeadError>> {
        async move {
            let asked = question(plan, tenant, matchers, range, name);
            let local = async |heads: &LocalHeads, q: &HeadQuestion| {
                heads.label_values(q.plan, &q.tenant, &q.label, &q.matchers, q.range).await
            };
            match self.ask(Message::HeadLabelValues, asked, local, wire::decode_texts).await? {
                Some(answer) => Ok(answer),
                None => self.segments.label_values(plan, tenant, name, matchers, range).await,
            }
        }
        .boxed()
    }

    fn metadata<'a>(
        &'a self,
        plan: HeadPlan,
        tenant: &'a TenantId,
    ) -> BoxFuture<'a, Result<Vec<(String, Metadata)>, HeadError>> {
        async move {
            let asked = question(plan, tenant, &[], TimeRange::ALL, "");
            let local = async |heads: &LocalHeads, q: &HeadQuestion| heads.metadata(q.plan, &q.tenant).await;
            match self.ask(Message::HeadMetadata, asked, local, wire::decode_metadata).await? {
                Some(answer) => Ok(answer),
                None => self.segments.metadata(plan, tenant).await,
            }
        }
        .boxed()
    }
}

/// Answers another node's question from the heads of this process.
pub async fn answer(heads: &LocalHeads, message: Message, body: &[u8]) -> Result<Bytes, Refusal> {
    let invalid = |error: DecodeError| Refusal::new(RefusalKind::Invalid, error.to_string());
    let HeadQuestion { plan, tenant, matchers, range, label, shard } = HeadQuestion::decode(body).map_err(invalid)?;
    if !heads.has(plan) {
        return Err(Refusal::new(RefusalKind::NotHere, format!("no head of writer {} is here", plan.writer)));
    }
    let refused = |error: HeadError| {
        let kind = match error {
            // Let go meanwhile, which changes no revision: to be looked for elsewhere, as if it had not been here.
            HeadError::PlanAgain(_) if !heads.has(plan) => RefusalKind::NotHere,
            HeadError::PlanAgain(_) => RefusalKind::Again,
            HeadError::Failed(_) => RefusalKind::Failed,
        };
        Refusal::new(kind, error.to_string())
    };
    let answer = match message {
        Message::SelectHead => {
            wire::encode_series(&heads.select(plan, &tenant, &matchers, range, shard).await.map_err(refused)?)
        }
        Message::HeadSeries => {
            wire::encode_label_sets(&heads.series(plan, &tenant, &matchers, range).await.map_err(refused)?)
        }
        Message::HeadLabelNames => {
            wire::encode_texts(&heads.label_names(plan, &tenant, &matchers, range).await.map_err(refused)?)
        }
        Message::HeadLabelValues => {
            wire::encode_texts(&heads.label_values(plan, &tenant, &label, &matchers, range).await.map_err(refused)?)
        }
        Message::HeadMetadata => wire::encode_metadata(&heads.metadata(plan, &tenant).await.map_err(refused)?),
        other => {
            let text = format!("{} is no question to a head", other.name());
            return Err(Refusal::new(RefusalKind::Invalid, text));
        }
    };
    if answer.len() > message.answer_bytes_max() {
        let text =
            format!("the answer of {} bytes is larger than nodes send one another: ask for fewer series", answer.len());
        return Err(Refusal::new(RefusalKind::Failed, text));
    }
    Ok(answer.into())
}
