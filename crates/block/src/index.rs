//! What every question to a block needs: footer, directory, terms. Immutable, and worth caching.

use bytes::Bytes;
use chunk::open_frame;
use postings::Terms;

use crate::directory::Directory;
use crate::error::{BlockError, Section};
use crate::fetch::Fetch;
use crate::footer::{FOOTER_BYTES, FOOTER_HINT_BYTES, Footer};
use crate::request::{Request, Step};
use crate::writer::{DIRECTORY_BYTES_MAX, TERMS_BYTES_MAX};

/// A block's footer, directory and terms. Share it in an `Arc`.
pub struct BlockIndex {
    pub(crate) footer: Footer,
    pub(crate) directory: Directory,
    pub(crate) terms: Terms,
}

impl BlockIndex {
    /// What the block says of itself.
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// Bytes of memory it takes, for a cache's accounts.
    pub fn memory_bytes(&self) -> usize {
        size_of::<BlockIndex>() + self.directory.memory_bytes() + self.terms.memory_bytes()
    }

    /// The tenants that it has anything of, ascending.
    pub fn tenants(&self) -> impl Iterator<Item = &model::TenantId> {
        self.directory.tenants.iter().map(|entry| &entry.tenant)
    }

    /// Reads it from the object's end, which starts at or before the terms.
    fn decode(footer: Footer, end: &[u8], end_offset: u64) -> Result<BlockIndex, BlockError> {
        let part = |range: &std::ops::Range<u64>| {
            let (start, stop) = (range.start.checked_sub(end_offset), range.end.checked_sub(end_offset));
            start.zip(stop).and_then(|(start, stop)| end.get(start as usize..stop as usize)).unwrap_or(&[])
        };
        let sections = &footer.sections;
        let directory = open_frame(part(&sections.directory), DIRECTORY_BYTES_MAX)
            .map_err(|e| BlockError::corrupt(Section::Directory, sections.directory.start, e))?;
        let directory = Directory::decode(&directory, &footer)
            .map_err(|e| BlockError::corrupt(Section::Directory, sections.directory.start, e))?;
        let terms = open_frame(part(&sections.terms), TERMS_BYTES_MAX)
            .map_err(|e| BlockError::corrupt(Section::Terms, sections.terms.start, e))?;
        let terms = Terms::decode(terms).map_err(|e| BlockError::corrupt(Section::Terms, sections.terms.start, e))?;
        Ok(BlockIndex { footer, directory, terms })
    }
}

/// Reads a block's index: one fetch, or two if it is longer than [`FOOTER_HINT_BYTES`].
pub struct Open {
    object_bytes: u64,
    state: State,
}

enum State {
    /// Nothing is known yet.
    Start,
    /// The footer says that more is needed than came with it: what lies before it.
    More {
        footer: Box<Footer>,
        fetch: Fetch,
        tail: Bytes,
    },
    Done(Box<BlockIndex>),
    Over,
}

impl Open {
    /// `object_bytes` is the object's length, as the index entry names it.
    pub fn new(object_bytes: u64) -> Open {
        Open { object_bytes, state: State::Start }
    }

    fn hint(&self) -> Fetch {
        let start = self.object_bytes.saturating_sub(FOOTER_HINT_BYTES);
        Fetch::one(start..self.object_bytes)
    }
}

impl Request for Open {
    type Output = BlockIndex;

    fn step(&mut self) -> Result<Step<BlockIndex>, BlockError> {
        match &self.state {
            State::Start if self.object_bytes < FOOTER_BYTES => Footer::decode(&[], self.object_bytes)
                .and(Err(BlockError::OutOfTurn("an object this short is no block"))),
            State::Start => Ok(Step::Fetch(self.hint().ranges())),
            State::More { fetch, .. } => Ok(Step::Fetch(fetch.ranges())),
            State::Done(_) | State::Over => match std::mem::replace(&mut self.state, State::Over) {
                State::Done(index) => Ok(Step::Done(*index)),
                _ => Err(BlockError::OutOfTurn("the answer was given already")),
            },
        }
    }

    fn supply(&mut self, parts: Vec<Bytes>) -> Result<(), BlockError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Start => {
                let tail = self.hint().cut(&parts)?.pop().unwrap_or_default();
                let footer = Footer::decode(&tail, self.object_bytes)?;
                let tail_offset = self.object_bytes - tail.len() as u64;
                // Terms, directory and footer are neighbours: whatever is missing lies right before the tail.
                let terms_start = footer.sections.terms.start;
                self.state = if terms_start < tail_offset {
                    State::More { footer: Box::new(footer), fetch: Fetch::one(terms_start..tail_offset), tail }
                } else {
                    State::Done(Box::new(BlockIndex::decode(footer, &tail, tail_offset)?))
                };
                Ok(())
            }
            State::More { footer, fetch, tail } => {
                let mut end = fetch.cut(&parts)?.pop().unwrap_or_default().to_vec();
                end.extend_from_slice(&tail);
                let terms_start = footer.sections.terms.start;
                self.state = State::Done(Box::new(BlockIndex::decode(*footer, &end, terms_start)?));
                Ok(())
            }
            State::Done(_) | State::Over => Err(BlockError::OutOfTurn("nothing was asked for")),
        }
    }
}
