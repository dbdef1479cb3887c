//! What an expression evaluates to: for each series a column with a cell a step.

use std::collections::HashMap;
use std::sync::Arc;

use model::{Histogram, Labels, METRIC_NAME, STALE_NAN_BITS, Sample, Samples, TimestampMs, Value, is_stale};

use super::budget::{Account, Charge};
use super::error::EvalError;

/// In a column: no float at this step. The stale marker says just that, and no selector lets it through, so it is free.
const ABSENT: f64 = f64::from_bits(STALE_NAN_BITS);

/// One series' values, a cell a step. A cell holds a float, a histogram or nothing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    /// [`ABSENT`] where there is no float.
    floats: Vec<f64>,
    /// Empty until the first histogram comes.
    histograms: Vec<Option<Arc<Histogram>>>,
}

impl Column {
    /// A column of `steps` empty cells.
    pub fn absent(steps: usize) -> Column {
        Column { floats: vec![ABSENT; steps], histograms: Vec::new() }
    }

    /// A column with a float in each cell.
    pub fn from_floats(floats: Vec<f64>) -> Column {
        Column { floats, histograms: Vec::new() }
    }

    /// How many cells there are.
    pub fn len(&self) -> usize {
        self.floats.len()
    }

    /// The float in cell `i`.
    #[inline]
    pub fn float(&self, i: usize) -> Option<f64> {
        let v = self.floats[i];
        if is_stale(v) { None } else { Some(v) }
    }

    /// The histogram in cell `i`.
    #[inline]
    pub fn histogram(&self, i: usize) -> Option<&Arc<Histogram>> {
        self.histograms.get(i).and_then(Option::as_ref)
    }

    /// What is in cell `i`.
    pub fn value(&self, i: usize) -> Option<Value> {
        self.float(i).map(Value::Float).or_else(|| self.histogram(i).cloned().map(Value::Histogram))
    }

    /// Whether cell `i` holds anything.
    #[inline]
    pub fn is_present(&self, i: usize) -> bool {
        !is_stale(self.floats[i]) || self.histogram(i).is_some()
    }

    /// The first cell that is not empty, or one past the last.
    fn first_present(&self) -> usize {
        (0..self.len()).find(|&i| self.is_present(i)).unwrap_or(self.len())
    }

    /// Whether no cell holds a histogram. (May say no after the last one was cleared.)
    pub fn is_float(&self) -> bool {
        self.histograms.is_empty()
    }

    /// Puts a float in cell `i`.
    #[inline]
    pub fn set_float(&mut self, i: usize, v: f64) {
        self.floats[i] = v;
    }

    /// Puts a value in cell `i`, which must be empty.
    pub fn set(&mut self, i: usize, v: Value) {
        match v {
            Value::Float(v) => self.floats[i] = v,
            Value::Histogram(h) => {
                self.histograms.resize(self.floats.len(), None);
                self.histograms[i] = Some(h);
            }
        }
    }

    /// Copies cell `i` of another column into this one's, which must be empty.
    pub fn copy_cell(&mut self, i: usize, from: &Column) {
        if let Some(h) = from.histogram(i) {
            self.set(i, Value::Histogram(h.clone()));
        } else {
            self.floats[i] = from.floats[i];
        }
    }

    /// Empties cell `i`.
    pub fn clear(&mut self, i: usize) {
        self.floats[i] = ABSENT;
        if let Some(cell) = self.histograms.get_mut(i) {
            *cell = None;
        }
    }

    /// Empties the cells that don't satisfy `keep`.
    pub fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        for i in 0..self.len() {
            if !keep(i) {
                self.clear(i);
            }
        }
    }

    /// Replaces each float by `f` of it, and empties cells with histograms.
    pub fn map_floats(&mut self, mut f: impl FnMut(usize, f64) -> f64) {
        self.histograms = Vec::new();
        for (i, v) in self.floats.iter_mut().enumerate() {
            if !is_stale(*v) {
                *v = f(i, *v);
            }
        }
    }

    /// How many cells are not empty.
    pub fn samples(&self) -> usize {
        let floats = self.floats.iter().filter(|v| !is_stale(**v)).count();
        floats + self.histograms.iter().flatten().count()
    }

    /// Whether all cells are empty.
    pub fn is_empty(&self) -> bool {
        self.floats.iter().all(|v| is_stale(*v)) && self.histograms.iter().all(Option::is_none)
    }

    /// The same one cell `steps` times.
    pub fn repeated(&self, steps: usize) -> Column {
        let mut all = Column::absent(steps);
        match self.value(0) {
            Some(Value::Float(v)) => all.floats.fill(v),
            Some(Value::Histogram(h)) => all.histograms = vec![Some(h); steps],
            None => {}
        }
        all
    }

    /// The cells that are not empty, as samples at their steps' times.
    pub fn into_samples(self, times: &[TimestampMs]) -> Samples {
        if !self.is_float() {
            let cells = times.iter().enumerate();
            return cells.filter_map(|(i, &t)| Some(Sample { t, v: self.value(i)? })).collect();
        }
        if !self.floats.iter().any(|v| is_stale(*v)) {
            return Samples { timestamps: times.to_vec(), floats: self.floats, histograms: Vec::new() };
        }
        let present = times.iter().zip(self.floats).filter(|(_, v)| !is_stale(*v));
        let (timestamps, floats) = present.unzip();
        Samples { timestamps, floats, histograms: Vec::new() }
    }

    fn bytes(&self) -> usize {
        (self.floats.capacity() + self.histograms.capacity()) * 8
    }
}

