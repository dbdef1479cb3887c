//! A series with its values: `name{l="v"} 1 2+3x4 _ stale {{schema:0 …}}`.
//!
//! The same line loads samples and says what is expected. Values are expanded here; repeated ones are summed step by
//! step (`x += d`), as Prometheus does, so that the last bits agree.

use model::{Labels, METRIC_NAME, stale_marker};

use super::histogram::{FloatHistogram, HistogramLiteral};

/// More positions than any script has; a typing error must not take the memory.
const POSITIONS_MAX: usize = 1_000_000;

/// What stands at one position of a series.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// `_`: nothing.
    Missing,
    /// A number or `stale`.
    Float(f64),
    /// `{{…}}`.
    Histogram(HistogramLiteral),
}

/// Reads a series and its values; the values may be left out.
pub fn parse_series(line: &str) -> Result<(Labels, Vec<Item>), String> {
    let mut cursor = Cursor { rest: line };
    let labels = cursor.labels()?;
    if !cursor.rest.is_empty() && !cursor.rest.starts_with([' ', '\t']) {
        return Err(format!("unexpected {:?} after the labels", cursor.rest));
    }
    Ok((labels, parse_values(cursor.rest)?))
}

/// Splits `SERIES@st ITEMS`; `None` if the line is not a line of start timestamps.
pub(super) fn strip_start_timestamps(line: &str) -> Option<(&str, &str)> {
    let mut cursor = Cursor { rest: line };
    cursor.labels().ok()?;
    let series = &line[..line.len() - cursor.rest.len()];
    cursor.rest.strip_prefix("@st").filter(|rest| rest.starts_with([' ', '\t'])).map(|rest| (series, rest))
}

/// Reads a number as Go does: an integer with a base prefix first, else a float, `Inf` or `NaN` in any case.
pub(super) fn parse_number(text: &str) -> Option<f64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let based = [("0x", 16), ("0o", 8), ("0b", 2), ("0", 8)]
        .iter()
        .find_map(|&(prefix, base)| i64::from_str_radix(lower.strip_prefix(prefix)?, base).ok());
    let value = match (based, lower.as_str()) {
        (Some(integer), _) => integer as f64,
        (None, "inf" | "infinity") => f64::INFINITY,
        (None, "nan") => return Some(ordinary_nan()),
        _ if !lower.starts_with(|c: char| c.is_ascii_digit() || c == '.') => return None,
        _ => lower.parse().ok()?,
    };
    Some(if negative { -value } else { value })
}

/// The NaN of ordinary arithmetic, which is not the stale marker.
fn ordinary_nan() -> f64 {
    f64::from_bits(0x7ff8_0000_0000_0001)
}

fn parse_values(text: &str) -> Result<Vec<Item>, String> {
    let mut cursor = Cursor { rest: text };
    let mut items = Vec::new();
    loop {
        cursor.rest = cursor.rest.trim_start_matches([' ', '\t']);
        if cursor.rest.is_empty() {
            return Ok(items);
        }
        cursor.item(&mut items)?;
        if !cursor.rest.is_empty() && !cursor.rest.starts_with([' ', '\t']) {
            return Err(format!("unexpected {:?} in series values", cursor.rest));
        }
        if items.len() > POSITIONS_MAX {
            return Err(format!("more than {POSITIONS_MAX} values"));
        }
    }
}

struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn eat(&mut self, prefix: &str) -> bool {
        let rest = self.rest.strip_prefix(prefix);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn labels(&mut self) -> Result<Labels, String> {
        let name = self.identifier(true);
        let mut pairs: Vec<(String, String)> = Vec::new();
        if !name.is_empty() {
            pairs.push((METRIC_NAME.into(), name.into()));
        }
        if self.rest.trim_start().starts_with('{') && !self.rest.trim_start().starts_with("{{") {
            self.blanks();
            self.eat("{");
            loop {
                self.blanks();
                if self.eat("}") {
                    break;
                }
                pairs.push(self.label()?);
                self.blanks();
                if !self.eat(",") && !self.rest.starts_with('}') {
                    return Err(format!("expected , or }} at {:?}", self.rest));
                }
            }
        }
        Labels::from_pairs(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))).map_err(|e| e.to_string())
    }

    /// `name="value"`, `"name"="value"`, or only `"metric name"`.
    fn label(&mut self) -> Result<(String, String), String> {
        let quoted = self.rest.starts_with(['"', '\'', '`']);
        let name = if quoted { self.string()? } else { self.identifier(false).to_owned() };
        self.blanks();
        if self.eat("=") {
            self.blanks();
            return Ok((name, self.string()?));
        }
        if quoted { Ok((METRIC_NAME.into(), name)) } else { Err(format!("expected = at {:?}", self.rest)) }
    }

    fn identifier(&mut self, colons: bool) -> &'a str {
        let ok = |(i, c): (usize, char)| {
            c.is_ascii_alphabetic() || c == '_' || (colons && c == ':') || (i > 0 && c.is_ascii_digit())
        };
        let end = self.rest.char_indices().find(|&pair| !ok(pair)).map_or(self.rest.len(), |(i, _)| i);
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name
    }

    fn string(&mut self) -> Result<String, String> {
        let (text, rest) = unquote_prefix(self.rest)?;
        self.rest = rest;
        Ok(text)
    }

    fn item(&mut self, items: &mut Vec<Item>) -> Result<(), String> {
        if self.rest.starts_with("{{") {
            return self.histograms(items);
        }
        if self.eat("_") {
            let count = if self.eat("x") { self.count()? } else { 1 };
            items.extend(std::iter::repeat_n(Item::Missing, count));
            return Ok(());
        }
        let mut value = self.number()?;
        let step = match self.rest.as_bytes().first() {
            Some(b'+') => Some((1.0, &self.rest[1..])),
            Some(b'-') => Some((-1.0, &self.rest[1..])),
            _ => None,
        };
        items.push(Item::Float(value));
        let Some((sign, rest)) = step else {
            let more = if self.eat("x") { self.count()? } else { 0 };
            items.extend(std::iter::repeat_n(Item::Float(value), more));
            return Ok(());
        };
        self.rest = rest;
        let step = sign * self.number()?;
        if !self.eat("x") {
            return Err("a step without a repetition in series values".into());
        }
        for _ in 0..self.count()? {
            value += step;
            items.push(Item::Float(value));
        }
        Ok(())
    }

    fn count(&mut self) -> Result<usize, String> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        let count: usize = digits.parse().map_err(|_| format!("bad repetition {digits:?}"))?;
        if count > POSITIONS_MAX {
            return Err(format!("repeated more than {POSITIONS_MAX} times"));
        }
        Ok(count)
    }

    /// A number up to its last character; no hexadecimal, as `0x3` is zero, repeated.
    fn number(&mut self) -> Result<f64, String> {
        let bytes = self.rest.as_bytes();
        let mut end = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
        let word = self.rest[end..].to_ascii_lowercase();
        if end == 0 && word.starts_with("stale") {
            self.rest = &self.rest["stale".len()..];
            return Ok(stale_marker());
        }
        if word.starts_with("inf") || word.starts_with("nan") {
            end += 3;
        } else {
            let digit = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_digit);
            while digit(end) || bytes.get(end) == Some(&b'.') {
                end += 1;
            }
            if matches!(bytes.get(end), Some(b'e' | b'E')) {
                let signed = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
                if digit(end + 1 + signed) {
                    end += 1 + signed;
                    while digit(end) {
                        end += 1;
                    }
                }
            }
        }
        let (text, rest) = self.rest.split_at(end);
        let value = parse_number(text).ok_or_else(|| format!("expected a value at {:?}", self.rest))?;
        self.rest = rest;
        Ok(value)
    }

    fn histograms(&mut self, items: &mut Vec<Item>) -> Result<(), String> {
        let first = self.histogram()?;
        let sign = match self.rest.as_bytes().first() {
            Some(b'+') => 1.0,
            Some(b'-') => -1.0,
            _ => {
                let count = if self.eat("x") { self.count()? + 1 } else { 1 };
                items.extend(std::iter::repeat_n(Item::Histogram(first), count));
                return Ok(());
            }
        };
        self.rest = &self.rest[1..];
        let step = self.histogram()?;
        if !self.eat("x") {
            return Err("a step without a repetition in series values".into());
        }
        if first.histogram.schema > step.histogram.schema {
            return Err("the step's schema is below the first histogram's".into());
        }
        let mut sum = HistogramLiteral { hint_is_given: step.hint_is_given, ..first };
        if step.hint_is_given {
            sum.histogram.counter_reset_hint = step.histogram.counter_reset_hint;
        }
        items.push(Item::Histogram(sum.clone()));
        for _ in 0..self.count()? {
            sum.histogram.add(&step.histogram, sign)?;
            items.push(Item::Histogram(sum.clone()));
        }
        Ok(())
    }

    fn histogram(&mut self) -> Result<HistogramLiteral, String> {
        if !self.eat("{{") {
            return Err(format!("expected {{{{ at {:?}", self.rest));
        }
        let end = self.rest.find("}}").ok_or("a histogram without }}")?;
        let inside = &self.rest[..end];
        self.rest = &self.rest[end + 2..];
        FloatHistogram::parse(inside)
    }
}

