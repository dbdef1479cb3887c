//! Plays a script against a store.

use std::fmt;

use model::{Labels, Samples, TimestampMs, Value};

use super::at_modifier::{fixed_at, times_around};
use super::compare::{differences, middle_differences, show, show_value};
use super::script::{Action, Eval, Expected, Script, Steps, TextMatch, When};

/// Words that make a query's answer depend on the step, or on more than the middle of a range.
const STEP_WORDS: [&str; 4] = ["start()", "end()", "range()", "step()"];

/// What a query answers.
#[derive(Debug, Clone)]
pub enum Data {
    /// One number.
    Scalar(f64),
    /// A string.
    String(String),
    /// A value a series.
    Vector(Vec<(Labels, Value)>),
    /// Samples a series.
    Matrix(Vec<(Labels, Samples)>),
}

/// An answer with its annotations, as the API words them.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The result.
    pub data: Data,
    /// `PromQL warning: … (1:5)`
    pub warnings: Vec<String>,
    /// `PromQL info: … (1:5)`
    pub infos: Vec<String>,
}

/// What a script is played against.
pub trait Store {
    /// Forgets everything.
    fn clear(&mut self) -> anyhow::Result<()>;
    /// Stores samples beside those there are.
    fn load(&mut self, series: &[(Labels, Samples)]) -> anyhow::Result<()>;
    /// Asks once; the error is the query's.
    fn instant(&mut self, expr: &str, at: TimestampMs) -> Result<Answer, String>;
    /// Asks at every step; the error is the query's.
    fn range(&mut self, expr: &str, steps: Steps) -> Result<Answer, String>;
}

/// What to run of a script, and how often.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choice {
    /// Only the evaluation that begins at this line; everything is loaded nevertheless.
    pub line: Option<usize>,
    /// Also evaluations that need native histograms.
    pub native: bool,
    /// Every instant query also with `@` on its selectors, at five times.
    pub at_modifiers: bool,
}

/// An evaluation that did not come out as expected; prints all that one needs to look into it.
#[derive(Debug, Clone)]
pub struct Failure {
    /// `file:line`
    pub place: String,
    /// The command's lines.
    pub text: String,
    /// What differs.
    pub differences: Vec<String>,
}

/// What became of a script's evaluations.
#[derive(Debug, Default)]
pub struct Report {
    /// Evaluations that passed.
    pub passed: usize,
    /// Evaluations left out for native histograms.
    pub native: usize,
    /// Evaluations that failed.
    pub failures: Vec<Failure>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.place)?;
        self.text.lines().try_for_each(|line| writeln!(f, "    {line}"))?;
        self.differences.iter().try_for_each(|line| writeln!(f, "  - {line}"))
    }
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Data::Scalar(v) => write!(f, "scalar {v}"),
            Data::String(s) => write!(f, "string {s:?}"),
            Data::Vector(vector) => {
                f.write_str("vector")?;
                vector.iter().try_for_each(|(labels, v)| write!(f, " [{labels} {}]", show_value(v)))
            }
            Data::Matrix(matrix) => {
                f.write_str("matrix")?;
                matrix.iter().try_for_each(|(labels, samples)| write!(f, " [{labels} {}]", show(samples)))
            }
        }
    }
}

impl Report {
    /// Adds another script's.
    pub fn add(&mut self, other: Report) {
        self.passed += other.passed;
        self.native += other.native;
        self.failures.extend(other.failures);
    }

    /// Evaluations that were run.
    pub fn run(&self) -> usize {
        self.passed + self.failures.len()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failures.iter().try_for_each(|failure| writeln!(f, "{failure}"))?;
        write!(f, "{}/{} passed, {} native left out", self.passed, self.run(), self.native)
    }
}