/// A series with its column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// Still with the metric's name, even if it is to be dropped: outer operations may want it until the end.
    pub labels: Labels,
    /// Whether the metric's name (with type and unit) no longer fits the values and is left out of the result.
    pub drop_name: bool,
    /// The values.
    pub column: Column,
}

/// An instant vector at every step.
pub(crate) struct Matrix<'a> {
    /// The series. Label sets may repeat where their columns don't overlap, or for one step until the end.
    pub rows: Vec<Row>,
    charge: Charge<'a>,
}

impl<'a> Matrix<'a> {
    /// An empty one.
    pub fn new(account: &'a Account<'a>) -> Matrix<'a> {
        Matrix { rows: Vec::new(), charge: account.charge() }
    }

    /// Takes in a series, counting what it holds; leaves it out if it has no samples.
    pub fn push(&mut self, row: Row) -> Result<(), EvalError> {
        let samples = row.column.samples();
        if samples == 0 {
            return Ok(());
        }
        // Labels are shared with the storage more often than not: counted as if not.
        self.charge.raise(samples, row.column.bytes() + row.labels.as_bytes().len() + size_of::<Row>())?;
        self.rows.push(row);
        Ok(())
    }

    /// Leaves out series without samples, after cells were cleared in place.
    pub fn remove_empty(&mut self) {
        self.rows.retain(|row| !row.column.is_empty());
    }

    /// Whether some cell holds a histogram.
    pub fn has_histograms(&self) -> bool {
        self.rows.iter().any(|row| !row.column.is_float() && row.column.histograms.iter().any(Option::is_some))
    }

    /// Makes series of one label set one series; errors if two have a sample at one step.
    ///
    /// Whether the name is dropped is, as in Prometheus, up to the one with the earliest sample.
    pub fn merge_same_labels(&mut self) -> Result<(), EvalError> {
        let mut seen: HashMap<Labels, usize> = HashMap::with_capacity(self.rows.len());
        if !self.rows.iter().enumerate().any(|(i, row)| seen.insert(row.labels.clone(), i).is_some()) {
            return Ok(());
        }
        seen.clear();
        let mut merged: Vec<Row> = Vec::with_capacity(self.rows.len());
        for row in self.rows.drain(..) {
            match seen.get(&row.labels) {
                Some(&i) => {
                    if row.column.first_present() < merged[i].column.first_present() {
                        merged[i].drop_name = row.drop_name;
                    }
                    merge_columns(&mut merged[i].column, &row.column)?;
                }
                None => {
                    seen.insert(row.labels.clone(), merged.len());
                    merged.push(row);
                }
            }
        }
        self.rows = merged;
        Ok(())
    }

    /// Takes the metric's name from the series that are to lose it.
    pub fn drop_names(&mut self) {
        for row in &mut self.rows {
            if row.drop_name {
                row.labels = without_metadata(&row.labels);
                row.drop_name = false;
            }
        }
    }
}

fn merge_columns(into: &mut Column, from: &Column) -> Result<(), EvalError> {
    for i in 0..from.len() {
        if from.is_present(i) {
            if into.is_present(i) {
                return Err(EvalError::same_labelset());
            }
            into.copy_cell(i, from);
        }
    }
    Ok(())
}

/// Whether a label says what the metric is rather than which of its series: its name, type and unit.
pub(crate) fn is_metadata(name: &str) -> bool {
    name == METRIC_NAME || name == "__type__" || name == "__unit__"
}

/// The labels without the metric's name, type and unit.
pub(crate) fn without_metadata(labels: &Labels) -> Labels {
    labels.filtered(|name| !is_metadata(name))
}

#[cfg(test)]
mod tests {
    use super::super::budget::Unlimited;
    use super::*;

    fn column(cells: &[Option<f64>]) -> Column {
        let mut column = Column::absent(cells.len());
        cells.iter().enumerate().for_each(|(i, cell)| column.set_float(i, cell.unwrap_or(ABSENT)));
        column
    }

    fn row(labels: &[(&str, &str)], cells: &[Option<f64>]) -> Row {
        Row { labels: Labels::from_pairs(labels.iter().copied()).unwrap(), drop_name: true, column: column(cells) }
    }

    #[test]
    fn rows_of_one_label_set_become_one() {
        let account = Account::new(&Unlimited, 100);
        let mut matrix = Matrix::new(&account);
        matrix.push(row(&[(METRIC_NAME, "a"), ("l", "1")], &[Some(1.0), None])).unwrap();
        matrix.push(row(&[(METRIC_NAME, "b"), ("l", "1")], &[None, Some(2.0)])).unwrap();
        matrix.push(row(&[(METRIC_NAME, "c")], &[None, None])).unwrap();
        matrix.drop_names();
        matrix.merge_same_labels().unwrap();
        assert_eq!(matrix.rows.len(), 1);
        assert_eq!(matrix.rows[0].column, column(&[Some(1.0), Some(2.0)]));
        matrix.push(row(&[("l", "1")], &[None, Some(3.0)])).unwrap();
        assert!(matrix.merge_same_labels().is_err());
    }
}
