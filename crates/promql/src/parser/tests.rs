//! Tests of the parser, the type checker and the printer together.
//!
//! Prometheus's own cases are run by `tests/parse_cases.rs`; here is what they leave out.

use proptest::prelude::*;

use super::*;
use crate::ValueType;
use crate::ast::{Cardinality, VectorMatching};
use crate::format_duration;

/// `text` parses, and this is its canonical form, which parses to the same again.
#[track_caller]
fn check(text: &str, canonical: &str) {
    let expr = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(expr.to_string(), canonical);
    let again = parse(canonical).unwrap_or_else(|error| panic!("{canonical}: {error}"));
    assert_eq!(again.to_string(), canonical);
    assert_eq!(without_positions(&again), without_positions(&expr));
}

#[track_caller]
fn check_error(text: &str, message: &str) {
    match parse(text) {
        Ok(expr) => panic!("{text} is parsed as {expr}"),
        Err(error) => assert_eq!(error.to_string(), message),
    }
}

/// The tree as a text, but for the places, which differ between a text and its canonical form.
fn without_positions(expr: &Expr) -> String {
    let debug = format!("{expr:?}");
    let mut parts = debug.split("PositionRange { ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(part.split_once('}').map_or(part, |(_, rest)| rest));
    }
    out
}

/// What of `text` a part of its tree was written in.
fn written(text: &str, position: PositionRange) -> &str {
    &text[position.start as usize..position.end as usize]
}

#[test]
fn operators_bind_as_in_prometheus() {
    // What binds first is put in parentheses by hand, as the canonical form doesn't show it.
    let tree = |text: &str| without_positions(&unparenthesized(parse(text).unwrap()));
    let same = |text: &str, explicit: &str| assert_eq!(tree(text), tree(explicit), "{text}");
    same("a or b and c", "a or (b and c)");
    same("a or b or c", "(a or b) or c");
    same("a and b == c", "a and (b == c)");
    same("a == b + c", "a == (b + c)");
    same("a - b - c", "(a - b) - c");
    same("a + b atan2 c", "a + (b atan2 c)");
    same("a * b ^ c", "a * (b ^ c)");
    same("a ^ b ^ c", "a ^ (b ^ c)");
    same("-a ^ b", "-(a ^ b)");
    same("-a * b", "(-a) * b");
    same("a ^ -b * c", "(a ^ (-b)) * c");
    same("a ^ -b ^ c", "a ^ (-(b ^ c))");
    same("a </ b >/ c", "(a </ b) >/ c");
    same("a + b offset 5m", "a + (b offset 5m)");
    same("-a @ 1", "-(a @ 1)");
    same("a offset -2 ^ 2", "(a offset -2) ^ 2");
    same("a offset step() + b", "(a offset step()) + b");
}

/// The tree without parentheses: how it is computed.
fn unparenthesized(expr: Expr) -> Expr {
    match expr {
        Expr::Paren(paren) => unparenthesized(paren.expr),
        Expr::Unary(unary) => Expr::Unary(Box::new(Unary { expr: unparenthesized(unary.expr), ..*unary })),
        Expr::Binary(binary) => {
            let (lhs, rhs) = (unparenthesized(binary.lhs), unparenthesized(binary.rhs));
            Expr::Binary(Box::new(Binary { lhs, rhs, ..*binary }))
        }
        expr => expr,
    }
}

