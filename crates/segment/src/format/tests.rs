use std::collections::HashMap;
use std::sync::Arc;

use chunk::SeriesState;
use model::{Histogram, Labels, Value, stale_marker};
use proptest::prelude::*;

use super::*;

fn header() -> Header {
    Header {
        cluster: 7 << 100 | 5,
        writer: WriterId(Revision { incarnation: 1, position: 9 }),
        n: 3,
        sealed_at: Revision { incarnation: 1, position: 12 },
        first_after_cut: true,
    }
}

fn labels(i: u32) -> Labels {
    let (cpu, node) = (format!("cpu{}", i % 3), format!("node-{}", i / 3));
    let name = if i.is_multiple_of(2) { "up" } else { "node_cpu_seconds_total" };
    let pairs = [("__name__", name), ("cpu", &cpu), ("node", &node), ("ü", "ß")];
    Labels::from_pairs(pairs[..2 + i as usize % 3].iter().copied()).unwrap()
}

/// A writer's side: spells each series before its first sample.
fn fill(samples: &[(u32, i64, Value)]) -> Columns {
    let mut columns = Columns::new();
    let mut states: HashMap<u32, SeriesState> = HashMap::new();
    for (id, t, v) in samples {
        let state = states.entry(*id).or_insert_with(|| {
            let tenant = if id % 5 == 4 { TenantId::new("team-a").unwrap() } else { TenantId::anonymous() };
            columns.spell(*id, &tenant, &labels(*id));
            SeriesState::default()
        });
        match v {
            Value::Float(v) => columns.push_float(*id, state, *t, *v),
            Value::Histogram(h) => columns.push_histogram(*id, state, *t, h),
        }
    }
    columns
}

/// All that columns hold, in a form to compare: series as text, and each one's codes in their order.
fn content(columns: &Columns) -> (Vec<String>, HashMap<u32, Vec<u8>>, Vec<MetadataEntry>) {
    let spell = |series: crate::SpelledSeries<'_>| {
        let bytes: Vec<u8> = series.pairs.iter().flat_map(|&pair| columns.pair(pair)).copied().collect();
        let labels = Labels::decode(&bytes).unwrap();
        format!("{} {} {labels}", series.id, columns.tenants()[series.tenant as usize])
    };
    let mut codes: HashMap<u32, Vec<u8>> = HashMap::new();
    let (mut value, mut time) = (columns.values(), columns.times());
    for id in columns.ids().runs().flat_map(|run| run.ids()) {
        let shape = measure_code(value).unwrap();
        let of_series = codes.entry(id).or_default();
        of_series.extend_from_slice(value.split_off(..shape.len).unwrap());
        if shape.is_timed {
            of_series.extend_from_slice(time.split_off(..measure_varint(time).unwrap()).unwrap());
        }
    }
    assert!(value.is_empty() && time.is_empty());
    (columns.series().map(spell).collect(), codes, columns.metadata().to_vec())
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (0i64..300).prop_map(|v| Value::Float(v as f64 / 4.0)),
        1 => any::<u64>().prop_map(|bits| Value::Float(f64::from_bits(bits))),
        1 => Just(Value::Float(stale_marker())),
        1 => (0u8..9).prop_map(|sum| Value::Histogram(Arc::new(Histogram { sum: sum.into(), ..Histogram::default() }))),
    ]
}

fn any_samples() -> impl Strategy<Value = Vec<(u32, i64, Value)>> {
    prop::collection::vec((prop_oneof![0u32..30, any::<u32>()], 0i64..1000, any_value()), 0..80)
}

proptest! {
    #[test]
    fn what_is_encoded_returns(samples in any_samples(), metrics in 0usize..3) {
        let mut columns = fill(&samples);
        for kind in &MetricKind::ALL[..metrics] {
            columns.put_metadata(&TenantId::anonymous(), kind.as_str(), *kind, "s", "helps");
        }
        let bytes = encode(&header(), &columns);
        let (decoded_header, decoded) = decode(&bytes).unwrap();
        prop_assert_eq!(decoded_header, header());
        prop_assert_eq!(content(&decoded), content(&columns));
        prop_assert_eq!(decoded.samples(), samples.len() as u64);
        prop_assert_eq!(decoded.time_range(), columns.time_range());
        prop_assert_eq!(encode(&header(), &decoded), bytes);
    }

    #[test]
    fn sealing_sorts_and_changes_nothing(samples in any_samples()) {
        let columns = fill(&samples);
        let mut sealed = columns.clone();
        sealed.seal();
        prop_assert_eq!(content(&sealed), content(&columns));
        let ids: Vec<u32> = sealed.ids().runs().flat_map(|run| run.ids()).collect();
        prop_assert!(ids.is_sorted() || sealed.ids().run_count() * 8 <= ids.len());
    }

    #[test]
    fn a_flipped_or_missing_byte_is_an_error(samples in any_samples(), at: prop::sample::Index, flip in 1u8..) {
        let mut bytes = encode(&header(), &fill(&samples));
        prop_assert!(decode(&bytes[..at.index(bytes.len())]).is_err());
        let i = at.index(bytes.len());
        bytes[i] ^= flip;
        prop_assert!(decode(&bytes).is_err());
    }

    /// Checksums are right here, as a forger's would be: only the content is wrong.
    #[test]
    fn forged_sections_are_an_error_at_worst(
        mut contents in prop::collection::vec(prop::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..40), 7),
        samples in 0u64..9, whole in any::<bool>(),
    ) {
        if whole {
            // Gets past the first sections.
            contents[0] = b"\x01a\x01b".to_vec();
            contents[1] = b"\x01a\x011\x01a\x012\x01b\x013".to_vec();
        }
        let columns = Columns { samples, time_range: Some(TimeRange { start: 0, end: 0 }), ..Columns::new() };
        let count = contents.iter().filter(|content| !content.is_empty()).count();
        let mut bytes = encode_header(&header(), &columns, count as u8);
        for (section, content) in Section::AFTER_HEADER.iter().zip(&contents) {
            if !content.is_empty() {
                put_section(&mut bytes, *section, content, &mut None);
            }
        }
        if let Ok((header, columns)) = decode(&bytes) {
            content(&columns);
            encode(&header, &columns);
        }
    }
}

