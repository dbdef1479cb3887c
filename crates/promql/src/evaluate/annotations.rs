//! Warnings and infos about a query's data, in Prometheus's words.
//!
//! They are told apart by their text alone, without the position: the same thing at two places of the query is said once,
//! with the later place, as Prometheus does. Positions become `(line:column)` when they are written out.

use std::collections::HashMap;
use std::fmt::Write;

use super::go_format::{format_g, format_g_digits, quote};
use super::quantile::ForcedMonotonicity;
use model::TimestampMs;

/// Whether an annotation is about a doubtful answer or only good to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The answer may not be what was meant.
    Warning,
    /// Something was left out or guessed.
    Info,
}

/// The warnings and infos of one evaluation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Annotations {
    entries: Vec<Annotation>,
    /// Where an entry is, by its text. (No text is both a warning's and an info's.)
    index: HashMap<String, usize>,
}

/// One warning or info.
#[derive(Debug, Clone, PartialEq)]
struct Annotation {
    severity: Severity,
    text: String,
    /// The byte of the query text that it is about.
    position: u32,
    monotonicity: Option<MonotonicityDetails>,
}

/// What the info about non-monotonic buckets sums up over all samples.
#[derive(Debug, Clone, PartialEq)]
struct MonotonicityDetails {
    forced: ForcedMonotonicity,
    first: TimestampMs,
    last: TimestampMs,
    samples: u64,
}

impl Annotations {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The warnings as the HTTP API prints them; `query` is the text that was parsed.
    pub fn warnings(&self, query: &str) -> Vec<String> {
        self.render(Severity::Warning, query)
    }

    /// The infos as the HTTP API prints them; `query` is the text that was parsed.
    pub fn infos(&self, query: &str) -> Vec<String> {
        self.render(Severity::Info, query)
    }

    fn render(&self, severity: Severity, query: &str) -> Vec<String> {
        self.entries.iter().filter(|entry| entry.severity == severity).map(|entry| entry.render(query)).collect()
    }

    fn add(&mut self, severity: Severity, text: String, position: u32) -> &mut Annotation {
        let i = match self.index.get(&text) {
            Some(&i) => i,
            None => {
                self.index.insert(text.clone(), self.entries.len());
                self.entries.push(Annotation { severity, text, position, monotonicity: None });
                self.entries.len() - 1
            }
        };
        self.entries[i].position = position;
        &mut self.entries[i]
    }

    /// Adds what another evaluation of the same query had to say.
    pub(super) fn absorb(&mut self, other: &Annotations) {
        other.said().for_each(|(severity, text, position)| self.say(severity, text.to_owned(), position));
    }

    pub(super) fn say(&mut self, severity: Severity, text: String, position: u32) {
        self.add(severity, text, position);
    }

    /// Everything but the sums about forced monotonicity.
    pub(super) fn said(&self) -> impl Iterator<Item = (Severity, &str, u32)> {
        let plain = self.entries.iter().filter(|entry| entry.monotonicity.is_none());
        plain.map(|entry| (entry.severity, entry.text.as_str(), entry.position))
    }

    fn warn(&mut self, text: String, position: u32) {
        self.add(Severity::Warning, text, position);
    }

    fn info(&mut self, text: String, position: u32) {
        self.add(Severity::Info, text, position);
    }

    pub(super) fn invalid_quantile(&mut self, q: f64, position: u32) {
        self.warn(format!("quantile value should be between 0 and 1, got {}", format_g(q)), position);
    }

    pub(super) fn invalid_ratio(&mut self, ratio: f64, capped: f64, position: u32) {
        let (ratio, capped) = (format_g(ratio), format_g(capped));
        self.warn(format!("ratio value should be between -1 and 1, got {ratio}, capping to {capped}"), position);
    }

    pub(super) fn bad_bucket_label(&mut self, metric: &str, le: &str, position: u32) {
        let le = quote(le);
        let text = format!("bucket label \"le\" is missing or has a malformed value of {le}{}", for_metric(metric));
        self.warn(text, position);
    }

    pub(super) fn mixed_floats_histograms(&mut self, metric: &str, position: u32) {
        let metric = quote(metric);
        self.warn(format!("encountered a mix of histograms and floats for metric name {metric}"), position);
    }

    pub(super) fn mixed_floats_histograms_aggregation(&mut self, position: u32) {
        self.warn("encountered a mix of histograms and floats for aggregation".to_owned(), position);
    }

    pub(super) fn mixed_classic_native_histograms(&mut self, metric: &str, position: u32) {
        let text = format!("vector contains a mix of classic and native histograms{}", for_metric(metric));
        self.warn(text, position);
    }

