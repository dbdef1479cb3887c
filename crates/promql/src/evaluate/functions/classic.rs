//! Quantiles and fractions of classic histograms: series with a bucket's upper bound in their label `le`.

use std::collections::{BTreeMap, HashMap};

use model::{Labels, LabelsBuilder};

use super::super::Evaluator;
use super::super::error::EvalError;
use super::super::go_format::format_open_metrics;
use super::super::matrix::{Column, Matrix, Row};
use super::super::plan::{Arg, CallNode, Node};
use super::super::quantile::{Bucket, bucket_fraction, bucket_quantile};
use super::super::steps::Steps;

/// The label that holds a bucket's upper bound.
const BUCKET_LABEL: &str = "le";

/// The buckets of one classic histogram.
struct Histogram {
    /// Without `le`.
    labels: Labels,
    /// Upper bounds, and rows of the matrix.
    buckets: Vec<(f64, usize)>,
    /// Rows with native histograms of the same labels.
    natives: Vec<usize>,
}

impl<'a> Evaluator<'a> {
    /// `histogram_quantile(q, v)`
    pub(super) fn histogram_quantile(&self, call: &CallNode, steps: Steps) -> Result<Matrix<'a>, EvalError> {
        let q = self.scalar(&call.args[0].node, steps)?;
        let mut out = self.matrix();
        self.for_each_histogram(&call.args[1], call, steps, |histogram, buckets_at| {
            let mut column = Column::absent(steps.count());
            buckets_at(&mut |i, buckets| {
                column.set_float(i, self.quantile_of(q[i], buckets, histogram, steps.at(i), &call.args[1]))
            });
            out.push(Row { labels: histogram.labels.clone(), drop_name: true, column })
        })?;
        self.check_quantiles(&q, &call.args[0]);
        Ok(out)
    }

    /// `histogram_quantiles(v, label, q, …)`: the quantile is the value of a label.
    pub(super) fn histogram_quantiles(&self, call: &CallNode, steps: Steps) -> Result<Matrix<'a>, EvalError> {
        let Node::Text(label) = &call.args[1].node else {
            return Err(EvalError::BadData("histogram_quantiles needs a label".to_owned()));
        };
        let quantiles = call.args[2..].iter().map(|arg| self.scalar(&arg.node, steps));
        let quantiles = quantiles.collect::<Result<Vec<_>, _>>()?;
        let mut out = self.matrix();
        self.for_each_histogram(&call.args[0], call, steps, |histogram, buckets_at| {
            for quantiles in &quantiles {
                // A quantile that changes from step to step makes several series.
                let mut columns: BTreeMap<String, Column> = BTreeMap::new();
                buckets_at(&mut |i, buckets| {
                    let v = self.quantile_of(quantiles[i], buckets, histogram, steps.at(i), &call.args[0]);
                    let column = columns.entry(format_open_metrics(quantiles[i]));
                    column.or_insert_with(|| Column::absent(steps.count())).set_float(i, v);
                });
                for (q, column) in columns {
                    let labels = LabelsBuilder::from_labels(&histogram.labels).set(label, &q).build();
                    out.push(Row { labels, drop_name: true, column })?;
                }
            }
            Ok(())
        })?;
        for (quantiles, arg) in quantiles.iter().zip(&call.args[2..]) {
            self.check_quantiles(quantiles, arg);
        }
        out.merge_same_labels()?;
        Ok(out)
    }

    /// `histogram_fraction(lower, upper, v)`
    pub(super) fn histogram_fraction(&self, call: &CallNode, steps: Steps) -> Result<Matrix<'a>, EvalError> {
        let lower = self.scalar(&call.args[0].node, steps)?;
        let upper = self.scalar(&call.args[1].node, steps)?;
        let mut out = self.matrix();
        self.for_each_histogram(&call.args[2], call, steps, |histogram, buckets_at| {
            let mut column = Column::absent(steps.count());
            buckets_at(&mut |i, buckets| column.set_float(i, bucket_fraction(lower[i], upper[i], buckets)));
            out.push(Row { labels: histogram.labels.clone(), drop_name: true, column })
        })?;
        Ok(out)
    }

    /// Warns of quantiles beyond 0 and 1: after what is said about the vector, so that this is said of the outer of two.
    fn check_quantiles(&self, quantiles: &[f64], arg: &Arg) {
        for &q in quantiles.iter().filter(|q| !(0.0..=1.0).contains(*q)) {
            self.annotate(|all| all.invalid_quantile(q, arg.position));
        }
    }

    fn quantile_of(&self, q: f64, buckets: &mut Vec<Bucket>, histogram: &Histogram, t: i64, arg: &Arg) -> f64 {
        let (v, forced) = bucket_quantile(q, buckets);
        if let Some(forced) = forced {
            let name = histogram.labels.metric_name();
            self.annotate(|all| all.forced_monotonicity(name, forced, t, arg.position));
        }
        v
    }

    /// Calls `see` with each histogram, and with what in turn calls a function with its buckets at each step.
    fn for_each_histogram(
        &self,
        arg: &Arg,
        call: &CallNode,
        steps: Steps,
        mut see: impl FnMut(&Histogram, &dyn Fn(&mut dyn FnMut(usize, &mut Vec<Bucket>))) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        let matrix = self.vector(&arg.node, steps)?;
        for histogram in self.histograms(&matrix, arg) {
            self.cells(steps)?;
            self.account.work(histogram.buckets.len().saturating_mul(steps.count()))?;
            let mut is_mixed = vec![false; if histogram.natives.is_empty() { 0 } else { steps.count() }];
            for &native in &histogram.natives {
                for (i, mixed) in is_mixed.iter_mut().enumerate() {
                    if matrix.rows[native].column.histogram(i).is_none() {
                        continue;
                    }
                    if !histogram.buckets.iter().any(|&(_, row)| matrix.rows[row].column.float(i).is_some()) {
                        return Err(EvalError::native_histogram(call.function.name()));
                    }
                    // Two histograms of one name and labels: neither is evaluated.
                    *mixed = true;
                    let name = histogram.labels.metric_name();
                    self.annotate(|all| all.mixed_classic_native_histograms(name, arg.position));
                }
            }
            see(&histogram, &|with| {
                let mut buckets = Vec::with_capacity(histogram.buckets.len());
                for i in 0..steps.count() {
                    if is_mixed.get(i).is_some_and(|mixed| *mixed) {
                        continue;
                    }
                    buckets.clear();
                    for &(upper_bound, row) in &histogram.buckets {
                        if let Some(count) = matrix.rows[row].column.float(i) {
                            buckets.push(Bucket { upper_bound, count });
                        }
                    }
                    if !buckets.is_empty() {
                        with(i, &mut buckets);
                    }
                }
            })?;
        }
        Ok(())
    }

    /// Sorts a matrix's rows by the histogram that they are of.
    fn histograms(&self, matrix: &Matrix<'_>, arg: &Arg) -> Vec<Histogram> {
        let mut all: Vec<Histogram> = Vec::new();
        let mut found: HashMap<Labels, usize> = HashMap::new();
        let mut histogram_of = |labels: Labels, all: &mut Vec<Histogram>| {
            *found.entry(labels).or_insert_with_key(|labels| {
                all.push(Histogram { labels: labels.clone(), buckets: Vec::new(), natives: Vec::new() });
                all.len() - 1
            })
        };
        for (i, row) in matrix.rows.iter().enumerate() {
            let steps = 0..row.column.len();
            if steps.clone().any(|step| row.column.histogram(step).is_some()) {
                let histogram = histogram_of(row.labels.clone(), &mut all);
                all[histogram].natives.push(i);
            }
            if steps.clone().all(|step| row.column.float(step).is_none()) {
                continue;
            }
            let le = row.labels.get(BUCKET_LABEL).unwrap_or("");
            match le.parse::<f64>() {
                Ok(upper_bound) => {
                    let labels = row.labels.filtered(|name| name != BUCKET_LABEL);
                    let histogram = histogram_of(labels, &mut all);
                    all[histogram].buckets.push((upper_bound, i));
                }
                Err(_) => self.annotate(|all| all.bad_bucket_label(row.labels.metric_name(), le, arg.position)),
            }
        }
        all
    }
}