/// Plays `script`.
///
/// Errors: a store that can't clear or load.
pub fn run(script: &Script, store: &mut dyn Store, choice: Choice) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let mut native: Vec<Labels> = Vec::new();
    store.clear()?;
    for command in &script.commands {
        let place = format!("{}:{}", script.name, command.line);
        match &command.action {
            Action::Clear => {
                native.clear();
                store.clear()?;
            }
            Action::Load(load) => {
                native.extend(load.native_metrics().cloned());
                store.load(&load.series).map_err(|e| e.context(format!("{place}: load")))?;
            }
            Action::Eval(_) if choice.line.is_some_and(|line| line != command.line) => {}
            Action::Eval(eval) if !choice.native && is_native(eval, &native) => report.native += 1,
            Action::Eval(eval) => match run_eval(eval, store, choice) {
                differences if differences.is_empty() => report.passed += 1,
                differences => report.failures.push(Failure { place, text: eval.text.clone(), differences }),
            },
        }
    }
    Ok(report)
}

/// Whether an evaluation needs native histograms: it spells one, or selects one of the series that hold them.
pub fn is_native(eval: &Eval, native: &[Labels]) -> bool {
    if eval.text.contains("{{") {
        return true;
    }
    // A query that can't be parsed or planned selects nothing.
    let query = promql::Query::instant(&eval.expr, 0);
    let selections = query.and_then(|query| query.selections(&promql::Options::default())).unwrap_or_default();
    let selects =
        |labels: &Labels| selections.iter().any(|s| s.matchers.iter().all(|matcher| matcher.matches_labels(labels)));
    native.iter().any(selects)
}

/// Runs one evaluation, an instant one also in the other ways that must answer the same; returns what differs.
pub fn run_eval(eval: &Eval, store: &mut dyn Store, choice: Choice) -> Vec<String> {
    let at = match eval.when {
        When::Range(steps) => return judge(eval, &store.range(&eval.expr, steps)),
        When::Instant(at) => at,
    };
    let answer = store.instant(&eval.expr, at);
    let mut found = judge(eval, &answer);
    if !found.is_empty() || answer.is_err() {
        return found;
    }
    if is_steady(eval) {
        found.extend(run_as_range(&eval.expr, eval, store, at));
    }
    if choice.at_modifiers
        && !STEP_WORDS.iter().any(|word| eval.expr.contains(word))
        && let Some(fixed) = fixed_at(&eval.expr, at)
    {
        for at in times_around(at) {
            let lines = judge(eval, &store.instant(&fixed, at));
            found.extend(lines.into_iter().map(|line| format!("as {fixed:?} at {at}: {line}")));
            if is_steady(eval) {
                found.extend(run_as_range(&fixed, eval, store, at));
            }
        }
    }
    found
}

fn judge(eval: &Eval, answer: &Result<Answer, String>) -> Vec<String> {
    match (&eval.fail, answer) {
        (Some(expected), Err(error)) if expected.matches(error) => vec![],
        (Some(expected), Err(error)) => vec![format!("expected failure {expected:?}, got {error:?}")],
        (Some(_), Ok(answer)) => vec![format!("expected a failure, got {}", answer.data)],
        (None, Err(error)) => vec![format!("failed: {error}")],
        (None, Ok(answer)) => {
            let mut found = differences(eval, &answer.data);
            found.extend(check_annotations("warning", &eval.warn, eval.no_warn, &answer.warnings));
            found.extend(check_annotations("info", &eval.info, eval.no_info, &answer.infos));
            found
        }
    }
}

fn check_annotations(kind: &str, expected: &[TextMatch], none: bool, got: &[String]) -> Vec<String> {
    if none {
        return got.iter().map(|text| format!("unexpected {kind} {text:?}")).collect();
    }
    if expected.is_empty() {
        return vec![];
    }
    let missing = expected.iter().filter(|e| !got.iter().any(|text| e.matches(text)));
    let mut found: Vec<String> = missing.map(|e| format!("no {kind} {e:?} among {got:?}")).collect();
    let unexpected = got.iter().filter(|text| !expected.iter().any(|e| e.matches(text)));
    found.extend(unexpected.map(|text| format!("unexpected {kind} {text:?}")));
    found
}

