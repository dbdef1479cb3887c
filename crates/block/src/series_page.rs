//! A series page: labels, time range and sample count of the rows of one chunk page. Format: docs/formats/block.md.
//!
//! A row's labels share their first bytes with those of the row before; rows mostly share their time range and count too,
//! so each distinct one is written once. A page is read without any other.

use model::{DecodeError, Labels, Reader, TimeRange, put_varint, put_zigzag};

/// Rows that a page can have: those of a chunk page.
const ROWS_MAX: usize = chunk::PAGE_SERIES_MAX;

/// When a row's samples are, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) range: TimeRange,
    pub(crate) samples: u64,
}

/// A row as it is read.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// Its place in the page.
    pub(crate) number: usize,
    pub(crate) labels: Labels,
    pub(crate) extent: Extent,
}

/// Collects rows.
#[derive(Default)]
pub(crate) struct SeriesPageBuilder {
    extents: Vec<Extent>,
    extent_numbers: Vec<u8>,
    shared: Vec<u8>,
    own: Vec<u8>,
    suffixes: Vec<u8>,
    last: Vec<u8>,
}

impl SeriesPageBuilder {
    /// Appends a row. `list` is the number of its timestamps in the chunk page: equal lists have equal extents, so a new
    /// number, one above all before, brings a new extent.
    pub(crate) fn push(&mut self, labels: &Labels, list: u8, extent: Extent) {
        if usize::from(list) == self.extents.len() {
            self.extents.push(extent);
        }
        assert_eq!(self.extents[usize::from(list)], extent, "a list of timestamps has one extent");
        self.extent_numbers.push(list);
        let bytes = labels.as_bytes();
        let shared = self.last.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        put_varint(&mut self.shared, shared as u64);
        put_varint(&mut self.own, (bytes.len() - shared) as u64);
        self.suffixes.extend_from_slice(&bytes[shared..]);
        self.last.truncate(shared);
        self.last.extend_from_slice(&bytes[shared..]);
    }

    /// Bytes of labels so far.
    pub(crate) fn label_bytes(&self) -> usize {
        self.suffixes.len()
    }

    /// The page's body; the builder starts anew.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.suffixes.len() + 4 * self.extent_numbers.len() + 64);
        put_varint(&mut body, self.extent_numbers.len() as u64);
        put_varint(&mut body, self.extents.len() as u64);
        let mut last = 0;
        for extent in &self.extents {
            put_zigzag(&mut body, extent.range.start.wrapping_sub(last));
            last = extent.range.start;
        }
        self.extents.iter().for_each(|e| put_varint(&mut body, e.range.end.wrapping_sub(e.range.start) as u64));
        self.extents.iter().for_each(|e| put_varint(&mut body, e.samples));
        for column in [&self.extent_numbers, &self.shared, &self.own, &self.suffixes] {
            body.extend_from_slice(column);
        }
        *self = SeriesPageBuilder::default();
        body
    }
}

