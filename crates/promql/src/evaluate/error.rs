//! Why a query has no answer.

use super::budget::{Interruption, OverBudget};
use super::storage::StorageError;
use crate::error::ParseError;

/// Who has to act on an [`EvalError`], in the words of Prometheus's HTTP API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvalErrorKind {
    /// The query itself is wrong; `bad_data`, 400.
    BadData,
    /// It can't be answered for the data there is, or is too large; `execution`, 422.
    Execution,
    /// It took too long; `timeout`, 503.
    Timeout,
    /// Whoever asked went away; `canceled`, 503.
    Canceled,
    /// The series could not be had; what is wrong is in [`EvalError::Storage`].
    Storage,
}

/// Why a query has no answer. The texts are Prometheus's, where it has the case.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The text is no query.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// What was asked makes no sense, whatever the data.
    #[error("{0}")]
    BadData(String),
    /// What was asked makes no sense for this data.
    #[error("{0}")]
    Execution(String),
    /// More samples at one time than the query may hold.
    #[error("query processing would load too many samples into memory in query execution")]
    TooManySamples,
    /// More bytes at one time than the query may hold.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
    /// The time is up.
    #[error("query timed out in expression evaluation")]
    Timeout,
    /// Whoever asked went away.
    #[error("query was canceled in expression evaluation")]
    Canceled,
    /// A function met a native histogram that it can't handle yet.
    #[error("native histograms are not supported by {0} yet")]
    NativeHistogram(String),
    /// The series could not be had.
    #[error("expanding series: {0}")]
    Storage(#[from] StorageError),
}

impl EvalError {
    /// Who has to act.
    pub fn kind(&self) -> EvalErrorKind {
        match self {
            EvalError::Parse(_) | EvalError::BadData(_) => EvalErrorKind::BadData,
            EvalError::Execution(_)
            | EvalError::TooManySamples
            | EvalError::OverBudget(_)
            | EvalError::NativeHistogram(_) => EvalErrorKind::Execution,
            EvalError::Timeout => EvalErrorKind::Timeout,
            EvalError::Canceled => EvalErrorKind::Canceled,
            EvalError::Storage(_) => EvalErrorKind::Storage,
        }
    }

    /// Two samples of the result would have one label set and one time.
    pub(super) fn same_labelset() -> EvalError {
        EvalError::Execution("vector cannot contain metrics with the same labelset".to_owned())
    }

    pub(super) fn native_histogram(by: impl Into<String>) -> EvalError {
        EvalError::NativeHistogram(by.into())
    }
}

impl From<Interruption> for EvalError {
    fn from(interruption: Interruption) -> EvalError {
        match interruption {
            Interruption::TimedOut => EvalError::Timeout,
            Interruption::Canceled => EvalError::Canceled,
        }
    }
}
