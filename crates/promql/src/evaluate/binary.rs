//! Operations between two expressions, column by column.

use std::collections::{HashMap, HashSet};

use model::{Labels, LabelsBuilder};

use super::Evaluator;
use super::error::EvalError;
use super::matching::{MatchGroup, match_groups, matched_labels, text_of};
use super::matrix::{Column, Matrix, Row, is_metadata};
use super::plan::{MixedBinary, VectorBinary};
use super::steps::Steps;
use crate::ast::{BinaryOp, Cardinality, VectorMatching};

/// What an operation on two floats yields: a value, and whether a comparison holds (other operations always do).
#[inline]
fn operation(op: BinaryOp, l: f64, r: f64) -> (f64, bool) {
    match op {
        BinaryOp::Add => (l + r, true),
        BinaryOp::Sub => (l - r, true),
        BinaryOp::Mul => (l * r, true),
        BinaryOp::Div => (l / r, true),
        BinaryOp::Mod => (l % r, true),
        BinaryOp::Pow => (l.powf(r), true),
        BinaryOp::Atan2 => (l.atan2(r), true),
        BinaryOp::Equal => (l, l == r),
        BinaryOp::NotEqual => (l, l != r),
        BinaryOp::Greater => (l, l > r),
        BinaryOp::Less => (l, l < r),
        BinaryOp::GreaterOrEqual => (l, l >= r),
        BinaryOp::LessOrEqual => (l, l <= r),
        // Not for floats, or not for values at all: see `is_for_floats`.
        BinaryOp::TrimUpper | BinaryOp::TrimLower | BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => (l, false),
    }
}

/// An operation on two scalars; a comparison yields 0 or 1.
pub(super) fn scalar_operation(op: BinaryOp, l: f64, r: f64) -> f64 {
    match operation(op, l, r) {
        (_, holds) if op.is_comparison() => f64::from(u8::from(holds)),
        (v, _) => v,
    }
}

/// Whether a result is another thing than its operands, so that their metric's name no longer fits.
fn changes_meaning(op: BinaryOp) -> bool {
    use BinaryOp::{Add, Atan2, Div, Mod, Mul, Pow, Sub};
    matches!(op, Add | Sub | Mul | Div | Mod | Pow | Atan2)
}

/// Whether the operation can trim floats: it can't.
fn is_for_floats(op: BinaryOp) -> bool {
    !matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower)
}

/// What becomes of a pair of cells.
enum Outcome {
    Value(f64),
    /// A comparison that does not hold: no value, but the pair did match.
    Filtered,
    /// Types that do not go together: as if there were no pair, and a note of it.
    Dropped,
}

