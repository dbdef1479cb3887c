//! What decoding returns, refuses, and never does.

use model::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Counts, Labels, Span};
use proptest::prelude::*;

use super::*;
use crate::encode::{WriteRequestBuilder, put_wire_labels};

fn decode(bytes: &[u8]) -> Result<WriteRequest<'_>, ProtoError> {
    decode_write_request(bytes, &DecodeLimits::default())
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

/// A field of wire type 2.
fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    model::put_varint(&mut out, u64::from(number << 3 | 2));
    model::put_varint(&mut out, bytes.len() as u64);
    out.extend_from_slice(bytes);
    out
}

fn sample_bytes(t: u8, v: f64) -> Vec<u8> {
    [&[0x09][..], &v.to_le_bytes(), &[0x10, t]].concat()
}

#[track_caller]
fn check_malformed(bytes: &[u8], expected: &str) {
    match decode(bytes) {
        Err(ProtoError::Malformed { what, .. }) => assert!(what.contains(expected), "{what}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn series_point_into_flat_columns() {
    let (a, b) = (labels(&[("__name__", "up"), ("job", "x")]), labels(&[("__name__", "down")]));
    let mut builder = WriteRequestBuilder::new();
    builder.series(&a, &[(1, 1.5), (2, -0.0)]).series(&b, &[]).series(&b, &[(3, f64::NAN)]);
    builder.metadata(MetricKind::Counter, "up", "seconds", "helps").metadata(MetricKind::Gauge, "", "", "");
    let bytes = builder.finish();
    let request = decode(&bytes).unwrap();
    assert_eq!(request.series.len(), 2);
    assert_eq!((request.series[0].samples.clone(), request.series[1].samples.clone()), (0..2, 2..3));
    assert_eq!(request.samples[1], (2, 0.0));
    assert!(request.samples[1].1.is_sign_negative() && request.samples[2].1.is_nan());
    let mut canonical = Vec::new();
    put_wire_labels(&mut canonical, &a);
    assert_eq!(request.series[0].labels.as_contiguous(), Some(&canonical[..]));
    let pairs: Vec<_> = request.series[0].labels.iter().collect();
    assert_eq!(pairs, [(&b"__name__"[..], &b"up"[..]), (b"job", b"x")]);
    let wire = request.metadata[0].wire;
    let metadata = MetadataRef { wire, kind: MetricKind::Counter, metric: "up", unit: "seconds", help: "helps" };
    assert_eq!((request.metadata.as_slice(), request.metadata_refused), (&[metadata][..], 1));
}

#[test]
fn a_part_of_a_request_is_a_request() {
    let (a, b) = (labels(&[("__name__", "up"), ("job", "x")]), labels(&[("__name__", "down")]));
    let mut builder = WriteRequestBuilder::new();
    builder.series(&a, &[(1, 1.5), (2, -0.0)]).series(&b, &[(3, 0.5)]).metadata(MetricKind::Counter, "up", "s", "h");
    let bytes = builder.finish();
    let request = decode(&bytes).unwrap();
    let mut part = Vec::new();
    crate::put_series(&mut part, request.series[1].wire);
    crate::put_metadata(&mut part, request.metadata[0].wire);
    builder.series(&b, &[(3, 0.5)]).metadata(MetricKind::Counter, "up", "s", "h");
    assert_eq!(part, builder.finish());
    assert!(part.len() <= request.series[1].wire.len() + request.metadata[0].wire.len() + 2 * crate::FIELD_BYTES_MAX);
}

#[test]
fn an_empty_message_is_an_empty_request() {
    assert!(decode(&[]).unwrap().series.is_empty());
}

#[test]
fn labels_that_lie_apart_are_found() {
    let label = |name: &[u8], value: &[u8]| field(1, &[field(1, name), field(2, value)].concat());
    let series = [label(b"a", b"1"), field(2, &sample_bytes(7, 2.0)), label(b"b", b"2")].concat();
    let bytes = field(1, &series);
    let request = decode(&bytes).unwrap();
    assert_eq!(request.series[0].labels.as_contiguous(), None);
    let pairs: Vec<_> = request.series[0].labels.iter().collect();
    assert_eq!(pairs, [(&b"a"[..], &b"1"[..]), (b"b", b"2")]);
    assert_eq!(request.samples, [(7, 2.0)]);
}

#[test]
fn odd_labels_are_read_as_protobuf_has_them() {
    let long = vec![b'x'; 300];
    let odd = [
        field(1, &[field(2, b"v"), field(1, b"n")].concat()),
        field(1, &[field(1, b"old"), field(1, b"new"), field(9, b"?")].concat()),
        field(1, &[field(1, b"l"), field(2, &long)].concat()),
        field(1, &[]),
    ];
    let bytes = field(1, &[odd.concat(), field(2, &[])].concat());
    let request = decode(&bytes).unwrap();
    let pairs: Vec<_> = request.series[0].labels.iter().collect();
    assert_eq!(pairs, [(&b"n"[..], &b"v"[..]), (b"new", b""), (b"l", &long), (b"", b"")]);
    assert_eq!(request.samples, [(0, 0.0)], "a sample of defaults");
    assert!(request.series[0].labels.as_contiguous().is_some());
}

#[test]
fn unknown_fields_are_skipped_and_exemplars_counted() {
    let exemplar =
        [field(1, &[field(1, b"trace_id"), field(2, b"abc")].concat()), vec![0x11; 1], vec![0; 8], vec![0x18, 5]];
    let series = [
        field(1, &[field(1, b"a"), field(2, b"b")].concat()),
        field(2, &[sample_bytes(4, 4.0), vec![0x48, 1]].concat()),
        field(3, &exemplar.concat()),
        field(99, b"xyz"),
        vec![0x90, 0x03, 3],
    ];
    let bytes = [field(1, &series.concat()), field(77, b"q"), vec![0x0b << 3 | 3, 0x08, 1, 0x0b << 3 | 4]].concat();
    let request = decode(&bytes).unwrap();
    assert_eq!((request.samples.as_slice(), request.exemplars), (&[(4, 4.0)][..], 1));
}

#[test]
fn what_is_not_this_message_is_malformed() {
    check_malformed(&[0x08, 7], "wire type");
    check_malformed(&[0x18, 7], "wire type");
    check_malformed(&field(1, &[0x10, 1]), "wire type");
    check_malformed(&field(1, &field(1, &[0x08, 1])), "wire type");
    check_malformed(&field(1, &field(2, &[0x10])), "ends within");
    check_malformed(&field(1, &field(2, &[0x09, 1])), "ends within");
    check_malformed(&field(1, &field(2, &field(1, b"12345678"))), "wire type");
    check_malformed(&field(1, &field(3, &[0x0a, 9])), "past the end");
    check_malformed(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, b'x'], "past the end");
    check_malformed(&field(1, &[&[0x28][..], &[0xff; 11]].concat()), "varint over 64 bits");
    check_malformed(&field(1, &field(4, &[0x09, 0, 0, 0, 0, 0, 0, 0, 0])), "wire type");
    check_malformed(&field(1, &field(4, &field(13, &[0; 7]))), "ends within");
}

#[test]
fn an_inner_length_never_reaches_beyond_its_message() {
    // The label says 200 bytes; its series has 4, but the body goes on.
    let bytes = [vec![0x0a, 4, 0x0a, 200, 1, 0], [0x1a, 0].repeat(150)].concat();
    check_malformed(&bytes, "past the end");
}

#[test]
fn small_bodies_do_not_become_large_requests() {
    let empty_histograms = field(1, &field(4, &[]).repeat(1 << 20));
    let empty_samples = field(1, &field(2, &[]).repeat(5 << 20));
    let empty_series = field(1, &[]).repeat(3 << 20);
    for bytes in [empty_histograms, empty_samples, empty_series] {
        assert!(matches!(decode(&bytes), Err(ProtoError::ResultTooLarge { .. })));
    }
    let spans = field(1, &field(4, &field(8, &[]).repeat(100)));
    let limits = DecodeLimits { result_bytes_max: 1000 };
    assert!(matches!(decode_write_request(&spans, &limits), Err(ProtoError::ResultTooLarge { .. })));
}

fn integer_histogram() -> Histogram {
    Histogram {
        schema: -1,
        sum: 18.4,
        zero_threshold: 0.001,
        positive_spans: vec![Span { offset: -3, length: 2 }, Span { offset: 1, length: 1 }],
        negative_spans: vec![Span { offset: 0, length: 1 }],
        counts: Counts::Integer { count: 12, zero: 2, positive: vec![1, 2, -1], negative: vec![4] },
        ..Histogram::default()
    }
}

#[test]
fn histograms_of_each_kind_return() {
    let float = Histogram {
        counter_reset_hint: CounterResetHint::Gauge,
        counts: Counts::Float { count: 0.0, zero: 0.5, positive: vec![1.5, 0.0, 2.0], negative: vec![0.25] },
        ..integer_histogram()
    };
    let custom = Histogram {
        counter_reset_hint: CounterResetHint::Reset,
        schema: CUSTOM_BUCKETS_SCHEMA,
        custom_bounds: vec![0.5, 1.0],
        positive_spans: vec![Span { offset: 0, length: 3 }],
        counts: Counts::Integer { count: 6, zero: 0, positive: vec![1, 1, 1], negative: vec![] },
        ..Histogram::default()
    };
    let stale = Histogram { sum: model::stale_marker(), ..Histogram::default() };
    let sent = [(5, integer_histogram()), (6, float), (7, custom), (-8, stale)];
    let bytes = WriteRequestBuilder::new().histograms(&labels(&[("__name__", "h")]), &sent).finish();
    let request = decode(&bytes).unwrap();
    assert_eq!(request.series[0].histograms, 0..4);
    for ((t, expected), (got_t, got)) in sent.iter().zip(&request.histograms) {
        assert_eq!((t, expected.encode()), (got_t, got.encode()));
    }
    assert!(request.histograms[0].1.validate().is_ok());
}

#[test]
fn packed_and_unpacked_scalars_are_one() {
    let unpacked = [vec![0x60, 2, 0x60, 4], vec![0x48, 1]].concat();
    let bytes = field(1, &field(4, &unpacked));
    let request = decode(&bytes).unwrap();
    let expected = Counts::Integer { count: 0, zero: 0, positive: vec![1, 2], negative: vec![-1] };
    assert_eq!(request.histograms[0].1.counts, expected);
    let floats = [vec![0x11], vec![0; 8], vec![0x69], 1f64.to_le_bytes().to_vec(), field(13, &2f64.to_le_bytes())];
    let bytes = field(1, &field(4, &floats.concat()));
    let request = decode(&bytes).unwrap();
    let expected = Counts::Float { count: 0.0, zero: 0.0, positive: vec![1.0, 2.0], negative: vec![] };
    assert_eq!(request.histograms[0].1.counts, expected);
}

fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let text = "[a-c\u{e9}]{0,4}";
    let series = (
        prop::collection::vec((text, text), 0..5),
        prop::collection::vec((any::<i64>(), any::<f64>()), 0..4),
        0usize..3,
    );
    prop::collection::vec(series, 0..6).prop_map(|all| {
        let mut builder = WriteRequestBuilder::new();
        for (labels, samples, histograms) in all {
            let histograms = vec![(9, integer_histogram()); histograms];
            builder.series_of(labels.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())), &samples, &histograms);
        }
        builder.metadata(MetricKind::Info, "m", "", "").finish()
    })
}