/// Reads those of a page's `rows` that overlap `range` and that the caller wants; the others' labels are only passed by.
pub(crate) fn decode(
    body: &[u8],
    rows: usize,
    range: TimeRange,
    mut is_wanted: impl FnMut(usize) -> bool,
) -> Result<Vec<Row>, DecodeError> {
    let mut reader = Reader::new(body);
    // A row takes the number of its extent and two lengths; an extent three numbers.
    let row_count = reader.count(3)?;
    let extent_count = reader.count(3)?;
    if row_count > ROWS_MAX || extent_count > ROWS_MAX {
        return Err(reader.error("too many rows in a page"));
    }
    if row_count != rows {
        return Err(reader.error("its rows are not those of the directory"));
    }
    let mut extents = vec![Extent { range: TimeRange { start: 0, end: 0 }, samples: 0 }; extent_count];
    let mut last = 0i64;
    for extent in &mut extents {
        last = last.wrapping_add(reader.zigzag()?);
        extent.range.start = last;
    }
    for extent in &mut extents {
        extent.range.end = extent.range.start.wrapping_add(reader.varint()? as i64);
        if extent.range.end < extent.range.start {
            return Err(reader.error("a row ends before it starts"));
        }
    }
    for extent in &mut extents {
        extent.samples = reader.varint()?;
    }
    let numbers = reader.take(row_count)?;
    let mut read_column = || -> Result<Vec<u64>, DecodeError> { (0..row_count).map(|_| reader.varint()).collect() };
    let shared = read_column()?;
    let own = read_column()?;
    let mut found = Vec::new();
    let mut bytes = Vec::new();
    for (number, ((&extent, shared), own)) in numbers.iter().zip(shared).zip(own).enumerate() {
        let extent = *extents.get(usize::from(extent)).ok_or_else(|| reader.error("no such extent"))?;
        if shared > bytes.len() as u64 || own > reader.remaining() as u64 {
            return Err(reader.error("length runs past the end"));
        }
        bytes.truncate(shared as usize);
        bytes.extend_from_slice(reader.take(own as usize)?);
        if extent.range.overlaps(&range) && is_wanted(number) {
            let labels = Labels::decode(&bytes).map_err(|e| reader.error(e.what))?;
            found.push(Row { number, labels, extent });
        }
    }
    if !reader.is_empty() {
        return Err(reader.error("bytes after the last row"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(rows: &[Row]) -> Vec<u8> {
        let mut builder = SeriesPageBuilder::default();
        let mut extents: Vec<Extent> = Vec::new();
        for Row { labels, extent, .. } in rows {
            let known = extents.iter().position(|known| known == extent);
            let list = known.unwrap_or_else(|| {
                extents.push(*extent);
                extents.len() - 1
            });
            builder.push(labels, list as u8, *extent);
        }
        builder.finish()
    }

    fn any_rows(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Row>> {
        let labels = prop::collection::btree_map("[a-cé]{1,2}", "[a-c\u{0}é]{0,3}", 0..5);
        let row = (labels, -3i64..3, 0i64..3, 1u64..3).prop_map(|(labels, start, length, samples)| Row {
            number: 0,
            labels: Labels::from_pairs(labels.iter().map(|(n, v)| (n.as_str(), v.as_str()))).unwrap(),
            extent: Extent { range: TimeRange { start, end: start + length }, samples },
        });
        prop::collection::vec(row, count).prop_map(|mut rows| {
            rows.iter_mut().enumerate().for_each(|(i, row)| row.number = i);
            rows
        })
    }

    proptest! {
        #[test]
        fn rows_return(rows in any_rows(0..40), start in -4i64..4, nth in 1usize..4) {
            let body = page(&rows);
            let read = decode(&body, rows.len(), TimeRange::ALL, |_| true).unwrap();
            prop_assert_eq!(format!("{read:?}"), format!("{rows:?}"));
            let range = TimeRange { start, end: start + 1 };
            let some = decode(&body, rows.len(), range, |row| row.is_multiple_of(nth)).unwrap();
            let is_some = |row: &&Row| row.number.is_multiple_of(nth) && row.extent.range.overlaps(&range);
            let expected: Vec<_> = rows.iter().filter(is_some).collect();
            prop_assert_eq!(format!("{some:?}"), format!("{expected:?}"));
            prop_assert!(decode(&body, rows.len() + 1, range, |_| true).is_err());
        }

        #[test]
        fn any_body_is_an_error_at_worst(
            rows in any_rows(1..5),
            flips: Vec<(u16, u8)>,
            cut: u16,
        ) {
            let mut body = page(&rows);
            for (at, bits) in flips {
                let at = usize::from(at) % body.len();
                body[at] ^= bits;
            }
            body.truncate(usize::from(cut));
            drop(decode(&body, rows.len(), TimeRange::ALL, |_| true));
        }
    }

    #[test]
    fn extremes_of_time_return() {
        let range = TimeRange { start: i64::MIN, end: i64::MAX };
        let row = Row { number: 0, labels: Labels::empty(), extent: Extent { range, samples: u64::MAX } };
        let body = page(std::slice::from_ref(&row));
        assert_eq!(decode(&body, 1, TimeRange::ALL, |_| true).unwrap()[0].extent, row.extent);
    }
}