impl<'a> Evaluator<'a> {
    /// A vector and a scalar.
    pub(super) fn mixed_binary(&self, binary: &MixedBinary, steps: Steps) -> Result<Matrix<'a>, EvalError> {
        let MixedBinary { op, scalar_first, return_bool, position, .. } = *binary;
        let scalar = self.scalar(&binary.scalar, steps)?;
        let mut matrix = self.vector(&binary.vector, steps)?;
        for row in &mut matrix.rows {
            self.account.work(steps.count())?;
            row.drop_name |= return_bool || changes_meaning(op);
            for (i, &scalar) in scalar.iter().enumerate() {
                if row.column.histogram(i).is_some() {
                    let (left, right) = if scalar_first { ("float", "histogram") } else { ("histogram", "float") };
                    self.refuse_histograms(op, left, right, position)?;
                    row.column.clear(i);
                }
                let Some(v) = row.column.float(i) else { continue };
                if !is_for_floats(op) {
                    self.annotate(|all| all.incompatible_types("float", op.as_str(), "float", position));
                    row.column.clear(i);
                    continue;
                }
                let (l, r) = if scalar_first { (scalar, v) } else { (v, scalar) };
                match operation(op, l, r) {
                    (_, holds) if return_bool => row.column.set_float(i, f64::from(u8::from(holds))),
                    (_, false) => row.column.clear(i),
                    // The vector's value stays, also where it stands on the right.
                    (_, true) if op.is_comparison() => {}
                    (result, true) => row.column.set_float(i, result),
                }
            }
        }
        matrix.remove_empty();
        Ok(matrix)
    }

    /// Two vectors.
    pub(super) fn vector_binary(&self, binary: &VectorBinary, steps: Steps) -> Result<Matrix<'a>, EvalError> {
        let left = self.vector(&binary.lhs, steps)?;
        let right = self.vector(&binary.rhs, steps)?;
        let groups = match_groups(&left.rows, &right.rows, &binary.matching);
        let mut out = match binary.op {
            BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => {
                self.set_operation(binary.op, &left, &right, &groups, steps)?
            }
            _ => Join { evaluator: self, binary, steps, left: &left, right: &right }.join(&groups)?,
        };
        // For one step series of one label set may go on side by side: a name that is still to be dropped may part them.
        if !steps.is_instant() {
            out.merge_same_labels()?;
        }
        Ok(out)
    }

    /// Notes that types do not go together, or errors if they will one day.
    fn refuse_histograms(&self, op: BinaryOp, left: &str, right: &str, position: u32) -> Result<(), EvalError> {
        use BinaryOp::{Add, Div, Equal, Mul, NotEqual, Sub, TrimLower, TrimUpper};
        let is_meaningful = match (left, right) {
            ("float", _) => op == Mul,
            (_, "float") => matches!(op, Mul | Div | TrimUpper | TrimLower),
            _ => matches!(op, Add | Sub | Equal | NotEqual),
        };
        if is_meaningful {
            return Err(EvalError::native_histogram(format!("operator {}", op.as_str())));
        }
        self.annotate(|all| all.incompatible_types(left, op.as_str(), right, position));
        Ok(())
    }

    fn set_operation(
        &self,
        op: BinaryOp,
        left: &Matrix<'_>,
        right: &Matrix<'_>,
        groups: &[MatchGroup],
        steps: Steps,
    ) -> Result<Matrix<'a>, EvalError> {
        // The group of each row of the side that is filtered, and at which steps the other side of a group has a sample.
        let (filtered, other) = if op == BinaryOp::Or { (right, left) } else { (left, right) };
        let mut group_of = vec![0; filtered.rows.len()];
        for (i, group) in groups.iter().enumerate() {
            let rows = if op == BinaryOp::Or { &group.right } else { &group.left };
            rows.iter().for_each(|&row| group_of[row] = i);
        }
        let mut present: HashMap<usize, Vec<bool>> = HashMap::new();
        let mut out = self.matrix();
        if op == BinaryOp::Or {
            for row in &left.rows {
                self.account.work(steps.count())?;
                out.push(row.clone())?;
            }
        }
        for (row, group) in filtered.rows.iter().zip(group_of) {
            self.cells(steps)?;
            let others = if op == BinaryOp::Or { &groups[group].left } else { &groups[group].right };
            let present = present.entry(group).or_insert_with(|| {
                (0..steps.count()).map(|i| others.iter().any(|&j| other.rows[j].column.is_present(i))).collect()
            });
            let mut row = row.clone();
            row.column.retain(|i| present[i] == (op == BinaryOp::And));
            out.push(row)?;
        }
        Ok(out)
    }
}

/// An operation on the values of two vectors. The "one" side is the right, unless `group_right` says otherwise.
struct Join<'j, 'a> {
    evaluator: &'j Evaluator<'a>,
    binary: &'j VectorBinary,
    steps: Steps,
    left: &'j Matrix<'a>,
    right: &'j Matrix<'a>,
}

/// A pair of series, or a series and what stands in for the one it lacks.
#[derive(Clone, Copy, PartialEq)]
struct Pair<'j> {
    many: Operand<'j>,
    one: Operand<'j>,
}

#[derive(Clone, Copy, PartialEq)]
enum Operand<'j> {
    Row(&'j Row),
    Fill(f64),
}

impl Operand<'_> {
    fn is_present(&self, i: usize) -> bool {
        match self {
            Operand::Row(row) => row.column.is_present(i),
            Operand::Fill(_) => true,
        }
    }

    /// None: a histogram. The cell must be present.
    fn float(&self, i: usize) -> Option<f64> {
        match self {
            Operand::Row(row) => row.column.float(i),
            Operand::Fill(v) => Some(*v),
        }
    }
}

