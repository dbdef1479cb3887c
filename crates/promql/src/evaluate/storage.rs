//! Where an evaluation's series come from: a trait, so that the engine knows no head, block or network.

use std::sync::Arc;

use model::{Labels, Matcher, Samples, TimeRange};

use super::partial::{Partial, PartialRequest};

/// What a selector needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// Every one must be satisfied.
    pub matchers: Vec<Matcher>,
    /// No sample outside is looked at; samples outside may be returned.
    pub range: TimeRange,
    /// What a storage may use to do less.
    pub hints: Hints,
}

/// What is done with the selected samples; a storage may ignore it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Hints {
    /// Milliseconds between two steps; 0 of an instant query.
    pub step: i64,
    /// The window of a range selector in milliseconds, 0 of an instant selector.
    pub range: i64,
    /// The function or aggregation closest around the selector, if only such are around it.
    pub function: Option<&'static str>,
    /// The labels of the aggregation right around the selector.
    pub grouping: Vec<String>,
    /// Whether `grouping` are the labels to keep (`by`) or to leave out (`without`).
    pub by: bool,
}

/// A failure of the storage, passed through as it is.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StorageError(pub Box<dyn std::error::Error + Send + Sync>);

/// Hands out series.
pub trait Storage: Send + Sync {
    /// The series that satisfy the selection, each once, in any order; their samples in the selection's range, or more.
    /// Series without samples may be left out. Stale markers must be handed out.
    fn select(&self, selection: &Selection) -> Result<Vec<(Labels, Arc<Samples>)>, StorageError>;

    /// An aggregation's shares, one a shard, together over all series; `None` if it is better evaluated here, whole.
    ///
    /// Asked once for each aggregation that can be evaluated in shares, before its series are selected.
    fn partials(&self, _request: &PartialRequest<'_>) -> Result<Option<Vec<Partial>>, StorageError> {
        Ok(None)
    }
}
