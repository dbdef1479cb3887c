//! A walk over protobuf's wire format: tags, varints, lengths, each checked, nothing copied.
//!
//! [`Fields`] knows the format but no schema: the caller matches on (field number, wire type). Nested
//! messages are walked in place within the same slice, so that an error always names the offset in the
//! whole body. Unknown fields are skipped, groups included.

use crate::error::ProtoError;

/// Varints: int32, int64, uint, sint, bool, enum.
pub(crate) const VARINT: u8 = 0;
/// Eight bytes, little-endian.
pub(crate) const FIXED64: u8 = 1;
/// A length, then that many bytes: strings, messages, packed scalars.
pub(crate) const LENGTH: u8 = 2;
const GROUP_START: u8 = 3;
const GROUP_END: u8 = 4;
const FIXED32: u8 = 5;

/// Groups within groups in an unknown field. They were retired before this schema existed: any is an oddity.
const GROUP_DEPTH_MAX: usize = 16;

/// Walks the fields of one message: `bytes[position..end]`.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    position: usize,
    end: usize,
}

impl<'a> Fields<'a> {
    /// The fields of a message that is all of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Fields<'a> {
        Fields { bytes, position: 0, end: bytes.len() }
    }

    /// Where the next byte lies.
    #[inline]
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// Whether the message ends here.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.position == self.end
    }

    /// Bytes left in the message.
    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.position..self.end]
    }

    /// Moves past `bytes` bytes that the caller has found in [`Fields::rest`].
    #[inline]
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.position += bytes;
        debug_assert!(self.position <= self.end);
    }

    #[cold]
    pub(crate) fn error(&self, what: &'static str) -> ProtoError {
        ProtoError::Malformed { offset: self.position, what }
    }

    /// The next field's number and wire type, or `None` at the end of the message.
    #[inline]
    pub(crate) fn tag(&mut self) -> Result<Option<(u32, u8)>, ProtoError> {
        if self.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let Ok(tag) = u32::try_from(tag) else {
            return Err(self.error("field number out of range"));
        };
        if tag >> 3 == 0 {
            return Err(self.error("field number 0"));
        }
        Ok(Some((tag >> 3, (tag & 7) as u8)))
    }

    /// A varint of at most ten bytes that fits 64 bits.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, ProtoError> {
        match self.rest().first() {
            Some(&byte) if byte < 0x80 => {
                self.position += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, ProtoError> {
        let mut value = 0;
        for (i, &byte) in self.rest().iter().take(10).enumerate() {
            if i == 9 && byte > 1 {
                return Err(self.error("varint over 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.position += i + 1;
                return Ok(value);
            }
        }
        Err(self.error("message ends within a varint"))
    }

    /// Eight bytes, as the bits of a float.
    #[inline]
    pub(crate) fn f64(&mut self) -> Result<f64, ProtoError> {
        let Some(bytes) = self.rest().first_chunk::<8>() else {
            return Err(self.error("message ends within a double"));
        };
        self.position += 8;
        Ok(f64::from_bits(u64::from_le_bytes(*bytes)))
    }

    /// A length, then the fields of the nested message (or the packed scalars) that it spans; `self` moves past it.
    #[inline]
    pub(crate) fn nested(&mut self) -> Result<Fields<'a>, ProtoError> {
        let length = self.varint()?;
        if length > (self.end - self.position) as u64 {
            return Err(self.error("length runs past the end of the message"));
        }
        let start = self.position;
        self.position += length as usize;
        Ok(Fields { bytes: self.bytes, position: start, end: self.position })
    }

    /// Skips the value of a field that the schema does not know.
    pub(crate) fn skip(&mut self, field: u32, wire_type: u8) -> Result<(), ProtoError> {
        match wire_type {
            GROUP_START => self.skip_group(field),
            GROUP_END => Err(self.error("group ends that never began")),
            _ => self.skip_scalar(wire_type),
        }
    }

    fn skip_scalar(&mut self, wire_type: u8) -> Result<(), ProtoError> {
        let bytes = match wire_type {
            VARINT => {
                self.varint()?;
                return Ok(());
            }
            LENGTH => {
                self.nested()?;
                return Ok(());
            }
            FIXED64 => 8,
            FIXED32 => 4,
            _ => return Err(self.error("unknown wire type")),
        };
        if self.end - self.position < bytes {
            return Err(self.error("message ends within a fixed-width value"));
        }
        self.position += bytes;
        Ok(())
    }

    fn skip_group(&mut self, field: u32) -> Result<(), ProtoError> {
        let mut open = vec![field];
        while let Some(&innermost) = open.last() {
            match self.tag()? {
                Some((field, GROUP_START)) if open.len() < GROUP_DEPTH_MAX => open.push(field),
                Some((_, GROUP_START)) => return Err(self.error("groups nested too deeply")),
                Some((field, GROUP_END)) if field == innermost => {
                    open.pop();
                }
                Some((_, GROUP_END)) => return Err(self.error("group ends that never began")),
                Some((_, wire_type)) => self.skip_scalar(wire_type)?,
                None => return Err(self.error("message ends within a group")),
            }
        }
        Ok(())
    }

    /// What an unknown field is skipped with, or an error if the schema knows `field` with another wire type.
    pub(crate) fn skip_unknown(&mut self, field: u32, wire_type: u8, known: &[u32]) -> Result<(), ProtoError> {
        if known.contains(&field) {
            return Err(self.error("field has the wrong wire type"));
        }
        self.skip(field, wire_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_skips(bytes: &[u8], ok: bool) {
        let mut fields = Fields::new(bytes);
        let result = (|| {
            while let Some((field, wire_type)) = fields.tag()? {
                fields.skip(field, wire_type)?;
            }
            Ok::<_, ProtoError>(())
        })();
        assert_eq!(result.is_ok(), ok, "{bytes:?}: {result:?}");
    }

    #[test]
    fn each_wire_type_is_skipped() {
        check_skips(&[0x08, 0x96, 0x01], true);
        check_skips(&[0x09, 1, 2, 3, 4, 5, 6, 7, 8], true);
        check_skips(&[0x0a, 2, 0, 0], true);
        check_skips(&[0x0d, 1, 2, 3, 4], true);
        check_skips(&[0x0b, 0x13, 0x08, 1, 0x14, 0x0c], true);
    }

    #[test]
    fn what_no_encoder_writes_is_an_error() {
        check_skips(&[0x08], false);
        check_skips(&[0x09, 1, 2], false);
        check_skips(&[0x0a, 3, 0, 0], false);
        check_skips(&[0x0d, 1], false);
        check_skips(&[0x0b, 0x08, 1], false);
        check_skips(&[0x0b, 0x14], false);
        check_skips(&[0x0c], false);
        check_skips(&[0x0e], false);
        check_skips(&[0x00, 1], false);
        check_skips(&[0x0b; 40], false);
        check_skips(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], false);
        check_skips(&[0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0], false);
    }
}
