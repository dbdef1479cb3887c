//! The object's bytes as they are written: in pieces, as one buffer that grows would be copied, and twice as large, at the end.

use bytes::Bytes;

/// A piece is closed when it is this long.
const PIECE_BYTES: usize = 1 << 20;

/// Bytes that are only ever added to.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    closed: Vec<Bytes>,
    closed_bytes: u64,
    open: Vec<u8>,
}

impl Pieces {
    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        self.closed_bytes + self.open.len() as u64
    }

    /// Where to add bytes, by appending only.
    pub fn end(&mut self) -> &mut Vec<u8> {
        if self.open.len() >= PIECE_BYTES {
            self.close();
        }
        if self.open.capacity() == 0 {
            self.open.reserve(PIECE_BYTES + PIECE_BYTES / 4);
        }
        &mut self.open
    }

    /// Adds a piece that is there already.
    pub fn push(&mut self, piece: Bytes) {
        self.close();
        self.closed_bytes += piece.len() as u64;
        self.closed.push(piece);
    }

    /// Every piece, in order.
    pub fn into_vec(mut self) -> Vec<Bytes> {
        self.close();
        self.closed
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            let mut piece = std::mem::take(&mut self.open);
            piece.shrink_to_fit();
            self.closed_bytes += piece.len() as u64;
            self.closed.push(piece.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let (mut pieces, mut expected) = (Pieces::default(), Vec::new());
        for i in 0..40_u8 {
            let bytes = vec![i; usize::from(i) * 9_000];
            pieces.end().extend_from_slice(&bytes);
            expected.extend_from_slice(&bytes);
            assert_eq!(pieces.len(), expected.len() as u64);
        }
        pieces.push("end".into());
        expected.extend_from_slice(b"end");
        assert_eq!(pieces.len(), expected.len() as u64);
        let pieces = pieces.into_vec();
        assert!(pieces.len() > 3 && pieces.iter().all(|piece| !piece.is_empty()));
        assert_eq!(pieces.concat(), expected);
    }
}
