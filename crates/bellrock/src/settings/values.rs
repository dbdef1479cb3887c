//! Turns the text of a setting into its value, or into a sentence that says what was expected.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use runtime::Secret;

/// What is said about a text that cannot be read; follows the text in the message.
pub type Expected = String;

const DURATION_UNITS_MS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
    ("y", 31_536_000_000),
];

const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// A secret that can be guessed is none: 16 random bytes, even as base64 or hexadecimal text, are safe.
const CLUSTER_SECRET_BYTES_MIN: usize = 16;

/// Whoever names a larger file meant another one.
const SECRET_FILE_BYTES_MAX: u64 = 4096;

/// A length of time longer than nothing: `30s`, `1h30m`, `2w`. A year has 365 days, as in PromQL.
pub fn duration(text: &str) -> Result<Duration, Expected> {
    let expected = || "is not a duration longer than nothing, such as 30s, 5m, 1h30m or 90d".to_string();
    let mut total_ms = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest).ok_or_else(expected)?;
        let (_, unit_ms) = DURATION_UNITS_MS.iter().find(|(name, _)| *name == unit).ok_or_else(expected)?;
        let part_ms = number.checked_mul(*unit_ms).ok_or_else(expected)?;
        total_ms = total_ms.checked_add(part_ms).ok_or_else(expected)?;
        rest = after;
    }
    // A thousand years: sums with timestamps stay far from the ends of 64 bits.
    if total_ms == 0 || total_ms > 31_536_000_000_000 { Err(expected()) } else { Ok(Duration::from_millis(total_ms)) }
}

/// `forever`, or a length of time.
pub fn retention(text: &str) -> Result<Option<Duration>, Expected> {
    if text == "forever" {
        return Ok(None);
    }
    match duration(text) {
        Ok(duration) => Ok(Some(duration)),
        Err(_) => Err("is neither forever nor a duration such as 90d or 2y".to_string()),
    }
}

/// A number of bytes of at least one, with its unit: `512MiB`, `2GB`.
pub fn size(text: &str) -> Result<u64, Expected> {
    let expected = || "is not a size with its unit, such as 512MiB or 2GiB".to_string();
    let (number, unit, rest) = number_and_unit(text).ok_or_else(expected)?;
    let (_, unit_bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(expected)?;
    match number.checked_mul(*unit_bytes) {
        Some(bytes) if bytes > 0 && rest.is_empty() => Ok(bytes),
        _ => Err(expected()),
    }
}

/// `none`, which is 0, or a size.
pub fn size_or_none(text: &str) -> Result<u64, Expected> {
    match text {
        "none" => Ok(0),
        text => size(text).map_err(|_| "is neither none nor a size with its unit, such as 512MiB or 2GiB".to_string()),
    }
}

/// How much memory: a size, or a share of what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryMax {
    /// This many bytes.
    Bytes(u64),
    /// This many hundredths of the cgroup's or machine's memory, 1 to 100.
    Percent(u64),
}

impl MemoryMax {
    /// The bytes, of a total of `total_bytes`.
    pub fn bytes(self, total_bytes: u64) -> u64 {
        match self {
            MemoryMax::Bytes(bytes) => bytes,
            MemoryMax::Percent(percent) => total_bytes / 100 * percent,
        }
    }
}

/// A size of at least 64 MiB, or a share of what there is: `2GiB`, `50%`.
pub fn memory_max(text: &str) -> Result<MemoryMax, Expected> {
    let expected = || "is neither a size of 64MiB or more, such as 2GiB, nor a share such as 50%".to_string();
    if let Some(percent) = text.strip_suffix('%') {
        let percent = percent.parse().map_err(|_| expected())?;
        return if (1..=100).contains(&percent) { Ok(MemoryMax::Percent(percent)) } else { Err(expected()) };
    }
    match size(text) {
        Ok(bytes) if bytes >= 64 << 20 => Ok(MemoryMax::Bytes(bytes)),
        _ => Err(expected()),
    }
}

/// A whole number of at least one; `_` may part its digits.
pub fn count(text: &str) -> Result<u64, Expected> {
    match text.replace('_', "").parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("is not a whole number of 1 or more".to_string()),
    }
}

/// An IP address and a port: `127.0.0.1:9009`, `[::]:9009`.
pub fn address(text: &str) -> Result<SocketAddr, Expected> {
    text.parse().map_err(|_| "is not an IP address with a port, such as 127.0.0.1:9009 or [::]:9009".to_string())
}

/// A nameserver: an IP address, with a port unless it is 53.
pub fn nameserver(text: &str) -> Result<SocketAddr, Expected> {
    let with_port = text.parse().or_else(|_| text.parse().map(|address: IpAddr| SocketAddr::new(address, 53)));
    with_port.map_err(|_| "is not an IP address, such as 10.0.0.53, 10.0.0.53:5353 or [fd00::53]:53".to_string())
}

