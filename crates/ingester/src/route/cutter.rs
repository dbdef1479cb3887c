//! Cutter: puts series into parts, in both forms of a part.

use model::{TenantId, TimestampMs};
use proto::{MetadataRef, TimeSeries};

use super::part::{self, HashedPartBuilder, PART_BYTES_MAX};
use crate::append::range;
use crate::series_table::SeriesHasher;

/// A part of a request.
pub(super) struct Cut {
    /// For whom: its place among the homes.
    pub home: usize,
    pub with_labels: Vec<u8>,
    /// `None`: only labels will do.
    pub with_hashes: Option<Vec<u8>>,
}

/// Told first what will come ([`Cutter::expect_series`]), so that the memory for all of it is taken before.
pub(super) struct Cutter<'a> {
    tenant: &'a TenantId,
    homes: Vec<Home>,
    full: Vec<Cut>,
}

struct Home {
    /// How it hashes labels, with the tenant's salt; `None`: not known.
    hasher: Option<(SeriesHasher, u128)>,
    /// Bytes that are still to come.
    labelled_bytes: usize,
    hashed_bytes: usize,
    /// The part that is being filled.
    open: Option<Open>,
}

struct Open {
    with_labels: Vec<u8>,
    /// `None` as soon as there is something in the part that needs labels.
    with_hashes: Option<HashedPartBuilder>,
}

impl<'a> Cutter<'a> {
    /// For so many homes, with labels alone.
    pub(super) fn new(tenant: &'a TenantId, homes: usize) -> Cutter<'a> {
        let home = || Home { hasher: None, labelled_bytes: 0, hashed_bytes: 0, open: None };
        Cutter { tenant, homes: std::iter::repeat_with(home).take(homes).collect(), full: Vec::new() }
    }

    /// Sets which homes get hashes too, and how they make them; asked for those only for which something is expected.
    pub(super) fn hash_for(&mut self, mut hasher_of: impl FnMut(usize) -> Option<SeriesHasher>) {
        for (number, home) in self.homes.iter_mut().enumerate() {
            let hasher = if home.labelled_bytes == 0 { None } else { hasher_of(number) };
            home.hasher = hasher.map(|hasher| (hasher, hasher.salt(self.tenant)));
        }
    }

    pub(super) fn expect_series(&mut self, home: usize, series: &TimeSeries<'_>) {
        let home = &mut self.homes[home];
        home.labelled_bytes += series.wire.len() + proto::FIELD_BYTES_MAX;
        home.hashed_bytes += part::hashed_bytes_max(series.samples.len());
    }

    pub(super) fn expect_metadata(&mut self, home: usize, metadata: &MetadataRef<'_>) {
        self.homes[home].labelled_bytes += metadata.wire.len() + proto::FIELD_BYTES_MAX;
    }

    /// Bytes of all that is to come, at most.
    pub(super) fn expected_bytes(&self) -> usize {
        let hashed = |home: &Home| if home.hasher.is_some() { home.hashed_bytes } else { 0 };
        self.homes.iter().map(|home| home.labelled_bytes + hashed(home)).sum()
    }

    /// Puts a series, whose floats these are.
    pub(super) fn put_series(&mut self, home: usize, series: &TimeSeries<'_>, samples: &[(TimestampMs, f64)]) {
        let hasher = self.homes[home].hasher;
        let open = self.put(home, series.wire, proto::put_series);
        match (hasher, &mut open.with_hashes) {
            (Some((hasher, salt)), Some(with_hashes)) if series.histograms.is_empty() => {
                with_hashes.put(hasher.hash_wire(salt, &series.labels), &samples[range(&series.samples)]);
            }
            _ => open.with_hashes = None,
        }
        let home = &mut self.homes[home];
        home.hashed_bytes = home.hashed_bytes.saturating_sub(part::hashed_bytes_max(series.samples.len()));
    }

    pub(super) fn put_metadata(&mut self, home: usize, metadata: &MetadataRef<'_>) {
        self.put(home, metadata.wire, proto::put_metadata).with_hashes = None;
    }

    fn put(&mut self, number: usize, wire: &[u8], put_wire: fn(&mut Vec<u8>, &[u8])) -> &mut Open {
        let home = &mut self.homes[number];
        let bytes = wire.len() + proto::FIELD_BYTES_MAX;
        if let Some(open) = home.open.take_if(|open| open.with_labels.len() + bytes > PART_BYTES_MAX) {
            self.full.push(open.close(number));
        }
        let open = home.open.get_or_insert_with(|| Open {
            with_labels: part::begin(self.tenant, home.labelled_bytes.min(PART_BYTES_MAX).max(bytes)),
            with_hashes: home
                .hasher
                .map(|_| HashedPartBuilder::new(self.tenant, home.hashed_bytes.min(PART_BYTES_MAX))),
        });
        put_wire(&mut open.with_labels, wire);
        home.labelled_bytes = home.labelled_bytes.saturating_sub(bytes);
        open
    }

    /// The parts.
    pub(super) fn finish(mut self) -> Vec<Cut> {
        let open = self.homes.into_iter().enumerate().filter_map(|(number, home)| Some(home.open?.close(number)));
        self.full.extend(open);
        self.full
    }
}

impl Open {
    fn close(self, home: usize) -> Cut {
        Cut { home, with_labels: self.with_labels, with_hashes: self.with_hashes.map(HashedPartBuilder::finish) }
    }
}

#[cfg(test)]
mod tests {
    use proto::{DecodeLimits, WriteRequestBuilder};

