use std::collections::BTreeMap;
use std::sync::Arc;

use model::{
    Histogram, Labels, MatchOp, Matcher, Metadata, MetricKind, Revision, Sample, Samples, Value, WriterId, stale_marker,
};
use proptest::prelude::*;
use segment::{Header, SeriesState};

use super::*;

/// Series of the model: a few names, values and tenants, with labels missing here and there.
fn series(i: u32) -> (TenantId, Labels) {
    let tenant = if i % 4 == 3 { TenantId::new("team-a").unwrap() } else { TenantId::anonymous() };
    let (cpu, node) = (format!("{}", i % 5), format!("node-{}", i / 5));
    let mut pairs = vec![("__name__", if i.is_multiple_of(2) { "up" } else { "load" })];
    if !i.is_multiple_of(3) {
        pairs.push(("cpu", &cpu));
    }
    if !i.is_multiple_of(7) {
        pairs.push(("node", &node));
    }
    let id = i.to_string();
    pairs.push(("z", &id));
    (tenant, Labels::from_pairs(pairs).unwrap())
}

/// A writer with a head, and a plain list of everything that arrived.
struct Model {
    head: Head,
    cut: SegmentNumber,
    states: BTreeMap<u32, SeriesState>,
    arrivals: Vec<(SegmentNumber, u32, i64, Value)>,
}

impl Model {
    fn new(cut: SegmentNumber) -> Model {
        Model { head: Head::new(cut), cut, states: BTreeMap::new(), arrivals: Vec::new() }
    }

    /// Makes a segment of these samples, stores it, and lets the head take in what comes back.
    fn flush(&mut self, samples: &[(u32, i64, Value)], is_sealed: bool) {
        let n = self.head.applied() + 1;
        let mut columns = Columns::new();
        for (id, t, v) in samples {
            let (tenant, labels) = series(*id);
            let state = self.states.entry(*id).or_insert_with(|| {
                columns.spell(*id, &tenant, &labels);
                SeriesState::default()
            });
            match v {
                Value::Float(v) => columns.push_float(*id, state, *t, *v),
                Value::Histogram(h) => columns.push_histogram(*id, state, *t, h),
            }
            self.arrivals.push((n, *id, *t, v.clone()));
        }
        if is_sealed {
            columns.seal();
        }
        let revision = Revision { incarnation: 1, position: 7 };
        let header = Header { cluster: 1, writer: WriterId(revision), n, sealed_at: revision, first_after_cut: n == 1 };
        let (_, stored) = segment::decode(&segment::encode(&header, &columns)).unwrap();
        self.head.take_in(n, &stored).unwrap();
    }

    /// What a select must return, sorted by labels.
    fn expected(
        &self,
        tenant: &TenantId,
        matchers: &[Matcher],
        range: TimeRange,
        upto: SegmentNumber,
    ) -> Vec<(Labels, Samples)> {
        let mut all: BTreeMap<Labels, BTreeMap<i64, Value>> = BTreeMap::new();
        for (_, id, t, v) in self.arrivals.iter().filter(|arrival| arrival.0 <= upto && range.contains(arrival.2)) {
            let (of, labels) = series(*id);
            if of == *tenant && matchers.iter().all(|m| m.matches_labels(&labels)) {
                let samples = all.entry(labels).or_default();
                let kept = samples.remove(t).map_or(v.clone(), |old| model::greater(old, v.clone()));
                samples.insert(*t, kept);
            }
        }
        let list = |samples: BTreeMap<i64, Value>| samples.into_iter().map(|(t, v)| Sample { t, v }).collect();
        all.into_iter().map(|(labels, samples)| (labels, list(samples))).collect()
    }

    fn selected(
        &self,
        tenant: &TenantId,
        matchers: &[Matcher],
        range: TimeRange,
        upto: SegmentNumber,
    ) -> Vec<(Labels, Samples)> {
        let selection = self.head.select(tenant, matchers, range, upto).unwrap();
        let mut found: Vec<_> = selection.decode().collect::<Result<_, _>>().unwrap();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }
}

fn tenants() -> [TenantId; 3] {
    [TenantId::anonymous(), TenantId::new("team-a").unwrap(), TenantId::new("nobody").unwrap()]
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => (0i64..3).prop_map(|v| Value::Float(v as f64 / 4.0)),
        1 => any::<u64>().prop_map(|bits| Value::Float(f64::from_bits(bits))),
        1 => Just(Value::Float(stale_marker())),
        1 => (0u8..3).prop_map(|sum| Value::Histogram(Arc::new(Histogram { sum: sum.into(), ..Histogram::default() }))),
    ]
}

