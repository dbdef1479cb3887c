//! Reads a script into commands.

use std::fmt;
use std::path::Path;

use model::{Labels, Samples, TimestampMs, Value};
use regex::Regex;

use super::duration::parse_duration;
use super::nhcb;
use super::series::{Item, parse_number, parse_series, strip_start_timestamps, unquote};

/// A whole file.
#[derive(Debug)]
pub struct Script {
    /// The file's name.
    pub name: String,
    /// Its commands in order.
    pub commands: Vec<Command>,
}

/// One command, and where it begins.
#[derive(Debug)]
pub struct Command {
    /// The line of its first word, from 1.
    pub line: usize,
    /// What to do.
    pub action: Action,
}

/// What a command does.
#[derive(Debug)]
pub enum Action {
    /// Forgets everything.
    Clear,
    /// Stores samples.
    Load(Load),
    /// Asks, and compares.
    Eval(Box<Eval>),
}

/// Samples to store.
#[derive(Debug)]
pub struct Load {
    /// The series, those converted to custom buckets included.
    pub series: Vec<(Labels, Samples)>,
}

/// When a query is evaluated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// Once.
    Instant(TimestampMs),
    /// At every step.
    Range(Steps),
}

/// `from … to … step …`, in milliseconds, both ends included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Steps {
    /// The first step.
    pub start: TimestampMs,
    /// No step lies after it.
    pub end: TimestampMs,
    /// From one to the next.
    pub step: i64,
}

/// What an error or annotation must say.
#[derive(Debug, Clone)]
pub enum TextMatch {
    /// Anything.
    Any,
    /// Just this.
    Message(String),
    /// Something that matches, anywhere.
    Regex(Regex),
}

/// The result that an evaluation must have.
#[derive(Debug, Clone)]
pub enum Expected {
    /// A scalar.
    Scalar(f64),
    /// A string.
    String(String),
    /// A vector or a matrix.
    Series(Vec<(Labels, Vec<Item>)>),
}

/// A query and what is expected of it.
#[derive(Debug, Clone)]
pub struct Eval {
    /// The line of its first word, from 1.
    pub line: usize,
    /// All its lines.
    pub text: String,
    /// The query.
    pub expr: String,
    /// When it is evaluated.
    pub when: When,
    /// If it must fail: with what.
    pub fail: Option<TextMatch>,
    /// If warnings are expected: which.
    pub warn: Vec<TextMatch>,
    /// If infos are expected: which.
    pub info: Vec<TextMatch>,
    /// Whether there may be no warning.
    pub no_warn: bool,
    /// Whether there may be no info.
    pub no_info: bool,
    /// Whether the vector must be in the order of the lines.
    pub ordered: bool,
    /// If an instant query's answer is a matrix: its steps.
    pub range_vector: Option<Steps>,
    /// The result, unless it must fail.
    pub expected: Expected,
}

/// A script that is none.
#[derive(Debug)]
pub struct ScriptError {
    /// Where, from 1.
    pub line: usize,
    /// What.
    pub what: String,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for ScriptError {}

impl TextMatch {
    /// Whether `text` fits.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            TextMatch::Any => true,
            TextMatch::Message(message) => message == text,
            TextMatch::Regex(regex) => regex.is_match(text),
        }
    }
}

impl Expected {
    pub(super) fn describe(&self) -> String {
        match self {
            Expected::Scalar(v) => format!("scalar {v}"),
            Expected::String(s) => format!("string {s:?}"),
            Expected::Series(series) if series.is_empty() => "nothing".into(),
            Expected::Series(series) => {
                let labels: Vec<String> = series.iter().map(|(labels, _)| labels.to_string()).collect();
                labels.join(", ")
            }
        }
    }
}

/// Reads the script in a file.
pub fn read(path: &Path) -> anyhow::Result<Script> {
    let text = std::fs::read_to_string(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    parse(&name, &text).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))
}

/// Reads a script; `name` is how failures call it.
pub fn parse(name: &str, text: &str) -> Result<Script, ScriptError> {
    let lines: Vec<&str> =
        text.split('\n').map(str::trim).map(|line| if line.starts_with('#') { "" } else { line }).collect();
    let mut commands = Vec::new();
    let mut next = 0;
    while let Some(&first) = lines.get(next) {
        let line = next + 1;
        next += 1;
        if first.is_empty() {
            continue;
        }
        let word = first.split_whitespace().next().unwrap_or_default().to_lowercase();
        let rest = &lines[next..];
        let (action, taken) = if word == "clear" {
            (Action::Clear, 0)
        } else if word.starts_with("load") {
            parse_load(first, rest).map_err(|(after, what)| ScriptError { line: line + after, what })?
        } else if word.starts_with("eval") {
            parse_eval(line, first, rest).map_err(|(after, what)| ScriptError { line: line + after, what })?
        } else {
            return Err(ScriptError { line, what: format!("unknown command {word:?}") });
        };
        next += taken;
        commands.push(Command { line, action });
    }
    Ok(Script { name: name.to_owned(), commands })
}

/// An error with the number of lines after the command's first.
type At<T> = Result<T, (usize, String)>;