#[test]
fn words_are_names_where_they_have_no_meaning() {
    for name in ["sum", "by", "without", "and", "or", "unless", "offset", "start", "step", "max_of", "fill", "anchored"]
    {
        check(name, name);
        check(&format!("{name} + {name}"), &format!("{name} + {name}"));
        check(&format!(r#"{name}{{{name}="x"}}"#), &format!(r#"{name}{{{name}="x"}}"#));
    }
    for name in ["on", "ignoring", "bool", "group_left", "atan2", "inf", "nan"] {
        assert!(parse(&format!("{name}{{}}")).is_err(), "{name}");
        check(&format!(r#"a{{{name}="x"}}"#), &format!(r#"a{{{name}="x"}}"#));
    }
    check(
        "sum by (on, bool, group_left, atan2, fill, a:b) (x)",
        r#"sum by (on, bool, group_left, atan2, fill, "a:b") (x)"#,
    );
    check_error("sum by (without) (x)", "1:9: parse error: unexpected <without> in grouping opts, expected label");
    check("SUM BY (a) (RATE)", "sum by (a) (RATE)");
    check_error("RATE(x[5m])", r#"1:1: parse error: unknown function with name "RATE""#);
}

#[test]
fn modifiers_come_in_any_order() {
    let canonical = "a[5m] anchored @ end() offset 1m";
    for text in [
        "a[5m] anchored @ end() offset 1m",
        "a[5m] @ end() anchored offset 1m",
        "a[5m] offset 1m @ end() anchored",
        "a anchored [5m] offset 60 @ end()",
    ] {
        check(text, canonical);
    }
    check("a @ 1 smoothed offset -1m", "a @ 1.000 smoothed offset -1m");
    check("a[1h:5m] offset 1m @ start()", "a[1h:5m] @ start() offset 1m");
    check("a offset 0 offset 5m", "a offset 5m");
    check_error("a anchored smoothed", "1:1: parse error: anchored and smoothed modifiers cannot be used together");
    check_error("a[5m:] anchored", "1:1: parse error: anchored modifier is not supported for subqueries");
    check_error("a @ 1 @ 2", "1:1: parse error: @ <timestamp> may not be set multiple times");
    check_error("sum(a) smoothed", "1:1: parse error: smoothed modifier not implemented");
}

#[test]
fn operators_take_their_modifiers() {
    check("a==bool on(x,)group_left b", "a == bool on (x) group_left () b");
    check("a / ignoring() b", "a / b");
    check(
        "a / on() group_right(y,z) fill_right(2) fill_left(-1e30) b",
        "a / on () group_right (y, z) fill_left (-1e+30) fill_right (2) b",
    );
    check("a + fill(1m) b", "a + fill (60) b");
    check_error("a + fill_left(1) fill_left(2) b", "1:27: parse error: unexpected \"(\"");
    check_error("a and fill(1) b", "1:1: parse error: filling in missing series not allowed for set operators");
    check_error("a + fill(1) 2", "1:1: parse error: filling in missing series only allowed between instant vectors");
    check_error(r#"a + on("") b"#, r#"1:8: parse error: invalid label name for grouping: """#);
}

#[test]
fn matching_is_there_between_vectors_only() {
    let matching = |text: &str| match parse(text).unwrap() {
        Expr::Binary(binary) => binary.matching,
        other => panic!("{other} is no operation"),
    };
    let cardinality = |text: &str| matching(text).map(|VectorMatching { cardinality, .. }| cardinality);
    assert_eq!(cardinality("a + b"), Some(Cardinality::OneToOne));
    assert_eq!(cardinality("a and on(x) b"), Some(Cardinality::ManyToMany));
    assert_eq!(cardinality("a * on(x) group_right b"), Some(Cardinality::OneToMany));
    assert_eq!(cardinality("a + 1"), None);
    assert_eq!(cardinality("1 + 1"), None);
}

#[test]
fn durations_are_calculated_with() {
    check("a[5m:step()]", "a[5m:step()]");
    check("a[step():]", "a[step():]");
    check("a[((5m))]", "a[(5m)]");
    check("a[MAX_OF(1, step ( ))]", "a[max_of(1, step())]");
    check("a[1+2*3^2^-1]", "a[1 + 2 * 3 ^ 2 ^ -1]");
    check("a offset --5m", "a offset 5m");
    check("a offset -+step()", "a offset -step()");
    check("a[5m:1e-9]", "a[5m:]");
    check("a[0.0015]", "a[1ms]");
    check_error("a[1/0]", "1:4: parse error: division by zero");
}

#[test]
fn an_offset_ends_where_prometheus_ends_it() {
    let type_and_offset = |text: &str| match parse(text).unwrap() {
        Expr::Vector(selector) => format!("all: {}", selector.offset.unwrap()),
        Expr::Binary(binary) => format!("{} of {}", binary.op.as_str(), binary.lhs),
        other => panic!("{other}"),
    };
    let check = |text: &str, found: &str| assert_eq!(type_and_offset(text), found, "{text}");
    check("a offset 5m + 3", "+ of a offset 5m");
    check("a offset -step() ^ 3", "^ of a offset -step()");
    check("a offset min_of(1, 2) * 3", "* of a offset min_of(1, 2)");
    check("a offset -(5m) + 3", "+ of a offset -(5m)");
    check("a offset (5m) + 3", "all: (5m) + 3");
    check("a offset --5m ^ 2 + 3", "all: --5m ^ 2 + 3");
    assert!(parse("a offset (5m) + b").is_err());
    assert!(parse("a offset NaN").is_err());
}

#[test]
fn texts_may_hold_any_bytes_but_labels_only_utf8() {
    check(r#"label_replace(a, "x\xff", "", "", "")"#, r#"label_replace(a, "x\xff", "", "", "")"#);
    let Expr::String(literal) = parse(r#""\xff""#).unwrap() else { panic!("not a string") };
    assert_eq!((literal.value.as_str(), literal.raw.as_deref()), ("\u{fffd}", Some(&b"\xff"[..])));
    check_error(r#"a{x="\xff"}"#, "1:5: parse error: a label's name or value is not UTF-8");
    check_error("a{x=\"\u{fffd}\"}", "1:5: parse error: invalid UTF-8 rune");
}

#[test]
fn errors_name_line_and_column() {
    check_error(
        "sum(\n  a,\n  b{x}\n)",
        "3:6: parse error: unexpected \"}\" in label matching, expected label matching operator",
    );
    check_error("# é\n?", "2:1: parse error: unexpected character: '?'");
    check_error(" ", "1:1: parse error: no expression found in input");
    check_error(
        r#"a{x=~"("}"#,
        &format!("1:3: parse error: {}", Matcher::new("x", model::MatchOp::Regex, "(").unwrap_err()),
    );
}

#[test]
fn errors_say_what_was_expected() {
    check_error("sum(a b)", r#"1:7: parse error: unexpected identifier "b" in aggregation"#);
    check_error("abs(a b)", r#"1:7: parse error: unexpected identifier "b""#);
    let a_duration = "number, duration, step(), or range()";
    let in_range = format!("in subquery or range selector, expected {a_duration}");
    check_error("a[min_of(1)]", &format!(r#"1:11: parse error: unexpected ")" {in_range}"#));
    check_error(
        "sum(a[1m:*])",
        r#"1:10: parse error: unexpected <op:*> in subquery selector, expected number, duration, step(), range(), or "]""#,
    );
    check_error(
        "a offset b",
        &format!(r#"1:10: parse error: unexpected identifier "b" in offset, expected {a_duration}"#),
    );
    check_error("a[1m] b", r#"1:7: parse error: unexpected identifier "b""#);
}

#[test]
fn every_part_knows_where_it_was_written() {
    let text = " max_over_time (\n(-rate(a{b='c'}[5m] @ start() offset -1m))[1h:]) + 0x1F ";
    let Expr::Binary(binary) = parse(text).unwrap() else { panic!("not an operation") };
    assert_eq!(written(text, binary.position), text.trim());
    assert_eq!(written(text, binary.rhs.position()), "0x1F");
    let text = "-rate(a{b='c'}[5m] @ start() offset -1m) ";
    let Expr::Unary(unary) = parse(text).unwrap() else { panic!("not a sign") };
    assert_eq!(written(text, unary.position), text.trim());
    let Expr::Call(call) = &unary.expr else { panic!("not a call") };
    assert_eq!(written(text, call.position), &text.trim()[1..]);
    let Expr::Matrix(matrix) = &call.args[0] else { panic!("not a range") };
    assert_eq!(written(text, matrix.position), "a{b='c'}[5m] @ start() offset -1m");
    assert_eq!(written(text, matrix.selector.position), "a{b='c'}");
}

#[test]
fn matchers_are_parsed_alone() {
    let texts = |text| parse_matchers(text).map(|all| all.iter().map(|m| m.to_string()).collect::<Vec<_>>());
    assert_eq!(texts(r#" up{job!="a"} "#).unwrap(), [r#"job!="a""#, r#"__name__="up""#]);
    assert_eq!(texts(r#"{"my.metric"}"#).unwrap(), [r#"__name__="my.metric""#]);
    for bad in ["", "up[5m]", "up offset 5m", "sum(up)", "1", "up up"] {
        assert!(texts(bad).is_err(), "{bad}");
    }
}

#[test]
fn label_sets_are_parsed_and_the_rest_is_left() {
    let check = |text, labels: &str, rest: &str| {
        let (found, found_rest) = parse_labels(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((found.to_string().as_str(), found_rest), (labels, rest));
    };
    check("", "{}", "");
    check("up 1 2 3", "up", " 1 2 3");
    check(r#"up{job="a", b='c',} {{count:1}}"#, r#"up{b="c", job="a"}"#, " {{count:1}}");
    check("up {{count:1}}x2", "up", " {{count:1}}x2");
    check(r#" {"my.metric", "x y"="z"}@st 0"#, r#"{__name__="my.metric", "x y"="z"}"#, "@st 0");
    check("sum{} _ 1+2x3", "sum", " _ 1+2x3");
    check(r#"{} 5"#, "{}", " 5");
    for bad in ["up{a}", "up{a!='b'}", "up{a='b', a='c'}", "1", "up{", "up{__name__='x'}", "up{='x'}"] {
        assert!(parse_labels(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_is_too_long_or_too_deep_is_refused() {
    let too_deep = |text: String| {
        let message = parse(&text).unwrap_err().message;
        assert!(message.starts_with("more than 256") || message.starts_with("nested more than 128"), "{message}");
    };
    let many = 100_000;
    too_deep(format!("{}1{}", "(".repeat(many), ")".repeat(many)));
    too_deep("-".repeat(many) + "a");
    too_deep("a^".repeat(many) + "a");
    too_deep("a+".repeat(many) + "a");
    too_deep("abs(".repeat(many));
    too_deep("sum by (x) (".repeat(many / 10));
    too_deep(format!("a{}", "[1m:]".repeat(many)));
    too_deep(format!("a[{}1{}]", "(".repeat(many), ")".repeat(many)));
    too_deep(format!("a[{}1]", "1+".repeat(many)));
    too_deep(format!("a[{}1]", "-".repeat(many)));
    too_deep(format!("a offset {}1", "-".repeat(many)));
    too_deep(format!("a[{}", "min_of(1,".repeat(many)));
    assert!(parse(&"a".repeat(TEXT_BYTES_MAX + 1)).is_err());
    assert!(parse(&r#"a{b=~"c"}+"#.repeat(REGEXES_MAX / 2)).is_err());
}

/// The stack of a test's thread has 2 MiB, and without optimization frames are at their largest.
#[test]
fn the_highest_trees_are_walked_on_an_ordinary_stack() {
    let (nested, chained) = (NESTING_MAX as usize - 2, HEIGHT_MAX as usize - 2);
    for text in [
        format!("{}a{}", "(".repeat(nested), ")".repeat(nested)),
        format!("{}a{}", "abs(".repeat(nested), ")".repeat(nested)),
        format!("{}a{}", "topk by (x) (1,".repeat(nested), ")".repeat(nested)),
        format!("{}a", "-".repeat(nested)),
        format!("{}a", "a^".repeat(nested)),
        format!("{}a", "a+".repeat(chained)),
        format!("{}{}a{}", "a+".repeat(chained / 2), "(".repeat(nested), ")".repeat(nested)),
        format!("a[{}1{}]", "min_of(1,".repeat(nested), ")".repeat(nested)),
        format!("a[{}1]", "1^".repeat(nested)),
        format!("a[{}1]", "1+".repeat(chained)),
    ] {
        let expr = parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(parse(&expr.to_string()).as_ref().map(without_positions), Ok(without_positions(&expr)));
        assert_eq!(expr.clone(), expr);
        assert!(!expr.pretty().is_empty());
        assert_ne!(expr.value_type(), ValueType::String);
    }
}

/// Texts made of PromQL's words, half of them nonsense.
fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "a",
        "b:c",
        "sum",
        "rate",
        "step",
        "start",
        "fill",
        "offset",
        "on",
        "ignoring",
        "group_left",
        "by",
        "without",
        "bool",
        "and",
        "or",
        "unless",
        "atan2",
        "anchored",
        "smoothed",
        "min_of",
        "topk",
        "inf",
        "NaN",
        "5m",
        "1h30m",
        "1.5",
        "0x1f",
        "1e3",
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "=",
        "==",
        "!=",
        "=~",
        "!~",
        "<",
        ">=",
        "</",
        "+",
        "-",
        "*",
        "/",
        "%",
        "^",
        "@",
        "\"x\"",
        "'y'",
        "`z`",
        "\"\\xff\"",
        "#",
        "\n",
        "é",
        "_",
        "1__0",
        "!",
    ]);
    prop::collection::vec((word, prop::bool::ANY), 0..30).prop_map(|words| {
        words.iter().map(|(word, blank)| format!("{word}{}", if *blank { " " } else { "" })).collect()
    })
}

/// Durations in a selector, as texts.
fn a_duration() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (1..10_000_000_i64).prop_map(format_duration),
        (0.01..1e6).prop_map(|seconds| format!("{seconds}")),
        Just("step()".to_owned()),
        Just("range()".to_owned()),
    ];
    leaf.prop_recursive(3, 10, 2, |inner| {
        let op = prop::sample::select(vec!["+", "-", "*", "/", "%", "^"]);
        prop_oneof![
            (inner.clone(), op, inner.clone()).prop_map(|(a, op, b)| format!("{a}{op}{b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("max_of({a},{b})")),
            inner.clone().prop_map(|a| format!("({a})")),
            inner.prop_map(|a| format!("-({a})")),
        ]
    })
}

/// Selectors of an instant vector, as texts.
fn selector() -> impl Strategy<Value = String> {
    // In the order of the canonical form, so that the tree stays the same.
    let labels = prop::sample::subsequence(vec!["\"é ü\"", "a", "on"], 0..=3);
    let value = prop::sample::select(vec!["\"\"", "'x'", "`\\d+`", "\"\\n\\u00e9\"", "\"a|b\""]);
    let op = prop::sample::select(vec!["=", "!=", "=~", "!~"]);
    let conditions = prop::collection::vec((op, value), 3);
    let modifier = prop_oneof![
        Just(String::new()),
        a_duration().prop_map(|duration| format!(" offset ({duration})")),
        (-1_000_000..1_000_000_i64).prop_map(|ms| format!(" @ {}", ms as f64 / 1000.0)),
        Just(" @ end() offset -3".to_owned()),
        Just(" smoothed".to_owned()),
    ];
    let name = prop::sample::select(vec!["up", "a:b", "sum", "offset"]);
    (name, labels, conditions, modifier).prop_map(|(name, labels, conditions, modifier)| {
        let matchers = labels.iter().zip(conditions).map(|(label, (op, value))| format!("{label}{op}{value}"));
        format!("{name}{{{}}}{modifier}", matchers.collect::<Vec<_>>().join(","))
    })
}

/// Instant vectors, as texts.
fn vector() -> impl Strategy<Value = String> {
    selector().prop_recursive(4, 24, 3, |inner| {
        let op = prop::sample::select(vec![
            "+",
            "-",
            "*",
            "/",
            "%",
            "^",
            "atan2",
            "==",
            "!= bool",
            ">",
            "<= bool",
            "</",
            "and",
            "or on (x)",
            "unless",
            "* on (a, b) group_left (c)",
            "/ ignoring (a) group_right",
            "+ fill (-1.5)",
            "- fill_left (1e99)",
        ]);
        // Without infinity: of `Inf ^ 1` the canonical form is `+Inf ^ 1`, and of that `++Inf ^ 1`. So it is in Prometheus.
        let number = prop::sample::select(vec!["1", "-0.5", "1e-9", "5m", "NaN", "time()", "(1 + 2)"]);
        let arithmetic = prop::sample::select(vec!["+", "*", "^", "> bool", "=="]);
        let by = prop::sample::select(vec!["", " by (x)", " without (\"é\", y)", " by ()"]);
        prop_oneof![
            (inner.clone(), op, inner.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            (inner.clone(), arithmetic, number).prop_map(|(a, op, n)| format!("{a} {op} {n}")),
            inner.clone().prop_map(|a| format!("({a})")),
            inner.clone().prop_map(|a| format!("-{a}")),
            (by, inner.clone()).prop_map(|(by, a)| format!("sum{by}({a})")),
            inner.clone().prop_map(|a| format!("topk(3, {a})")),
            inner.clone().prop_map(|a| format!("label_replace({a}, \"x\", '$1', `y`, \"\\xff\")")),
            (inner.clone(), a_duration()).prop_map(|(a, range)| format!("rate(({a})[{range}:])")),
            (inner, a_duration()).prop_map(|(a, step)| format!("max_over_time(({a})[1h:{step}] @ start())")),
        ]
    })
}

proptest! {
    #[test]
    fn printing_and_parsing_gives_the_same_tree(text in vector()) {
        let Ok(expr) = parse(&text) else { return Err(TestCaseError::reject("a literal out of range")) };
        let canonical = expr.to_string();
        let again = parse(&canonical).map_err(|error| TestCaseError::fail(format!("{canonical}: {error}")))?;
        prop_assert_eq!(again.to_string(), canonical);
        prop_assert_eq!(without_positions(&again), without_positions(&expr));
        let pretty = parse(&expr.pretty_within(20)).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(without_positions(&pretty), without_positions(&expr));
    }

    #[test]
    fn any_text_is_a_tree_or_an_error(text in any::<String>()) {
        let _ = (parse(&text), parse_matchers(&text), parse_labels(&text)); // Only that it returns.
    }

    #[test]
    fn any_words_are_a_tree_or_an_error(text in words()) {
        if let Ok(expr) = parse(&text) {
            prop_assert!(parse(&expr.to_string()).is_ok(), "{}", expr);
        }
        let _ = (parse_matchers(&text), parse_labels(&text)); // Only that they return.
    }
}
