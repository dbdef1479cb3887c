//! The querier's face: queries, series, label names and values, metadata.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use block::{FetchMetadata, LabelNames, LabelValues, Matchers, SelectSeries};
use bucket::Bucket;
use consensus::ProposeError;
use model::{Labels, Matcher, Metadata, Shard, TenantId, TimeRange, TimestampMs};
use parking_lot::{Mutex, RwLock};
use promql::{Annotations, Budget, EvalError, Interruption, Options, OverBudget, Query, QueryResult};
use runtime::{Clock, Registry};
use tokio::sync::Semaphore;

use crate::IndexGroup;
use crate::blocks::Blocks;
use crate::error::QueryError;
use crate::heads::HeadReader;
use crate::metrics::Metrics;
use crate::plan::{Newest, OldestPlan, Plan};
use crate::select::{EngineStorage, Gather, Stop, block_stop, head_stop};
use crate::settings::{Limits, Settings};
use crate::shares::{self, Nodes, Question, Share, Sharing};

/// How long a query waits for the revision at which a part of its plan went while the index elects a leader, which takes less.
const NEWER_REVISION_WAIT: Duration = Duration::from_secs(10);

/// Between two looks for it.
const NEWER_REVISION_PAUSE: Duration = Duration::from_millis(100);

/// What the querier is built from.
pub struct Parts {
    /// The index.
    pub group: IndexGroup,
    /// Where blocks lie.
    pub bucket: Arc<Bucket>,
    /// Reads heads.
    pub heads: Arc<dyn HeadReader>,
    /// The other nodes, if there can be any.
    pub nodes: Option<Arc<dyn Nodes>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where metrics are registered.
    pub registry: Registry,
}

/// What every query shares.
pub(crate) struct Shared {
    group: IndexGroup,
    pub(crate) heads: Arc<dyn HeadReader>,
    pub(crate) nodes: Option<Arc<dyn Nodes>>,
    clock: Arc<dyn Clock>,
    pub(crate) blocks: Blocks,
    pub(crate) metrics: Metrics,
    limits: RwLock<Arc<Limits>>,
    turns: Semaphore,
    /// Apart from the queries' turns: those wait for shares while they have theirs, on every node.
    share_turns: Semaphore,
    plans: OldestPlan,
    newest: Newest,
}

/// Answers queries; cheap to clone.
#[derive(Clone)]
pub struct Querier {
    shared: Arc<Shared>,
}

/// What one query may ask for besides its expression.
#[derive(Debug, Clone, Default)]
pub struct QueryOptions {
    /// A shorter time than the limit.
    pub timeout: Option<Duration>,
    /// Another lookback than the setting.
    pub lookback: Option<Duration>,
    /// Leave out what can't be read, with a warning.
    pub partial_response: bool,
}

/// The steps of a range query, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeOf {
    /// The first step.
    pub start: TimestampMs,
    /// No step is after it.
    pub end: TimestampMs,
    /// From step to step; at least 1.
    pub step: i64,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The result.
    pub result: QueryResult,
    /// What the engine has to say.
    pub annotations: Annotations,
    /// What is missing from a partial response.
    pub warnings: Vec<String>,
}

/// An answer about labels.
#[derive(Debug)]
pub struct LabelsAnswer<T> {
    /// Ascending, each once.
    pub found: Vec<T>,
    /// What is missing from a partial response.
    pub warnings: Vec<String>,
}

impl Querier {
    /// A querier over these parts.
    pub fn new(settings: &Settings, parts: Parts) -> Querier {
        let metrics = Metrics::new(&parts.registry);
        let shared = Shared {
            blocks: Blocks::new(parts.bucket, settings.block_cache_bytes, metrics.clone()),
            group: parts.group,
            heads: parts.heads,
            nodes: parts.nodes,
            newest: Newest::new(parts.clock.clone()),
            clock: parts.clock,
            limits: RwLock::new(Arc::new(settings.limits.clone())),
            turns: Semaphore::new(settings.max_concurrent),
            share_turns: Semaphore::new(settings.max_concurrent),
            plans: OldestPlan::default(),
            metrics,
        };
        Querier { shared: Arc::new(shared) }
    }

    /// Replaces the limits: a reload.
    pub fn set_limits(&self, limits: Limits) {
        *self.shared.limits.write() = Arc::new(limits);
    }

