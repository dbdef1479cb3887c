//! `topk`, `bottomk`, `limitk` and `limit_ratio`: of each group some series, as they are.

use std::cmp::Ordering;

use super::Evaluator;
use super::aggregate::{Extremes, Group, groups};
use super::error::EvalError;
use super::go_format::format_g;
use super::matrix::{Column, Matrix, Row};
use super::plan::AggregateNode;
use super::steps::Steps;
use super::xxhash::hash_labels;
use crate::ast::AggregateOp;

/// From here on a float is too great for an i64; and from there down Prometheus refuses it as too small.
const K_MAX: f64 = 9_223_372_036_854_774_784.0;
const K_MIN: f64 = -9_223_372_036_854_775_808.0;

impl<'a> Evaluator<'a> {
    /// Evaluates one of the operations that keep series.
    pub(super) fn top(&self, aggregate: &AggregateNode, steps: Steps) -> Result<Matrix<'a>, EvalError> {
        let param = self.aggregate_param(aggregate, steps)?;
        let matrix = self.vector(&aggregate.expr.node, steps)?;
        let mut out = self.matrix();
        if self.keeps_nothing(aggregate, &param)? {
            return Ok(out);
        }
        if matches!(aggregate.op, AggregateOp::Topk | AggregateOp::Bottomk) && matrix.has_histograms() {
            self.annotate(|all| all.histogram_ignored_in_aggregation(aggregate.op.as_str(), aggregate.position));
        }
        let mut kept: Vec<Option<Column>> = vec![None; if steps.is_instant() { 0 } else { matrix.rows.len() }];
        for group in groups(&matrix.rows, aggregate) {
            for (i, &param) in param.iter().enumerate() {
                self.account.work(group.rows.len())?;
                for row in keep(aggregate.op, &group, &matrix.rows, i, param) {
                    if steps.is_instant() {
                        // In the order in which they were ranked.
                        out.push(matrix.rows[row].clone())?;
                        continue;
                    }
                    let column = kept[row].get_or_insert_with(|| Column::absent(steps.count()));
                    column.copy_cell(i, &matrix.rows[row].column);
                }
            }
        }
        for (row, column) in matrix.rows.iter().zip(kept) {
            if let Some(column) = column {
                out.push(Row { column, ..row.clone() })?;
            }
        }
        Ok(out)
    }

    /// Checks the parameter's values; whether none of them keeps anything.
    fn keeps_nothing(&self, aggregate: &AggregateNode, param: &[f64]) -> Result<bool, EvalError> {
        let Extremes { min, max, has_nan } = Extremes::of(param);
        let refused = |why: String| Err(EvalError::Execution(why));
        if aggregate.op == AggregateOp::LimitRatio {
            if has_nan {
                return refused("Ratio value is NaN".to_owned());
            }
            let position = aggregate.param.as_ref().map_or(0, |param| param.position);
            self.annotate(|all| {
                if max > 1.0 {
                    all.invalid_ratio(max, 1.0, position);
                }
                if min < -1.0 {
                    all.invalid_ratio(min, -1.0, position);
                }
            });
            return Ok(min == 0.0 && max == 0.0);
        }
        if has_nan {
            return refused("Parameter value is NaN".to_owned());
        }
        if max < 1.0 {
            return Ok(true);
        }
        if min <= K_MIN {
            return refused(format!("Scalar value {} underflows int64", format_g(min)));
        }
        if max >= K_MAX {
            return refused(format!("Scalar value {} overflows int64", format_g(max)));
        }
        Ok(false)
    }
}

/// The rows of a group that are kept at step `i`, ranked if the operation ranks.
fn keep(op: AggregateOp, group: &Group, rows: &[Row], i: usize, param: f64) -> Vec<usize> {
    let present = group.rows.iter().copied().filter(|&row| rows[row].column.is_present(i));
    if op == AggregateOp::LimitRatio {
        return present.filter(|&row| is_sampled(&rows[row], param)).collect();
    }
    let k = if param < 1.0 { 0 } else { param as usize };
    if op == AggregateOp::Limitk {
        return present.take(k).collect();
    }
    let floats = present.filter_map(|row| Some((rows[row].column.float(i)?, row)));
    let is_less = if op == AggregateOp::Topk { less } else { greater };
    let mut ranked = Ranking { k, is_less, heap: Vec::new() };
    floats.for_each(|(v, row)| ranked.offer(v, row));
    ranked.finish()
}

/// Whether a series is in a sample of so many of all; a negative ratio takes those that its complement leaves.
fn is_sampled(row: &Row, ratio: f64) -> bool {
    let ratio = ratio.clamp(-1.0, 1.0);
    // From 0 up to 1, the same for a series wherever it is asked.
    let place = hash_labels(&row.labels) as f64 / u64::MAX as f64;
    if ratio >= 0.0 { place < ratio } else { place >= 1.0 + ratio }
}

/// NaN is the least.
fn less(a: f64, b: f64) -> bool {
    a.is_nan() || a < b
}

/// NaN is the least here too.
fn greater(a: f64, b: f64) -> bool {
    a.is_nan() || a > b
}

/// The k best so far, in a binary heap with the worst on top. Of equals, which one goes is as in Prometheus.
struct Ranking {
    k: usize,
    is_less: fn(f64, f64) -> bool,
    heap: Vec<(f64, usize)>,
}

impl Ranking {
    fn offer(&mut self, v: f64, row: usize) {
        if self.heap.len() < self.k {
            self.heap.push((v, row));
            self.rise(self.heap.len() - 1);
            return;
        }
        let Some(&(worst, _)) = self.heap.first() else { return };
        let is_better = !v.is_nan() && (self.is_less)(worst, v);
        if is_better {
            self.heap[0] = (v, row);
            self.sink();
        }
    }

    fn rise(&mut self, mut i: usize) {
        while i > 0 {
            let parent = (i - 1) / 2;
            if !(self.is_less)(self.heap[i].0, self.heap[parent].0) {
                return;
            }
            self.heap.swap(i, parent);
            i = parent;
        }
    }

    fn sink(&mut self) {
        let mut i = 0;
        loop {
            let (left, right) = (2 * i + 1, 2 * i + 2);
            if left >= self.heap.len() {
                return;
            }
            let is_right = right < self.heap.len() && (self.is_less)(self.heap[right].0, self.heap[left].0);
            let child = if is_right { right } else { left };
            if !(self.is_less)(self.heap[child].0, self.heap[i].0) {
                return;
            }
            self.heap.swap(i, child);
            i = child;
        }
    }

    /// The rows, the best first.
    fn finish(mut self) -> Vec<usize> {
        let is_less = self.is_less;
        self.heap.sort_by(|a, b| match (a.0.is_nan(), b.0.is_nan()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ if is_less(b.0, a.0) => Ordering::Less,
            _ if is_less(a.0, b.0) => Ordering::Greater,
            _ => Ordering::Equal,
        });
        self.heap.into_iter().map(|(_, row)| row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_kept_in_order() {
        let check = |is_less: fn(f64, f64) -> bool, expected: &[usize]| {
            let mut ranked = Ranking { k: 3, is_less, heap: Vec::new() };
            [5.0, f64::NAN, 1.0, 9.0, 7.0].into_iter().enumerate().for_each(|(row, v)| ranked.offer(v, row));
            assert_eq!(ranked.finish(), expected);
        };
        check(less, &[3, 4, 0]);
        check(greater, &[2, 0, 4]);
    }
}
