use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use model::{
    Counts, Histogram, Labels, MatchOp, Matcher, Metadata, MetricKind, Revision, STALE_NAN_BITS, Sample, Samples,
    Shard, Span, TenantId, TimeRange, Value,
};
use proptest::prelude::*;

use super::*;

/// What a block should hold.
#[derive(Debug, Clone, Default)]
struct Model {
    series: BTreeMap<TenantId, Vec<(Labels, Samples)>>,
    metadata: BTreeMap<TenantId, BTreeMap<String, Metadata>>,
}

impl Model {
    fn write(&self) -> (Bytes, BlockStats) {
        let built_at = Revision { incarnation: 2, position: 9 };
        let mut writer = BlockWriter::new(Header { cluster: 0xabcd << 100 | 7, built_at });
        for (tenant, series) in &self.series {
            for (labels, samples) in series {
                writer.add(tenant, labels, samples).unwrap();
            }
        }
        for (tenant, metrics) in &self.metadata {
            for (metric, metadata) in metrics {
                writer.put_metadata(tenant, metric, &Metadata::default());
                writer.put_metadata(tenant, metric, metadata);
            }
        }
        let (pieces, stats) = writer.finish().unwrap();
        let object = pieces.concat();
        assert_eq!(stats.bytes, object.len() as u64);
        (object.into(), stats)
    }

    fn select(&self, tenant: &TenantId, matchers: &Matchers, range: TimeRange) -> Vec<(Labels, Samples)> {
        let series =
            self.series.get(tenant).into_iter().flatten().filter(|(labels, _)| matchers.matches_labels(labels));
        let clipped = series.map(|(labels, samples)| {
            let mut samples = samples.clone();
            samples.clip(range);
            (labels.clone(), samples)
        });
        clipped.filter(|(_, samples)| !samples.is_empty()).collect()
    }
}

/// Drives a request over an object in memory, and holds the request to what [`Step::Fetch`] promises.
fn run<R: Request>(object: &Bytes, mut request: R) -> Result<R::Output, BlockError> {
    loop {
        match request.step()? {
            Step::Done(output) => return Ok(output),
            Step::Fetch(ranges) => {
                assert!(ranges.iter().all(|range| range.start < range.end && range.end <= object.len() as u64));
                assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
                let part = |range: &std::ops::Range<u64>| object.slice(range.start as usize..range.end as usize);
                request.supply(ranges.iter().map(part).collect())?;
            }
        }
    }
}

fn open(object: &Bytes) -> Arc<BlockIndex> {
    Arc::new(run(object, Open::new(object.len() as u64)).unwrap())
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

fn histogram(n: u64) -> Value {
    Value::Histogram(Arc::new(Histogram {
        sum: n as f64 / 2.0,
        positive_spans: vec![Span { offset: 1, length: 2 }],
        counts: Counts::Integer { count: 2 * n, zero: 0, positive: vec![n as i64, 0], negative: vec![] },
        ..Histogram::default()
    }))
}

fn check_questions(
    object: &Bytes,
    index: &Arc<BlockIndex>,
    model: &Model,
    tenant: &TenantId,
    matchers: &Arc<Matchers>,
    range: TimeRange,
) {
    let expected = model.select(tenant, matchers, range);
    let found = run(object, Select::new(index.clone(), tenant, matchers.clone(), range)).unwrap();
    assert_eq!(found, expected);
    let mut of_shards = Vec::new();
    for number in 0..3 {
        let select = Select::new(index.clone(), tenant, matchers.clone(), range);
        of_shards.extend(run(object, select.with_shard(Shard { number, count: 3 })).unwrap());
    }
    of_shards.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(of_shards, expected);
    let count = run(object, CountSamples::new(index.clone(), tenant, matchers.clone(), range)).unwrap();
    let samples: usize = expected.iter().map(|(_, samples)| samples.len()).sum();
    assert!(count >= samples as u64 && (range != TimeRange::ALL || count == samples as u64), "{count} of {samples}");
    // A series whose samples surround the range may be named too.
    let series = run(object, SelectSeries::new(index.clone(), tenant, matchers.clone(), range)).unwrap();
    let surely: BTreeSet<_> = expected.iter().map(|(labels, _)| labels).collect();
    let perhaps = model.select(tenant, matchers, TimeRange::ALL);
    assert!(series.iter().all(|labels| perhaps.iter().any(|(other, _)| other == labels)));
    assert!(surely.iter().all(|labels| series.contains(labels)));

    if range == TimeRange::ALL {
        assert_eq!(series.iter().collect::<BTreeSet<_>>(), surely);
        let names = run(object, LabelNames::new(index.clone(), tenant, matchers.clone(), range)).unwrap();
        let expected_names: BTreeSet<_> =
            series.iter().flat_map(|labels| labels.iter().map(|(n, _)| n.to_owned())).collect();
        assert!(names.iter().eq(&expected_names));
        for name in expected_names.iter().map(String::as_str).chain(["absent", ""]) {
            let values = run(object, LabelValues::new(index.clone(), tenant, name, matchers.clone(), range)).unwrap();
            let expected: BTreeSet<_> = series.iter().filter_map(|labels| labels.get(name)).collect();
            assert!(values.iter().eq(expected), "{name}");
        }
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => (-100i64..100).prop_map(|m| Value::Float(m as f64 / 4.0)),
        1 => any::<u64>().prop_map(|bits| Value::Float(f64::from_bits(bits))),
        1 => Just(Value::Float(f64::from_bits(STALE_NAN_BITS))),
        1 => (0u64..9).prop_map(histogram),
    ]
}

fn any_text() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!['a', 'b', 'é', '\0', '\u{1}', '.', '\n', '😀']), 1..4)
        .prop_map(String::from_iter)
}