type Arrivals = Vec<(u32, i64, Value)>;

fn any_segments() -> impl Strategy<Value = Vec<(Arrivals, bool)>> {
    // Few timestamps and series, so that duplicates and disorder abound.
    let sample = (0u32..40, (0i64..12).prop_map(|t| t * 10), any_value());
    prop::collection::vec((prop::collection::vec(sample, 0..60), any::<bool>()), 0..8)
}

fn any_matcher() -> impl Strategy<Value = Matcher> {
    let name = prop::sample::select(vec!["__name__", "cpu", "node", "z", "absent"]);
    let op = prop::sample::select(vec![MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex]);
    let value =
        prop::sample::select(vec!["", "up", "1", "3", "node-2", "1|3|node-2", ".*", ".+", "node-.*", "2?", "x"]);
    (name, op, value).prop_map(|(name, op, value)| Matcher::new(name, op, value).unwrap())
}

fn any_range() -> impl Strategy<Value = TimeRange> {
    prop_oneof![
        Just(TimeRange::ALL),
        (-5i64..130, 0i64..60).prop_map(|(start, len)| TimeRange { start, end: start + len })
    ]
}

proptest! {
    // Each case asks at every segment; more cases in one run cost more than they find.
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_head_answers_as_a_plain_list_would(
        segments in any_segments(),
        matchers in prop::collection::vec(any_matcher(), 0..4),
        range in any_range(),
        cut in 0u64..3,
    ) {
        let mut model = Model::new(cut);
        for (samples, is_sealed) in &segments {
            model.flush(samples, *is_sealed);
        }
        for tenant in &tenants() {
            for upto in model.cut..=model.head.applied() {
                prop_assert_eq!(
                    model.selected(tenant, &matchers, range, upto),
                    model.expected(tenant, &matchers, range, upto)
                );
            }
            let now = model.expected(tenant, &matchers, range, model.head.applied());
            let mut found = model.head.series(tenant, &matchers, range);
            found.sort();
            prop_assert_eq!(found, now.iter().map(|(labels, _)| labels.clone()).collect::<Vec<_>>());
        }
        let stats = model.head.stats();
        prop_assert_eq!(stats.samples, model.arrivals.len() as u64);
        prop_assert_eq!(stats.series, model.states.len());
        prop_assert_eq!(stats.time_range.map(|r| r.start), model.arrivals.iter().map(|a| a.2).min());
        prop_assert_eq!(stats.time_range.map(|r| r.end), model.arrivals.iter().map(|a| a.2).max());
    }

    #[test]
    fn names_and_values_are_those_of_the_matching_series(
        segments in any_segments(),
        matchers in prop::collection::vec(any_matcher(), 0..3),
    ) {
        let mut model = Model::new(0);
        segments.iter().for_each(|(samples, is_sealed)| model.flush(samples, *is_sealed));
        for tenant in &tenants() {
            let series = model.head.series(tenant, &matchers, TimeRange::ALL);
            let sorted = |list: Vec<&str>| {
                let mut list: Vec<String> = list.into_iter().map(str::to_owned).collect();
                list.sort();
                list.dedup();
                list
            };
            let names = sorted(series.iter().flat_map(|labels| labels.iter().map(|(name, _)| name)).collect());
            prop_assert_eq!(model.head.label_names(tenant, &matchers, TimeRange::ALL), names);
            for name in ["__name__", "cpu", "z", "absent"] {
                let values = sorted(series.iter().filter_map(|labels| labels.get(name)).collect());
                prop_assert_eq!(model.head.label_values(tenant, name, &matchers, TimeRange::ALL), values);
            }
        }
    }

    #[test]
    fn a_cut_sees_every_series_in_order(segments in any_segments()) {
        let mut model = Model::new(0);
        segments.iter().for_each(|(samples, is_sealed)| model.flush(samples, *is_sealed));
        let found: Vec<_> = model.head.sorted_series().collect::<Result<_, _>>().unwrap();
        let mut expected = Vec::new();
        for tenant in &tenants() {
            let series = model.expected(tenant, &[], TimeRange::ALL, model.head.applied());
            expected.extend(series.into_iter().map(|(labels, samples)| (tenant.clone(), labels, samples)));
        }
        prop_assert_eq!(found, expected);
    }
}

fn float(id: u32, t: i64, v: f64) -> (u32, i64, Value) {
    (id, t, Value::Float(v))
}

