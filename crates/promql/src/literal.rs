//! Numbers and quoted texts, as Go and so Prometheus reads and writes them.
//!
//! A quoted text may hold any bytes (`"\xff"`), so unquoting yields bytes; whoever needs UTF-8 checks it.

use std::borrow::Cow;
use std::fmt::Write;

/// What `NaN` stands for: Go's bits, so that a stored one is the same wherever it was written.
const NAN_BITS: u64 = 0x7ff8_0000_0000_0001;

/// Reads a number: decimal, octal (leading 0), hexadecimal, `Inf`, `NaN`; underscores between digits.
///
/// Errors: bad syntax, or beyond what a float holds.
pub(crate) fn parse_number(text: &str) -> Result<f64, String> {
    let fail = |why: &str| format!("error parsing number: {}: {why}", quote(text.as_bytes()));
    if text.eq_ignore_ascii_case("inf") {
        return Ok(f64::INFINITY);
    }
    if text.eq_ignore_ascii_case("nan") {
        return Ok(f64::from_bits(NAN_BITS));
    }
    let digits = without_underscores(text).ok_or_else(|| fail("invalid syntax"))?;
    if let Some(hexadecimal) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        return match i64::from_str_radix(hexadecimal, 16) {
            Ok(n) => Ok(n as f64),
            Err(_) => Err(fail("invalid syntax")),
        };
    }
    if digits.len() > 1
        && digits.starts_with('0')
        && let Ok(n) = i64::from_str_radix(&digits, 8)
    {
        return Ok(n as f64);
    }
    match digits.parse::<f64>() {
        Ok(n) if n.is_finite() => Ok(n),
        Ok(_) => Err(fail("value out of range")),
        Err(_) => Err(fail("invalid syntax")),
    }
}

/// Takes the underscores out; None if one is not between two digits, or a hexadecimal prefix and a digit.
fn without_underscores(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('_') {
        return Some(Cow::Borrowed(text));
    }
    let bytes = text.as_bytes();
    let is_hexadecimal = matches!(bytes.get(1), Some(b'x' | b'X'));
    let is_digit = |byte: &u8| byte.is_ascii_digit() || (is_hexadecimal && byte.is_ascii_hexdigit());
    let between_digits = |i: usize| {
        let before = i > 0 && (is_digit(&bytes[i - 1]) || (is_hexadecimal && i == 2));
        before && bytes.get(i + 1).is_some_and(is_digit)
    };
    let allowed = (0..bytes.len()).all(|i| bytes[i] != b'_' || between_digits(i));
    allowed.then(|| Cow::Owned(text.replace('_', "")))
}

/// Writes a number as PromQL's canonical form has it: shortest, never with an exponent.
pub(crate) fn format_number(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        _ => format!("{value}"),
    }
}

/// Writes a number as Go's `%v` has it: as [`format_number`], but below 1e-4 and from 1e6 on with an exponent, of at least
/// two digits.
pub(crate) fn format_number_short(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return format_number(value) };
    match exponent.parse::<i32>() {
        Ok(n) if !(-4..6).contains(&n) => format!("{mantissa}e{}{:02}", if n < 0 { '-' } else { '+' }, n.abs()),
        _ => format_number(value),
    }
}

/// Reads a text in quotes, which are part of `quoted`: backticks take everything as it is, `"` and `'` know Go's escapes.
///
/// Errors: an escape that Go does not know.
pub(crate) fn unquote(quoted: &str) -> Result<Vec<u8>, String> {
    let Some(mark) = quoted.chars().next().filter(|_| quoted.len() >= 2) else { return Err("no quotes".to_owned()) };
    let mut rest = &quoted[1..quoted.len() - 1];
    let mut out = Vec::with_capacity(rest.len());
    if mark == '`' {
        return Ok(rest.as_bytes().to_vec());
    }
    while let Some(i) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..i]);
        rest = unescape(&rest[i + 1..], mark, &mut out)?;
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

/// Appends what the escape at the start of `text` (behind its backslash) stands for; returns the text behind it.
fn unescape<'a>(text: &'a str, mark: char, out: &mut Vec<u8>) -> Result<&'a str, String> {
    let Some(c) = text.chars().next() else { return Err("escape sequence not terminated".to_owned()) };
    let simple = match c {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' => b'\\',
        _ if c == mark => c as u8,
        '0'..='7' => return unescape_code(text, 3, 8, out),
        'x' => return unescape_code(&text[1..], 2, 16, out),
        'u' => return unescape_code(&text[1..], 4, 16, out),
        'U' => return unescape_code(&text[1..], 8, 16, out),
        _ => return Err(format!("unknown escape sequence {}", describe_char(c))),
    };
    out.push(simple);
    Ok(&text[1..])
}

