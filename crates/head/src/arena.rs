//! Byte strings that stay for as long as the head: label names and values, and which pairs a series has.

use model::put_varint;

/// Bytes of a page; a longer string gets a page of its own.
const PAGE_BYTES: usize = 1 << 16;

/// Where a string lies: page and offset. 4 bytes.
pub(crate) type StringRef = u32;

/// Strings one after the other in pages, each with its length in front.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    pages: Vec<Vec<u8>>,
    scratch: Vec<u8>,
}

impl Arena {
    /// Appends a string. The caller has asked [`Arena::has_room`].
    pub(crate) fn push(&mut self, string: &[u8]) -> StringRef {
        self.scratch.clear();
        put_varint(&mut self.scratch, string.len() as u64);
        let len = self.scratch.len() + string.len();
        let fits = |page: &Vec<u8>| page.len() + len <= PAGE_BYTES;
        if !self.pages.last().is_some_and(fits) {
            self.pages.push(Vec::with_capacity(len.max(PAGE_BYTES)));
        }
        let page_number = self.pages.len() - 1;
        assert!(page_number < 1 << 16, "the arena is asked for room before it is filled");
        let page = &mut self.pages[page_number];
        let at = page.len();
        page.extend_from_slice(&self.scratch);
        page.extend_from_slice(string);
        (page_number << 16 | at) as StringRef
    }

    /// Whether `bytes` in `strings` more strings certainly find room.
    pub(crate) fn has_room(&self, bytes: usize, strings: usize) -> bool {
        // Each page loses at most one string's length; long strings take a page each.
        let pages = (bytes + 10 * strings) / (PAGE_BYTES / 2) + bytes / (PAGE_BYTES / 4) + 2;
        self.pages.len() + pages < 1 << 16
    }

    /// The string at `at`; panics if there is none.
    #[inline]
    pub(crate) fn get(&self, at: StringRef) -> &[u8] {
        let bytes = &self.pages[at as usize >> 16][at as usize & (PAGE_BYTES - 1)..];
        let (mut len, mut shift, mut i) = (0, 0, 0);
        loop {
            len |= usize::from(bytes[i] & 0x7f) << shift;
            i += 1;
            if bytes[i - 1] < 0x80 {
                return &bytes[i..i + len];
            }
            shift += 7;
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.pages.iter().map(Vec::capacity).sum::<usize>() + self.pages.capacity() * size_of::<Vec<u8>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_any_length_return() {
        let mut arena = Arena::default();
        let strings: Vec<Vec<u8>> = (0..2000).map(|i| vec![i as u8; (i * i) % 3001]).collect();
        let long = vec![7; 200_000];
        let refs: Vec<StringRef> = strings.iter().map(|string| arena.push(string)).collect();
        let (long_ref, after) = (arena.push(&long), arena.push(b"after"));
        for (string, at) in strings.iter().zip(refs) {
            assert_eq!(arena.get(at), string);
        }
        assert_eq!(arena.get(long_ref), long);
        assert_eq!(arena.get(after), b"after");
    }
}
