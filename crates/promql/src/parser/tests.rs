//! Tests of the parser, the type checker and the printer together.

use super::*;

#[track_caller]
fn check_same(text: &str) {
    check(text, text);
}

/// The canonical form of `text`, which must be its own canonical form.
#[track_caller]
fn check(text: &str, canonical: &str) {
    let expr = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(expr.to_string(), canonical);
    let again = parse(canonical).unwrap_or_else(|error| panic!("{canonical}: {error}"));
    assert_eq!(again.to_string(), canonical);
}

#[track_caller]
fn check_error(text: &str, message: &str) {
    match parse(text) {
        Ok(expr) => panic!("{text} is parsed as {expr}"),
        Err(error) => assert_eq!(error.to_string(), message),
    }
}

#[test]
fn smoke() {
    check_same("foo");
}
