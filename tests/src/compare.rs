//! Asks two servers the same, and says where they differ: the same series, the same timestamps, values within 1e-12.
//!
//! The peer is a Prometheus that holds the same samples. Expressions whose meaning changed between its version and the
//! one whose language Bellrock speaks are left out by name, with the reason.

use std::collections::BTreeMap;

use anyhow::Result;
use model::{Labels, Samples, TimestampMs, Value};

use crate::client::Client;
use crate::promqltest::{Answer, Data, Steps};

/// How far two values may lie apart, relative to the greater magnitude.
const RELATIVE_DIFFERENCE_MAX: f64 = 1e-12;

/// What means something else in Prometheus 2 than in 3, as a part of the expression, and why.
const CHANGED_SINCE_2: [(&str, &str); 4] = [
    ("increase(", "3.x extrapolates the increase of a counter younger than its window to zero in another way"),
    (
        "histogram_quantile(",
        "rates of young buckets differ as `increase` does, and 3.x smooths their small differences",
    ),
    ("_duration_seconds_sum[", "the counters of a fresh Prometheus are younger than their window, as with `increase`"),
    (
        "prometheus_tsdb_head_samples_appended_total[",
        "this counter of a fresh Prometheus is younger than its window too",
    ),
];

/// What to ask, and how.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The expressions.
    pub expressions: Vec<String>,
    /// The time of the instant queries, and the last step of the range queries.
    pub end: TimestampMs,
    /// How far the range queries reach back.
    pub range_ms: i64,
    /// The step of the range queries.
    pub step_ms: i64,
    /// The major version of the peer, to leave out what has changed since.
    pub peer_version: u32,
}

/// What has to be equal beside timestamps and values.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    /// The series.
    Same,
    /// The series and their order.
    InOrder,
    /// The series and the order of their values: `sort` leaves those that tie in the order in which the store happens to
    /// find them, in Prometheus too.
    InOrderOfValues,
    /// The series, but for those that tie: which of them `topk` keeps follows the order in which the store happens to
    /// find them, in Prometheus too.
    ButTies,
}

impl Rule {
    fn of(expression: &str) -> Rule {
        if expression.starts_with("sort_by_label") {
            Rule::InOrder
        } else if expression.starts_with("sort") {
            Rule::InOrderOfValues
        } else if expression.starts_with("topk") || expression.starts_with("bottomk") {
            Rule::ButTies
        } else {
            Rule::Same
        }
    }
}

/// What came out.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Expressions that were asked.
    pub asked: usize,
    /// Expressions whose instant and range answers were equal.
    pub equal: usize,
    /// Expressions that had a result in at least one of the two.
    pub non_empty: usize,
    /// Expressions left out, with the reason.
    pub left_out: Vec<(String, &'static str)>,
    /// Expressions that differ, with where.
    pub differences: Vec<(String, Vec<String>)>,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (expression, reason) in &self.left_out {
            writeln!(f, "left out: {expression}\n    {reason}")?;
        }
        for (expression, lines) in &self.differences {
            writeln!(f, "differs: {expression}")?;
            lines.iter().take(10).try_for_each(|line| writeln!(f, "    {line}"))?;
        }
        write!(f, "equal {}/{}, non-empty {}", self.equal, self.asked, self.non_empty)
    }
}

/// The expressions of a file, one a line; blank lines and those that begin with `#` are none.
pub fn read_expressions(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

impl Comparison {
    /// Asks both servers everything.
    ///
    /// Errors: a server that does not answer at all; an error answer is a difference unless both give one.
    pub fn run(&self, peer: &Client, bellrock: &Client) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let steps = Steps { start: self.end - self.range_ms, end: self.end, step: self.step_ms };
        for expression in &self.expressions {
            let changed = CHANGED_SINCE_2.iter().find(|(part, _)| expression.contains(part));
            if let Some((_, reason)) = changed.filter(|_| self.peer_version < 3) {
                outcome.left_out.push((expression.clone(), reason));
                continue;
            }
            let instant = (peer.instant(expression, self.end)?, bellrock.instant(expression, self.end)?);
            let range = (peer.range(expression, steps)?, bellrock.range(expression, steps)?);
            let rule = Rule::of(expression);
            let mut lines = differences("instant", &instant.0, &instant.1, rule);
            let rule = if rule == Rule::ButTies { rule } else { Rule::Same };
            lines.extend(differences("range", &range.0, &range.1, rule));
            outcome.asked += 1;
            outcome.equal += usize::from(lines.is_empty());
            let has_result = [&instant.0, &instant.1, &range.0, &range.1].into_iter().any(|answer| !is_empty(answer));
            outcome.non_empty += usize::from(has_result);
            if !lines.is_empty() {
                outcome.differences.push((expression.clone(), lines));
            }
        }
        Ok(outcome)
    }
}