fn any_labels() -> impl Strategy<Value = Labels> {
    let name = prop_oneof![Just("a".to_owned()), Just("B".to_owned()), any_text()];
    let value = prop_oneof![Just("a".to_owned()), Just("ab".to_owned()), Just("b".to_owned()), any_text()];
    (prop::option::of(prop::sample::select(vec!["up", "m", "m_total"])), prop::collection::btree_map(name, value, 0..4))
        .prop_map(|(metric, rest)| {
            let metric = metric.map(|metric| (model::METRIC_NAME, metric));
            Labels::from_pairs(rest.iter().map(|(n, v)| (n.as_str(), v.as_str())).chain(metric)).unwrap()
        })
}

fn any_model() -> impl Strategy<Value = Model> {
    let samples = prop::collection::btree_map(0i64..60, any_value(), 1..8)
        .prop_map(|samples| samples.into_iter().map(|(t, v)| Sample { t: t * 10, v }).collect::<Samples>());
    let series =
        prop::collection::vec((any_labels(), samples), 0..25).prop_map(|mut series: Vec<(Labels, Samples)>| {
            series.sort_by(|a, b| a.0.cmp(&b.0));
            series.dedup_by(|a, b| a.0 == b.0);
            series
        });
    let tenant_name = || prop::sample::select(vec!["a", "ab", "z.9"]).prop_map(|name| TenantId::new(name).unwrap());
    let metadata = (any_text(), any_text(), 0u64..8).prop_map(|(unit, help, kind)| Metadata {
        kind: MetricKind::from_number(kind).unwrap(),
        unit,
        help,
    });
    let metadata = prop::collection::btree_map(any_text(), metadata, 1..4);
    (
        prop::collection::btree_map(tenant_name(), series, 0..3),
        prop::collection::btree_map(tenant_name(), metadata, 0..3),
    )
        .prop_map(|(series, metadata)| Model { series, metadata })
}

