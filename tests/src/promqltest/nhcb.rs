//! `load_with_nhcb`: classic histograms, converted to native ones with custom bounds.
//!
//! For every set of `X_bucket{le}`, `X_count` and `X_sum` that agree in their other labels, and for every timestamp.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{CUSTOM_BUCKETS_SCHEMA, Labels, LabelsBuilder, METRIC_NAME, Samples, TimestampMs, Value};

use super::histogram::FloatHistogram;
use super::series::parse_number;

/// What was seen of one histogram at one time.
#[derive(Default)]
struct Parts {
    /// Cumulative counts by upper bound, ascending.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

/// The histograms that the classic series among `series` make.
pub(super) fn convert(series: &[(Labels, Samples)]) -> Vec<(Labels, Samples)> {
    let mut histograms: BTreeMap<Labels, BTreeMap<TimestampMs, Parts>> = BTreeMap::new();
    for (labels, samples) in series {
        let name = labels.metric_name();
        let Some((base, part)) = ["_bucket", "_count", "_sum"].iter().find_map(|p| Some((name.strip_suffix(p)?, *p)))
        else {
            continue;
        };
        let bound = labels.get("le").and_then(parse_number).filter(|bound| !bound.is_nan());
        if part == "_bucket" && bound.is_none() {
            continue;
        }
        let key = LabelsBuilder::from_labels(labels).remove("le").set(METRIC_NAME, base).build();
        let by_time = histograms.entry(key).or_default();
        for sample in samples.iter() {
            let Value::Float(v) = sample.v else { continue };
            let parts = by_time.entry(sample.t).or_default();
            match (part, bound) {
                ("_bucket", Some(bound)) => parts.buckets.push((bound, v)),
                ("_count", _) => parts.count = Some(v),
                _ => parts.sum = v,
            }
        }
    }
    // A `_count` alone is no histogram.
    histograms.retain(|_, by_time| by_time.values().any(|parts| !parts.buckets.is_empty()));
    let converted = histograms.into_iter().map(|(labels, by_time)| {
        let mut samples = Samples::default();
        for (t, parts) in by_time {
            if let Some(histogram) = parts.histogram() {
                samples.push(t, Value::Histogram(Arc::new(histogram.to_model())));
            }
        }
        (labels, samples)
    });
    converted.collect()
}

impl Parts {
    /// `None` if the buckets do not grow.
    fn histogram(mut self) -> Option<FloatHistogram> {
        self.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let highest = self.buckets.last().map_or(0.0, |&(_, count)| count);
        let count = self.count.unwrap_or(highest);
        let bounds: Vec<f64> = self.buckets.iter().map(|&(bound, _)| bound).filter(|b| *b != f64::INFINITY).collect();
        let mut histogram = FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count,
            sum: self.sum,
            custom_bounds: bounds,
            ..FloatHistogram::default()
        };
        let mut below = 0.0;
        let mut index = 0;
        for &(bound, cumulative) in &self.buckets {
            if cumulative < below {
                return None;
            }
            histogram.positive.insert(index, cumulative - below);
            below = cumulative;
            index += i32::from(bound != f64::INFINITY);
        }
        if self.buckets.last().is_some_and(|&(bound, _)| bound != f64::INFINITY) {
            histogram.positive.insert(index, count - below);
        }
        Some(histogram)
    }
}
