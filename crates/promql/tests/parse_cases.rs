//! What Prometheus's own parser says of some hundred expressions, beside what ours says.

#![allow(clippy::disallowed_methods, reason = "the cases are files outside the repository")]

use std::fs::read_to_string;
use std::path::Path;

use promql::{ParseError, parse, parse_labels};
use serde_json::Value;

/// The cases of a file of `shared/conformance`, which lies beside the repository or a folder that it is in; None, with
/// a line that says so, if it is not there.
fn cases(file: &str) -> Option<Vec<Value>> {
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let text =
        folders.map(|folder| folder.join("shared/conformance").join(file)).find_map(|path| read_to_string(path).ok());
    let Some(text) = text else {
        eprintln!("SKIPPED: shared/conformance/{file} is not there; put the conformance folder beside the repository");
        return None;
    };
    let document: Value = serde_json::from_str(&text).expect("the file is JSON");
    Some(document["cases"].as_array().expect("the file has a list of cases").clone())
}

/// Whether the case has bytes that are no UTF-8, which the type of `parse` refuses.
fn is_not_utf8(case: &Value) -> bool {
    case.get("expr_b64").is_some()
}

/// What differs between the case and us.
fn difference(case: &Value) -> Option<String> {
    let text = case["expr"].as_str().expect("a case has an expression");
    let start: String = text.chars().take(80).collect();
    match (parse(text), case["ok"].as_bool() == Some(true)) {
        (Err(_), false) => None,
        (Ok(_), false) if is_not_utf8(case) => None,
        (Ok(expr), false) => Some(format!("{start}: parsed as {expr}, but should fail: {}", case["errors"])),
        (Err(error), true) => Some(format!("{start}: {error}")),
        (Ok(expr), true) => {
            let found = [expr.to_string(), expr.pretty(), expr.value_type().as_str().to_owned()];
            let expected = [&case["string"], &case["pretty"], &case["type"]];
            let same = found.iter().zip(expected).all(|(found, expected)| expected == found);
            (!same).then(|| format!("{start}: {found:?} instead of {expected:?}"))
        }
    }
}

#[test]
fn parse_cases_agree() {
    let Some(cases) = cases("parse_cases.json") else { return };
    let differences: Vec<_> = cases.iter().filter_map(difference).collect();
    eprintln!("parse cases: {}/{} agree", cases.len() - differences.len(), cases.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Texts of errors may differ, but should not without need: this holds how many are the same.
#[test]
fn most_error_texts_are_prometheuss() {
    let Some(cases) = cases("parse_cases.json") else { return };
    let failing: Vec<_> = cases.iter().filter(|case| case["ok"] == false && !is_not_utf8(case)).collect();
    let text_of =
        |case: &Value| parse(case["expr"].as_str().unwrap_or_default()).map_err(|e: ParseError| e.to_string());
    let mut same = 0;
    for case in &failing {
        match text_of(case) {
            Err(text) if case["errors"][0] == text.as_str() => same += 1,
            other => eprintln!("{:.100}\n  ours:   {other:.200?}\n  theirs: {:.200}", case["expr"], case["errors"][0]),
        }
    }
    eprintln!("error texts: {same}/{} are the same", failing.len());
    assert!(same * 10 >= failing.len() * 9);
}

#[test]
fn format_cases_agree() {
    let Some(cases) = cases("format_cases.json") else { return };
    let mut differences = Vec::new();
    for case in &cases {
        let text = case["expr"].as_str().expect("a case has an expression");
        // Their prettifier is tested with lines of ten bytes; the cases don't say so.
        match parse(text) {
            Ok(expr) if case["string"] == expr.to_string() && case["pretty"] == expr.pretty_within(10) => {}
            Ok(expr) => differences.push(format!("{text}:\n{expr}\n{}", expr.pretty_within(10))),
            Err(error) => differences.push(format!("{text}: {error}")),
        }
    }
    eprintln!("format cases: {}/{} agree", cases.len() - differences.len(), cases.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn label_sets_of_series_descriptions_agree() {
    let Some(cases) = cases("series_desc_cases.json") else { return };
    for case in cases.iter().filter(|case| case["ok"] == true) {
        let text = case["input"].as_str().expect("a case has an input");
        let (labels, _) = parse_labels(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let found: Value = labels.iter().map(|(name, value)| (name, Value::from(value))).collect();
        assert_eq!(found, case["labels"], "{text}");
    }
}
