//! Whole queries against series in memory. (Prometheus's own scripts are run by the `tests` package.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::{Histogram, Labels, Sample, Samples, Value, stale_marker};

use super::*;

/// Some series, a sample every 10 s from 0 on.
#[derive(Debug)]
pub(super) struct Memory(pub Vec<(Labels, Arc<Samples>)>);

impl Storage for Memory {
    fn select(&self, selection: &Selection) -> Result<Vec<(Labels, Arc<Samples>)>, StorageError> {
        let series = self.0.iter().filter(|(labels, _)| selection.matchers.iter().all(|m| m.matches_labels(labels)));
        // Only what was asked for, so that a range that is too narrow is found out.
        let clipped = series.map(|(labels, samples)| {
            let mut samples = (**samples).clone();
            samples.clip(selection.range);
            (labels.clone(), Arc::new(samples))
        });
        Ok(clipped.collect())
    }
}

/// `name{a="b"} 1 2 _ stale hist`
fn memory(lines: &[&str]) -> Memory {
    let series = lines.iter().map(|line| {
        let (labels, values) = line.rsplit_once("} ").unwrap();
        let (labels, _) = crate::parse_labels(&format!("{labels}}}")).unwrap();
        let samples = values.split(' ').enumerate().filter_map(|(i, value)| {
            let v = match value {
                "_" => return None,
                "stale" => Value::Float(stale_marker()),
                "hist" => Value::Histogram(Arc::new(Histogram::default())),
                _ => Value::Float(value.parse().unwrap()),
            };
            Some(Sample { t: i as i64 * 10_000, v })
        });
        (labels, Arc::new(samples.collect::<Samples>()))
    });
    Memory(series.collect())
}

fn show(result: &QueryResult) -> Vec<String> {
    let value = |v: &Value| match v {
        Value::Float(v) => v.to_string(),
        Value::Histogram(_) => "hist".to_owned(),
    };
    match result {
        QueryResult::Scalar { v, .. } => vec![v.to_string()],
        QueryResult::String { v, .. } => vec![v.clone()],
        QueryResult::Vector(samples) => {
            samples.iter().map(|sample| format!("{} {}", sample.labels, value(&sample.v))).collect()
        }
        QueryResult::Matrix(series) => series
            .iter()
            .map(|series| {
                let samples = series.samples.iter().map(|s| format!(" {}@{}", value(&s.v), s.t / 1000));
                format!("{}{}", series.labels, samples.collect::<String>())
            })
            .collect(),
    }
}

/// Evaluates at 60 s; with `range`, from 20 s to 60 s every 20 s.
#[track_caller]
fn check(lines: &[&str], text: &str, expected: &[&str]) {
    let query = Query::instant(text, 60_000).unwrap();
    let (result, _) = query.evaluate(&memory(lines), &Unlimited, &Options::default());
    assert_eq!(show(&result.unwrap()), expected, "{text}");
}

#[track_caller]
fn check_range(lines: &[&str], text: &str, expected: &[&str]) {
    let query = Query::range(text, 20_000, 60_000, 20_000).unwrap();
    let (result, _) = query.evaluate(&memory(lines), &Unlimited, &Options::default());
    assert_eq!(show(&result.unwrap()), expected, "{text}");
}

#[track_caller]
fn check_error(lines: &[&str], text: &str, expected: &str) {
    let query = Query::range(text, 20_000, 60_000, 20_000).unwrap();
    let (result, _) = query.evaluate(&memory(lines), &Unlimited, &Options::default());
    assert_eq!(result.unwrap_err().to_string(), expected, "{text}");
}