/// Appends the character whose code the first `digits` digits give; a byte if there are no more than three of them.
fn unescape_code<'a>(text: &'a str, digits: usize, radix: u32, out: &mut Vec<u8>) -> Result<&'a str, String> {
    let mut code: u32 = 0;
    let mut chars = text.chars();
    for _ in 0..digits {
        let Some(c) = chars.next() else { return Err("escape sequence not terminated".to_owned()) };
        let Some(digit) = c.to_digit(radix) else {
            return Err(format!("illegal character {} in escape sequence", describe_char(c)));
        };
        code = code.wrapping_mul(radix) | digit; // Eight hexadecimal digits fill 32 bits exactly.
    }
    let bad_code = || "escape sequence is an invalid Unicode code point".to_owned();
    if digits <= 3 {
        out.push(u8::try_from(code).map_err(|_| bad_code())?);
    } else {
        let c = char::from_u32(code).ok_or_else(bad_code)?;
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Ok(chars.as_str())
}

fn describe_char(c: char) -> String {
    format!("U+{:04X} '{c}'", u32::from(c))
}

/// Writes bytes as Go quotes a text: in `"`, what does not print escaped, bytes that are not UTF-8 as `\xff`.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            quote_char(c, &mut out);
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out.push('"');
    out
}

fn quote_char(c: char, out: &mut String) {
    let escape = match c {
        '"' => "\\\"",
        '\\' => "\\\\",
        '\x07' => "\\a",
        '\x08' => "\\b",
        '\x0c' => "\\f",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '\x0b' => "\\v",
        _ if is_printable(c) => return out.push(c),
        _ => {
            let code = u32::from(c);
            // Writing to a String can't fail.
            let _ = match code {
                0..0x80 => write!(out, "\\x{code:02x}"),
                0x80..0x1_0000 => write!(out, "\\u{code:04x}"),
                _ => write!(out, "\\U{code:08x}"),
            };
            return;
        }
    };
    out.push_str(escape);
}

/// Whether Go prints the character as it is. Rust's table is the same but for combining marks, which `escape_debug`
/// escapes at the start of a text only; hence the letter before it.
fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        '\0'..' ' => false,
        _ => format!("a{c}").escape_debug().count() == 2,
    }
}

/// Whether a label's name can be written without quotes.
pub(crate) fn is_plain_label_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        let check = |text, value: f64| assert_eq!(parse_number(text), Ok(value), "{text}");
        check("5.", 5.0);
        check(".5", 0.5);
        check("5e-3", 0.005);
        check("0x1f", 31.0);
        check("0X_1F", 31.0);
        check("0755", 493.0);
        check("089", 89.0);
        check("1_000.5_0", 1000.5);
        check("inf", f64::INFINITY);
        check("0", 0.0);
        for bad in ["1__0", "1_", "_1", "1_.5", "0x", "0xffffffffffffffffff", &"9".repeat(309)] {
            assert!(parse_number(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_are_written_as_go_writes_them() {
        let check = |value, long: &str, short: &str| {
            assert_eq!((format_number(value).as_str(), format_number_short(value).as_str()), (long, short));
        };
        check(5000.0, "5000", "5000");
        check(-0.0, "-0", "-0");
        check(123456.0, "123456", "123456");
        check(1234567.0, "1234567", "1.234567e+06");
        check(1e21, "1000000000000000000000", "1e+21");
        check(1.5e-7, "0.00000015", "1.5e-07");
        check(0.0001, "0.0001", "0.0001");
        check(f64::NAN, "NaN", "NaN");
        check(f64::INFINITY, "+Inf", "+Inf");
    }

    #[test]
    fn quoted_texts_are_read_and_written() {
        let check = |quoted, bytes: &[u8], canonical| {
            assert_eq!(unquote(quoted).as_deref(), Ok(bytes), "{quoted}");
            assert_eq!(quote(bytes), canonical);
        };
        check(r#""a\tb\"""#, b"a\tb\"", r#""a\tb\"""#);
        check(r"'it\'s'", b"it's", r#""it's""#);
        check(r"`\n`", br"\n", r#""\\n""#);
        check(
            r#""\xff\377\u1234\U00010111""#,
            b"\xff\xff\xe1\x88\xb4\xf0\x90\x84\x91",
            "\"\\xff\\xff\u{1234}\u{10111}\"",
        );
        check(r#""\x00\u00a0e\u0301\u200b""#, "\0\u{a0}e\u{301}\u{200b}".as_bytes(), "\"\\x00\\u00a0e\u{301}\\u200b\"");
    }

    #[test]
    fn bad_escapes_say_why() {
        let check = |quoted, message: &str| assert_eq!(unquote(quoted), Err(message.to_owned()), "{quoted}");
        check(r#""\c""#, "unknown escape sequence U+0063 'c'");
        check(r#""\'""#, "unknown escape sequence U+0027 '''");
        check(r#""\x.""#, "illegal character U+002E '.' in escape sequence");
        check(r#""\x1""#, "escape sequence not terminated");
        check(r#""\400""#, "escape sequence is an invalid Unicode code point");
        check(r#""\ud800""#, "escape sequence is an invalid Unicode code point");
        check(r#""\Uffffffff""#, "escape sequence is an invalid Unicode code point");
    }
}
