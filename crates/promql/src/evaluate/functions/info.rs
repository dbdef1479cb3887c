//! `info`: adds the labels of info series, such as `target_info`, to series of the same job and instance.

use std::collections::{BTreeMap, HashMap};

use model::{Labels, LabelsBuilder, METRIC_NAME, MatchOp, Matcher, TimeRange};

use super::super::Evaluator;
use super::super::budget::Charge;
use super::super::error::EvalError;
use super::super::matching::text_of;
use super::super::matrix::{Column, Matrix, Row};
use super::super::plan::{CallNode, Select};
use super::super::steps::Steps;
use super::super::storage::{Hints, Selection};

/// The labels that a series and its info series have in common; Prometheus knows no others either.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// The values of the identifying labels.
type Identity = [Option<String>; 2];

/// For each metric's name, at each step, the row of the info series whose sample is the newest.
type NewestByName = BTreeMap<String, Vec<Option<usize>>>;

impl<'a> Evaluator<'a> {
    /// `info(v, {data labels})`
    pub(super) fn info(&self, call: &CallNode, steps: Steps) -> Result<Matrix<'a>, EvalError> {
        let base = self.vector(&call.args[0].node, steps)?;
        let selector: &[Matcher] = call.args.get(1).map_or(&[], |arg| &arg.matchers);
        let (names, data): (Vec<_>, Vec<_>) =
            selector.iter().cloned().partition(|matcher| matcher.name() == METRIC_NAME);
        let names = info_names(names)?;
        // An info series is not enriched itself.
        let is_info: Vec<bool> =
            base.rows.iter().map(|row| names.iter().all(|matcher| matcher.matches(row.labels.metric_name()))).collect();
        let enriched = base.rows.iter().zip(&is_info).filter(|(_, is_info)| !**is_info).map(|(row, _)| row);
        let info = self.info_series(call, enriched, &names, &data, steps)?;
        let mut held = self.account.charge();
        let newest = newest(&base, &info, steps, &mut held)?;

        let mut out = self.matrix();
        for (row, is_info) in base.rows.iter().zip(is_info) {
            self.cells(steps)?;
            if is_info {
                out.push(row.clone())?;
                continue;
            }
            let candidates: Vec<&Vec<Option<usize>>> =
                newest.get(&identity_of(&row.labels)).into_iter().flat_map(BTreeMap::values).collect();
            // Usually the same info series apply at every step: one output row.
            let mut rows: BTreeMap<Vec<usize>, Option<Row>> = BTreeMap::new();
            for i in (0..steps.count()).filter(|&i| row.column.is_present(i)) {
                let chosen: Vec<usize> = candidates.iter().filter_map(|newest| newest[i]).collect();
                if !rows.contains_key(&chosen) {
                    let labels = enriched_labels(&row.labels, chosen.iter().map(|&i| &info.rows[i].labels), &data)?;
                    let column = Column::absent(steps.count());
                    let new = labels.map(|labels| Row { labels, drop_name: row.drop_name, column });
                    rows.insert(chosen.clone(), new);
                }
                if let Some(Some(enriched)) = rows.get_mut(&chosen) {
                    enriched.column.copy_cell(i, &row.column);
                }
            }
            for enriched in rows.into_values().flatten() {
                out.push(enriched)?;
            }
        }
        out.merge_same_labels()?;
        Ok(out)
    }

    /// The info series that may belong to `base`; their values are the times of their samples, in milliseconds.
    fn info_series<'r>(
        &self,
        call: &CallNode,
        base: impl Iterator<Item = &'r Row> + Clone,
        names: &[Matcher],
        data: &[Matcher],
        steps: Steps,
    ) -> Result<Matrix<'a>, EvalError> {
        let mut matchers = Vec::new();
        for label in IDENTIFYING {
            let mut values: Vec<&str> = base.clone().filter_map(|row| row.labels.get(label)).collect();
            values.sort_unstable();
            values.dedup();
            match values[..] {
                [] => {}
                [value] => matchers.push(Matcher::equal(label, value)),
                _ => {
                    let any = values.iter().map(|value| regex::escape(value)).collect::<Vec<_>>().join("|");
                    // Too many values for one pattern: what is fetched in vain is sorted out by signature.
                    matchers.extend(Matcher::new(label, MatchOp::Regex, any).ok());
                }
            }
        }
        let has_identity = base.clone().any(|row| IDENTIFYING.iter().any(|label| row.labels.get(label).is_some()));
        if !has_identity {
            return Ok(self.matrix());
        }
        matchers.extend(data.iter().chain(names).cloned());
        let (at, offset, lookback) = (call.reference.at, call.reference.offset, self.options.lookback_ms);
        let range = TimeRange {
            start: at.unwrap_or(steps.start).saturating_sub(offset).saturating_sub(lookback).saturating_add(1),
            end: at.unwrap_or(steps.last()).saturating_sub(offset),
        };
        let hints = Hints { step: steps.interval, function: Some("info"), ..Hints::default() };
        let selection = Selection { matchers, range, hints };
        self.select_origins(&Select { selection, at, offset, is_smoothed: false, position: call.position }, steps, true)
    }
}

