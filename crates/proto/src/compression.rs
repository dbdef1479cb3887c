//! The three encodings of a remote-write body, decompressed under a limit.
//!
//! Snappy's block format is remote-write's own; newer vmagents try zstd first; gzip is what everything
//! else knows. A declared size is checked, also for whether so many bytes can come of so few, before
//! anything is allocated; where none is declared, the output grows no further than the limit.

use std::io::Read;

use crate::error::ProtoError;

/// A zstd frame may need a window of this many bytes (as a power of two): 8 MiB, what RFC 8878 asks every decoder
/// to support. Frames that declare their size need none.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Snappy's best element is a copy of 64 bytes in 3: no body grows by more than this.
const SNAPPY_RATIO_MAX: usize = 22;

/// Room that is made at first for a body that does not declare its size.
const FIRST_BYTES: usize = 64 << 10;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentEncoding {
    /// Snappy's block format (never the framed one).
    Snappy,
    /// One or more zstd frames.
    Zstd,
    /// One or more gzip members.
    Gzip,
}

impl ContentEncoding {
    /// Reads a Content-Encoding header; `None` for what is not supported, `identity` and lists of encodings included.
    ///
    /// Names are compared without regard to case and `x-gzip` is `gzip`, as RFC 9110 has it.
    pub fn parse(header: &str) -> Option<ContentEncoding> {
        let name = header.trim();
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("snappy") {
            Some(ContentEncoding::Snappy)
        } else if is("zstd") {
            Some(ContentEncoding::Zstd)
        } else if is("gzip") || is("x-gzip") {
            Some(ContentEncoding::Gzip)
        } else {
            None
        }
    }

    /// Its name in headers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            ContentEncoding::Snappy => "snappy",
            ContentEncoding::Zstd => "zstd",
            ContentEncoding::Gzip => "gzip",
        }
    }
}

/// Returns how many bytes [`decompress`] may write at most: what the body declares, or `decoded_bytes_max` if it
/// does not say. For whoever accounts memory before it is used.
///
/// Errors: as [`decompress`], for what can be seen in the first bytes.
pub fn decoded_bytes(encoding: ContentEncoding, body: &[u8], decoded_bytes_max: usize) -> Result<usize, ProtoError> {
    let declared = match encoding {
        ContentEncoding::Snappy => {
            let declared = snap::raw::decompress_len(body).map_err(|e| invalid("snappy", e))?;
            check_size(declared as u64, decoded_bytes_max)?;
            if declared / SNAPPY_RATIO_MAX > body.len() {
                return Err(invalid("snappy", "it declares more bytes than it can hold"));
            }
            declared
        }
        ContentEncoding::Zstd => match zstd::zstd_safe::get_frame_content_size(body) {
            Ok(Some(declared)) => {
                check_size(declared, decoded_bytes_max)?;
                // A later frame may declare more.
                if is_one_frame(body) { declared as usize } else { decoded_bytes_max }
            }
            Ok(None) => decoded_bytes_max,
            Err(_) => return Err(invalid("zstd", "it does not begin with a frame")),
        },
        ContentEncoding::Gzip => decoded_bytes_max,
    };
    Ok(declared)
}

/// Decompresses `body` into `out`, whose old content is lost and whose capacity is used again.
///
/// Errors: `Compression` for bytes that are not of that encoding, `DecodedTooLarge` beyond `decoded_bytes_max`.
/// An empty body is an error: none of the encodings writes nothing. After an error `out` is empty.
pub fn decompress(
    encoding: ContentEncoding,
    body: &[u8],
    decoded_bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), ProtoError> {
    let result = match encoding {
        ContentEncoding::Snappy => decompress_snappy(body, decoded_bytes_max, out),
        ContentEncoding::Zstd => decompress_zstd(body, decoded_bytes_max, out),
        ContentEncoding::Gzip => {
            out.clear();
            read_bounded("gzip", flate2::read::MultiGzDecoder::new(body), decoded_bytes_max, out)
        }
    };
    if result.is_err() {
        out.clear();
    }
    result
}