/// Reads everything that a request offers.
fn visit(request: &WriteRequest<'_>) -> usize {
    let mut read = request.metadata.len();
    for series in &request.series {
        read += request.samples[series.samples.start as usize..series.samples.end as usize].len();
        read += request.histograms[series.histograms.start as usize..series.histograms.end as usize].len();
        read += series.labels.iter().count();
    }
    read
}

proptest! {
    #[test]
    fn requests_return(all in prop::collection::vec((prop::collection::vec((".{0,200}", ".{0,200}"), 0..4), prop::collection::vec((any::<i64>(), any::<u64>()), 1..4)), 0..6)) {
        let mut builder = WriteRequestBuilder::new();
        for (labels, samples) in &all {
            let samples: Vec<_> = samples.iter().map(|&(t, v)| (t, f64::from_bits(v))).collect();
            builder.series_of(labels.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())), &samples, &[]);
        }
        let bytes = builder.finish();
        let request = decode(&bytes).unwrap();
        prop_assert_eq!(request.series.len(), all.len());
        for (series, (labels, samples)) in request.series.iter().zip(&all) {
            let got: Vec<_> = series.labels.iter().collect();
            let expected: Vec<_> = labels.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
            prop_assert_eq!(got, expected);
            prop_assert!(series.labels.as_contiguous().is_some());
            let range = series.samples.start as usize..series.samples.end as usize;
            let got: Vec<_> = request.samples[range].iter().map(|&(t, v)| (t, v.to_bits())).collect();
            prop_assert_eq!(&got, samples);
        }
    }

    #[test]
    fn any_bytes_are_an_error_at_worst(bytes: Vec<u8>) {
        if let Ok(request) = decode(&bytes) {
            visit(&request);
        }
        let wrapped = field(1, &bytes);
        if let Ok(request) = decode(&wrapped) {
            visit(&request);
        }
        let wrapped = field(1, &field(4, &bytes));
        if let Ok(request) = decode(&wrapped) {
            visit(&request);
        }
    }

    #[test]
    fn damaged_bodies_are_an_error_at_worst(body in any_body(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let cut = cut.index(body.len());
        if let Ok(request) = decode(&body[..cut]) {
            visit(&request);
        }
        let mut damaged = body.clone();
        damaged[at.index(body.len())] = byte;
        if let Ok(request) = decode(&damaged) {
            visit(&request);
        }
    }

    #[test]
    fn canonical_labels_are_what_a_sorted_sender_sends(pairs in prop::collection::btree_map("[a-z_]{1,5}", ".{1,150}", 0..6)) {
        let set = Labels::from_pairs(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))).unwrap();
        let mut canonical = Vec::new();
        put_wire_labels(&mut canonical, &set);
        let bytes = WriteRequestBuilder::new().series(&set, &[(1, 1.0)]).finish();
        let request = decode(&bytes).unwrap();
        prop_assert_eq!(request.series[0].labels.as_contiguous(), Some(&canonical[..]));
    }
}