    /// Tells the collector which revisions are in use.
    pub fn plans(&self) -> OldestPlan {
        self.shared.plans.clone()
    }

    /// Evaluates `text` at one time.
    pub async fn instant(
        &self,
        tenant: &TenantId,
        text: &str,
        at: TimestampMs,
        options: &QueryOptions,
    ) -> Result<Answer, QueryError> {
        self.evaluate(tenant, Query::instant(text, at).map_err(QueryError::Evaluate)?, options).await
    }

    /// Evaluates `text` at every step of a range.
    pub async fn range(
        &self,
        tenant: &TenantId,
        text: &str,
        range: RangeOf,
        options: &QueryOptions,
    ) -> Result<Answer, QueryError> {
        let query = Query::range(text, range.start, range.end, range.step).map_err(QueryError::Evaluate)?;
        self.evaluate(tenant, query, options).await
    }

    async fn evaluate(&self, tenant: &TenantId, query: Query, options: &QueryOptions) -> Result<Answer, QueryError> {
        let shared = self.shared.clone();
        let limits = shared.limits.read().clone();
        let timeout = options.timeout.map_or(limits.timeout, |asked| asked.min(limits.timeout));
        let budget = Arc::new(QueryBudget::new(shared.clock.clone(), timeout, limits.max_bytes));
        // Dropped with this future when whoever asked goes away: the thread that evaluates sees it.
        let _canceller = Canceller(budget.clone());
        let evaluation = Evaluation {
            shared: shared.clone(),
            tenant: tenant.clone(),
            query,
            options: Options {
                lookback_ms: millis(options.lookback.unwrap_or(limits.lookback)),
                samples_max: limits.max_samples,
                ..Options::default()
            },
            partial_response: options.partial_response,
            shard_samples_min: limits.shard_samples_min,
            budget,
        };
        shared.measured(timeout, evaluation.run()).await
    }

    /// The label sets of the series that satisfy any of the selectors and have samples in the range.
    pub async fn series(
        &self,
        tenant: &TenantId,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        options: &QueryOptions,
    ) -> Result<LabelsAnswer<Labels>, QueryError> {
        let (found, warnings) = self.shared.look(tenant, options, LookSeries { selectors, range }).await?;
        Ok(LabelsAnswer { found: found.into_iter().collect(), warnings })
    }

    /// The names of the labels of those series; of all series if no selector is given.
    pub async fn label_names(
        &self,
        tenant: &TenantId,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        options: &QueryOptions,
    ) -> Result<LabelsAnswer<String>, QueryError> {
        let (found, warnings) = self.shared.look(tenant, options, LookNames { selectors, range }).await?;
        Ok(LabelsAnswer { found: found.into_iter().collect(), warnings })
    }

    /// The values that a label has in those series; in all series if no selector is given.
    pub async fn label_values(
        &self,
        tenant: &TenantId,
        name: &str,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        options: &QueryOptions,
    ) -> Result<LabelsAnswer<String>, QueryError> {
        let (found, warnings) = self.shared.look(tenant, options, LookValues { name, selectors, range }).await?;
        Ok(LabelsAnswer { found: found.into_iter().collect(), warnings })
    }

    /// Answers another node's question for its share of an aggregation, at the plan that the question brings.
    pub async fn answer_share(&self, question: &[u8]) -> Result<Vec<u8>, ShareRefused> {
        let question = Question::decode(question).map_err(|error| ShareRefused::Invalid(error.to_string()))?;
        let query = question.query().map_err(|error| ShareRefused::Invalid(error.to_string()))?;
        let shared = self.shared.clone();
        let limits = shared.limits.read().clone();
        let timeout = question.timeout.min(limits.timeout);
        let budget = Arc::new(QueryBudget::new(shared.clock.clone(), timeout, limits.max_bytes));
        let _canceller = Canceller(budget.clone());
        let in_turn = async {
            let _turn = shared.share_turns.acquire().await.map_err(|_| QueryError::Timeout("share queue"))?;
            // A head's place, and whether it is still there, is read in the index: it must not be older than the plan.
            let applied = shared.group.wait_applied(question.revision.position).await;
            applied.map_err(|error| QueryError::Index(error.to_string()))?;
            let shared = shared.clone();
            Ok::<_, QueryError>(runtime::blocking(move || shared.share(&question, &query, &budget)).await)
        };
        let share = runtime::timeout(&*self.shared.clock, timeout, in_turn).await;
        match share.unwrap_or(Err(QueryError::Timeout("share of a query"))) {
            Ok(Ok(share)) => Ok(share.encode()),
            Ok(Err(Stop::PlanAgain(error))) => Err(ShareRefused::PlanAgain(error.to_string())),
            Ok(Err(Stop::Failed(error))) | Err(error) => Err(ShareRefused::Failed(error.to_string())),
        }
    }