fn parse_load(first: &str, rest: &[&str]) -> At<(Action, usize)> {
    let mut words = first.split_whitespace();
    let with_nhcb = match words.next() {
        Some("load") => false,
        Some("load_with_nhcb") => true,
        other => return Err((0, format!("unknown command {other:?}"))),
    };
    let step = words.next().and_then(parse_duration).ok_or((0, "load without a duration".to_owned()))?;
    if words.next().is_some() {
        return Err((0, "something after the duration".into()));
    }
    let mut series: Vec<(Labels, Samples)> = Vec::new();
    let taken = rest.iter().take_while(|line| !line.is_empty()).count();
    for (i, line) in rest[..taken].iter().enumerate() {
        if let Some((_, items)) = strip_start_timestamps(line) {
            check_start_timestamps(items).map_err(|what| (i + 1, what))?;
            continue;
        }
        let (labels, items) = parse_series(line).map_err(|what| (i + 1, what))?;
        let samples = place(&items, step);
        match series.iter_mut().find(|(l, _)| *l == labels) {
            Some((_, before)) => *before = samples,
            None => series.push((labels, samples)),
        }
    }
    if with_nhcb {
        series.extend(nhcb::convert(&series));
    }
    Ok((Action::Load(Load { series }), taken))
}

fn place(items: &[Item], step: i64) -> Samples {
    let mut samples = Samples::default();
    for (i, item) in items.iter().enumerate() {
        let t = i as i64 * step;
        match item {
            Item::Missing => {}
            Item::Float(v) => samples.push_float(t, *v),
            Item::Histogram(literal) => samples.push(t, literal.to_value()),
        }
    }
    samples
}

/// Start timestamps are a later issue's; until then their lines are only checked.
fn check_start_timestamps(items: &str) -> Result<(), String> {
    let form =
        Regex::new(r"^(?:_(?:x\d+)?|[+-]?(?:0|\d+(?:y|w|d|h|ms|m|s))(?:[+-](?:0|\d+(?:y|w|d|h|ms|m|s))x\d+|x\d+)?)$")
            .map_err(|e| e.to_string())?;
    let bad = items.split_whitespace().find(|item| !form.is_match(item));
    bad.map_or(Ok(()), |item| Err(format!("bad start timestamp {item:?}")))
}

fn parse_eval(line: usize, first: &str, rest: &[&str]) -> At<(Action, usize)> {
    let (head, after) = word(first);
    let flavour = head.strip_prefix("eval").unwrap_or_default();
    let (kind, after) = word(after);
    let (when, expr) = match kind {
        "instant" => parse_instant(after),
        "range" => parse_steps(after).map(|(steps, expr)| (When::Range(steps), expr)),
        _ => Err(format!("eval of unknown kind {kind:?}")),
    }
    .map_err(|what| (0, what))?;
    let mut eval = Eval {
        line,
        text: first.to_owned(),
        expr: expr.to_owned(),
        when,
        fail: None,
        warn: vec![],
        info: vec![],
        no_warn: false,
        no_info: false,
        ordered: false,
        range_vector: None,
        expected: Expected::Series(vec![]),
    };
    match flavour {
        "" => {}
        "_fail" => eval.fail = Some(TextMatch::Any),
        "_warn" => eval.warn.push(TextMatch::Any),
        "_info" => eval.info.push(TextMatch::Any),
        "_ordered" => eval.ordered = true,
        _ => return Err((0, format!("unknown command {head:?}"))),
    }
    let mut taken = 0;
    for line in rest.iter().take_while(|line| !line.is_empty()) {
        taken += 1;
        eval.text.push('\n');
        eval.text.push_str(line);
        if let Some(number) = parse_number(line) {
            eval.expected = Expected::Scalar(number);
            break;
        }
        parse_expectation(&mut eval, line).map_err(|what| (taken, what))?;
    }
    Ok((Action::Eval(Box::new(eval)), taken))
}

/// The first word, and what follows it without leading blanks.
fn word(text: &str) -> (&str, &str) {
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

fn keyword<'a>(text: &'a str, expected: &str) -> Result<&'a str, String> {
    let (found, rest) = word(text);
    if found == expected { Ok(rest) } else { Err(format!("expected {expected:?}, not {found:?}")) }
}

fn duration(text: &str) -> Result<(i64, &str), String> {
    let (found, rest) = word(text);
    Ok((parse_duration(found).ok_or_else(|| format!("bad duration {found:?}"))?, rest))
}

fn parse_instant(text: &str) -> Result<(When, &str), String> {
    let (at, expr) = duration(keyword(text, "at")?)?;
    Ok((When::Instant(at), expr))
}

fn parse_steps(text: &str) -> Result<(Steps, &str), String> {
    let (start, rest) = duration(keyword(text, "from")?)?;
    let (end, rest) = duration(keyword(rest, "to")?)?;
    let (step, rest) = duration(keyword(rest, "step")?)?;
    if step == 0 || end < start {
        return Err("steps that lead nowhere".into());
    }
    Ok((Steps { start, end, step }, rest))
}