/// Compresses a message for sending: snappy's block format.
pub fn compress_snappy(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).expect("snappy takes any message under 4 GiB")
}

fn decompress_snappy(body: &[u8], decoded_bytes_max: usize, out: &mut Vec<u8>) -> Result<(), ProtoError> {
    let declared = decoded_bytes(ContentEncoding::Snappy, body, decoded_bytes_max)?;
    // Not cleared first: the decoder fills all of it or fails, and zeroing it each time would cost as much as a tenth
    // of the decompression.
    out.resize(declared, 0);
    snap::raw::Decoder::new().decompress(body, out).map_err(|e| invalid("snappy", e))?;
    Ok(())
}

fn decompress_zstd(body: &[u8], decoded_bytes_max: usize, out: &mut Vec<u8>) -> Result<(), ProtoError> {
    let bytes_max = decoded_bytes(ContentEncoding::Zstd, body, decoded_bytes_max)?;
    out.clear();
    if let Ok(Some(_)) = zstd::zstd_safe::get_frame_content_size(body)
        && is_one_frame(body)
    {
        // Into a buffer of the declared size at once: no window, no copies.
        out.reserve(bytes_max);
        let mut decoder = zstd::bulk::Decompressor::new().map_err(|e| invalid("zstd", e))?;
        decoder.decompress_to_buffer(body, out).map_err(|e| invalid("zstd", e))?;
        return Ok(());
    }
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(|e| invalid("zstd", e))?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|e| invalid("zstd", e))?;
    read_bounded("zstd", decoder, bytes_max, out)
}

fn is_one_frame(body: &[u8]) -> bool {
    zstd::zstd_safe::find_frame_compressed_size(body).is_ok_and(|bytes| bytes == body.len())
}

/// Reads all of it, and one byte more than is allowed, to tell "all of it" from "too much".
///
/// `read_to_end` alone would double a full buffer to read that byte, and with it what a bomb costs.
fn read_bounded(
    encoding: &'static str,
    mut decoder: impl Read,
    decoded_bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), ProtoError> {
    loop {
        let allowed = decoded_bytes_max - out.len();
        if allowed == 0 {
            let more = decoder.read(&mut [0]).map_err(|e| invalid(encoding, e))?;
            let too_large = ProtoError::DecodedTooLarge {
                bytes: decoded_bytes_max as u64 + 1,
                exact: false,
                limit: decoded_bytes_max,
            };
            return if more == 0 { Ok(()) } else { Err(too_large) };
        }
        if out.len() == out.capacity() {
            out.reserve_exact(out.len().max(FIRST_BYTES).min(allowed));
        }
        // No more than there is room for, so that the buffer is not grown in there.
        let room = (out.capacity() - out.len()).min(allowed);
        let read = decoder.by_ref().take(room as u64).read_to_end(out).map_err(|e| invalid(encoding, e))?;
        if read < room {
            return Ok(());
        }
    }
}

fn check_size(bytes: u64, limit: usize) -> Result<(), ProtoError> {
    if bytes > limit as u64 {
        return Err(ProtoError::DecodedTooLarge { bytes, exact: true, limit });
    }
    Ok(())
}

