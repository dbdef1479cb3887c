//! Regular expressions as Prometheus has them: RE2's syntax, always matched against the whole value.
//!
//! Rust's `regex` is RE2's child but differs in small things; [`Pattern`] translates them: `\d \w \s \b` are ASCII,
//! `\Q…\E` quotes, `\C` and octal escapes are refused as Prometheus's Go does or taken in hexadecimal.
//! The engine is linear in time, and the compiled size is bounded.

use std::fmt;

/// A pattern that does not compile, or is too large. The text is shown to whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError(String);

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PatternError {}

/// Bytes that a compiled pattern may take: a hostile `{1000}{1000}` fails instead of filling memory.
const COMPILED_BYTES_MAX: usize = 4 << 20;

/// A compiled, anchored pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    regex: regex::Regex,
}

impl Pattern {
    /// Compiles `source`, RE2 syntax; `.` matches newlines, as Prometheus sets it.
    pub fn new(source: &str) -> Result<Pattern, PatternError> {
        // Checked alone first: a stray ")" must not close the group that anchors the whole.
        let translated = translate(source);
        regex_syntax::ast::parse::Parser::new().parse(&translated).map_err(|e| PatternError(e.to_string()))?;
        regex::RegexBuilder::new(&format!("^(?s:{translated})$"))
            .size_limit(COMPILED_BYTES_MAX)
            .build()
            .map(|regex| Pattern { regex })
            .map_err(|e| PatternError(e.to_string()))
    }

    /// Whether all of `value` matches.
    #[inline]
    pub fn matches(&self, value: &str) -> bool {
        self.regex.is_match(value)
    }

    /// The anchored pattern in the syntax of Rust's `regex`, for other automata.
    pub fn as_str(&self) -> &str {
        self.regex.as_str()
    }

    /// The regular expression itself, for captures (`label_replace`).
    pub fn regex(&self) -> &regex::Regex {
        &self.regex
    }
}

/// Rewrites what RE2 reads otherwise than Rust's `regex`; see the module.
fn translate(source: &str) -> String {
    let mut out = String::with_capacity(source.len() + 16);
    let mut chars = source.chars().peekable();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => translate_escape(&mut chars, in_class, &mut out),
            '[' if in_class => {
                // "[" inside a class is itself in RE2, but opens a nested class here; "[:alpha:]" is the same in both.
                if chars.peek() == Some(&':') {
                    out.push('[')
                } else {
                    out.push_str("\\[")
                }
                if chars.peek() == Some(&':') {
                    copy_posix_class(&mut chars, &mut out);
                }
            }
            '[' => {
                in_class = true;
                out.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                // A "]" that comes first is itself.
                if chars.next_if_eq(&']').is_some() {
                    out.push_str("\\]");
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            // Set operators of this engine are plain characters in RE2.
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            '-' if in_class && chars.peek() == Some(&'-') => out.push_str("\\-"),
            _ => out.push(c),
        }
    }
    out
}

fn translate_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, in_class: bool, out: &mut String) {
    let Some(c) = chars.next() else {
        out.push('\\');
        return;
    };
    match (c, in_class) {
        ('d', false) => out.push_str("[0-9]"),
        ('D', false) => out.push_str("[^0-9]"),
        ('w', false) => out.push_str("[0-9A-Za-z_]"),
        ('W', false) => out.push_str("[^0-9A-Za-z_]"),
        ('s', false) => out.push_str("[\\t\\n\\f\\r ]"),
        ('S', false) => out.push_str("[^\\t\\n\\f\\r ]"),
        ('d', true) => out.push_str("0-9"),
        ('w', true) => out.push_str("0-9A-Za-z_"),
        ('s', true) => out.push_str("\\t\\n\\f\\r "),
        ('D', true) => out.push_str("[^0-9]"),
        ('W', true) => out.push_str("[^0-9A-Za-z_]"),
        ('S', true) => out.push_str("[^\\t\\n\\f\\r ]"),
        ('b', false) => out.push_str("(?-u:\\b)"),
        ('B', false) => out.push_str("(?-u:\\B)"),
        ('Q', _) => {
            let mut quoted = String::new();
            while let Some(q) = chars.next() {
                if q == '\\' && chars.peek() == Some(&'E') {
                    chars.next();
                    break;
                }
                quoted.push(q);
            }
            out.push_str(&regex_syntax::escape(&quoted));
        }
        ('0'..='7', _) if c == '0' || chars.peek().is_some_and(|n| n.is_digit(8)) => {
            let mut code = c.to_digit(8).unwrap_or(0);
            for _ in 0..2 {
                let Some(digit) = chars.peek().and_then(|n| n.to_digit(8)) else { break };
                code = code * 8 + digit;
                chars.next();
            }
            out.push_str(&format!("\\x{{{code:x}}}"));
        }
        _ => {
            out.push('\\');
            out.push(c);
        }
    }
}

fn copy_posix_class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
    for c in chars.by_ref() {
        out.push(c);
        if c == ']' {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let compiled = Pattern::new(pattern).unwrap();
        for value in yes {
            assert!(compiled.matches(value), "{pattern} should match {value:?}");
        }
        for value in no {
            assert!(!compiled.matches(value), "{pattern} should not match {value:?}");
        }
    }

    #[test]
    fn whole_values_match() {
        check("a|bc", &["a", "bc"], &["abc", "xa", "a\n"]);
        check(".*", &["", "a\nb"], &[]);
        check("(?i)Foo", &["fOO"], &["bar"]);
        check("", &[""], &["a"]);
    }

    #[test]
    fn what_re2_reads_otherwise() {
        check(r"\d+", &["12"], &["١٢"]);
        check(r"\w", &["a", "_"], &["é"]);
        check(r"[\d-]+", &["1-2"], &["a"]);
        check(r"[^\W]", &["a"], &["-"]);
        check(r"\Qa.b\E+", &["a.b", "a.bb"], &["axb"]);
        check(r"\101", &["A"], &[]);
        check("[[a]+", &["[a"], &["]"]);
        check("[]a]+", &["]a"], &["b"]);
        check("[a&&b]+", &["a&b"], &["c"]);
        check("[[:digit:]]+", &["42"], &["x"]);
    }

    #[test]
    fn bad_patterns_are_refused() {
        for pattern in ["(", "a)", "a)(b", "[", "*", r"\1", "(?=a)", "((((a{100}){100}){100}){100})"] {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
    }
}
