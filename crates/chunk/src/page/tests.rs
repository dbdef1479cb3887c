use std::sync::Arc;

use model::{Counts, Sample, Span, Value, stale_marker};
use proptest::prelude::*;

use super::*;

fn pack(all: &[Samples]) -> Vec<u8> {
    let mut writer = PageWriter::new(1);
    for samples in all {
        writer.add(samples).unwrap();
    }
    let mut out = vec![9; 5];
    let stats = writer.finish(&mut out).unwrap();
    assert_eq!((stats.series, stats.bytes), (all.len(), out.len() - 5));
    assert_eq!((writer.series(), writer.samples(), writer.value_bytes()), (0, 0, 0));
    out.split_off(5)
}

#[track_caller]
fn check(all: &[Samples]) -> usize {
    let bytes = pack(all);
    let page = Page::decode(&bytes).unwrap();
    assert_eq!(page.series_count(), all.len());
    for (i, samples) in all.iter().enumerate().rev() {
        assert_eq!(&page.series(i).unwrap(), samples);
    }
    assert_eq!(page.series(all.len()).err(), Some(PageError::NoSeries(all.len())));
    bytes.len()
}

fn floats(start: i64, step: i64, values: &[f64]) -> Samples {
    values.iter().enumerate().map(|(i, &v)| Sample::float(start + i as i64 * step, v)).collect()
}

fn histogram(n: u64) -> Value {
    Value::Histogram(Arc::new(Histogram {
        sum: n as f64,
        positive_spans: vec![Span { offset: 1, length: 2 }],
        counts: Counts::Integer { count: 2 * n, zero: 0, positive: vec![n as i64, 0], negative: vec![] },
        ..Histogram::default()
    }))
}

use model::Histogram;

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        8 => (-100i64..100, 0u8..3).prop_map(|(m, scale)| Value::Float(crate::decimal::to_float(m, scale))),
        2 => any::<i64>().prop_map(|n| Value::Float(n as f64)),
        1 => any::<u64>().prop_map(|bits| Value::Float(f64::from_bits(bits))),
        1 => prop::sample::select(vec![model::STALE_NAN_BITS, f64::NAN.to_bits(), 1 << 63, f64::INFINITY.to_bits()])
            .prop_map(|bits| Value::Float(f64::from_bits(bits))),
    ]
}

fn any_samples() -> impl Strategy<Value = Samples> {
    let with_histograms = prop_oneof![4 => any_value(), 1 => (0u64..9).prop_map(histogram)];
    let timestamps = || prop_oneof![-50i64..50, any::<i64>()];
    let float = prop::collection::btree_map(timestamps(), any_value(), 0..30);
    let mixed = prop::collection::btree_map(timestamps(), with_histograms, 0..10);
    let regular =
        (any::<i32>(), 1i64..1000, prop::collection::vec(any_value(), 1..40)).prop_map(|(start, step, values)| {
            values.into_iter().enumerate().map(|(i, v)| (i64::from(start) + i as i64 * step, v)).collect()
        });
    prop_oneof![float, mixed, regular].prop_map(|samples| samples.into_iter().map(|(t, v)| Sample { t, v }).collect())
}

proptest! {
    #[test]
    fn any_samples_return(all in prop::collection::vec(any_samples(), 0..20)) {
        check(&all);
    }

    #[test]
    fn any_body_is_an_error_at_worst(all in prop::collection::vec(any_samples(), 1..4), flips: Vec<(u16, u8)>, cut: u16) {
        let mut writer = PageWriter::new(1);
        for samples in &all {
            writer.add(samples).unwrap();
        }
        let mut body = writer.body();
        for (at, bits) in flips {
            let at = usize::from(at) % body.len();
            body[at] ^= bits;
        }
        body.truncate(usize::from(cut) + 1);
        if let Ok(page) = Page::from_body(body) {
            for i in 0..page.series_count() {
                if let Ok(samples) = page.series(i) {
                    prop_assert!(samples.is_sorted() && samples.floats.len() == samples.len());
                    prop_assert!(samples.histograms.is_empty() || samples.histograms.len() == samples.len());
                }
            }
        }
    }
}

#[test]
fn every_flipped_bit_and_cut_is_detected() {
    let bytes = pack(&[floats(0, 10, &[1.0, 2.5, 3.0]), floats(5, 10, &[7.0, f64::NAN])]);
    for i in 0..bytes.len() {
        for bit in 0..8 {
            let mut bad = bytes.clone();
            bad[i] ^= 1 << bit;
            assert!(Page::decode(&bad).is_err());
        }
        assert!(Page::decode(&bytes[..i]).is_err());
    }
    assert!(Page::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn each_codec_is_used_where_it_fits() {
    let check = |values: &[f64], codec: u8| {
        let samples = floats(1_795_000_000_000, 15_000, values);
        assert_eq!(values::encode(&samples, &mut values::Scratch::default(), &mut Vec::new()), codec);
        check(&[samples]);
    };
    check(&[0.25; 5], 0);
    check(&[f64::NAN; 5], 1);
    check(&[1.0, 7.0, 3.5, 7.0, 1.0], 2);
    check(&[4096.0, 409600.0, 8192.0, 409600.0, 4096.0], 2);
    check(&[100.0, 200.5, 301.0, 401.5, 502.0, 602.5], 3);
    check(&[1.0 / 3.0, 1.0 / 7.0, 1.0 / 11.0, 1.0 / 13.0, 1.0 / 17.0], 4);
    check(&[7.0, 7.0, stale_marker(), 7.0], 0x80);
    check(&[stale_marker(), 7.0, 8.5, 7.0, f64::NAN, 3.0], 0x82);
    check(&[100.0, 200.5, 301.0, 401.5, 502.0, 602.5, -0.0], 0x83);
    let mixed: Samples = [Sample { t: 1, v: histogram(3) }, Sample::float(2, 2.5)].into_iter().collect();
    assert_eq!(values::encode(&mixed, &mut values::Scratch::default(), &mut Vec::new()), 5);
}

#[test]
fn a_full_page_of_like_series_is_small() {
    let series = |i: usize| floats(1_795_000_000_000 + (i as i64 % 7), 15_000, &[i as f64; 40]);
    let bytes = check(&(0..PAGE_SERIES_MAX).map(series).collect::<Vec<_>>());
    assert!(bytes < 1500, "{bytes}");
}

#[test]
fn limits_are_refused() {
    let mut writer = PageWriter::new(1);
    assert_eq!(writer.add(&floats(0, 0, &[1.0, 2.0])), Err(PageError::OutOfOrder));
    assert_eq!(writer.add(&floats(0, 1, &vec![0.0; SERIES_SAMPLES_MAX + 1])), Err(PageError::TooMany("samples")));
    writer.add(&floats(0, 1, &vec![0.0; SERIES_SAMPLES_MAX])).unwrap();
    for _ in 1..PAGE_SERIES_MAX {
        writer.add(&floats(0, 1, &[1.0])).unwrap();
    }
    assert_eq!(writer.add(&floats(0, 1, &[1.0])), Err(PageError::TooMany("series")));
    let mut out = Vec::new();
    assert_eq!(writer.finish(&mut out).unwrap().samples, 65_536 + 255);
    assert_eq!(Page::decode(&out).unwrap().series(0).unwrap().len(), SERIES_SAMPLES_MAX);
}
