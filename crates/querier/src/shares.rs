//! Big aggregations are spread over the nodes: each evaluates a shard of the series, at the very plan of the query.
//!
//! Whoever has the query counts what its selectors would read. Above a limit each live node gets a shard: it reads of every
//! block and head of the plan only that shard's series, and answers with its share of the aggregation, which `promql` puts
//! together. A share that does not come is evaluated by whoever asked. The bytes are in docs/formats/peer.md.

use std::sync::Arc;
use std::time::Duration;

use block::{CountSamples, Matchers};
use bytes::Bytes;
use futures::future::BoxFuture;
use index::BlockMeta;
use model::{DecodeError, NodeId, Reader, Revision, Shard, TenantId, TimestampMs, WriterId, put_varint, put_zigzag};
use promql::{Options, Partial, PartialError, PartialRequest, Query};

use crate::error::QueryError;
use crate::heads::HeadPlan;
use crate::querier::QueryBudget;
use crate::select::{EngineStorage, Gather, Stop, block_stop};

/// The other nodes that can take a share. Another crate reaches them.
pub trait Nodes: Send + Sync {
    /// Those that are there, as far as is known.
    fn others(&self) -> Vec<NodeId>;

    /// Has a node answer a question, by [`crate::Querier::answer_share`].
    fn ask(&self, node: NodeId, question: Bytes, limit: Duration) -> BoxFuture<'static, Result<Bytes, ShareError>>;
}

/// Why a node has no share to give.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// A part of the plan is gone.
    #[error("{0}")]
    PlanAgain(String),
    /// Anything else: whoever asked evaluates the shard itself.
    #[error("{0}")]
    Failed(String),
}

/// What a node is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Question {
    pub tenant: TenantId,
    /// The whole query, which every node parses alike.
    pub text: String,
    pub start: TimestampMs,
    pub end: TimestampMs,
    /// None: an instant query.
    pub interval: Option<i64>,
    pub options: Options,
    /// Where the aggregation stands in the text.
    pub position: u32,
    pub shard: Shard,
    pub timeout: Duration,
    /// What to read: all from one revision.
    pub revision: Revision,
    pub blocks: Vec<BlockMeta>,
    pub heads: Vec<HeadPlan>,
}

/// What a node answers.
pub(crate) enum Share {
    Partial(Partial),
    /// The aggregation is to be evaluated whole.
    Unsuitable,
}