fn any_matcher() -> impl Strategy<Value = Matcher> {
    let name =
        prop_oneof![4 => prop::sample::select(vec!["a", "B", "__name__"]).prop_map(str::to_owned), 1 => any_text()];
    let op = prop::sample::select(vec![MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex]);
    let values = vec![
        "",
        "a",
        "b",
        "up",
        "a|b",
        "a.*",
        ".*",
        ".+",
        "(m|up)(_total)?",
        "[^a]*",
        "a?",
        "|ab",
        "(?i)A.?",
        ".",
        r"\w+",
        "m.*",
        ".*b.*",
        "é|😀",
        "x",
    ];
    (name, op, prop::sample::select(values)).prop_map(|(name, op, value)| Matcher::new(name, op, value).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_block_answers_as_its_model(
        model in any_model(),
        matchers in prop::collection::vec(prop::collection::vec(any_matcher(), 0..4), 1..12),
        ranges in prop::collection::vec((-50i64..650, 0i64..300), 3),
    ) {
        let (object, stats) = model.write();
        let index = open(&object);
        let all: Vec<_> = model.series.values().flatten().collect();
        prop_assert_eq!(index.footer(), &stats.footer);
        prop_assert_eq!(stats.series, all.len() as u64);
        prop_assert_eq!(stats.samples, all.iter().map(|(_, samples)| samples.len() as u64).sum::<u64>());
        let times = || all.iter().flat_map(|(_, samples)| samples.timestamps.iter().copied());
        prop_assert_eq!(stats.time_range, times().min().zip(times().max()).map(|(start, end)| TimeRange { start, end }));
        let ranges: Vec<_> =
            ranges.into_iter().map(|(start, length)| TimeRange { start, end: start + length }).chain([TimeRange::ALL]).collect();
        for name in ["a", "ab", "z.9", "none"] {
            let tenant = tenant(name);
            let metadata: Vec<_> = model.metadata.get(&tenant).cloned().unwrap_or_default().into_iter().collect();
            prop_assert_eq!(run(&object, FetchMetadata::new(index.clone(), &tenant)).unwrap(), metadata);
            for matchers in &matchers {
                let matchers = Arc::new(Matchers::from(matchers.as_slice()));
                for range in &ranges {
                    check_questions(&object, &index, &model, &tenant, &matchers, *range);
                }
            }
        }
    }
}

/// Two tenants, one with several pages' worth of nothing special.
fn small() -> Model {
    let mut model = Model::default();
    let mut series = Vec::new();
    for metric in ["http_requests_total", "up"] {
        for i in 0..4 {
            let labels = labels(&[
                ("__name__", metric),
                ("Zone", "é\0"),
                ("instance", &format!("host-{}", i / 2)),
                ("job", ["a", "b"][i % 2]),
            ]);
            let samples = (0..6).map(|n| Sample::float(1_000 + 15 * n, (n * 3 + i as i64) as f64 / 10.0)).collect();
            series.push((labels, samples));
        }
    }
    let mut odd: Samples =
        [Sample::float(990, f64::from_bits(STALE_NAN_BITS)), Sample::float(1_005, -0.0)].into_iter().collect();
    odd.push(1_010, histogram(4));
    series.push((labels(&[("__name__", "zz")]), odd));
    series.sort_by(|a, b| a.0.cmp(&b.0));
    model.series.insert(tenant("one"), series);
    model
        .series
        .insert(tenant("two"), vec![(labels(&[("a", "b")]), [Sample::float(1_020, 1e300)].into_iter().collect())]);
    let metadata = Metadata { kind: MetricKind::Counter, unit: "s".into(), help: "Requests \"served\".".into() };
    model.metadata.insert(tenant("one"), BTreeMap::from([("http_requests_total".to_owned(), metadata)]));
    model
}

/// Questions that touch everything of a small block; each answer as text.
fn ask_all(object: &Bytes) -> Result<String, BlockError> {
    let index = Arc::new(run(object, Open::new(object.len() as u64))?);
    // Spelled out, not derived: the golden answers must outlive a renamed field.
    let Footer { cluster, built_at, time_range, series, rows, samples, .. } = index.footer();
    let times = time_range.map(|range| (range.start, range.end));
    let mut answers = format!("{cluster:x} {built_at} {times:?} {series} {rows} {samples}\n");
    for name in ["one", "two", "three"] {
        let tenant = tenant(name);
        for matchers in [
            vec![],
            vec![Matcher::equal("__name__", "up"), Matcher::equal("job", "a")],
            vec![Matcher::new("instance", MatchOp::Regex, "host-[1-9].*").unwrap()],
            vec![Matcher::new("Zone", MatchOp::NotRegex, ".+").unwrap()],
        ] {
            let matchers = Arc::new(Matchers::new(matchers));
            for range in [TimeRange::ALL, TimeRange { start: 1_010, end: 1_030 }] {
                let found = run(object, Select::new(index.clone(), &tenant, matchers.clone(), range))?;
                for (labels, samples) in found {
                    let histograms: Vec<_> = samples.histograms.iter().flatten().map(|h| h.encode()).collect();
                    let bits: Vec<_> = samples.floats.iter().map(|v| v.to_bits()).collect();
                    let labels: Vec<_> = labels.iter().collect();
                    answers += &format!("{labels:?} {:?} {bits:x?} {histograms:?}\n", samples.timestamps);
                }
            }
            let names = run(object, LabelNames::new(index.clone(), &tenant, matchers.clone(), TimeRange::ALL))?;
            let values = run(object, LabelValues::new(index.clone(), &tenant, "instance", matchers, TimeRange::ALL))?;
            answers += &format!("{names:?} {values:?}\n");
        }
        for (metric, metadata) in run(object, FetchMetadata::new(index.clone(), &tenant))? {
            let Metadata { kind, unit, help } = metadata;
            answers += &format!("{metric:?} {} {unit:?} {help:?}\n", kind.as_str());
        }
    }
    Ok(answers)
}

#[test]
fn every_flipped_bit_is_detected_or_harmless() {
    let (object, _) = small().write();
    let expected = ask_all(&object).unwrap();
    let mut harmless = Vec::new();
    for i in 0..object.len() {
        for bit in [0, 3, 7] {
            let mut bad = object.to_vec();
            bad[i] ^= 1 << bit;
            match ask_all(&bad.into()) {
                Ok(answers) => {
                    assert_eq!(answers, expected, "byte {i}");
                    harmless.push(i);
                }
                Err(error) => assert!(error.is_corrupt(), "byte {i}: {error}"),
            }
        }
    }
    harmless.dedup();
    // The object's first bytes are for people and `file`; readers start at the end. Posting lists that no question needs.
    assert!(
        harmless.iter().filter(|&&i| i >= 16).count() < object.len() / 10,
        "{} of {}",
        harmless.len(),
        object.len()
    );
}

#[test]
fn every_truncation_is_detected() {
    let (object, _) = small().write();
    for end in 0..object.len() {
        // The index says how long the object was; the store says how long it is.
        let cut = object.slice(..end);
        assert!(run(&cut, Open::new(end as u64)).err().unwrap().is_corrupt());
        let mut request = Open::new(object.len() as u64);
        assert!(matches!(request.step(), Ok(Step::Fetch(_))));
        assert!(request.supply(vec![cut]).unwrap_err().is_corrupt());
    }
    assert!(ask_all(&object.slice(1..)).is_err());
}

#[test]
fn a_swapped_page_is_detected() {
    let (object, stats) = small().write();
    let mut other = small();
    for (_, samples) in other.series.values_mut().flatten() {
        samples.timestamps.iter_mut().for_each(|t| *t += 1);
    }
    let (other, _) = other.write();
    let pages = &stats.footer.sections.chunk_pages;
    let (start, end) = (pages.start as usize, pages.end as usize);
    let mut mixed = object.to_vec();
    mixed[start..end].copy_from_slice(&other[start..end]);
    let error = ask_all(&mixed.into()).unwrap_err();
    assert_eq!(error.to_string(), "corrupt block: chunk page at 16: its samples are not those of its series page");
}

#[test]
fn an_empty_block_has_no_series() {
    let (object, stats) = Model::default().write();
    assert_eq!((stats.series, stats.samples, stats.time_range), (0, 0, None));
    assert_eq!(
        run(&object, Select::new(open(&object), &tenant("a"), Arc::new(Matchers::new([])), TimeRange::ALL)).unwrap(),
        []
    );
}

#[test]
fn disorder_is_refused() {
    let sample: Samples = [Sample::float(1, 1.0)].into_iter().collect();
    let check = |series: &[(&str, &[(&str, &str)])], expected: Option<&'static str>| {
        let mut writer = BlockWriter::new(Header { cluster: 1, built_at: Revision::default() });
        let all = series.iter().try_for_each(|(name, pairs)| writer.add(&tenant(name), &labels(pairs), &sample));
        assert_eq!(all.err(), expected.map(BlockError::OutOfOrder));
    };
    check(&[("a", &[("A", "1"), ("__name__", "y")]), ("a", &[("A", "2"), ("__name__", "x")])], None);
    check(&[("a", &[("__name__", "y")]), ("a", &[("__name__", "x")])], Some("series"));
    check(&[("a", &[("__name__", "y")]), ("a", &[("__name__", "y")])], Some("series"));
    check(&[("b", &[("__name__", "x")]), ("a", &[("__name__", "y")])], Some("tenants"));
    let mut writer = BlockWriter::new(Header { cluster: 1, built_at: Revision::default() });
    let twice: Samples = [Sample::float(1, 1.0), Sample::float(1, 2.0)].into_iter().collect();
    assert_eq!(writer.add(&tenant("a"), &Labels::empty(), &twice), Err(BlockError::OutOfOrder("timestamps")));
    writer.add(&tenant("a"), &Labels::empty(), &Samples::default()).unwrap();
    assert!(writer.is_empty());
}

