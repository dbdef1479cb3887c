//! How a reader asks for bytes without fetching them itself.

use std::ops::Range;

use bytes::Bytes;

use crate::error::BlockError;

/// What a [`Request`] wants next.
#[derive(Debug)]
pub enum Step<T> {
    /// These byte ranges of the object: ascending, disjoint, never empty. Answer with [`Request::supply`].
    Fetch(Vec<Range<u64>>),
    /// Nothing more: this is the answer.
    Done(T),
}

/// A question to one block; see the crate's example for how to drive it.
pub trait Request {
    /// The answer.
    type Output;

    /// Says what is needed next, or hands out the answer, once. Asks for the same again if it was not supplied.
    fn step(&mut self) -> Result<Step<Self::Output>, BlockError>;

    /// Takes the bytes of the ranges that [`Request::step`] asked for, in their order.
    fn supply(&mut self, parts: Vec<Bytes>) -> Result<(), BlockError>;
}