    /// The last metadata of each metric, by name.
    pub async fn metadata(
        &self,
        tenant: &TenantId,
        options: &QueryOptions,
    ) -> Result<BTreeMap<String, Metadata>, QueryError> {
        Ok(self.shared.look(tenant, options, LookMetadata).await?.0)
    }
}

/// Why a node does not give another one its share of an aggregation.
#[derive(Debug, thiserror::Error)]
pub enum ShareRefused {
    /// The question is none.
    #[error("{0}")]
    Invalid(String),
    /// A part of the plan is gone.
    #[error("{0}")]
    PlanAgain(String),
    /// It can't be evaluated here.
    #[error("{0}")]
    Failed(String),
}

/// A question about labels, asked of one plan.
///
/// A trait and not an `AsyncFn`: the futures of one are not known to be `Send` for every lifetime.
trait Look: Sync {
    type Found: Send;

    fn at(&self, gather: &Gather<'_>) -> impl Future<Output = Result<Self::Found, Stop>> + Send;
}

struct LookSeries<'a> {
    selectors: &'a [Vec<Matcher>],
    range: TimeRange,
}

impl Look for LookSeries<'_> {
    type Found = BTreeSet<Labels>;

    async fn at(&self, gather: &Gather<'_>) -> Result<BTreeSet<Labels>, Stop> {
        gather.check_quarantined(self.range)?;
        let mut found = BTreeSet::new();
        for matchers in self.selectors {
            let shared_matchers = Arc::new(Matchers::new(matchers.clone()));
            for block in gather.blocks_within(self.range) {
                let question = |index| SelectSeries::new(index, gather.tenant, shared_matchers.clone(), self.range);
                let series = gather.shared.blocks.ask(&block, question).await.map_err(block_stop);
                found.extend(gather.or_warn(series)?);
            }
            for &plan in gather.heads {
                let series = gather.shared.heads.series(plan, gather.tenant, matchers, self.range).await;
                found.extend(gather.or_warn(series.map_err(head_stop))?);
            }
        }
        Ok(found)
    }
}

struct LookNames<'a> {
    selectors: &'a [Vec<Matcher>],
    range: TimeRange,
}

impl Look for LookNames<'_> {
    type Found = BTreeSet<String>;

    async fn at(&self, gather: &Gather<'_>) -> Result<BTreeSet<String>, Stop> {
        gather.check_quarantined(self.range)?;
        let mut names = BTreeSet::new();
        for matchers in or_all(self.selectors) {
            let shared_matchers = Arc::new(Matchers::new(matchers.clone()));
            for block in gather.blocks_within(self.range) {
                let question = |index| LabelNames::new(index, gather.tenant, shared_matchers.clone(), self.range);
                let found = gather.shared.blocks.ask(&block, question).await.map_err(block_stop);
                names.extend(gather.or_warn(found)?);
            }
            for &plan in gather.heads {
                let found = gather.shared.heads.label_names(plan, gather.tenant, &matchers, self.range).await;
                names.extend(gather.or_warn(found.map_err(head_stop))?);
            }
        }
        Ok(names)
    }
}

struct LookValues<'a> {
    name: &'a str,
    selectors: &'a [Vec<Matcher>],
    range: TimeRange,
}

impl Look for LookValues<'_> {
    type Found = BTreeSet<String>;

    async fn at(&self, gather: &Gather<'_>) -> Result<BTreeSet<String>, Stop> {
        let &LookValues { name, range, .. } = self;
        gather.check_quarantined(range)?;
        let mut values = BTreeSet::new();
        for matchers in or_all(self.selectors) {
            let shared_matchers = Arc::new(Matchers::new(matchers.clone()));
            for block in gather.blocks_within(range) {
                let question = |index| LabelValues::new(index, gather.tenant, name, shared_matchers.clone(), range);
                let found = gather.shared.blocks.ask(&block, question).await.map_err(block_stop);
                values.extend(gather.or_warn(found)?);
            }
            for &plan in gather.heads {
                let found = gather.shared.heads.label_values(plan, gather.tenant, name, &matchers, range).await;
                values.extend(gather.or_warn(found.map_err(head_stop))?);
            }
        }
        Ok(values)
    }
}