/// The secret of a cluster.
pub fn cluster_secret(text: &str) -> Result<Secret, Expected> {
    match text.len() {
        0..CLUSTER_SECRET_BYTES_MIN => {
            Err(format!("is {} bytes long; the secret of a cluster has {CLUSTER_SECRET_BYTES_MIN} or more", text.len()))
        }
        _ => Ok(Secret::new(text)),
    }
}

/// The path of a file that holds a secret and nothing else; reads it. A final line break is none of it.
pub fn secret_file(path: &str) -> Result<Secret, Expected> {
    let mut text = String::new();
    #[allow(clippy::disallowed_methods, reason = "the operator's file, read once at start and on SIGHUP")]
    let file = std::fs::File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    file.take(SECRET_FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() as u64 > SECRET_FILE_BYTES_MAX {
        return Err(format!("is larger than {SECRET_FILE_BYTES_MAX} bytes"));
    }
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err("is an empty file".to_string()),
        text => Ok(Secret::new(text)),
    }
}

/// `key=value`.
pub fn key_and_value(text: &str) -> Result<(String, String), Expected> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && is_visible(text) => Ok((key.to_string(), value.to_string())),
        _ => Err("is not of the form key=value".to_string()),
    }
}

/// A name of letters, digits and `._-`, up to 100 of them.
pub fn name(text: &str) -> Result<String, Expected> {
    let is_known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    match (1..=100).contains(&text.len()) && text.bytes().all(is_known) {
        true => Ok(text.to_string()),
        false => Err("is not 1 to 100 characters of [A-Za-z0-9_.-]".to_string()),
    }
}

/// A text that is not empty and has no control characters.
pub fn visible(text: &str) -> Result<String, Expected> {
    if is_visible(text) { Ok(text.to_string()) } else { Err("is empty or has control characters".to_string()) }
}

fn is_visible(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_control)
}

/// A path that is not empty.
pub fn path(text: &str) -> Result<PathBuf, Expected> {
    if text.is_empty() { Err("is no path".to_string()) } else { Ok(PathBuf::from(text)) }
}

/// One of these words.
pub fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, Expected> {
    let found = words.iter().find(|(word, _)| *word == text);
    let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    found.map(|(_, value)| *value).ok_or_else(|| format!("is none of: {}", names.join(", ")))
}

/// Splits `90sREST` into 90, `s` and `REST`.
fn number_and_unit(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, rest) = text.split_at(digits);
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    Some((number.parse().ok()?, unit, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let ms = |text| duration(text).map(|duration| duration.as_millis()).ok();
        assert_eq!(ms("30s"), Some(30_000));
        assert_eq!(ms("1h30m"), Some(5_400_000));
        assert_eq!(ms("250ms"), Some(250));
        assert_eq!(ms("1y"), Some(31_536_000_000));
        for text in ["", "30", "s", "0s", "5 m", "-1s", "1.5h", "5M", "99999999999999999999s", "10000y", "1h30"] {
            assert_eq!(ms(text), None, "{text}");
        }
        assert_eq!(retention("forever"), Ok(None));
        assert_eq!(retention("2w"), Ok(Some(Duration::from_secs(14 * 86_400))));
        assert!(retention("always").is_err());
    }

    #[test]
    fn sizes() {
        assert_eq!(size("512MiB"), Ok(512 << 20));
        assert_eq!(size("2GB"), Ok(2_000_000_000));
        assert_eq!(size("1B"), Ok(1));
        for text in ["", "512", "0B", "5mib", "1MiBx", "1MiB2KiB", "99999999999TiB", "-1MiB"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!((size_or_none("none"), size_or_none("1KiB")), (Ok(0), Ok(1024)));
        assert!(size_or_none("0").is_err());
        assert_eq!(memory_max("50%"), Ok(MemoryMax::Percent(50)));
        assert_eq!(memory_max("1GiB"), Ok(MemoryMax::Bytes(1 << 30)));
        assert_eq!(MemoryMax::Percent(50).bytes(1000), 500);
        for text in ["0%", "101%", "%", "1MiB", "half"] {
            assert!(memory_max(text).is_err(), "{text}");
        }
    }

    #[test]
    fn counts_addresses_and_words() {
        assert_eq!(count("50_000_000"), Ok(50_000_000));
        assert!(count("0").is_err() && count("1.5").is_err() && count("").is_err());
        assert!(address("[::]:9009").is_ok() && address("localhost:1").is_err() && address(":9009").is_err());
        assert_eq!(word("b", &[("a", 1), ("b", 2)]), Ok(2));
        assert_eq!(word("c", &[("a", 1), ("b", 2)]), Err("is none of: a, b".into()));
    }
}