    pub(super) fn sort_in_range_query(&mut self, position: u32) {
        let text = "sort is ineffective for range queries since results are always ordered by labels";
        self.warn(text.to_owned(), position);
    }

    pub(super) fn possible_non_counter(&mut self, metric: &str, position: u32) {
        let metric = quote(metric);
        let text = format!("metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {metric}");
        self.info(text, position);
    }

    pub(super) fn incompatible_types(&mut self, left: &str, operator: &str, right: &str, position: u32) {
        let text = format!(
            "incompatible sample types encountered for binary operator {}: {left} {operator} {right}",
            quote(operator)
        );
        self.info(text, position);
    }

    pub(super) fn histogram_ignored_in_aggregation(&mut self, aggregation: &str, position: u32) {
        self.info(format!("ignored histogram in {aggregation} aggregation"), position);
    }

    pub(super) fn histogram_ignored_in_mixed_range(&mut self, metric: &str, position: u32) {
        let metric = quote(metric);
        let text =
            format!("ignored histograms in a range containing both floats and histograms for metric name {metric}");
        self.info(text, position);
    }

    pub(super) fn forced_monotonicity(
        &mut self,
        metric: &str,
        forced: ForcedMonotonicity,
        t: TimestampMs,
        position: u32,
    ) {
        const TEXT: &str = "input to histogram_quantile needed to be fixed for monotonicity \
            (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)";
        let entry = self.add(Severity::Info, format!("{TEXT}{}", for_metric(metric)), position);
        let details = entry.monotonicity.get_or_insert(MonotonicityDetails { forced, first: t, last: t, samples: 0 });
        details.samples += 1;
        details.first = details.first.min(t);
        details.last = details.last.max(t);
        details.forced.bucket_min = details.forced.bucket_min.min(forced.bucket_min);
        details.forced.bucket_max = details.forced.bucket_max.max(forced.bucket_max);
        details.forced.difference_max = details.forced.difference_max.max(forced.difference_max);
    }
}

impl Annotation {
    fn render(&self, query: &str) -> String {
        let mut out = match self.severity {
            Severity::Warning => format!("PromQL warning: {}", self.text),
            Severity::Info => format!("PromQL info: {}", self.text),
        };
        if let Some(MonotonicityDetails { forced, first, last, samples }) = &self.monotonicity {
            let _ = write!(
                out, // Writing to a string can't fail.
                ", from buckets {} to {}, with a max diff of {}, over {samples} samples from {} to {}",
                format_g(forced.bucket_min),
                format_g(forced.bucket_max),
                format_g_digits(forced.difference_max, 2),
                super::date::rfc3339(first / 1000),
                super::date::rfc3339(last / 1000),
            );
        }
        let (line, column) = line_and_column(query, self.position as usize);
        let _ = write!(out, " ({line}:{column})"); // Writing to a string can't fail.
        out
    }
}

fn for_metric(metric: &str) -> String {
    if metric.is_empty() { String::new() } else { format!(" for metric name {}", quote(metric)) }
}

/// Where byte `position` of `query` lies; both from 1, columns in bytes.
fn line_and_column(query: &str, position: usize) -> (usize, usize) {
    let before = &query.as_bytes()[..position.min(query.len())];
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |i| i + 1);
    (line, before.len() - line_start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_text_is_said_once_with_the_later_place() {
        let mut annotations = Annotations::default();
        annotations.invalid_quantile(1.5, 3);
        annotations.invalid_quantile(1.5, 7);
        annotations.possible_non_counter("up", 5);
        let expected = ["PromQL warning: quantile value should be between 0 and 1, got 1.5 (2:3)"];
        assert_eq!(annotations.warnings("abcd\nefgh"), expected);
        assert_eq!(annotations.infos("abcdefgh").len(), 1);
    }

    #[test]
    fn monotonicity_is_summed_up() {
        let mut annotations = Annotations::default();
        let forced = |bound, diff| ForcedMonotonicity { bucket_min: bound, bucket_max: bound, difference_max: diff };
        annotations.forced_monotonicity("h_bucket", forced(0.5, 123.456), 60_000, 0);
        annotations.forced_monotonicity("h_bucket", forced(1.0, 2.0), 0, 0);
        assert_eq!(
            annotations.infos("x"),
            ["PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see \
              https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile) for metric name \
              \"h_bucket\", from buckets 0.5 to 1, with a max diff of 1.2e+02, over 2 samples from \
              1970-01-01T00:00:00Z to 1970-01-01T00:01:00Z (1:1)"]
        );
    }
}