impl Question {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for text in [self.tenant.as_str(), &self.text] {
            put_varint(&mut out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
        put_zigzag(&mut out, self.start);
        put_zigzag(&mut out, self.end);
        // A step is at least 1.
        put_zigzag(&mut out, self.interval.unwrap_or(0));
        put_zigzag(&mut out, self.options.lookback_ms);
        put_zigzag(&mut out, self.options.default_subquery_step_ms);
        put_varint(&mut out, self.options.samples_max);
        put_varint(&mut out, u64::from(self.position));
        put_varint(&mut out, u64::from(self.shard.number));
        put_varint(&mut out, u64::from(self.shard.count));
        put_varint(&mut out, self.timeout.as_millis() as u64);
        put_revision(&mut out, self.revision);
        put_varint(&mut out, self.blocks.len() as u64);
        self.blocks.iter().for_each(|block| block.put(&mut out));
        put_varint(&mut out, self.heads.len() as u64);
        for head in &self.heads {
            put_revision(&mut out, head.writer.0);
            put_varint(&mut out, head.cut);
            put_varint(&mut out, head.added);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Question, DecodeError> {
        let mut reader = Reader::new(bytes);
        let tenant = TenantId::new(reader.str()?).map_err(|_| reader.error("not a tenant"))?;
        let text = reader.str()?.to_owned();
        let (start, end) = (reader.zigzag()?, reader.zigzag()?);
        let interval = Some(reader.zigzag()?).filter(|step| *step != 0);
        let options = Options {
            lookback_ms: reader.zigzag()?,
            default_subquery_step_ms: reader.zigzag()?,
            samples_max: reader.varint()?,
        };
        let mut number = || u32::try_from(reader.varint()?).map_err(|_| reader.error("a number of four bytes"));
        let (position, shard) = (number()?, Shard { number: number()?, count: number()? });
        if shard.number >= shard.count {
            return Err(reader.error("a shard that is none"));
        }
        let timeout = Duration::from_millis(reader.varint()?);
        let revision = read_revision(&mut reader)?;
        let blocks = (0..reader.count(6)?).map(|_| BlockMeta::read(&mut reader)).collect::<Result<_, _>>()?;
        let head = |reader: &mut Reader<'_>| {
            Ok(HeadPlan { writer: WriterId(read_revision(reader)?), cut: reader.varint()?, added: reader.varint()? })
        };
        let heads = (0..reader.count(4)?).map(|_| head(&mut reader)).collect::<Result<_, DecodeError>>()?;
        if !reader.is_empty() {
            return Err(reader.error("bytes after the end of a question"));
        }
        Ok(Question { tenant, text, start, end, interval, options, position, shard, timeout, revision, blocks, heads })
    }

    /// The query. Errors: a text that does not parse.
    pub(crate) fn query(&self) -> Result<Query, promql::EvalError> {
        match self.interval {
            Some(step) => Query::range(&self.text, self.start, self.end, step),
            None => Query::instant(&self.text, self.start),
        }
    }
}

fn put_revision(out: &mut Vec<u8>, revision: Revision) {
    put_varint(out, revision.incarnation);
    put_varint(out, revision.position);
}

fn read_revision(reader: &mut Reader<'_>) -> Result<Revision, DecodeError> {
    Ok(Revision { incarnation: reader.varint()?, position: reader.varint()? })
}

impl Share {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Share::Unsuitable => vec![0],
            Share::Partial(partial) => [vec![1], partial.encode()].concat(),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Share, DecodeError> {
        match bytes.split_first() {
            Some((0, [])) => Ok(Share::Unsuitable),
            Some((1, partial)) => Ok(Share::Partial(Partial::decode(partial)?)),
            _ => Err(Reader::new(bytes).error("unknown answer to a question for a share")),
        }
    }
}

/// How a query shares its aggregations out.
pub(crate) struct Sharing<'q> {
    pub query: &'q Query,
    pub options: &'q Options,
    pub budget: &'q QueryBudget,
    pub revision: Revision,
    pub samples_min: u64,
}

/// A question on its way; it is given up when this is dropped.
struct Asked(tokio::task::JoinHandle<Result<Bytes, ShareError>>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<'q> EngineStorage<'q> {
    /// The shares of an aggregation; `None` if it is not worth it, or can't be.
    pub(crate) fn shares(&self, request: &PartialRequest<'_>) -> Result<Option<Vec<Partial>>, Stop> {
        let Some(sharing) = &self.sharing else { return Ok(None) };
        let Some(nodes) = &self.gather.shared.nodes else { return Ok(None) };
        let others = nodes.others();
        if others.is_empty() || self.gather.partial_response || !self.is_big(request, sharing.samples_min) {
            return Ok(None);
        }
        for selection in request.selections {
            self.gather.check_quarantined(selection.range)?;
        }
        let metrics = &self.gather.shared.metrics;
        let count = others.len() as u32 + 1;
        let question = self.question(request, sharing);
        let asked: Vec<(Shard, Asked)> = (1..count)
            .zip(others)
            .map(|(number, node)| {
                let shard = Shard { number, count };
                let question = Question { shard, ..question.clone() };
                let asked = nodes.ask(node, question.encode().into(), question.timeout);
                (shard, Asked(runtime::spawn(asked)))
            })
            .collect();
        let Some(own) = self.share_here(request.position, Shard { number: 0, count }, sharing)? else {
            return Ok(None);
        };
        let mut shares = vec![own];
        for (shard, mut asked) in asked {
            let answered = futures::executor::block_on(&mut asked.0);
            let answered = answered.unwrap_or_else(|error| Err(ShareError::Failed(error.to_string())));
            let share = answered.and_then(|bytes| {
                Share::decode(&bytes)
                    .map_err(|error| ShareError::Failed(format!("its answer does not decode: {error}")))
            });
            match share {
                Ok(Share::Partial(partial)) => {
                    metrics.shares.with(["elsewhere"]).inc();
                    shares.push(partial);
                }
                Ok(Share::Unsuitable) => return Ok(None),
                Err(ShareError::PlanAgain(why)) => return Err(Stop::PlanAgain(QueryError::Head(why))),
                Err(ShareError::Failed(why)) => {
                    metrics.shares.with(["failed"]).inc();
                    tracing::debug!(why, "a share did not come, it is evaluated here");
                    let Some(share) = self.share_here(request.position, shard, sharing)? else { return Ok(None) };
                    shares.push(share);
                }
            }
        }
        Ok(Some(shares))
    }

    fn question(&self, request: &PartialRequest<'_>, sharing: &Sharing<'_>) -> Question {
        let is_read = |block: &&BlockMeta| {
            let overlaps = |range: model::TimeRange| request.selections.iter().any(|s| s.range.overlaps(&range));
            block.range.is_some_and(overlaps)
        };
        let (start, end, interval) = sharing.query.times();
        Question {
            tenant: self.gather.tenant.clone(),
            text: sharing.query.text().to_owned(),
            start,
            end,
            interval,
            options: sharing.options.clone(),
            position: request.position,
            shard: Shard::WHOLE,
            timeout: sharing.budget.remaining(),
            revision: sharing.revision,
            blocks: self.gather.blocks.iter().filter(is_read).copied().collect(),
            heads: self.gather.heads.to_vec(),
        }
    }

    /// Whether the selectors would read so many samples of blocks. What can't be counted is left to the evaluation to report.
    fn is_big(&self, request: &PartialRequest<'_>, samples_min: u64) -> bool {
        let gather = &self.gather;
        let mut left = samples_min;
        let at_most = |blocks: &[BlockMeta]| blocks.iter().fold(0_u64, |sum, block| sum.saturating_add(block.samples));
        let all = request.selections.iter().map(|selection| at_most(&gather.blocks_within(selection.range)));
        if all.fold(0, u64::saturating_add) < samples_min {
            return false;
        }
        for selection in request.selections {
            let matchers = Arc::new(Matchers::new(selection.matchers.clone()));
            for block in gather.blocks_within(selection.range) {
                let question = |index| CountSamples::new(index, gather.tenant, matchers.clone(), selection.range);
                let counted = futures::executor::block_on(gather.shared.blocks.ask(&block, question));
                left = left.saturating_sub(counted.map_err(block_stop).unwrap_or(0));
                if left == 0 {
                    return true;
                }
            }
        }
        false
    }

    /// A shard's share, evaluated here; `None` if the aggregation is to be evaluated whole.
    fn share_here(&self, position: u32, shard: Shard, sharing: &Sharing<'_>) -> Result<Option<Partial>, Stop> {
        let storage = EngineStorage {
            gather: Gather { shard, warnings: Default::default(), ..self.gather.again() },
            samples_max: self.samples_max,
            stopped: Default::default(),
            sharing: None,
        };
        self.gather.shared.metrics.shares.with(["here"]).inc();
        match evaluate(position, sharing.query, storage, sharing.budget, sharing.options)? {
            Share::Partial(partial) => Ok(Some(partial)),
            Share::Unsuitable => Ok(None),
        }
    }
}

/// One share, of what `storage` has.
pub(crate) fn evaluate(
    position: u32,
    query: &Query,
    storage: EngineStorage<'_>,
    budget: &QueryBudget,
    options: &Options,
) -> Result<Share, Stop> {
    match query.partial(position, &storage, budget, options) {
        Ok(partial) => Ok(Share::Partial(partial)),
        Err(PartialError::Unsuitable(_)) => Ok(Share::Unsuitable),
        Err(PartialError::Eval(error)) => match (error, storage.stopped.into_inner()) {
            (promql::EvalError::Storage(_), Some(stop)) => Err(stop),
            (error, _) => Err(Stop::Failed(QueryError::Evaluate(error))),
        },
    }
}
