//! A frame: compressed bytes with a version, their length and a checksum. Format: docs/formats/block.md, "Frame".
//!
//! Pages are frames, and so are the other compressed parts of a block.

use model::Reader;

const VERSION: u8 = 1;
/// Version, body length, checksum.
const HEADER_BYTES: usize = 9;
/// zstd can't shrink bytes further than this: a block of 128 KiB takes 4 bytes at least.
const SHRINKING_MAX: usize = 128 << 10;

/// A frame that can't be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than its header.
    #[error("unexpected end")]
    TooShort,
    /// A version that this program does not know.
    #[error("unknown version {0}")]
    Version(u8),
    /// The bytes are not those that were written.
    #[error("checksum does not match")]
    Checksum,
    /// More bytes before compression than the limit.
    #[error("{bytes} bytes before compression, the limit is {max}")]
    TooLarge {
        /// How many.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// zstd says no.
    #[error("decompression: {0}")]
    Zstd(String),
}

/// Writes frames at one level of compression, and keeps zstd's memory between them.
pub struct FrameWriter {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    level: i32,
}

impl FrameWriter {
    /// A writer at this zstd level.
    pub fn new(level: i32) -> FrameWriter {
        FrameWriter { compressor: None, level }
    }

    /// Appends `body` as a frame and returns the frame's length.
    ///
    /// Errors: `TooLarge` above `bytes_max`, or `Zstd` if the level does not exist; then nothing is appended.
    pub fn put(&mut self, out: &mut Vec<u8>, body: &[u8], bytes_max: usize) -> Result<usize, FrameError> {
        if body.len() > bytes_max.min(u32::MAX as usize) {
            return Err(FrameError::TooLarge { bytes: body.len(), max: bytes_max });
        }
        let zstd_error = |e: std::io::Error| FrameError::Zstd(e.to_string());
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            none => none.insert(zstd::bulk::Compressor::new(self.level).map_err(zstd_error)?),
        };
        let compressed = compressor.compress(body).map_err(zstd_error)?;
        let start = out.len();
        out.push(VERSION);
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&compressed);
        let checksum = checksum(&out[start..]);
        out[start + 5..start + HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
        Ok(out.len() - start)
    }
}

/// Over the header without the checksum itself, and the compressed bytes.
fn checksum(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..5]), &frame[HEADER_BYTES..])
}

/// Verifies a frame, which is all of `frame`, and decompresses it. Allocates at most `bytes_max`.
pub fn open_frame(frame: &[u8], bytes_max: usize) -> Result<Vec<u8>, FrameError> {
    let mut header = Reader::new(frame);
    let version = header.u8().map_err(|_| FrameError::TooShort)?;
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    let bytes = header.u32().map_err(|_| FrameError::TooShort)? as usize;
    if header.u32().map_err(|_| FrameError::TooShort)? != checksum(frame) {
        return Err(FrameError::Checksum);
    }
    let compressed = &frame[HEADER_BYTES..];
    let max = bytes_max.min(compressed.len().saturating_mul(SHRINKING_MAX));
    if bytes > max {
        return Err(FrameError::TooLarge { bytes, max });
    }
    let body = zstd::bulk::decompress(compressed, bytes).map_err(|e| FrameError::Zstd(e.to_string()))?;
    if body.len() != bytes {
        return Err(FrameError::Zstd(format!("{} bytes instead of {bytes}", body.len())));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_return_and_damage_is_found() {
        let mut writer = FrameWriter::new(1);
        for body in [&b""[..], b"abc", &[7; 1000]] {
            let mut out = vec![1, 2];
            let length = writer.put(&mut out, body, 1000).unwrap();
            let frame = &mut out[2..];
            assert_eq!(frame.len(), length);
            assert_eq!(open_frame(frame, 1000).unwrap(), body);
            for i in 0..frame.len() {
                assert!(open_frame(&frame[..i], 1000).is_err());
                frame[i] ^= 0x10;
                assert!(open_frame(frame, 1000).is_err());
                frame[i] ^= 0x10;
            }
        }
    }

    #[test]
    fn limits_hold_at_both_ends() {
        let mut out = Vec::new();
        let mut writer = FrameWriter::new(1);
        assert_eq!(writer.put(&mut out, &[0; 11], 10), Err(FrameError::TooLarge { bytes: 11, max: 10 }));
        writer.put(&mut out, &[0; 11], 11).unwrap();
        assert_eq!(open_frame(&out, 10), Err(FrameError::TooLarge { bytes: 11, max: 10 }));
    }
}
