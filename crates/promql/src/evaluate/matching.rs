//! Which series of two vectors belong together: worked out once per label set, not per step.

use std::collections::HashMap;

use model::{Labels, METRIC_NAME};

use super::go_format::quote;
use super::matrix::Row;
use crate::ast::VectorMatching;

/// The rows of both sides that agree in the labels that matter.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct MatchGroup {
    /// Indices of the left side's rows, ascending.
    pub left: Vec<usize>,
    /// Indices of the right side's rows, ascending.
    pub right: Vec<usize>,
}

/// Sorts rows by their signature: the labels named by `on`, or all but those named by `ignoring` and the metric's name.
/// Groups come in the order of their first row, left side first; with them, the group of each row of either side.
pub(crate) fn match_groups(left: &[Row], right: &[Row], matching: &VectorMatching) -> Vec<MatchGroup> {
    let mut groups: Vec<MatchGroup> = Vec::new();
    let mut found: HashMap<Vec<u8>, usize> = HashMap::with_capacity(left.len().max(right.len()));
    let mut signature = Vec::new();
    let mut group_of = |labels: &Labels| {
        signature.clear();
        for (name, value) in labels.iter().filter(|(name, _)| is_matched(name, matching)) {
            for text in [name, value] {
                model::put_varint(&mut signature, text.len() as u64);
                signature.extend_from_slice(text.as_bytes());
            }
        }
        if let Some(&i) = found.get(signature.as_slice()) {
            return i;
        }
        let i = found.len();
        found.insert(signature.clone(), i);
        i
    };
    let mut group = |i: usize, groups: &mut Vec<MatchGroup>, labels: &Labels, is_left: bool| {
        let group = group_of(labels);
        if group == groups.len() {
            groups.push(MatchGroup::default());
        }
        if is_left { groups[group].left.push(i) } else { groups[group].right.push(i) }
    };
    left.iter().enumerate().for_each(|(i, row)| group(i, &mut groups, &row.labels, true));
    right.iter().enumerate().for_each(|(i, row)| group(i, &mut groups, &row.labels, false));
    groups
}

/// The labels that a series was matched by.
pub(crate) fn matched_labels(labels: &Labels, matching: &VectorMatching) -> Labels {
    labels.filtered(|name| is_matched(name, matching))
}

fn is_matched(name: &str, matching: &VectorMatching) -> bool {
    let is_named = matching.labels.iter().any(|label| label == name);
    if matching.on { is_named } else { !is_named && name != METRIC_NAME }
}

/// Labels as Prometheus's messages write them: the metric's name is a label like the others.
pub(crate) fn text_of(labels: &Labels) -> String {
    let is_plain = |name: &str| {
        name.bytes().enumerate().all(|(i, b)| b.is_ascii_alphabetic() || b == b'_' || (i > 0 && b.is_ascii_digit()))
    };
    let pairs = labels.iter().map(|(name, value)| {
        let name = if is_plain(name) { name.to_owned() } else { quote(name) };
        format!("{name}={}", quote(value))
    });
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::matrix::Column;
    use super::*;

    fn row(labels: &[(&str, &str)]) -> Row {
        let labels = Labels::from_pairs(labels.iter().copied()).unwrap();
        Row { labels, drop_name: false, column: Column::absent(1) }
    }

    #[test]
    fn rows_with_one_signature_are_grouped() {
        let left = [row(&[(METRIC_NAME, "a"), ("l", "1")]), row(&[(METRIC_NAME, "a"), ("l", "2")])];
        let right = [row(&[(METRIC_NAME, "b"), ("l", "2")]), row(&[(METRIC_NAME, "b"), ("l", "3")])];
        let matching = |on, label: &str| VectorMatching {
            cardinality: crate::ast::Cardinality::OneToOne,
            on,
            labels: vec![label.to_owned()],
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        };
        let groups = match_groups(&left, &right, &matching(true, "l"));
        let expected = [(vec![0], vec![]), (vec![1], vec![0]), (vec![], vec![1])];
        assert_eq!(groups.into_iter().map(|group| (group.left, group.right)).collect::<Vec<_>>(), expected);
        assert_eq!(match_groups(&left, &right, &matching(false, "l")).len(), 1);
        assert_eq!(text_of(&left[0].labels), r#"{__name__="a", l="1"}"#);
    }
}
