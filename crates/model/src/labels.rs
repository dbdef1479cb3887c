//! A series' label set: sorted by name, names unique, no empty values; one allocation, cheap to clone.
//!
//! The bytes behind it are the canonical encoding that segments and blocks store too: for each label a
//! varint length and the name, a varint length and the value. Two label sets are equal exactly when
//! their bytes are. The order is Prometheus's: label by label, name then value, a prefix first.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use crate::encoding::{DecodeError, Reader, put_varint};

/// The name of the label that holds the metric's name.
pub const METRIC_NAME: &str = "__name__";

/// Why a list of name and value pairs is not a label set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// A label whose name is empty.
    #[error("a label has an empty name")]
    EmptyName,
    /// The same name twice.
    #[error("label name {0:?} is repeated")]
    Repeated(String),
}

/// A label set; see the module.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels {
    bytes: Arc<[u8]>,
}

impl Labels {
    /// The set without labels.
    pub fn empty() -> Labels {
        Labels { bytes: Arc::from([]) }
    }

    /// Sorts `pairs`, leaves out empty values (Prometheus: an empty label is an absent one) and checks them.
    ///
    /// Errors: an empty name, a name given twice.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Labels, LabelError> {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs.sort_unstable_by_key(|&(name, _)| name);
        if pairs.first().is_some_and(|(name, _)| name.is_empty()) {
            return Err(LabelError::EmptyName);
        }
        if let Some(pair) = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(LabelError::Repeated(pair[0].0.to_owned()));
        }
        Ok(Labels::from_sorted(pairs))
    }

    /// Takes pairs that the caller knows to be sorted by name and without repeats; leaves out empty values.
    fn from_sorted<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Labels {
        let mut bytes = Vec::new();
        for (name, value) in pairs {
            if !value.is_empty() {
                put_str(&mut bytes, name);
                put_str(&mut bytes, value);
            }
        }
        Labels { bytes: bytes.into() }
    }

    /// Reads a set from its canonical encoding, which must be all of `bytes`.
    ///
    /// Errors: anything that [`Labels::as_bytes`] can't have written: names unsorted, repeated or empty, an empty
    /// value, a length past the end, not UTF-8.
    pub fn decode(bytes: &[u8]) -> Result<Labels, DecodeError> {
        let mut reader = Reader::new(bytes);
        let mut last = "";
        while !reader.is_empty() {
            let name = reader.str()?;
            if name <= last {
                return Err(reader.error("label names are not in order"));
            }
            if reader.str()?.is_empty() {
                return Err(reader.error("a label value is empty"));
            }
            last = name;
        }
        Ok(Labels { bytes: bytes.into() })
    }

    /// A set from bytes that the caller knows to be the canonical encoding of one: checked in debug builds only.
    pub fn from_canonical(bytes: &[u8]) -> Labels {
        debug_assert!(Labels::decode(bytes).is_ok(), "not the canonical encoding of a label set");
        Labels { bytes: bytes.into() }
    }

    /// The canonical encoding; see the module.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The labels, by ascending name.
    pub fn iter(&self) -> LabelsIter<'_> {
        LabelsIter(self.iter_bytes())
    }

    /// The labels' bytes, by ascending name: for comparing and hashing, where checking UTF-8 again would be most of
    /// the work.
    pub fn iter_bytes(&self) -> LabelsBytesIter<'_> {
        LabelsBytesIter { bytes: &self.bytes }
    }

    /// How many labels there are; walks them.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The value of `name`, if it has one.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter_bytes().find(|&(n, _)| n == name.as_bytes()).map(|(_, value)| checked_str(value))
    }

    /// The metric's name, or "" if there is none.
    pub fn metric_name(&self) -> &str {
        self.get(METRIC_NAME).unwrap_or("")
    }

    /// The set of those labels whose name satisfies `keep`.
    pub fn filtered(&self, mut keep: impl FnMut(&str) -> bool) -> Labels {
        Labels::from_sorted(self.iter().filter(|&(name, _)| keep(name)))
    }

    /// The set without the metric's name.
    pub fn without_metric_name(&self) -> Labels {
        self.filtered(|name| name != METRIC_NAME)
    }
}

fn put_str(out: &mut Vec<u8>, s: &str) {
    put_varint(out, s.len() as u64);
    out.extend_from_slice(s.as_bytes());
}

impl Default for Labels {
    fn default() -> Labels {
        Labels::empty()
    }
}