#[test]
fn an_empty_segment_returns() {
    let bytes = encode(&header(), &Columns::new());
    assert_eq!(bytes.len(), HEADER_BYTES);
    let (_, columns) = decode(&bytes).unwrap();
    assert!(columns.is_empty());
    assert_eq!(columns.time_range(), None);
}

#[test]
fn errors_name_the_section() {
    let mut columns = fill(&[(0, 1, Value::Float(1.0))]);
    columns.put_metadata(&TenantId::anonymous(), "up", MetricKind::Gauge, "", "");
    let bytes = encode(&header(), &columns);
    let check = |bytes: &[u8], expected: &str| assert_eq!(decode(bytes).unwrap_err().to_string(), expected);
    check(b"", "not a segment: the first bytes are not its magic");
    check(&bytes[..50], "segment header at byte 0: unexpected end");
    let mut newer = bytes.clone();
    newer[8] = 2;
    check(&newer, "segment has format version 2, this release reads up to 1");
    let metadata = bytes.len() - SECTION_HEAD_BYTES - 7;
    check(&bytes[..metadata], &format!("segment metadata at byte {metadata}: a section is missing"));
    check(&bytes[..metadata + 5], &format!("segment metadata at byte {metadata}: unexpected end"));
    let more = [&bytes[..], &[0]].concat();
    check(&more, &format!("segment metadata at byte {}: bytes after the last section", bytes.len()));
}

#[test]
fn a_bomb_is_refused_before_it_unpacks() {
    let mut bytes = encode_header(&header(), &Columns::new(), 1);
    let start = bytes.len();
    bytes.extend_from_slice(&[Section::Tenants as u8, ZSTD]);
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    bytes.extend_from_slice(&0u32.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[start..]);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    assert!(matches!(decode(&bytes), Err(SegmentError::TooLarge { section: Section::Tenants, .. })));
}

/// What tests/testdata/segments/v1/small.segment holds: every kind of code and section.
fn golden_columns() -> Columns {
    let histogram = Histogram { sum: 7.5, ..Histogram::default() };
    let mut samples = Vec::new();
    for step in 0..40 {
        let t = 1_795_000_000_000 + step * 15_000;
        for id in 0..12 {
            let v = match id {
                0 => Value::Float(1.0),
                1 => Value::Float(step as f64 * 0.25),
                2 => Value::Float(4096.0 * (1_000_000 + step * step) as f64),
                3 => Value::Float(1.0 / (step + 3) as f64),
                4 if step % 10 == 9 => Value::Float(stale_marker()),
                5 => Value::Histogram(Arc::new(histogram.clone())),
                6 => Value::Float(if step % 3 == 0 { -0.0 } else { f64::INFINITY }),
                _ => Value::Float((step * step * 1000) as f64),
            };
            samples.push((id * id, t + i64::from(id) * (step % 3), v));
        }
    }
    let mut columns = fill(&samples);
    columns.put_metadata(&TenantId::anonymous(), "up", MetricKind::Gauge, "", "Whether it is up.");
    columns.put_metadata(&TenantId::new("team-a").unwrap(), "load", MetricKind::Unknown, "s", "");
    columns
}

#[test]
fn a_stored_segment_of_version_1_is_still_read() {
    let stored = include_bytes!("../../../../tests/testdata/segments/v1/small.segment");
    let (stored_header, columns) = decode(stored).unwrap();
    assert_eq!(stored_header, header());
    assert_eq!(content(&columns), content(&golden_columns()));
    assert_eq!(columns.time_range(), golden_columns().time_range());
}

/// The outline may not change; what zstd packs may, with its release.
#[test]
fn the_outline_is_that_of_version_1() {
    let bytes = encode(&header(), &fill(&[(0, 1, Value::Float(1.0))]));
    let expected = "4252 5345474d4e54 0100 01 06 05000000000000000000000070000000";
    let hex: String = bytes[..28].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, expected.replace(' ', ""));
    assert_eq!(bytes[96..98], [Section::Tenants as u8, STORED]);
}
