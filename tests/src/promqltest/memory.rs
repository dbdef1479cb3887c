//! The engine alone, over samples in memory: what the scripts say about `promql` without any store.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Labels, Samples, TimestampMs};
use promql::{Options, Query, QueryResult, Selection, Storage, StorageError, Unlimited};

use super::runner::{Answer, Data, Store};
use super::script::Steps;

/// Some scripts expect the error that comes with more samples than this.
const SAMPLES_MAX: u64 = 10_000;

/// Series in a map, asked through the engine.
#[derive(Debug, Default)]
pub struct MemoryStore {
    series: BTreeMap<Labels, Arc<Samples>>,
}

impl MemoryStore {
    fn ask(&self, query: Result<Query, promql::EvalError>) -> Result<Answer, String> {
        let query = query.map_err(|e| e.to_string())?;
        let options = Options { samples_max: SAMPLES_MAX, ..Options::default() };
        let (result, annotations) = query.evaluate(self, &Unlimited, &options);
        let data = match result.map_err(|e| e.to_string())? {
            QueryResult::Scalar { v, .. } => Data::Scalar(v),
            QueryResult::String { v, .. } => Data::String(v),
            QueryResult::Vector(vector) => Data::Vector(vector.into_iter().map(|s| (s.labels, s.v)).collect()),
            QueryResult::Matrix(matrix) => Data::Matrix(matrix.into_iter().map(|s| (s.labels, s.samples)).collect()),
        };
        Ok(Answer { data, warnings: annotations.warnings(query.text()), infos: annotations.infos(query.text()) })
    }
}

impl Storage for MemoryStore {
    fn select(&self, selection: &Selection) -> Result<Vec<(Labels, Arc<Samples>)>, StorageError> {
        let fits = |labels: &Labels| selection.matchers.iter().all(|matcher| matcher.matches_labels(labels));
        let mut found = Vec::new();
        for (labels, samples) in self.series.iter().filter(|(labels, _)| fits(labels)) {
            // Clipped, so that a selector that asks for too little is found out.
            let mut samples = Samples::clone(samples);
            samples.clip(selection.range);
            if !samples.is_empty() {
                found.push((labels.clone(), Arc::new(samples)));
            }
        }
        Ok(found)
    }
}

impl Store for MemoryStore {
    fn clear(&mut self) -> anyhow::Result<()> {
        self.series.clear();
        Ok(())
    }

    fn load(&mut self, series: &[(Labels, Samples)]) -> anyhow::Result<()> {
        for (labels, samples) in series {
            Arc::make_mut(self.series.entry(labels.clone()).or_default()).merge(samples.clone());
        }
        Ok(())
    }

    fn instant(&mut self, expr: &str, at: TimestampMs) -> Result<Answer, String> {
        self.ask(Query::instant(expr, at))
    }

    fn range(&mut self, expr: &str, steps: Steps) -> Result<Answer, String> {
        self.ask(Query::range(expr, steps.start, steps.end, steps.step))
    }
}