impl Ord for Labels {
    fn cmp(&self, other: &Labels) -> Ordering {
        self.iter_bytes().cmp(other.iter_bytes())
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Labels) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// `{a="1", b="2"}`, with the metric's name in front as PromQL writes it; values are Go-quoted.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.metric_name();
        let plain = is_plain_metric_name(name);
        if plain {
            f.write_str(name)?;
        }
        let mut rest = self.iter().filter(|&(n, _)| !plain || n != METRIC_NAME).peekable();
        if rest.peek().is_none() && plain {
            return Ok(());
        }
        f.write_str("{")?;
        for (i, (name, value)) in rest.enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            if is_plain_label_name(name) {
                write!(f, "{name}={value:?}")?;
            } else {
                write!(f, "{name:?}={value:?}")?;
            }
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn is_plain_metric_name(name: &str) -> bool {
    let ok = |(i, b): (usize, u8)| b.is_ascii_alphabetic() || b == b'_' || b == b':' || (i > 0 && b.is_ascii_digit());
    !name.is_empty() && name.bytes().enumerate().all(ok)
}

fn is_plain_label_name(name: &str) -> bool {
    is_plain_metric_name(name) && !name.contains(':')
}

/// Walks a label set; see [`Labels::iter`].
#[derive(Debug, Clone)]
pub struct LabelsIter<'a>(LabelsBytesIter<'a>);

impl<'a> Iterator for LabelsIter<'a> {
    type Item = (&'a str, &'a str);

    #[inline]
    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        let (name, value) = self.0.next()?;
        Some((checked_str(name), checked_str(value)))
    }
}

fn checked_str(text: &[u8]) -> &str {
    std::str::from_utf8(text).expect("a label set is checked when it is made")
}

/// Walks a label set; see [`Labels::iter_bytes`].
#[derive(Debug, Clone)]
pub struct LabelsBytesIter<'a> {
    bytes: &'a [u8],
}

impl<'a> LabelsBytesIter<'a> {
    #[inline]
    fn text(&mut self) -> &'a [u8] {
        let mut n = 0;
        let mut shift = 0;
        loop {
            let byte = self.bytes[0];
            self.bytes = &self.bytes[1..];
            n |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
            shift += 7;
        }
        let (text, rest) = self.bytes.split_at(n);
        self.bytes = rest;
        text
    }
}

impl<'a> Iterator for LabelsBytesIter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        if self.bytes.is_empty() {
            return None;
        }
        let name = self.text();
        Some((name, self.text()))
    }
}

/// Builds a set by setting and removing labels, from scratch or from another set.
#[derive(Debug, Clone, Default)]
pub struct LabelsBuilder {
    /// Sorted by name, values not empty.
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// A builder that starts with the labels of `labels`.
    pub fn from_labels(labels: &Labels) -> LabelsBuilder {
        LabelsBuilder { pairs: labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect() }
    }

    /// Sets `name`; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) -> &mut LabelsBuilder {
        match self.pairs.binary_search_by(|(n, _)| n.as_str().cmp(name)) {
            Ok(i) if value.is_empty() => {
                self.pairs.remove(i);
            }
            Ok(i) => value.clone_into(&mut self.pairs[i].1),
            Err(_) if value.is_empty() => {}
            Err(i) => self.pairs.insert(i, (name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Removes `name`.
    pub fn remove(&mut self, name: &str) -> &mut LabelsBuilder {
        self.set(name, "")
    }

    /// The value of `name`, if it has one.
    pub fn get(&self, name: &str) -> Option<&str> {
        let i = self.pairs.binary_search_by(|(n, _)| n.as_str().cmp(name)).ok()?;
        Some(&self.pairs[i].1)
    }

    /// The finished set.
    pub fn build(&self) -> Labels {
        Labels::from_sorted(self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn pairs_are_sorted_and_empty_values_left_out() {
        let set = labels(&[("b", "2"), ("c", ""), ("a", "1"), (METRIC_NAME, "up")]);
        assert_eq!(set.to_string(), r#"up{a="1", b="2"}"#);
        assert_eq!(Labels::decode(set.as_bytes()).unwrap(), set);
        assert_eq!((set.get("b"), set.get("c"), set.len()), (Some("2"), None, 3));
    }

    #[test]
    fn bad_pairs_are_refused() {
        assert_eq!(Labels::from_pairs([("", "x")]), Err(LabelError::EmptyName));
        assert_eq!(Labels::from_pairs([("a", "x"), ("a", "y")]), Err(LabelError::Repeated("a".into())));
        assert!(Labels::decode(&[1, b'b', 1, b'x', 1, b'a', 1, b'y']).is_err());
        assert!(Labels::decode(&[1, b'b', 0]).is_err());
        assert!(Labels::decode(&[1, b'b', 9, b'x']).is_err());
    }

    #[test]
    fn order_is_by_label_then_length() {
        let mut sets =
            vec![labels(&[("a", "2")]), labels(&[("a", "10"), ("b", "1")]), labels(&[("a", "10")]), Labels::empty()];
        sets.sort();
        assert_eq!(format!("{sets:?}"), r#"[{}, {a="10"}, {a="10", b="1"}, {a="2"}]"#);
    }

    #[test]
    fn builder_sets_and_removes() {
        let mut builder = LabelsBuilder::from_labels(&labels(&[("a", "1"), ("c", "3")]));
        builder.set("b", "2").remove("a").set("c", "4");
        assert_eq!(builder.build().to_string(), r#"{b="2", c="4"}"#);
    }
}
