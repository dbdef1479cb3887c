//! Why a query has no answer, and who acts.

use index::Quarantined;
use model::ObjectKey;

/// A query that failed.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The expression does not parse, or its evaluation failed.
    #[error("{0}")]
    Evaluate(promql::EvalError),
    /// A block can't be read.
    #[error("block {key} can't be read (corrupt-object), and the query needs it: {why}")]
    Block {
        /// Which.
        key: ObjectKey,
        /// What is wrong with it.
        why: String,
    },
    /// A block is there in the index but not in the bucket.
    #[error("block {0} is not in the bucket (corrupt-object), and the query needs it")]
    BlockGone(ObjectKey),
    /// Segments that could not be decoded lie in the query's time.
    #[error("{}", describe_quarantined(.0))]
    Quarantined(Quarantined),
    /// A head can't be read.
    #[error("{0}")]
    Head(String),
    /// The bucket does not answer.
    #[error("the bucket does not answer: {0}")]
    Bucket(String),
    /// The index does not answer.
    #[error("the index does not answer: {0}")]
    Index(String),
    /// The selected series hold more samples than a query may.
    #[error(
        "query processing would load too many samples into memory in query execution: more than {0} (querier-max-samples)"
    )]
    TooManySamples(u64),
    /// Too slow.
    #[error("query timed out in {0}")]
    Timeout(&'static str),
}

/// Words for segments that are put aside.
pub(crate) fn describe_quarantined(segments: &Quarantined) -> String {
    let Quarantined { writer, from, upto, .. } = segments;
    format!(
        "segments {from} to {upto} of writer {writer} can't be decoded and are put aside (quarantined-segments), \
         and the query's time overlaps theirs"
    )
}

/// Who acts on an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Whoever asks: 400.
    Invalid,
    /// Whoever asks, or the limits: 422.
    Evaluation,
    /// It took too long: 503.
    Timeout,
    /// Whoever asked went away: 503.
    Canceled,
    /// Something is short for now: 503.
    Unavailable,
    /// Stored bytes fail a check, or are gone: 500.
    Corrupt,
}

impl QueryError {
    /// Who acts.
    pub fn kind(&self) -> Kind {
        match self {
            QueryError::Evaluate(error) => evaluation_kind(error),
            QueryError::TooManySamples(_) => Kind::Evaluation,
            QueryError::Timeout(_) => Kind::Timeout,
            QueryError::Bucket(_) | QueryError::Index(_) | QueryError::Head(_) => Kind::Unavailable,
            QueryError::Block { .. } | QueryError::BlockGone(_) | QueryError::Quarantined(_) => Kind::Corrupt,
        }
    }

    /// Whether the answer without the missing part can be given, with this error as a warning.
    pub(crate) fn may_be_warning(&self) -> bool {
        self.kind() == Kind::Corrupt || matches!(self, QueryError::Head(_))
    }
}

fn evaluation_kind(error: &promql::EvalError) -> Kind {
    match error.kind() {
        promql::EvalErrorKind::BadData => Kind::Invalid,
        promql::EvalErrorKind::Execution => Kind::Evaluation,
        promql::EvalErrorKind::Timeout => Kind::Timeout,
        promql::EvalErrorKind::Canceled => Kind::Canceled,
        promql::EvalErrorKind::Storage => Kind::Unavailable,
    }
}

impl Kind {
    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Invalid => "invalid",
            Kind::Evaluation => "evaluation",
            Kind::Timeout => "timeout",
            Kind::Canceled => "canceled",
            Kind::Unavailable => "unavailable",
            Kind::Corrupt => "corrupt",
        }
    }
}