/// When the targets were scraped in the last hour, as `up` says: a list a target.
pub fn scrape_times(server: &Client) -> Result<Vec<Vec<TimestampMs>>> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as i64;
    let answer = server.instant("up[1h]", now)?.map_err(|error| anyhow::anyhow!(error))?;
    let Data::Matrix(matrix) = answer.data else { anyhow::bail!("up[1h] is {}", answer.data) };
    Ok(matrix.into_iter().map(|(_, samples)| samples.timestamps).collect())
}

/// The latest time of which both servers hold all samples, chosen so that no sample lies on the edge of a window;
/// `None` while a server lacks one of `targets`.
///
/// Two intervals back from the oldest of the targets' latest scrapes: all series of such a scrape have arrived.
pub fn common_end(peer: &Client, bellrock: &Client, targets: usize, interval_ms: i64) -> Result<Option<TimestampMs>> {
    let (theirs, ours) = (scrape_times(peer)?, scrape_times(bellrock)?);
    if theirs.len() < targets || ours.len() < targets {
        return Ok(None);
    }
    let oldest = theirs.iter().chain(&ours).filter_map(|times| times.last()).min();
    let scrapes: Vec<TimestampMs> = theirs.iter().flatten().copied().collect();
    Ok(oldest.map(|oldest| time_between_scrapes(&scrapes, interval_ms, oldest - 2 * interval_ms)))
}

fn is_empty(answer: &Result<Answer, String>) -> bool {
    match answer {
        Ok(Answer { data: Data::Vector(vector), .. }) => vector.is_empty(),
        Ok(Answer { data: Data::Matrix(matrix), .. }) => matrix.is_empty(),
        Ok(_) => false,
        Err(_) => true,
    }
}

fn differences(kind: &str, peer: &Result<Answer, String>, ours: &Result<Answer, String>, rule: Rule) -> Vec<String> {
    let found = match (peer, ours) {
        (Ok(peer), Ok(ours)) => compare_data(&peer.data, &ours.data, rule),
        (Err(_), Err(_)) => vec![],
        (Ok(peer), Err(error)) => vec![format!("failed with {error}; the peer: {}", shorten(&peer.data.to_string()))],
        (Err(error), Ok(ours)) => {
            vec![format!("the peer failed with {error}; here: {}", shorten(&ours.data.to_string()))]
        }
    };
    found.into_iter().map(|line| format!("{kind}: {line}")).collect()
}

fn compare_data(peer: &Data, ours: &Data, rule: Rule) -> Vec<String> {
    match (peer, ours) {
        (Data::Scalar(a), Data::Scalar(b)) if values_are_equal(*a, *b) => vec![],
        (Data::String(a), Data::String(b)) if a == b => vec![],
        (Data::Vector(a), Data::Vector(b)) => {
            let at = |vector: &[(Labels, Value)]| -> Vec<(Labels, Samples)> {
                vector.iter().map(|(labels, v)| (labels.clone(), one_sample(v))).collect()
            };
            let (a, b) = (at(a), at(b));
            let mut found = compare_series(&a, &b, rule);
            let is_same_place = |(a, b): (&(Labels, Samples), &(Labels, Samples))| match rule {
                Rule::InOrder => a.0 == b.0,
                Rule::InOrderOfValues => a.1.floats.iter().zip(&b.1.floats).all(|(a, b)| values_are_equal(*a, *b)),
                Rule::Same | Rule::ButTies => true,
            };
            if found.is_empty() && !a.iter().zip(&b).all(is_same_place) {
                found.push("the same series in another order".into());
            }
            found
        }
        (Data::Matrix(a), Data::Matrix(b)) => compare_series(a, b, rule),
        (a, b) => vec![format!("the peer: {}; here: {}", shorten(&a.to_string()), shorten(&b.to_string()))],
    }
}

fn one_sample(v: &Value) -> Samples {
    let mut samples = Samples::default();
    samples.push(0, v.clone());
    samples
}