fn invalid(encoding: &'static str, what: impl ToString) -> ProtoError {
    ProtoError::Compression { encoding, what: what.to_string() }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    const ALL: [ContentEncoding; 3] = [ContentEncoding::Snappy, ContentEncoding::Zstd, ContentEncoding::Gzip];

    fn compress(encoding: ContentEncoding, bytes: &[u8]) -> Vec<u8> {
        match encoding {
            ContentEncoding::Snappy => compress_snappy(bytes),
            ContentEncoding::Zstd => zstd::bulk::compress(bytes, 1).unwrap(),
            ContentEncoding::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    fn check_too_large(encoding: ContentEncoding, body: &[u8]) {
        let mut out = Vec::new();
        let error = decompress(encoding, body, 32 << 20, &mut out).unwrap_err();
        assert!(matches!(error, ProtoError::DecodedTooLarge { .. }), "{encoding:?}: {error}");
        assert!(out.capacity() <= 64 << 20);
    }

    #[test]
    fn headers_are_recognised() {
        for (header, expected) in [
            ("snappy", Some(ContentEncoding::Snappy)),
            ("SNAPPY", Some(ContentEncoding::Snappy)),
            (" zstd ", Some(ContentEncoding::Zstd)),
            ("x-gzip", Some(ContentEncoding::Gzip)),
            ("identity", None),
            ("", None),
            ("gzip, snappy", None),
            ("br", None),
        ] {
            assert_eq!(ContentEncoding::parse(header), expected, "{header}");
        }
    }

    #[test]
    fn bombs_are_refused_before_they_are_allocated() {
        let bytes = vec![0; 40 << 20];
        for encoding in ALL {
            check_too_large(encoding, &compress(encoding, &bytes));
        }
        // Snappy that declares 4 GiB − 1, and 30 MiB in five bytes.
        check_too_large(ContentEncoding::Snappy, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
        let mut out = Vec::new();
        assert!(decompress(ContentEncoding::Snappy, &[0x80, 0x80, 0x80, 0x0f, 0], 32 << 20, &mut out).is_err());
        assert_eq!(out.capacity(), 0);
    }

    #[test]
    fn a_buffer_grows_no_further_than_the_limit() {
        let limit = 100_000;
        for (bytes, fits) in [(limit - 1, true), (limit, true), (limit + 1, false), (limit * 9, false)] {
            let mut out = Vec::new();
            let body = compress(ContentEncoding::Gzip, &vec![7; bytes]);
            assert_eq!(decompress(ContentEncoding::Gzip, &body, limit, &mut out).is_ok(), fits, "{bytes}");
            assert!(out.capacity() <= limit && out.len() == if fits { bytes } else { 0 });
        }
    }

    #[test]
    fn zstd_without_a_declared_size_is_bounded() {
        let stream = |bytes: &[u8]| {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let mut out = Vec::new();
        decompress(ContentEncoding::Zstd, &stream(b"hello"), 5, &mut out).unwrap();
        assert_eq!(out, b"hello");
        check_too_large(ContentEncoding::Zstd, &stream(&vec![0; 40 << 20]));
        // Frames one after another are one body.
        let two = [compress(ContentEncoding::Zstd, b"ab"), stream(b"cd")].concat();
        decompress(ContentEncoding::Zstd, &two, 5, &mut out).unwrap();
        assert_eq!(out, b"abcd");
        assert!(decompress(ContentEncoding::Zstd, &two, 3, &mut out).is_err());
    }

    #[test]
    fn an_empty_body_is_no_message() {
        for encoding in ALL {
            assert!(decompress(encoding, &[], 100, &mut Vec::new()).is_err(), "{encoding:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_compressed_returns(bytes in prop::collection::vec(0u8..4, 0..3000), old in prop::collection::vec(any::<u8>(), 0..4000)) {
            for encoding in ALL {
                let body = compress(encoding, &bytes);
                let mut out = old.clone();
                decompress(encoding, &body, bytes.len(), &mut out).unwrap();
                prop_assert_eq!(&out, &bytes);
                if !bytes.is_empty() {
                    prop_assert!(decompress(encoding, &body, bytes.len() - 1, &mut out).is_err());
                }
                let cut = body.len() / 2;
                prop_assert!(decompress(encoding, &body[..cut], 1 << 20, &mut out).is_err());
                prop_assert!(out.is_empty());
            }
        }

        #[test]
        fn any_bytes_are_an_error_at_worst(bytes: Vec<u8>) {
            for encoding in ALL {
                let mut out = Vec::new();
                if decompress(encoding, &bytes, 1 << 16, &mut out).is_ok() {
                    prop_assert!(out.len() <= 1 << 16);
                }
            }
        }
    }
}