struct LookMetadata;

impl Look for LookMetadata {
    type Found = BTreeMap<String, Metadata>;

    async fn at(&self, gather: &Gather<'_>) -> Result<BTreeMap<String, Metadata>, Stop> {
        let mut all = BTreeMap::new();
        let mut blocks = gather.blocks.to_vec();
        // Later ones overwrite: oldest first.
        blocks.sort_by_key(|block| block.built_at);
        for block in blocks {
            let question = |index| FetchMetadata::new(index, gather.tenant);
            let found = gather.shared.blocks.ask(&block, question).await.map_err(block_stop);
            all.extend(gather.or_warn(found)?);
        }
        for &plan in gather.heads {
            let found = gather.shared.heads.metadata(plan, gather.tenant).await.map_err(head_stop);
            all.extend(gather.or_warn(found)?);
        }
        Ok(all)
    }
}

/// The selectors, or one that every series satisfies.
fn or_all(selectors: &[Vec<Matcher>]) -> Vec<Vec<Matcher>> {
    if selectors.is_empty() { vec![Vec::new()] } else { selectors.to_vec() }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Shared {
    /// Waits for a turn, runs, and counts how it went.
    async fn measured<T>(
        &self,
        timeout: Duration,
        work: impl Future<Output = Result<T, QueryError>>,
    ) -> Result<T, QueryError> {
        let since = self.clock.boottime();
        let in_turn = async {
            let _turn = self.turns.acquire().await.map_err(|_| QueryError::Timeout("query queue"))?;
            self.metrics.running.inc();
            let result = work.await;
            self.metrics.running.dec();
            result
        };
        let result = runtime::timeout(&*self.clock, timeout, in_turn).await;
        let result = result.unwrap_or(Err(QueryError::Timeout("query execution")));
        self.metrics.seconds.observe((self.clock.boottime() - since).as_secs_f64());
        if let Err(error) = &result {
            self.metrics.failures.with([error.kind().as_str()]).inc();
        }
        result
    }

    /// Answers a question about labels at one plan, planned again as often as a part of it has gone.
    async fn look<L: Look>(
        &self,
        tenant: &TenantId,
        options: &QueryOptions,
        look: L,
    ) -> Result<(L::Found, Vec<String>), QueryError> {
        let timeout = self.limits.read().timeout;
        let timeout = options.timeout.map_or(timeout, |asked| asked.min(timeout));
        let work = async {
            loop {
                let plan = Plan::new(&self.group, &self.plans, &self.newest, TimeRange::ALL).await?;
                let gather = Gather {
                    shared: self,
                    tenant,
                    blocks: &plan.blocks,
                    heads: &plan.heads(),
                    quarantined: &plan.quarantined,
                    shard: Shard::WHOLE,
                    partial_response: options.partial_response,
                    warnings: Mutex::new(plan.warning.iter().cloned().collect()),
                };
                match look.at(&gather).await {
                    Ok(found) => return Ok((found, gather.warnings.into_inner())),
                    Err(Stop::Failed(error)) => return Err(error),
                    Err(Stop::PlanAgain(error)) => self.plan_again(&plan, error).await?,
                }
            }
        };
        self.measured(timeout, work).await
    }

    /// Waits for a newer revision than the plan's: a part that went says that there is one, which may not be applied here yet.
    ///
    /// There is none, and the query fails, if nothing has changed the index, or if none comes while the index elects a leader.
    async fn plan_again(&self, plan: &Plan, error: QueryError) -> Result<(), QueryError> {
        self.metrics.planned_again.inc();
        let until = self.clock.boottime() + NEWER_REVISION_WAIT;
        loop {
            let newest = self.newest.wait(&self.group).await;
            if self.group.read(|index| index.revision()) > plan.revision {
                return Ok(());
            }
            let is_electing = matches!(newest, Err(ProposeError::NoLeader { .. }));
            if !is_electing || self.clock.boottime() >= until {
                return Err(error);
            }
            self.clock.sleep(NEWER_REVISION_PAUSE).await;
        }
    }
}

impl Shared {
    /// A share of an aggregation, at another node's plan. That node keeps what it names from being collected.
    fn share(&self, question: &Question, query: &Query, budget: &QueryBudget) -> Result<Share, Stop> {
        let storage = EngineStorage {
            gather: Gather {
                shared: self,
                tenant: &question.tenant,
                blocks: &question.blocks,
                heads: &question.heads,
                // Whoever asks has looked.
                quarantined: &[],
                shard: question.shard,
                partial_response: false,
                warnings: Mutex::default(),
            },
            samples_max: question.options.samples_max,
            stopped: Mutex::default(),
            sharing: None,
        };
        shares::evaluate(question.position, query, storage, budget, &question.options)
    }
}

/// One query on its way.
struct Evaluation {
    shared: Arc<Shared>,
    tenant: TenantId,
    query: Query,
    options: Options,
    partial_response: bool,
    shard_samples_min: u64,
    budget: Arc<QueryBudget>,
}

impl Evaluation {
    async fn run(self) -> Result<Answer, QueryError> {
        let shared = self.shared.clone();
        let this = Arc::new(self);
        loop {
            let plan = Arc::new(Plan::new(&shared.group, &shared.plans, &shared.newest, TimeRange::ALL).await?);
            let (evaluation, planned) = (this.clone(), plan.clone());
            match runtime::blocking(move || evaluation.at(&planned)).await {
                Ok(answer) => return Ok(answer),
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::PlanAgain(error)) => shared.plan_again(&plan, error).await?,
            }
        }
    }

    fn at(&self, plan: &Plan) -> Result<Answer, Stop> {
        let storage = EngineStorage {
            gather: Gather {
                shared: &self.shared,
                tenant: &self.tenant,
                blocks: &plan.blocks,
                heads: &plan.heads(),
                quarantined: &plan.quarantined,
                shard: Shard::WHOLE,
                partial_response: self.partial_response,
                warnings: Mutex::new(plan.warning.iter().cloned().collect()),
            },
            samples_max: self.options.samples_max,
            stopped: Mutex::default(),
            sharing: Some(Sharing {
                query: &self.query,
                options: &self.options,
                budget: &self.budget,
                revision: plan.revision,
                samples_min: self.shard_samples_min,
            }),
        };
        let (result, annotations) = self.query.evaluate(&storage, &*self.budget, &self.options);
        let warnings = storage.gather.warnings.into_inner();
        match (result, storage.stopped.into_inner()) {
            (Ok(result), _) => Ok(Answer { result, annotations, warnings }),
            (Err(EvalError::Storage(_)), Some(stop)) => Err(stop),
            (Err(error), _) => Err(Stop::Failed(QueryError::Evaluate(error))),
        }
    }
}