fn compare_series(peer: &[(Labels, Samples)], ours: &[(Labels, Samples)], rule: Rule) -> Vec<String> {
    if rule == Rule::ButTies && values_by_time(peer) == values_by_time(ours) {
        return vec![];
    }
    let mut found = Vec::new();
    let mut rest: BTreeMap<&Labels, &Samples> = ours.iter().map(|(labels, samples)| (labels, samples)).collect();
    if rest.len() != ours.len() {
        found.push("a series comes twice".into());
    }
    for (labels, a) in peer {
        let Some(b) = rest.remove(labels) else {
            found.push(format!("{labels} is missing"));
            continue;
        };
        if a.timestamps != b.timestamps {
            let only = |a: &Samples, b: &Samples| a.timestamps.iter().find(|t| !b.timestamps.contains(t)).copied();
            found.push(format!("{labels}: only the peer has {:?}, only here is {:?}", only(a, b), only(b, a)));
            continue;
        }
        let differing = a.timestamps.iter().zip(a.floats.iter().zip(&b.floats));
        for (t, (a, b)) in differing.filter(|(_, (a, b))| !values_are_equal(**a, **b)).take(1) {
            found.push(format!("{labels} at {t}: the peer has {a}, here is {b}"));
        }
    }
    found.extend(rest.keys().map(|labels| format!("{labels} is only here")));
    found
}

/// The values at each time, ascending, whatever series they are of.
fn values_by_time(series: &[(Labels, Samples)]) -> BTreeMap<TimestampMs, Vec<u64>> {
    let mut all: BTreeMap<TimestampMs, Vec<u64>> = BTreeMap::new();
    for (_, samples) in series {
        for (t, v) in samples.timestamps.iter().zip(&samples.floats) {
            all.entry(*t).or_default().push(v.to_bits());
        }
    }
    all.values_mut().for_each(|values| values.sort_unstable());
    all
}

fn values_are_equal(a: f64, b: f64) -> bool {
    let difference = (a - b).abs();
    a == b
        || (a.is_nan() && b.is_nan())
        || (difference.is_finite() && difference <= RELATIVE_DIFFERENCE_MAX * a.abs().max(b.abs()))
}

fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}

/// A time of at most `latest` that lies midway between scrapes, so that no sample lies on the edge of a window.
///
/// Prometheus 2 includes the sample at a window's start and 3 does not; away from the edges both mean the same. `scrapes`
/// repeat every `interval_ms`, more or less.
fn time_between_scrapes(scrapes: &[TimestampMs], interval_ms: i64, latest: TimestampMs) -> TimestampMs {
    let mut phases: Vec<i64> = scrapes.iter().map(|t| t.rem_euclid(interval_ms)).collect();
    phases.sort_unstable();
    phases.dedup();
    let Some(&first) = phases.first() else { return latest };
    phases.push(first + interval_ms);
    let widest = phases.windows(2).max_by_key(|pair| pair[1] - pair[0]).map_or(0, |pair| (pair[0] + pair[1]) / 2);
    latest - (latest - widest).rem_euclid(interval_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_lie_between_scrapes() {
        assert_eq!(time_between_scrapes(&[10_100, 10_300], 1_000, 20_000), 19_700);
        assert_eq!(time_between_scrapes(&[10_900], 1_000, 20_000), 19_400);
        assert_eq!(time_between_scrapes(&[], 1_000, 20_000), 20_000);
    }

    #[test]
    fn ties_may_be_chosen_among_by_topk_and_ordered_by_sort() {
        let of_values = |series: [(&str, f64); 2]| {
            Data::Vector(series.map(|(name, v)| (crate::labels(name, &[]), Value::Float(v))).to_vec())
        };
        let vector = |names: [&str; 2]| of_values(names.map(|name| (name, 1.0)));
        let (a, b) = (vector(["a", "b"]), vector(["b", "c"]));
        assert_eq!(compare_data(&a, &b, Rule::of("topk(2, x)")), Vec::<String>::new());
        assert_eq!(compare_data(&a, &b, Rule::of("x")).len(), 2);
        assert_eq!(compare_data(&a, &vector(["b", "a"]), Rule::of("sort_by_label(x, \"y\")")).len(), 1);
        assert_eq!(compare_data(&a, &vector(["b", "a"]), Rule::of("sort(x)")).len(), 0);
        let (up, down) = (of_values([("a", 1.0), ("b", 2.0)]), of_values([("b", 2.0), ("a", 1.0)]));
        assert_eq!(compare_data(&up, &down, Rule::of("sort(x)")).len(), 1);
        assert_eq!(compare_data(&up, &down, Rule::of("x")).len(), 0);
        assert_eq!(compare_data(&a, &vector(["b", "a"]), Rule::of("x")).len(), 0);
    }

    #[test]
    fn values_may_differ_in_the_last_bits() {
        assert!(values_are_equal(1.0, 1.0 + 5e-13) && values_are_equal(f64::NAN, f64::NAN));
        assert!(!values_are_equal(1.0, 1.0 + 5e-12) && !values_are_equal(0.0, 1e-20));
        assert!(values_are_equal(f64::INFINITY, f64::INFINITY) && !values_are_equal(f64::INFINITY, 1.0));
    }
}