impl<'j, 'a> Join<'j, 'a> {
    fn join(&self, groups: &'j [MatchGroup]) -> Result<Matrix<'a>, EvalError> {
        let matching = &self.binary.matching;
        let swapped = matching.cardinality == Cardinality::OneToMany;
        let mut out = self.evaluator.matrix();
        for group in groups {
            let (many, one) = match swapped {
                false => (rows(self.left, &group.left), rows(self.right, &group.right)),
                true => (rows(self.right, &group.right), rows(self.left, &group.left)),
            };
            self.check_one(&one, swapped)?;
            // As in Prometheus, sides are not swapped here: with group_right, fill_left fills the "many" side.
            let (fill_many, fill_one) = (matching.fill_left, matching.fill_right);
            // Counted before they are made: two large sides of one group have many.
            let pairs_max = many.len().saturating_add(1).saturating_mul(one.len().saturating_add(1));
            let mut held = self.evaluator.account.charge();
            held.raise(0, pairs_max.saturating_mul(size_of::<Pair<'_>>() + size_of::<Labels>()))?;
            let mut pairs = Vec::new();
            for &many in &many {
                pairs.extend(one.iter().map(|&one| Pair { many: Operand::Row(many), one: Operand::Row(one) }));
                pairs.extend(fill_one.map(|v| Pair { many: Operand::Row(many), one: Operand::Fill(v) }));
            }
            if let Some(v) = fill_many {
                pairs.extend(one.iter().map(|&one| Pair { many: Operand::Fill(v), one: Operand::Row(one) }));
            }
            self.join_group(&many, &one, &pairs, &mut out)?;
        }
        Ok(out)
    }

    /// Evaluates each pair at the steps at which it is one: a fill only where the group has no sample on that side.
    fn join_group(
        &self,
        many: &[&'j Row],
        one: &[&'j Row],
        pairs: &[Pair<'j>],
        out: &mut Matrix<'a>,
    ) -> Result<(), EvalError> {
        let steps = self.steps.count();
        let is_one_to_one = self.binary.matching.cardinality == Cardinality::OneToOne;
        let labels: Vec<Labels> = pairs.iter().map(|pair| self.labels(pair)).collect();
        // At which steps there is a match, for results that could meet: one to one all of a group, else those of one
        // label set. Not kept for others, which are most.
        let mut matched: HashMap<&Labels, Vec<bool>> = HashMap::new();
        if many.len() > 1 {
            let mut seen: HashSet<&Labels> = HashSet::new();
            let key = |i: usize| if is_one_to_one { &labels[0] } else { &labels[i] };
            for key in (0..labels.len()).map(key) {
                if !seen.insert(key) {
                    matched.entry(key).or_insert_with(|| vec![false; steps]);
                }
            }
        }
        for (pair, labels_of_pair) in pairs.iter().zip(&labels) {
            self.evaluator.cells(self.steps)?;
            let mut column = Column::absent(steps);
            let mut matched = matched.get_mut(if is_one_to_one { &labels[0] } else { labels_of_pair });
            for i in 0..steps {
                let is_pair = pair.many.is_present(i)
                    && pair.one.is_present(i)
                    && (matches!(pair.one, Operand::Row(_)) || !one.iter().any(|row| row.column.is_present(i)))
                    && (matches!(pair.many, Operand::Row(_)) || !many.iter().any(|row| row.column.is_present(i)));
                if !is_pair {
                    continue;
                }
                let outcome = self.operation(pair, i)?;
                if let (Some(matched), Outcome::Value(_) | Outcome::Filtered) = (&mut matched, &outcome)
                    && std::mem::replace(&mut matched[i], true)
                {
                    return Err(multiple_matches(is_one_to_one));
                }
                if let Outcome::Value(v) = outcome {
                    column.set_float(i, v);
                }
            }
            out.push(Row { labels: labels_of_pair.clone(), drop_name: self.binary.return_bool, column })?;
        }
        Ok(())
    }

    /// Errors if two series of the "one" side have a sample at one step at which there is something to match.
    fn check_one(&self, one: &[&Row], swapped: bool) -> Result<(), EvalError> {
        if one.len() < 2 {
            return Ok(());
        }
        let matching = &self.binary.matching;
        let has_fill = matching.fill_left.is_some() || matching.fill_right.is_some();
        let has_samples = |matrix: &Matrix<'_>, i| matrix.rows.iter().any(|row| row.column.is_present(i));
        for i in 0..self.steps.count() {
            let mut present = one.iter().filter(|row| row.column.is_present(i));
            let (Some(first), Some(second)) = (present.next(), present.next()) else { continue };
            let has_something_to_match = has_fill || (has_samples(self.left, i) && has_samples(self.right, i));
            if !has_something_to_match {
                continue;
            }
            let group = text_of(&matched_labels(&second.labels, matching));
            let side = if swapped { "left" } else { "right" };
            let mut duplicates = [text_of(&first.labels), text_of(&second.labels)];
            duplicates.sort();
            let [first, second] = duplicates;
            return Err(EvalError::Execution(format!(
                "found duplicate series for the match group {group} on the {side} hand-side of the operation: \
                 [{first}, {second}];many-to-many matching not allowed: matching labels must be unique on one side"
            )));
        }
        Ok(())
    }

    fn operation(&self, pair: &Pair<'_>, i: usize) -> Result<Outcome, EvalError> {
        let VectorBinary { op, return_bool, position, .. } = *self.binary;
        let (l, r) = match self.binary.matching.cardinality {
            Cardinality::OneToMany => (pair.one.float(i), pair.many.float(i)),
            _ => (pair.many.float(i), pair.one.float(i)),
        };
        let kind = |v: Option<f64>| if v.is_some() { "float" } else { "histogram" };
        let (Some(l), Some(r)) = (l, r) else {
            self.evaluator.refuse_histograms(op, kind(l), kind(r), position)?;
            return Ok(Outcome::Dropped);
        };
        if !is_for_floats(op) {
            self.evaluator.annotate(|all| all.incompatible_types("float", op.as_str(), "float", position));
            return Ok(Outcome::Dropped);
        }
        Ok(match operation(op, l, r) {
            (_, holds) if return_bool => Outcome::Value(f64::from(u8::from(holds))),
            (_, false) => Outcome::Filtered,
            (v, true) => Outcome::Value(v),
        })
    }

    /// The labels of a pair's result: those of the "many" side, but one-to-one only those that were matched by; and
    /// those that `group_left` or `group_right` takes from the other.
    fn labels(&self, pair: &Pair<'_>) -> Labels {
        let matching = &self.binary.matching;
        let (many, one) = match (pair.many, pair.one) {
            (Operand::Row(many), Operand::Row(one)) => (many.labels.clone(), one.labels.clone()),
            (Operand::Row(many), Operand::Fill(_)) => (many.labels.clone(), matched_labels(&many.labels, matching)),
            (Operand::Fill(_), Operand::Row(one)) => (matched_labels(&one.labels, matching), one.labels.clone()),
            (Operand::Fill(_), Operand::Fill(_)) => (Labels::empty(), Labels::empty()),
        };
        result_labels(&many, &one, self.binary.op, matching)
    }
}

fn result_labels(many: &Labels, one: &Labels, op: BinaryOp, matching: &VectorMatching) -> Labels {
    let is_named = |name: &str| matching.labels.iter().any(|label| label == name);
    let kept = many.filtered(|name| {
        !(changes_meaning(op) && is_metadata(name))
            && (matching.cardinality != Cardinality::OneToOne || is_named(name) == matching.on)
    });
    if matching.include.is_empty() {
        return kept;
    }
    let mut labels = LabelsBuilder::from_labels(&kept);
    for name in &matching.include {
        labels.set(name, one.get(name).unwrap_or(""));
    }
    labels.build()
}

fn multiple_matches(is_one_to_one: bool) -> EvalError {
    let why = match is_one_to_one {
        true => "many-to-one matching must be explicit (group_left/group_right)",
        false => "grouping labels must ensure unique matches",
    };
    EvalError::Execution(format!("multiple matches for labels: {why}"))
}

fn rows<'j>(matrix: &'j Matrix<'_>, indices: &[usize]) -> Vec<&'j Row> {
    indices.iter().map(|&i| &matrix.rows[i]).collect()
}
