//! A list that grows page by page.
//!
//! A `Vec` that doubles leaves a third of its memory unused on average and holds everything twice while it grows;
//! at a million series that is more than the series themselves take.

/// Items in a page: 64 KiB of 32-byte nodes.
const PAGE: usize = 2048;

/// A list of items in pages of [`PAGE`].
#[derive(Debug)]
pub(crate) struct Pages<T> {
    pages: Vec<Vec<T>>,
}

impl<T> Default for Pages<T> {
    fn default() -> Pages<T> {
        Pages { pages: Vec::new() }
    }
}

impl<T> Pages<T> {
    /// Appends an item and returns its number.
    #[inline]
    pub(crate) fn push(&mut self, item: T) -> u32 {
        match self.pages.last_mut() {
            Some(page) if page.len() < PAGE => page.push(item),
            _ => {
                // The first page grows as it needs: there may be thousands of small tenants.
                let mut page = Vec::with_capacity(if self.pages.is_empty() { 1 } else { PAGE });
                page.push(item);
                self.pages.push(page);
            }
        }
        // A full u32 would be 4 billion items of 24 bytes and more: memory ends long before.
        (self.len() - 1) as u32
    }

    pub(crate) fn len(&self) -> usize {
        match self.pages.last() {
            Some(page) => (self.pages.len() - 1) * PAGE + page.len(),
            None => 0,
        }
    }

    /// Item `i`; panics if there is none.
    #[inline]
    pub(crate) fn get(&self, i: u32) -> &T {
        &self.pages[i as usize / PAGE][i as usize % PAGE]
    }

    /// Item `i`; panics if there is none.
    #[inline]
    pub(crate) fn get_mut(&mut self, i: u32) -> &mut T {
        &mut self.pages[i as usize / PAGE][i as usize % PAGE]
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let items: usize = self.pages.iter().map(Vec::capacity).sum();
        items * size_of::<T>() + self.pages.capacity() * size_of::<Vec<T>>()
    }
}
