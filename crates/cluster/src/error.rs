//! Why a call has no answer.

use std::time::Duration;

/// What the other side says instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// What the caller can do.
    pub kind: RefusalKind,
    /// In words.
    pub text: String,
}

/// What the caller can do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// Change what it asks.
    Invalid,
    /// Ask again from the start: what it asks about has changed since.
    Again,
    /// What it asks for is not here.
    NotHere,
    /// Ask later.
    Unavailable,
    /// Tell an operator.
    Failed,
}

impl RefusalKind {
    pub(crate) fn status(self) -> u16 {
        match self {
            RefusalKind::Invalid => 400,
            RefusalKind::NotHere => 404,
            RefusalKind::Again => 409,
            RefusalKind::Failed => 500,
            RefusalKind::Unavailable => 503,
        }
    }

    pub(crate) fn of_status(status: u16) -> RefusalKind {
        match status {
            400 | 413 => RefusalKind::Invalid,
            404 => RefusalKind::NotHere,
            409 => RefusalKind::Again,
            503 => RefusalKind::Unavailable,
            _ => RefusalKind::Failed,
        }
    }
}

impl Refusal {
    /// A refusal of a kind, in words.
    pub fn new(kind: RefusalKind, text: impl Into<String>) -> Refusal {
        Refusal { kind, text: text.into() }
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The node can't be reached, or what answers at its address is not it. The call may or may not have arrived.
    #[error("node {node} at {address}: {reason}")]
    Unreachable {
        /// Whom; its address again if its id is not known.
        node: String,
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// Nobody knows where the node is.
    #[error("node {node} has no address")]
    Unknown {
        /// Whom.
        node: String,
    },
    /// It took too long. The call may or may not have arrived.
    #[error("node {node} did not answer {message} within {after:?}")]
    Timeout {
        /// Whom.
        node: String,
        /// What.
        message: &'static str,
        /// How long it was waited.
        after: Duration,
    },
    /// The node was reached, and says no.
    #[error("node {node}: {refusal}")]
    Refused {
        /// Whom.
        node: String,
        /// What it says.
        refusal: Refusal,
    },
}

impl CallError {
    /// What the other side said; `None` if it said nothing.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            CallError::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }
}