#[test]
fn a_long_series_and_many_short_ones_take_several_pages() {
    let mut model = Model::default();
    let long: Samples = (0..200_000).map(|n| Sample::float(n * 1_000, (n % 977) as f64)).collect();
    let large: Samples = (0..9)
        .map(|n| {
            let buckets = vec![n as f64; 100_000];
            let counts = Counts::Float { count: n as f64, zero: 0.0, positive: buckets, negative: vec![] };
            Sample { t: n, v: Value::Histogram(Arc::new(Histogram { counts, ..Histogram::default() })) }
        })
        .collect();
    let mut series = vec![(labels(&[("__name__", "large")]), large), (labels(&[("__name__", "long")]), long)];
    for i in 0..2_000i64 {
        let samples = (0..3).map(|n| Sample::float(i * 10 + n, n as f64)).collect();
        series.push((labels(&[("__name__", "short"), ("i", &format!("{i:05}"))]), samples));
    }
    model.series.insert(tenant("t"), series);
    let (object, stats) = model.write();
    assert_eq!((stats.series, stats.footer.rows), (2_002, 2_002 + 1 + 3));
    let index = open(&object);
    let one = |value: &str| Arc::new(Matchers::new([Matcher::equal("i", value)]));
    for range in
        [TimeRange::ALL, TimeRange { start: 60_000_000, end: 140_000_000 }, TimeRange { start: 5_000, end: 5_015 }]
    {
        for matchers in [Arc::new(Matchers::new([])), one("00500"), one("01999"), one("")] {
            check_questions(&object, &index, &model, &tenant("t"), &matchers, range);
        }
    }
    let select = || Select::new(index.clone(), &tenant("t"), one("00500"), TimeRange::ALL);
    assert_eq!(run(&object, select().with_samples_max(2)), Err(BlockError::TooManySamples { max: 2 }));
    assert_eq!(run(&object, select().with_samples_max(3)).unwrap().len(), 1);
}

