//! `absent`: a series where there is none.

use std::collections::HashMap;

use model::{Labels, LabelsBuilder, METRIC_NAME, MatchOp, Matcher};

use super::super::Evaluator;
use super::super::error::EvalError;
use super::super::matrix::{Column, Matrix};
use super::super::plan::CallNode;
use super::super::steps::Steps;

impl<'a> Evaluator<'a> {
    /// 1 at the steps at which the argument has no sample.
    pub(super) fn absent(&self, call: &CallNode, steps: Steps) -> Result<Matrix<'a>, EvalError> {
        let present = self.vector(&call.args[0].node, steps)?;
        self.absent_where(&present, &call.args[0].matchers, steps)
    }

    /// 1 at the steps at which no series of `present` has a sample, with the labels that the matchers name.
    pub(super) fn absent_where(
        &self,
        present: &Matrix<'_>,
        matchers: &[Matcher],
        steps: Steps,
    ) -> Result<Matrix<'a>, EvalError> {
        self.cells(steps)?;
        let mut column = Column::from_floats(vec![1.0; steps.count()]);
        for row in &present.rows {
            column.retain(|i| !row.column.is_present(i));
        }
        self.matrix_of(labels_of(matchers), false, column)
    }
}

/// The labels that matchers name with `=`, each by one matcher only.
fn labels_of(matchers: &[Matcher]) -> Labels {
    let mut times: HashMap<&str, usize> = HashMap::new();
    for matcher in matchers {
        *times.entry(matcher.name()).or_default() += 1;
    }
    let mut labels = LabelsBuilder::default();
    for matcher in matchers {
        if matcher.op() == MatchOp::Equal && matcher.name() != METRIC_NAME && times[matcher.name()] == 1 {
            labels.set(matcher.name(), matcher.value());
        }
    }
    labels.build()
}