#[test]
fn a_segment_that_does_not_fit_changes_nothing() {
    let mut model = Model::new(4);
    model.flush(&[float(1, 10, 1.0), float(2, 10, 2.0)], true);
    let before = (model.head.stats(), model.selected(&TenantId::anonymous(), &[], TimeRange::ALL, 5));
    let (tenant, labels) = series(1);
    let mut again = Columns::new();
    again.spell(9, &tenant, &series(9).1);
    again.spell(1, &tenant, &labels);
    let mut unknown = Columns::new();
    unknown.spell(9, &tenant, &series(9).1);
    unknown.push_float(9, &mut SeriesState::default(), 20, 1.0);
    unknown.push_float(77_777, &mut SeriesState::default(), 20, 1.0);
    let head = &mut model.head;
    assert_eq!(head.take_in(6, &again), Err(HeadError::SpelledTwice { n: 6, id: 1 }));
    assert_eq!(head.take_in(6, &unknown), Err(HeadError::UnknownSeries { n: 6, id: 77_777 }));
    for n in [4, 5, 7] {
        assert_eq!(head.take_in(n, &Columns::new()), Err(HeadError::NotNext { applied: 5, found: n }));
    }
    assert_eq!((head.stats(), model.selected(&TenantId::anonymous(), &[], TimeRange::ALL, 5)), before);
}

#[test]
fn a_plan_out_of_reach_is_said_so() {
    let mut model = Model::new(4);
    (0..3).for_each(|t| model.flush(&[float(1, t, 1.0)], true));
    let select = |upto| model.head.select(&TenantId::anonymous(), &[], TimeRange::ALL, upto).map(|_| ());
    assert_eq!(select(8), Err(HeadError::Behind { applied: 7, upto: 8 }));
    assert_eq!(select(3), Err(HeadError::PlanAgain { applied: 7, upto: 3 }));
    assert_eq!(select(4), Ok(()));
}

#[test]
fn many_repeats_are_counted_right() {
    let mut model = Model::new(0);
    let samples: Vec<_> = (0..70_000).map(|t| float(1, t * 10, 3.0)).collect();
    model.flush(&samples, false);
    model.flush(&[float(1, 700_000, 4.0), float(1, 700_010, 4.0)], false);
    let found = model.selected(&series(1).0, &[], TimeRange::ALL, 2);
    assert_eq!(found, model.expected(&series(1).0, &[], TimeRange::ALL, 2));
    assert!(model.head.stats().bytes < 300_000);
}

#[test]
fn the_last_word_on_a_metric_counts() {
    let mut head = Head::new(0);
    let tenant = TenantId::anonymous();
    for (n, help) in [(1, "old"), (2, "new")] {
        let mut columns = Columns::new();
        columns.put_metadata(&tenant, "up", MetricKind::Gauge, "", help);
        columns.put_metadata(&tenant, "load", MetricKind::Unknown, "s", help);
        head.take_in(n, &columns).unwrap();
    }
    let known: Vec<_> = head.metadata(&tenant).collect();
    let metadata = |kind, unit: &str| Metadata { kind, unit: unit.into(), help: "new".into() };
    let expected = [("load", metadata(MetricKind::Unknown, "s")), ("up", metadata(MetricKind::Gauge, ""))];
    assert_eq!(known, expected.iter().map(|(name, m)| (*name, m)).collect::<Vec<_>>());
    assert_eq!(head.metadata(&TenantId::new("nobody").unwrap()).count(), 0);
}

/// Ten thousand series like those of node exporters, forty steps: labels, postings and codes.
#[test]
fn a_series_of_forty_samples_takes_less_than_200_bytes() {
    let mut head = Head::new(0);
    let tenant = TenantId::anonymous();
    let mut states = vec![SeriesState::default(); 10_000];
    for step in 0..40 {
        let mut columns = Columns::new();
        for i in 0..10_000u32 {
            if step == 0 {
                let (name, cpu) = (format!("metric_{}", i % 100), (i % 1000 / 100).to_string());
                let (node, ip) = (format!("node-{}", i / 1000), format!("10.0.0.{}:9100", i / 1000));
                let pairs =
                    [("__name__", &*name), ("cluster", "eu"), ("cpu", &cpu), ("instance", &ip), ("job", "node")];
                columns.spell(i, &tenant, &Labels::from_pairs(pairs.into_iter().chain([("node", &*node)])).unwrap());
            }
            // Half stay the same, half are counters.
            let v = if i.is_multiple_of(2) { 1.0 } else { f64::from(step) * f64::from(i % 200) };
            columns.push_float(i, &mut states[i as usize], 1_795_000_000_000 + i64::from(step) * 15_000, v);
        }
        head.take_in(step as u64 + 1, &columns).unwrap();
    }
    let stats = head.stats();
    assert!(stats.bytes / stats.series < 200, "{} bytes a series", stats.bytes / stats.series);
}