/// Reads a Go-quoted string (`"…"`, `'…'` or `` `…` ``) that is all of `text`.
pub(super) fn unquote(text: &str) -> Result<String, String> {
    match unquote_prefix(text)? {
        (string, "") => Ok(string),
        (_, rest) => Err(format!("unexpected {rest:?} after a string")),
    }
}

fn unquote_prefix(text: &str) -> Result<(String, &str), String> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\'' | '`')).ok_or("expected a string")?;
    let mut bytes = Vec::new();
    let mut chars = text[1..].char_indices();
    while let Some((i, c)) = chars.next() {
        if c == quote {
            let string = String::from_utf8(bytes).map_err(|_| "a string is not UTF-8")?;
            return Ok((string, &text[i + 2..]));
        }
        if c != '\\' || quote == '`' {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        unescape(&mut chars, &mut bytes)?;
    }
    Err("a string without its end".into())
}

fn unescape(chars: &mut std::str::CharIndices<'_>, bytes: &mut Vec<u8>) -> Result<(), String> {
    let (_, c) = chars.next().ok_or("a string ends in a backslash")?;
    let simple = match c {
        'a' => Some(7),
        'b' => Some(8),
        'f' => Some(12),
        'n' => Some(b'\n'),
        'r' => Some(b'\r'),
        't' => Some(b'\t'),
        'v' => Some(11),
        '\\' | '"' | '\'' => Some(c as u8),
        _ => None,
    };
    if let Some(byte) = simple {
        bytes.push(byte);
        return Ok(());
    }
    let (digits, base, mut code) = match c {
        'x' => (2, 16, 0),
        'u' => (4, 16, 0),
        'U' => (8, 16, 0),
        '0'..='7' => (2, 8, c.to_digit(8).unwrap_or(0)),
        _ => return Err(format!("unknown escape \\{c}")),
    };
    for _ in 0..digits {
        let digit = chars.next().and_then(|(_, c)| c.to_digit(base)).ok_or("a short escape")?;
        code = code.wrapping_mul(base).wrapping_add(digit);
    }
    if matches!(c, 'u' | 'U') {
        let c = char::from_u32(code).ok_or("an escape that is no character")?;
        bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        bytes.push(u8::try_from(code).map_err(|_| "an escape over a byte")?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_expanded() {
        let floats = |text: &str| -> Vec<f64> {
            let (_, items) = parse_series(text).unwrap();
            items.iter().map(|item| if let Item::Float(v) = item { *v } else { -999.0 }).collect()
        };
        assert_eq!(
            floats("m 0x3 1+2x2 1e+3 0.5-0.5x2 _x2"),
            [0.0, 0.0, 0.0, 0.0, 1.0, 3.0, 5.0, 1000.0, 0.5, 0.0, -0.5, -999.0, -999.0]
        );
        assert_eq!(
            floats("m 010 -Inf +Inf Infx1 1e3x1"),
            [8.0, f64::NEG_INFINITY, f64::INFINITY, f64::INFINITY, f64::INFINITY, 1000.0, 1000.0]
        );
        let (_, items) = parse_series("m stalex1 NaN").unwrap();
        let bits: Vec<_> = items.iter().map(|i| if let Item::Float(v) = i { v.to_bits() } else { 0 }).collect();
        assert_eq!(bits, [model::STALE_NAN_BITS, model::STALE_NAN_BITS, 0x7ff8_0000_0000_0001]);
    }

    #[test]
    fn histograms_are_summed() {
        let (labels, items) =
            parse_series("h{a='b'} {{count:1 buckets:[1 0 2]}}+{{count:1 buckets:[1]}}x2 {{}}").unwrap();
        assert_eq!((labels.to_string().as_str(), items.len()), ("h{a=\"b\"}", 4));
        let Item::Histogram(last) = &items[2] else { panic!() };
        assert_eq!((last.histogram.count, last.histogram.positive[&0]), (3.0, 3.0));
    }
}