/// What one query may take: bytes, and time until it ends or whoever asked goes away.
pub(crate) struct QueryBudget {
    clock: Arc<dyn Clock>,
    deadline: Duration,
    canceled: AtomicBool,
    bytes: AtomicU64,
    max_bytes: u64,
}

impl QueryBudget {
    fn new(clock: Arc<dyn Clock>, timeout: Duration, max_bytes: u64) -> QueryBudget {
        let deadline = clock.boottime() + timeout;
        QueryBudget { clock, deadline, canceled: AtomicBool::new(false), bytes: AtomicU64::new(0), max_bytes }
    }

    /// How long it may still take.
    pub(crate) fn remaining(&self) -> Duration {
        self.deadline.saturating_sub(self.clock.boottime())
    }
}

impl Budget for QueryBudget {
    fn take(&self, bytes: u64) -> Result<(), OverBudget> {
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if held > self.max_bytes {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            let max = self.max_bytes;
            return Err(OverBudget(format!(
                "the query needs more than {max} bytes of memory (querier-max-bytes). Ask for fewer series or a shorter \
                 range, or raise --querier.max-bytes."
            )));
        }
        Ok(())
    }

    fn release(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn interruption(&self) -> Option<Interruption> {
        if self.canceled.load(Ordering::Relaxed) {
            Some(Interruption::Canceled)
        } else if self.clock.boottime() >= self.deadline {
            Some(Interruption::TimedOut)
        } else {
            None
        }
    }
}

/// Tells a running evaluation that nobody waits for it any more.
struct Canceller(Arc<QueryBudget>);

impl Drop for Canceller {
    fn drop(&mut self) {
        self.0.canceled.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
