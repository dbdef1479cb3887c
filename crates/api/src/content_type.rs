//! Chooses the message and the encoding of a write from its headers, as RFC 9110 reads them.

use axum::http::{HeaderMap, HeaderValue, header};
use proto::ContentEncoding;

const PROTOBUF: &str = "application/x-protobuf";
const MESSAGE_1: &str = "prometheus.WriteRequest";
const MESSAGE_2: &str = "io.prometheus.write.v2.Request";

/// Checks that the body is a remote-write 1.0 message and returns how it is encoded; or says what is not supported (415).
///
/// No Content-Type is 1.0, and no Content-Encoding is snappy, as Prometheus has it.
pub(crate) fn negotiate(headers: &HeaderMap) -> Result<ContentEncoding, String> {
    if let Some(value) = headers.get(header::CONTENT_TYPE) {
        check_content_type(value)?;
    }
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    let encoding = match (encodings.next(), encodings.next()) {
        (None, _) => Some(ContentEncoding::Snappy),
        (Some(value), None) => value.to_str().ok().and_then(ContentEncoding::parse),
        (Some(_), Some(_)) => None,
    };
    encoding.ok_or_else(|| {
        let sent: Vec<_> = headers.get_all(header::CONTENT_ENCODING).iter().map(shown).collect();
        format!(
            "Content-Encoding {} is not supported, send snappy, zstd or gzip (unsupported-media-type)",
            sent.join(", ")
        )
    })
}

fn check_content_type(value: &HeaderValue) -> Result<(), String> {
    let unsupported = |why: &str| {
        Err(format!(
            "Content-Type {} is not supported{why}, send {PROTOBUF};proto={MESSAGE_1} (unsupported-media-type)",
            shown(value)
        ))
    };
    let Ok(text) = value.to_str() else { return unsupported("") };
    let Some((kind, parameters)) = parse(text) else { return unsupported(" (it is not well-formed)") };
    if !kind.eq_ignore_ascii_case(PROTOBUF) {
        return unsupported("");
    }
    let message = parameters.iter().find(|(name, _)| name.eq_ignore_ascii_case("proto"));
    match message.map(|(_, message)| message.as_str()) {
        None | Some(MESSAGE_1) => Ok(()),
        Some(MESSAGE_2) => unsupported(": remote-write 2.0 is not taken yet"),
        Some(_) => unsupported(""),
    }
}

/// A header as a message shows it: quoted, and not at length.
fn shown(value: &HeaderValue) -> String {
    let text: String = String::from_utf8_lossy(value.as_bytes()).chars().take(100).collect();
    format!("{text:?}")
}

/// Splits `type/subtype *( OWS ";" OWS [ name "=" ( token / quoted-string ) ] )`.
fn parse(text: &str) -> Option<(&str, Vec<(&str, String)>)> {
    let kind_end = text.find(';').unwrap_or(text.len());
    let kind = text[..kind_end].trim();
    let mut parameters = Vec::new();
    let mut rest = &text[kind_end..];
    while let Some(after) = rest.strip_prefix(';') {
        let after = after.trim_start();
        if after.is_empty() || after.starts_with(';') {
            rest = after;
            continue;
        }
        let (name, after) = after.split_once('=')?;
        let (value, after) = parse_value(after)?;
        if name.is_empty() || !name.bytes().all(is_token_byte) {
            return None;
        }
        parameters.push((name, value));
        rest = after.trim_start();
    }
    rest.is_empty().then_some((kind, parameters))
}

/// A token, which is not empty, or a quoted string; and what follows it.
fn parse_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.bytes().position(|byte| !is_token_byte(byte)).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[i + 1..])),
            '\\' => value.push(chars.next()?.1),
            _ => value.push(c),
        }
    }
    None
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(content_type: Option<&str>, encoding: Option<&str>, expected: Result<ContentEncoding, &str>) {
        let mut headers = HeaderMap::new();
        if let Some(value) = content_type {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(value).unwrap());
        }
        if let Some(value) = encoding {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_str(value).unwrap());
        }
        match (negotiate(&headers), expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected),
            (Err(got), Err(expected)) => assert!(got.contains(expected), "{got}"),
            (got, expected) => panic!("{got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn the_message_is_chosen_by_its_content_type() {
        let snappy = Ok(ContentEncoding::Snappy);
        check(None, None, snappy);
        for fine in [
            "application/x-protobuf",
            "Application/X-Protobuf",
            "application/x-protobuf;proto=prometheus.WriteRequest",
            "application/x-protobuf ; proto=prometheus.WriteRequest ; a=b",
            "application/x-protobuf; PROTO=\"prometheus.WriteRequest\"",
            "application/x-protobuf;",
            "application/x-protobuf; charset=utf-8",
        ] {
            check(Some(fine), None, snappy);
        }
        for bad in [
            "text/plain",
            "application/json",
            "application/octet-stream",
            "application/x-protobuf;proto=foo.Bar",
            "application/x-protobuf;proto",
            "application/x-protobuf;proto=",
            "application/x-protobuf;proto=\"prometheus.WriteRequest",
            "application/x-protobuf;proto=prometheus.WriteRequest junk",
            "",
        ] {
            check(Some(bad), None, Err("is not supported"));
        }
        check(Some("application/x-protobuf; proto=io.prometheus.write.v2.Request"), None, Err("2.0 is not taken yet"));
    }

    #[test]
    fn the_encoding_is_one_of_three() {
        check(None, Some("snappy"), Ok(ContentEncoding::Snappy));
        check(None, Some("zstd"), Ok(ContentEncoding::Zstd));
        check(None, Some("gzip"), Ok(ContentEncoding::Gzip));
        for bad in ["identity", "br", "snappy, gzip", ""] {
            check(None, Some(bad), Err("send snappy, zstd or gzip"));
        }
    }
}
