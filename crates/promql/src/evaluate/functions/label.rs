//! `label_replace` and `label_join`: they look at labels only, whatever the samples are.

use model::{LabelsBuilder, METRIC_NAME, Pattern};

use super::super::Evaluator;
use super::super::error::EvalError;
use super::super::matrix::Matrix;
use super::super::plan::{CallNode, Node};
use super::super::steps::Steps;

/// How many numbers could be worked on in the time that a label set takes; for the checks of the time that is left.
const CELLS_PER_LABEL_SET: usize = 200;

impl<'a> Evaluator<'a> {
    /// `label_replace(v, destination, replacement, source, regex)`
    pub(super) fn label_replace(&self, call: &CallNode, steps: Steps) -> Result<Matrix<'a>, EvalError> {
        let [destination, replacement, source, regex] = [1, 2, 3, 4].map(|i| text(call, i));
        let pattern = Pattern::new(regex)
            .map_err(|_| EvalError::Execution(format!("invalid regular expression in label_replace(): {regex}")))?;
        check_name(destination, "destination label name in label_replace()")?;
        let template = Template::parse(replacement);
        let mut matrix = self.vector(&call.args[0].node, steps)?;
        for row in &mut matrix.rows {
            self.account.work(CELLS_PER_LABEL_SET)?;
            let value = row.labels.get(source).unwrap_or("");
            let Some(captures) = pattern.regex().captures(value) else { continue };
            let replaced = template.expand(&captures);
            set_label(row, destination, &replaced);
        }
        matrix.merge_same_labels()?;
        Ok(matrix)
    }

    /// `label_join(v, destination, separator, source, …)`
    pub(super) fn label_join(&self, call: &CallNode, steps: Steps) -> Result<Matrix<'a>, EvalError> {
        let (destination, separator) = (text(call, 1), text(call, 2));
        let sources: Vec<&str> = (3..call.args.len()).map(|i| text(call, i)).collect();
        for source in &sources {
            check_name(source, "source label name in label_join()")?;
        }
        check_name(destination, "destination label name in label_join()")?;
        let mut matrix = self.vector(&call.args[0].node, steps)?;
        for row in &mut matrix.rows {
            self.account.work(CELLS_PER_LABEL_SET)?;
            let values: Vec<&str> = sources.iter().map(|source| row.labels.get(source).unwrap_or("")).collect();
            let joined = values.join(separator);
            set_label(row, destination, &joined);
        }
        matrix.merge_same_labels()?;
        Ok(matrix)
    }
}

fn set_label(row: &mut super::super::matrix::Row, name: &str, value: &str) {
    row.labels = LabelsBuilder::from_labels(&row.labels).set(name, value).build();
    if name == METRIC_NAME {
        // The name was given on purpose.
        row.drop_name = false;
    }
}

fn text(call: &CallNode, i: usize) -> &str {
    match call.args.get(i).map(|arg| &arg.node) {
        Some(Node::Text(text)) => text,
        _ => "",
    }
}

fn check_name(name: &str, what: &str) -> Result<(), EvalError> {
    if is_label_name(name) { Ok(()) } else { Err(EvalError::Execution(format!("invalid {what}: {name}"))) }
}

/// Any UTF-8 is a label's name, but for none at all. What was not UTF-8 in the query has become U+FFFD.
pub(in super::super) fn is_label_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(char::REPLACEMENT_CHARACTER)
}

/// A replacement text, cut up at `$1`, `${1}`, `$name`, `${name}` and `$$` as Go's regexp does.
struct Template<'t> {
    parts: Vec<Part<'t>>,
}

enum Part<'t> {
    Literal(&'t str),
    Number(usize),
    Name(&'t str),
}

impl<'t> Template<'t> {
    fn parse(mut text: &'t str) -> Template<'t> {
        let mut parts = Vec::new();
        while let Some(dollar) = text.find('$') {
            parts.push(Part::Literal(&text[..dollar]));
            let after = &text[dollar + 1..];
            if let Some(rest) = after.strip_prefix('$') {
                parts.push(Part::Literal("$"));
                text = rest;
            } else if let Some((name, rest)) = split_name(after) {
                parts.push(match name.parse() {
                    Ok(number) if name.bytes().all(|b| b.is_ascii_digit()) => Part::Number(number),
                    _ => Part::Name(name),
                });
                text = rest;
            } else {
                parts.push(Part::Literal("$"));
                text = after;
            }
        }
        parts.push(Part::Literal(text));
        Template { parts }
    }

    /// A group that does not exist, or took no part in the match, stands for nothing.
    fn expand(&self, captures: &regex::Captures<'_>) -> String {
        let of_part = |part: &Part<'t>| match part {
            Part::Literal(text) => (*text).to_owned(),
            Part::Number(number) => captures.get(*number).map_or(String::new(), |group| group.as_str().to_owned()),
            Part::Name(name) => captures.name(name).map_or(String::new(), |group| group.as_str().to_owned()),
        };
        self.parts.iter().map(of_part).collect()
    }
}

/// The group's name that a text begins with, in braces or as long as it goes, and what follows.
fn split_name(text: &str) -> Option<(&str, &str)> {
    let is_part = |c: char| c == '_' || c.is_alphanumeric();
    let (name, rest) = match text.strip_prefix('{') {
        Some(inner) => inner.split_once('}')?,
        None => text.split_at(text.find(|c| !is_part(c)).unwrap_or(text.len())),
    };
    (!name.is_empty() && name.chars().all(is_part)).then_some((name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_expanded_as_go_does() {
        let check = |template: &str, expected: &str| {
            let pattern = Pattern::new("(?P<first>.*)-(.*)").unwrap();
            let captures = pattern.regex().captures("a-b").unwrap();
            assert_eq!(Template::parse(template).expand(&captures), expected, "{template}");
        };
        check("$2:$1", "b:a");
        check("${1}x$first", "axa");
        check("$1x", "");
        check("$$1 $3 $", "$1  $");
        check("${1", "${1");
    }
}