    use super::*;

    const SERIES: usize = 40_000;
    /// Of a part, before its series, at most: the tenant's name and what kind it is.
    const HEAD_BYTES: usize = 32;

    #[test]
    fn each_of_many_parts_has_both_forms_and_no_memory_that_was_not_expected() {
        let mut builder = WriteRequestBuilder::new();
        for i in 0..SERIES {
            let labels = [("__name__", "m".to_owned()), ("i", format!("{i:060}"))];
            let samples = [(i as i64, i as f64)];
            builder.series_of(labels.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())), &samples, &[]);
        }
        let body = builder.finish();
        let request = proto::decode_write_request(&body, &DecodeLimits::default()).unwrap();
        let (tenant, hasher) = (TenantId::anonymous(), SeriesHasher::new([1, 2, 3, 4]));
        let mut cutter = Cutter::new(&tenant, 1);
        request.series.iter().for_each(|series| cutter.expect_series(0, series));
        let with_labels_only = cutter.expected_bytes();
        cutter.hash_for(|_| Some(hasher));
        let expected_bytes = cutter.expected_bytes();
        assert!(expected_bytes > with_labels_only);
        let hashed_bytes = expected_bytes - with_labels_only;
        for series in &request.series {
            cutter.put_series(0, series, &request.samples);
            let closed = cutter.full.iter().flat_map(|cut| &cut.with_hashes).map(Vec::capacity);
            let open = cutter.homes[0].open.iter().flat_map(|open| &open.with_hashes).map(HashedPartBuilder::capacity);
            let heads = (cutter.full.len() + 1) * HEAD_BYTES;
            let held: usize = closed.chain(open).sum();
            assert!(held <= hashed_bytes + heads, "{held} of {hashed_bytes}");
        }

        let cuts = cutter.finish();
        assert!(cuts.len() > 3, "{} parts", cuts.len());
        let (mut place, mut bytes) = (0, 0);
        for cut in cuts {
            let with_hashes = cut.with_hashes.unwrap();
            bytes += cut.with_labels.len() + with_hashes.capacity();
            assert!(cut.with_labels.len() <= PART_BYTES_MAX);
            let (_, part::Part::WithLabels(body)) = part::decode(&cut.with_labels).unwrap() else { panic!("hashes") };
            let labelled = proto::decode_write_request(body, &DecodeLimits::default()).unwrap();
            let (_, part::Part::WithHashes(hashed)) = part::decode(&with_hashes).unwrap() else { panic!("labels") };
            assert_eq!(labelled.series.len(), hashed.series.len());
            assert_eq!(labelled.samples, hashed.samples);
            for (series, (hash, _)) in labelled.series.iter().zip(&hashed.series) {
                assert_eq!(*hash, hasher.hash_wire(hasher.salt(&tenant), &series.labels));
                assert_eq!(series.wire, request.series[place].wire);
                place += 1;
            }
        }
        assert_eq!(place, SERIES);
        assert!(bytes <= expected_bytes, "{bytes} of {expected_bytes}");
    }
}