/// Whether the answer at one time does not depend on the steps around it.
fn is_steady(eval: &Eval) -> bool {
    !eval.ordered
        && eval.range_vector.is_none()
        && !matches!(eval.expected, Expected::String(_))
        && !STEP_WORDS.iter().any(|word| eval.expr.contains(word))
}

/// One minute before, at, and after: the middle must be what the instant query must answer.
fn run_as_range(expr: &str, eval: &Eval, store: &mut dyn Store, at: TimestampMs) -> Vec<String> {
    let steps = Steps { start: at - 60_000, end: at + 60_000, step: 60_000 };
    let found = match store.range(expr, steps) {
        Ok(Answer { data: Data::Matrix(matrix), .. }) => middle_differences(eval, &matrix, at),
        Ok(answer) => vec![format!("expected a matrix, got {}", answer.data)],
        Err(error) => vec![format!("failed: {error}")],
    };
    found.into_iter().map(|line| format!("as {expr:?} in the middle of a range, at {at}: {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::script;
    use super::*;

    /// Answers everything with one vector.
    struct Fixed(Result<Answer, String>);

    impl Store for Fixed {
        fn clear(&mut self) -> anyhow::Result<()> {
            Ok(())
        }
        fn load(&mut self, _: &[(Labels, Samples)]) -> anyhow::Result<()> {
            Ok(())
        }
        fn instant(&mut self, _: &str, _: TimestampMs) -> Result<Answer, String> {
            self.0.clone()
        }
        fn range(&mut self, _: &str, _: Steps) -> Result<Answer, String> {
            Err("not asked for".into())
        }
    }

    #[track_caller]
    fn check(text: &str, answer: Result<Answer, String>, expected: &[&str]) {
        let script = script::parse("x", text).unwrap();
        let report = run(&script, &mut Fixed(answer), Choice::default()).unwrap();
        let found: Vec<String> = report.failures.into_iter().flat_map(|f| f.differences).collect();
        assert_eq!(found, expected);
    }

    fn vector(values: &[(&str, f64)]) -> Result<Answer, String> {
        let labels = |name| Labels::from_pairs([("__name__", name)]).unwrap();
        let data = Data::Vector(values.iter().map(|&(name, v)| (labels(name), Value::Float(v))).collect());
        Ok(Answer { data, warnings: vec!["a".into()], infos: vec![] })
    }

    #[test]
    fn what_differs_is_named() {
        let both = || vector(&[("b", 1.0), ("a", 2.0)]);
        check("eval instant at 0 x\n expect ordered\n b 1\n a 2", both(), &[]);
        check(
            "eval instant at 0 x\n expect ordered\n a 2\n b 1",
            both(),
            &["a is number 1, expected 0", "b is number 0, expected 1"],
        );
        check("eval_ordered instant at 0 x\n b 3", both(), &["b: expected 3, got 1", "a 2 is not expected"]);
        check(
            "eval instant at 0 x\n expect ordered\n expect no_warn\n b 1\n a 2",
            both(),
            &["unexpected warning \"a\""],
        );
        check("eval instant at 0 x\n expect ordered\n expect warn msg: a\n b 1\n a 2", both(), &[]);
        check("eval instant at 0 x\n expect fail msg: no", Err("no".into()), &[]);
        check("eval_fail instant at 0 x", Err("no".into()), &[]);
        check("eval instant at 0 x", Err("no".into()), &["failed: no"]);
    }

    #[test]
    fn native_evaluations_are_told_apart() {
        let text = "load 1m\n h {{}}\n f 1\n\neval instant at 0 sum(h)\n\neval instant at 0 f\n expect fail";
        let report = run(&script::parse("x", text).unwrap(), &mut Fixed(Err("no".into())), Choice::default()).unwrap();
        assert_eq!((report.native, report.passed), (1, 1));
    }
}