const COUNTER: &[&str] = &[r#"c_total{i="1"} 0 10 20 30 40 50 60"#, r#"c_total{i="2"} 0 20 40 0 20 40 60"#];

#[test]
fn selectors_look_back_but_not_past_a_stale_marker() {
    check(&[r#"m{a="1"} 1 2"#, r#"m{a="2"} 1 stale"#], "m", &[r#"m{a="1"} 2"#]);
    check_range(&[r#"m{a="1"} 1 2 3 stale 5 6 7"#], "m", &[r#"m{a="1"} 3@20 5@40 7@60"#]);
    check_range(&[r#"m{a="1"} 1 2 3 4 5 6 7"#], "m offset 20s", &[r#"m{a="1"} 1@20 3@40 5@60"#]);
    check_range(&[r#"m{a="1"} 1 2 3 4 5 6 7"#], "m @ 10", &[r#"m{a="1"} 2@20 2@40 2@60"#]);
    check_range(&[r#"m{a="1"} 1 2 3 4 5 6 7"#], "m @ end() offset -10s", &[r#"m{a="1"} 7@20 7@40 7@60"#]);
    check(&[r#"m{a="1"} 1 hist"#], "m", &[r#"m{a="1"} hist"#]);
}

#[test]
fn range_functions_slide_over_their_samples() {
    check(COUNTER, "rate(c_total[1m])", &[r#"{i="1"} 1"#, r#"{i="2"} 1.6"#]);
    check_range(COUNTER, "increase(c_total[20s])", &[r#"{i="1"} 20@20 20@40 20@60"#, r#"{i="2"} 40@20 20@40 40@60"#]);
    check_range(
        COUNTER,
        "sum_over_time(c_total[20s])",
        &[r#"{i="1"} 30@20 70@40 110@60"#, r#"{i="2"} 60@20 20@40 100@60"#],
    );
    check_range(COUNTER, "resets(c_total[30s])", &[r#"{i="1"} 0@20 0@40 0@60"#, r#"{i="2"} 0@20 1@40 0@60"#]);
    check(COUNTER, "max_over_time(c_total[30s:20s])", &[r#"{i="1"} 60"#, r#"{i="2"} 60"#]);
    check(COUNTER, "last_over_time(c_total[10s])", &[r#"c_total{i="1"} 60"#, r#"c_total{i="2"} 60"#]);
    check(COUNTER, "c_total[20s]", &[r#"c_total{i="1"} 50@50 60@60"#, r#"c_total{i="2"} 40@50 60@60"#]);
}

#[test]
fn groups_are_aggregated() {
    check_range(COUNTER, "sum(c_total)", &["{} 60@20 60@40 120@60"]);
    check_range(
        COUNTER,
        "count_values(\"v\", c_total)",
        &[r#"{v="20"} 1@20 1@40"#, r#"{v="40"} 1@20 1@40"#, r#"{v="60"} 2@60"#],
    );
    check_range(COUNTER, "topk(1, c_total)", &[r#"c_total{i="1"} 40@40 60@60"#, r#"c_total{i="2"} 40@20"#]);
    check_range(COUNTER, "quantile(0.5, c_total)", &["{} 30@20 30@40 60@60"]);
    check(COUNTER, "sort_desc(c_total * 2)", &[r#"{i="1"} 120"#, r#"{i="2"} 120"#]);
}

#[test]
fn vectors_are_matched() {
    let both = &[r#"a{l="1", k="x"} 1"#, r#"a{l="1", k="y"} 2"#, r#"b{l="1", v="w"} 10"#, r#"b{l="2", v="w"} 20"#];
    check(both, "a * on (l) group_left (v) b", &[r#"{k="x", l="1", v="w"} 10"#, r#"{k="y", l="1", v="w"} 20"#]);
    check(both, "sum by (l) (a) + on (l) b", &[r#"{l="1"} 13"#]);
    check(both, "b unless on (l) a", &[r#"b{l="2", v="w"} 20"#]);
    check(both, "b > bool 10", &[r#"{l="1", v="w"} 0"#, r#"{l="2", v="w"} 1"#]);
    check_error(
        both,
        "a * on (l) b",
        "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
    );
    check_error(
        both,
        "b * on (l) a",
        "found duplicate series for the match group {l=\"1\"} on the right hand-side of the \
        operation: [{__name__=\"a\", k=\"x\", l=\"1\"}, {__name__=\"a\", k=\"y\", l=\"1\"}];many-to-many matching not allowed: \
        matching labels must be unique on one side",
    );
    check_error(
        both,
        "{__name__=~\"a|b\"} * 0 + on () group_left () vector(1) == 2 or label_replace(a, \"k\", \"\", \"\", \"\")",
        "vector cannot contain metrics with the same labelset",
    );
}

#[test]
fn scalars_and_strings_are_answers() {
    check(&[], "1 + 2 * time()", &["121"]);
    check(&[], "\"text\"", &["text"]);
    check_range(&[], "step() + range()", &["{} 60@20 60@40 60@60"]);
    check(&[], "absent(m{a=\"1\", b=~\"x\"})", &[r#"{a="1"} 1"#]);
    check_range(&[r#"m{a="1"} 1"#], "scalar(m)", &["{} 1@20 1@40 1@60"]);
}

#[test]
fn histograms_are_never_calculated_with() {
    let hist = &[r#"h{} hist hist hist hist"#];
    check_error(hist, "rate(h[1m])", "native histograms are not supported by rate yet");
    check_error(hist, "sum(h)", "native histograms are not supported by sum yet");
    check_error(hist, "-h", "native histograms are not supported by unary minus yet");
    check_range(hist, "count(h)", &["{} 1@20 1@40 1@60"]);
    check_range(hist, "h > 1", &[]);
}

#[test]
fn a_histogram_has_a_count_a_sum_and_an_average() {
    let hist = &[r#"h{a="1"} hist hist hist hist"#, r#"h{a="2"} 1 2 3 4"#];
    check_range(hist, "histogram_count(h)", &[r#"{a="1"} 0@20 0@40 0@60"#]);
    check_range(hist, "histogram_sum(h)", &[r#"{a="1"} 0@20 0@40 0@60"#]);
    check_range(hist, "histogram_avg(h)", &[r#"{a="1"} NaN@20 NaN@40 NaN@60"#]);
}

#[test]
fn annotations_name_their_place() {
    let query = Query::instant("1 + rate(m[1m])", 60_000).unwrap();
    let store = memory(&[r#"m{a="1"} 1 2 3 4"#]);
    let (_, annotations) = query.evaluate(&store, &Unlimited, &Options::default());
    assert_eq!(
        annotations.infos(query.text()),
        ["PromQL info: metric might not be a counter, name does not end in \
        _total/_sum/_count/_bucket: \"m\" (1:10)"]
    );
}

#[test]
fn selections_tell_what_will_be_read() {
    let text = "rate(a[1m] offset 5m) + max_over_time(b[10m:1m]) + c @ 100";
    let query = Query::range(text, 3_600_000, 7_200_000, 60_000).unwrap();
    let ranges = query.selections(&Options::default()).unwrap();
    let ranges: Vec<_> = ranges.iter().map(|selection| (selection.range.start, selection.range.end)).collect();
    assert_eq!(
        ranges,
        [
            (3_600_000 - 360_000 + 1, 7_200_000 - 300_000),
            (3_600_000 - 540_000 - 300_000 + 1, 7_200_000),
            (100_000 - 300_000 + 1, 100_000),
        ]
    );
}

/// Counts what is held, and stops after so many looks at the clock.
pub(super) struct Counting {
    held: AtomicU64,
    most: AtomicU64,
    looks_left: AtomicU64,
}

impl Counting {
    pub(super) fn new(looks: u64) -> Counting {
        Counting { held: AtomicU64::new(0), most: AtomicU64::new(0), looks_left: AtomicU64::new(looks) }
    }
}

impl Counting {
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }
}

impl Budget for Counting {
    fn take(&self, bytes: u64) -> Result<(), OverBudget> {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.most.fetch_max(held, Ordering::Relaxed);
        Ok(())
    }

    fn release(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn interruption(&self) -> Option<Interruption> {
        let looks = self.looks_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        looks.is_err().then_some(Interruption::TimedOut)
    }
}

#[test]
fn what_was_held_is_given_back_and_time_is_watched() {
    let text = "topk(1, sum by (i) (rate(c_total[1m])) / on (i) c_total) or max_over_time(c_total[1m:10s])";
    let query = Query::range(text, 20_000, 60_000, 20_000).unwrap();
    let budget = Counting::new(1000);
    query.evaluate(&memory(COUNTER), &budget, &Options::default()).0.unwrap();
    assert_eq!(budget.held.load(Ordering::Relaxed), 0);
    assert!(budget.most.load(Ordering::Relaxed) > 200);
    let (result, _) = query.evaluate(&memory(COUNTER), &Counting::new(3), &Options::default());
    assert_eq!(result.unwrap_err().kind(), EvalErrorKind::Timeout);
    let options = Options { samples_max: 5, ..Options::default() };
    let (result, _) = query.evaluate(&memory(COUNTER), &Unlimited, &options);
    assert!(matches!(result, Err(EvalError::TooManySamples)));
}

#[test]
fn steps_beyond_all_measure_are_refused() {
    for text in ["count_over_time(vector(1)[100y:1ms])", "sum_over_time(time()[100y:1ms])", "1"] {
        let Ok(query) = Query::range(text, 0, i64::MAX, 1) else { continue };
        let (result, _) = query.evaluate(&memory(COUNTER), &Unlimited, &Options::default());
        assert!(matches!(result, Err(EvalError::TooManySamples)), "{text}");
    }
}

#[test]
fn the_highest_tree_fits_on_a_thread() {
    let deep = "-(".repeat(60) + "sum(c_total)" + &")".repeat(60);
    let wide = vec!["sum(abs(c_total))"; 250].join(" + ");
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
        check(COUNTER, &deep, &["{} 120"]);
        check(COUNTER, &wide, &["{} 30000"]);
    });
    thread.unwrap().join().unwrap();
}