/// The matchers of info metrics' names; what is said only negatively is taken from names that end in "_info".
fn info_names(mut matchers: Vec<Matcher>) -> Result<Vec<Matcher>, EvalError> {
    if matchers.is_empty() {
        matchers.push(Matcher::equal(METRIC_NAME, "target_info"));
    } else if !matchers.iter().any(|matcher| matches!(matcher.op(), MatchOp::Equal | MatchOp::Regex)) {
        let any = Matcher::new(METRIC_NAME, MatchOp::Regex, ".+_info");
        matchers.insert(0, any.map_err(|e| EvalError::BadData(e.to_string()))?);
    }
    Ok(matchers)
}

fn identity_of(labels: &Labels) -> Identity {
    IDENTIFYING.map(|label| labels.get(label).map(str::to_owned))
}

/// For each identity, the newest info series.
///
/// Errors: two have the newest sample, at a step at which there is something to enrich.
fn newest(
    base: &Matrix<'_>,
    info: &Matrix<'_>,
    steps: Steps,
    held: &mut Charge<'_>,
) -> Result<HashMap<Identity, NewestByName>, EvalError> {
    let mut all: HashMap<Identity, NewestByName> = HashMap::new();
    for (row, series) in info.rows.iter().enumerate() {
        held.raise(0, steps.count() * size_of::<Option<usize>>())?;
        let by_name = all.entry(identity_of(&series.labels)).or_default();
        let newest = by_name.entry(series.labels.metric_name().to_owned()).or_insert_with(|| vec![None; steps.count()]);
        for (i, newest) in newest.iter_mut().enumerate() {
            let Some(t) = series.column.float(i) else { continue };
            let other = newest.and_then(|other| Some((other, info.rows[other].column.float(i)?)));
            match other {
                Some((_, other_t)) if other_t > t => {}
                Some((other, other_t)) if other_t == t => {
                    if base.rows.iter().any(|row| row.column.is_present(i)) {
                        let (existing, new) = (text_of(&info.rows[other].labels), text_of(&series.labels));
                        return Err(EvalError::Execution(format!(
                            "found duplicate series for info metric: existing {existing} @ {t}, new {new} @ {t}"
                        )));
                    }
                }
                _ => *newest = Some(row),
            }
        }
    }
    Ok(all)
}

/// The labels of a series with those of its info series; None if it is to be left out for want of one.
///
/// Errors: two info series disagree in a label.
fn enriched_labels<'l>(
    base: &Labels,
    infos: impl Iterator<Item = &'l Labels>,
    data: &[Matcher],
) -> Result<Option<Labels>, EvalError> {
    let mut added = LabelsBuilder::default();
    let mut is_enriched = false;
    for info in infos {
        is_enriched = true;
        for (name, value) in info.iter() {
            if name == METRIC_NAME || (!data.is_empty() && !data.iter().any(|matcher| matcher.name() == name)) {
                continue;
            }
            if added.get(name).is_some_and(|other| other != value) {
                return Err(EvalError::Execution(format!("conflicting label: {name}")));
            }
            if base.get(name).is_none() {
                added.set(name, value);
            }
        }
    }
    if !is_enriched && !data.iter().all(Matcher::matches_empty) {
        return Ok(None);
    }
    let mut labels = LabelsBuilder::from_labels(base);
    for (name, value) in added.build().iter() {
        labels.set(name, value);
    }
    Ok(Some(labels.build()))
}