#[test]
fn little_is_fetched_for_one_series() {
    let mut model = Model::default();
    let mut series = Vec::new();
    for i in 0..20_000i64 {
        let samples = (0..40).map(|n| Sample::float(n * 15_000, ((i * 7919 + n * 104_729) % 9_973) as f64)).collect();
        series.push((
            labels(&[("__name__", &format!("metric_{:03}", i / 100)), ("i", &format!("{:02}", i % 100))]),
            samples,
        ));
    }
    model.series.insert(tenant("t"), series);
    let (object, _) = model.write();
    let index = open(&object);
    let matchers = Arc::new(Matchers::new([Matcher::equal("__name__", "metric_077"), Matcher::equal("i", "33")]));
    let mut select = Select::new(index, &tenant("t"), matchers, TimeRange::ALL);
    let (mut fetched, mut rounds) = (0, 0);
    let found = loop {
        match select.step().unwrap() {
            Step::Done(found) => break found,
            Step::Fetch(ranges) => {
                rounds += 1;
                fetched += ranges.iter().map(|range| range.end - range.start).sum::<u64>();
                let part = |range: &std::ops::Range<u64>| object.slice(range.start as usize..range.end as usize);
                select.supply(ranges.iter().map(part).collect()).unwrap();
            }
        }
    };
    assert_eq!((found.len(), rounds), (1, 3));
    assert!(fetched < object.len() as u64 / 30, "{fetched} of {}", object.len());
}

/// The golden block was written once, when the format was made; it is never written again.
#[test]
fn the_golden_block_is_read_as_ever() {
    let object = Bytes::from_static(include_bytes!("../testdata/v1/small.block"));
    let expected = include_str!("../testdata/v1/small.answers");
    assert_eq!(ask_all(&object).unwrap(), expected);
}
