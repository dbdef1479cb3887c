//! Reads a request's body: bounded in bytes, in memory over all requests, and in time.

use axum::body::{Body, HttpBody};
use bytes::Buf;
use http_body_util::BodyExt;
use runtime::Clock;

use crate::budget::HeldBytes;
use crate::settings::Settings;

/// Room that a body is given at first, before it has shown that it needs more.
const FIRST_BYTES: usize = 16 << 10;

/// Why there is no body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// Larger than the limit; what the sender declared, if it did.
    TooLarge(Option<u64>),
    /// Other bodies take all the memory there is for them.
    NoMemory,
    /// Too slow.
    TimedOut,
    /// The sender broke off.
    Broken(String),
}

/// Reads all of `body`; `held` has paid for the result's capacity then.
///
/// A declared length is checked at once, but memory is only taken as bytes come in: it costs nothing to declare.
pub(crate) async fn read_body(
    body: Body,
    bytes_max: usize,
    settings: &Settings,
    clock: &dyn Clock,
    held: &mut HeldBytes,
) -> Result<Vec<u8>, BodyError> {
    let declared = body.size_hint().exact();
    if declared.is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(BodyError::TooLarge(declared));
    }
    let mut body = body;
    let mut bytes = Vec::new();
    let deadline = clock.boottime() + settings.body_timeout;
    loop {
        let wait = settings.body_idle_timeout.min(deadline.saturating_sub(clock.boottime()));
        let frame = match runtime::timeout(clock, wait, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(BodyError::Broken(error.to_string())),
            Ok(None) => return Ok(bytes),
            Err(_) => return Err(BodyError::TimedOut),
        };
        // Trailers say nothing here.
        let Ok(mut data) = frame.into_data() else { continue };
        if bytes.len() + data.remaining() > bytes_max {
            return Err(BodyError::TooLarge(declared));
        }
        let needed = bytes.len() + data.remaining();
        if needed > bytes.capacity() {
            let grown = needed.max(bytes.capacity() * 2).max(FIRST_BYTES).min(bytes_max);
            let grown = declared.map_or(grown, |all| grown.min((all as usize).max(needed)));
            if !held.grow(grown - bytes.capacity()) {
                return Err(BodyError::NoMemory);
            }
            bytes.reserve_exact(grown - bytes.len());
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            bytes.extend_from_slice(chunk);
            let read = chunk.len();
            data.advance(read);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use futures::stream;
    use runtime::{ManualClock, SystemClock};

    use super::*;
    use crate::budget::ByteBudget;

    fn chunks(chunks: &[&'static [u8]]) -> Body {
        let chunks: Vec<_> = chunks.iter().map(|chunk| Ok::<_, std::io::Error>(Bytes::from_static(chunk))).collect();
        Body::from_stream(stream::iter(chunks))
    }

    async fn read(body: Body, bytes_max: usize, memory: usize) -> Result<Vec<u8>, BodyError> {
        let mut held = ByteBudget::new(memory).open();
        read_body(body, bytes_max, &Settings::default(), &SystemClock, &mut held).await
    }

    #[tokio::test]
    async fn bodies_are_read_whole_or_not_at_all() {
        assert_eq!(read(chunks(&[b"ab", b"", b"cd"]), 4, 1 << 20).await, Ok(b"abcd".to_vec()));
        assert_eq!(read(Body::empty(), 4, 1 << 20).await, Ok(Vec::new()));
        assert_eq!(read(chunks(&[b"ab", b"cde"]), 4, 1 << 20).await, Err(BodyError::TooLarge(None)));
        assert_eq!(read(Body::from("abcde"), 4, 1 << 20).await, Err(BodyError::TooLarge(Some(5))));
        assert_eq!(read(chunks(&[b"abcd"]), 4, 3).await, Err(BodyError::NoMemory));
    }

    #[tokio::test]
    async fn a_body_that_does_not_go_on_is_given_up() {
        let clock = ManualClock::new(0);
        let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let (settings, mut held) = (Settings::default(), ByteBudget::new(1 << 20).open());
        let reading = read_body(never, 10, &settings, &clock, &mut held);
        let moving = async {
            tokio::task::yield_now().await;
            clock.advance(Duration::from_secs(10));
        };
        let (read, ()) = tokio::join!(reading, moving);
        assert_eq!(read, Err(BodyError::TimedOut));
    }
}