fn parse_expectation(eval: &mut Eval, line: &str) -> Result<(), String> {
    let instant = matches!(eval.when, When::Instant(_));
    let (first, rest) = word(line);
    match first {
        "expect" => {}
        "expected_fail_message" => {
            eval.fail = Some(TextMatch::Message(rest.to_owned()));
            return Ok(());
        }
        "expected_fail_regexp" => {
            eval.fail = Some(regex(rest)?);
            return Ok(());
        }
        _ => {
            let (labels, items) = parse_series(line)?;
            match &mut eval.expected {
                Expected::Series(series) => series.push((labels, items)),
                _ => return Err("a series beside a scalar or string".into()),
            }
            return check_length(eval);
        }
    }
    let (kind, rest) = word(rest);
    match kind {
        "fail" if eval.fail.is_some() => return Err("a second `expect fail`".into()),
        "fail" => eval.fail = Some(text_match(rest)?),
        "warn" => eval.warn.push(text_match(rest)?),
        "info" => eval.info.push(text_match(rest)?),
        "no_warn" => eval.no_warn = true,
        "no_info" => eval.no_info = true,
        "ordered" if instant => eval.ordered = true,
        "range" if instant => {
            let (steps, end) = parse_steps(keyword(rest, "vector")?)?;
            if !end.is_empty() {
                return Err(format!("unexpected {end:?}"));
            }
            eval.range_vector = Some(steps);
        }
        "string" if instant => eval.expected = Expected::String(unquote(rest)?),
        _ => return Err(format!("unknown expectation {kind:?}")),
    }
    Ok(())
}

fn check_length(eval: &Eval) -> Result<(), String> {
    let Expected::Series(series) = &eval.expected else { return Ok(()) };
    let Some((labels, items)) = series.last() else { return Ok(()) };
    let most = match (eval.when, eval.range_vector) {
        (_, Some(steps)) | (When::Range(steps), None) => (steps.end - steps.start) / steps.step + 1,
        (When::Instant(_), None) if items.len() != 1 => return Err(format!("{labels} needs one value")),
        (When::Instant(_), None) => 1,
    };
    if items.len() as i64 > most {
        return Err(format!("{labels} has {} values for {most} steps", items.len()));
    }
    Ok(())
}

fn text_match(text: &str) -> Result<TextMatch, String> {
    if text.is_empty() {
        return Ok(TextMatch::Any);
    }
    if let Some(message) = text.strip_prefix("msg:") {
        return Ok(TextMatch::Message(message.trim().to_owned()));
    }
    regex(text.strip_prefix("regex:").ok_or_else(|| format!("expected msg: or regex:, not {text:?}"))?.trim())
}

fn regex(text: &str) -> Result<TextMatch, String> {
    Ok(TextMatch::Regex(Regex::new(text).map_err(|e| e.to_string())?))
}

impl Load {
    /// Samples in it.
    pub fn samples(&self) -> usize {
        self.series.iter().map(|(_, samples)| samples.len()).sum()
    }

    /// The names of the metrics that have a histogram sample.
    pub fn native_metrics(&self) -> impl Iterator<Item = &Labels> {
        let is_native = |samples: &Samples| samples.iter().any(|sample| matches!(sample.v, Value::Histogram(_)));
        self.series.iter().filter(move |(_, samples)| is_native(samples)).map(|(labels, _)| labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = r#"
load 5m
  m{a="1"} 0+10x2
  m@st -1m -1mx1
  m 1 _ 3

# a comment
eval instant at 5m m > 1
  expect no_warn
  expect ordered
  m{a="1"} 10

eval range from 0 to 10m step 5m sum(m)
  expect warn msg: PromQL warning: x (1:1)
  {} 1 10 23

eval instant at 1m 1 + 1
  2
clear
eval_fail instant at 0 ceil({
  expected_fail_message no

eval instant at 0 "Foo"
  expect string `Foo`
"#;

    #[test]
    fn commands_are_read() {
        let script = parse("x.test", SCRIPT).unwrap();
        let lines: Vec<usize> = script.commands.iter().map(|c| c.line).collect();
        assert_eq!(lines, [2, 8, 13, 17, 19, 20, 23]);
        let Action::Load(load) = &script.commands[0].action else { panic!() };
        assert_eq!((load.series.len(), load.samples()), (2, 5));
        let Action::Eval(eval) = &script.commands[1].action else { panic!() };
        assert_eq!((eval.expr.as_str(), eval.ordered, eval.no_warn), ("m > 1", true, true));
    }

    #[test]
    fn bad_scripts_are_refused_with_their_line() {
        for (text, line) in [
            ("foo", 1),
            ("\nload 5x", 2),
            ("load 5m\n m{ 1", 2),
            ("load 5m\n m 1+1", 2),
            ("eval instant at 0 m\n m 1 2", 2),
            ("eval range from 0 to 1m step 1m m\n m 1 2 3", 2),
            ("eval instant at 0 m\n expect nothing", 2),
        ] {
            assert_eq!(parse("x", text).unwrap_err().line, line, "{text}");
        }
    }
}
