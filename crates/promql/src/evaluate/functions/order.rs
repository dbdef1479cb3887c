//! `sort` and its like: the order of an instant query's answer.

use std::cmp::Ordering;

use super::super::Evaluator;
use super::super::error::EvalError;
use super::super::matrix::{Matrix, Row};
use super::super::plan::{CallNode, Node};
use super::super::steps::Steps;
use crate::function::Function;

impl<'a> Evaluator<'a> {
    /// Sorts by value, NaN last, or by labels. A range query is always sorted by labels in the end, and warned of it.
    pub(super) fn sort(&self, call: &CallNode, steps: Steps) -> Result<Matrix<'a>, EvalError> {
        let mut matrix = self.vector(&call.args[0].node, steps)?;
        if !steps.is_instant() {
            self.annotate(|all| all.sort_in_range_query(call.position));
        }
        let by_value = matches!(call.function, Function::Sort | Function::SortDesc);
        if by_value && matrix.has_histograms() {
            for row in &mut matrix.rows {
                row.column.map_floats(|_, v| v);
            }
            matrix.remove_empty();
        }
        if steps.count() != 1 {
            return Ok(matrix);
        }
        let value = |row: &Row| row.column.float(0).unwrap_or(f64::NAN);
        let names: Vec<&str> = call.args[1..]
            .iter()
            .filter_map(|arg| if let Node::Text(name) = &arg.node { Some(name.as_str()) } else { None })
            .collect();
        match call.function {
            Function::Sort => matrix.rows.sort_by(|a, b| nan_last(value(a), value(b), false)),
            Function::SortDesc => matrix.rows.sort_by(|a, b| nan_last(value(a), value(b), true)),
            Function::SortByLabel => matrix.rows.sort_by(|a, b| by_labels(a, b, &names)),
            _ => matrix.rows.sort_by(|a, b| by_labels(b, a, &names)),
        }
        Ok(matrix)
    }
}

fn nan_last(a: f64, b: f64, descending: bool) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => {
            let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
            if descending { order.reverse() } else { order }
        }
    }
}

/// By the values of `names` in turn, numbers in them as numbers; then by all labels.
fn by_labels(a: &Row, b: &Row, names: &[&str]) -> Ordering {
    let value = |row: &Row, name: &str| row.labels.get(name).unwrap_or("").to_owned();
    for name in names {
        let order = natural_order(&value(a, name), &value(b, name));
        if order != Ordering::Equal {
            return order;
        }
    }
    a.labels.cmp(&b.labels)
}

/// Orders texts so that "node2" comes before "node10": runs of digits by the numbers they are.
///
/// Numbers beyond an i64 are compared as texts. Texts that only differ in leading zeros are ordered as texts.
fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut rest_a, mut rest_b) = (a, b);
    while !rest_a.is_empty() && !rest_b.is_empty() {
        let (chunk_a, chunk_b);
        (chunk_a, rest_a) = split_chunk(rest_a);
        (chunk_b, rest_b) = split_chunk(rest_b);
        let order = match (chunk_a.parse::<i64>(), chunk_b.parse::<i64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            _ => chunk_a.cmp(chunk_b),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    rest_a.len().cmp(&rest_b.len()).then_with(|| a.cmp(b))
}

/// Cuts off the run of digits or of other characters that a text begins with.
fn split_chunk(text: &str) -> (&str, &str) {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    text.split_at(text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_texts_are_compared_as_numbers() {
        let mut texts = ["node10", "node2", "node", "node2b", "Node3", "10", "9"];
        texts.sort_by(|a, b| natural_order(a, b));
        assert_eq!(texts, ["9", "10", "Node3", "node", "node2", "node2b", "node10"]);
    }
}
