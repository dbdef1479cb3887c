//! Messages of consensus: they may be lost, but come in order.
//!
//! Those to a node wait in a bounded queue, and are the body of one request that goes on for as long as the connection stands:
//! a message costs neither a request of its own nor an answer. What waits goes out together, in one frame.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::settings::Settings;

/// Posts in one frame, unless a single one is longer.
const FRAME_BYTES: usize = 1 << 20;

/// Posts that wait for one node.
#[derive(Default)]
pub(crate) struct Mailbox {
    waiting: Mutex<Waiting>,
    /// Told with each post, for whoever waits for the first one to make a body.
    filled: Notify,
}

#[derive(Default)]
struct Waiting {
    posts: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Which body takes them; those before it have ended.
    body: u64,
    /// Who polls that body.
    taker: Option<Waker>,
    is_closed: bool,
}

impl Mailbox {
    /// Puts a post behind the others; whether there was room.
    pub fn put(&self, post: Vec<u8>, settings: &Settings) -> bool {
        let mut waiting = self.waiting.lock();
        let is_full = waiting.posts.len() >= settings.posts_waiting_max
            || waiting.bytes + post.len() > settings.posts_waiting_bytes_max;
        if is_full {
            return false;
        }
        waiting.bytes += post.len();
        waiting.posts.push_back(post);
        self.tell(waiting);
        true
    }

    /// The node is known no more, or is elsewhere: nothing is taken from here again.
    pub fn close(&self) {
        let mut waiting = self.waiting.lock();
        waiting.is_closed = true;
        self.tell(waiting);
    }

    fn tell(&self, mut waiting: MutexGuard<'_, Waiting>) {
        let taker = waiting.taker.take();
        drop(waiting);
        self.filled.notify_one();
        if let Some(taker) = taker {
            taker.wake();
        }
    }

    pub fn is_closed(&self) -> bool {
        self.waiting.lock().is_closed
    }

    /// Waits for a post, or for the end.
    pub async fn filled(&self) {
        loop {
            {
                let waiting = self.waiting.lock();
                if waiting.is_closed || !waiting.posts.is_empty() {
                    return;
                }
            }
            self.filled.notified().await;
        }
    }

    /// A body that takes all posts from now on.
    pub fn body(self: &Arc<Self>) -> Posts {
        let mut waiting = self.waiting.lock();
        waiting.body += 1;
        Posts { mailbox: self.clone(), number: waiting.body }
    }

    /// Drops what waits, and ends the body that takes it; how many posts there were.
    pub fn empty(&self) -> usize {
        let mut waiting = self.waiting.lock();
        waiting.body += 1;
        waiting.bytes = 0;
        let dropped = std::mem::take(&mut waiting.posts).len();
        self.tell(waiting);
        dropped
    }
}

/// The body of a request: posts, as they come.
pub(crate) struct Posts {
    mailbox: Arc<Mailbox>,
    number: u64,
}

impl Body for Posts {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut posts = Vec::new();
        {
            let mut waiting = self.mailbox.waiting.lock();
            if waiting.is_closed || waiting.body != self.number {
                return Poll::Ready(None);
            }
            // Under the lock, which whoever puts a post holds: none is missed, and no body that has ended takes the place.
            waiting.taker = Some(context.waker().clone());
            let mut bytes = 0;
            while let Some(next) = waiting.posts.front()
                && (posts.is_empty() || bytes + next.len() <= FRAME_BYTES)
                && let Some(post) = waiting.posts.pop_front()
            {
                waiting.bytes -= post.len();
                bytes += post.len();
                posts.push(post);
            }
        }
        if posts.is_empty() {
            return Poll::Pending;
        }
        let mut frame = Vec::with_capacity(posts.iter().map(|post| LENGTH_BYTES + post.len()).sum());
        posts.iter().for_each(|post| put_post(&mut frame, post));
        Poll::Ready(Some(Ok(Frame::data(frame.into()))))
    }
}

/// Of a post's length, before it: `u32`, little-endian.
const LENGTH_BYTES: usize = 4;

fn put_post(out: &mut Vec<u8>, post: &[u8]) {
    let length = u32::try_from(post.len()).expect("what waits for a node is under 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(post);
}

/// The bytes of the first post of a stream, with its length; `None` if the length is not whole.
fn first_bytes(stream: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*stream.first_chunk()?);
    Some(LENGTH_BYTES + length as usize)
}

/// What came of a stream of posts and is not handed on yet.
#[derive(Default)]
pub(crate) struct Incomplete(Vec<u8>);

impl Incomplete {
    /// Takes in what came, and returns all posts that are whole now.
    pub fn take_in(&mut self, came: Bytes) -> Bytes {
        let whole = |stream: &[u8]| {
            let mut whole = 0;
            while let Some(bytes) = first_bytes(&stream[whole..]).filter(|bytes| *bytes <= stream.len() - whole) {
                whole += bytes;
            }
            whole
        };
        // As a rule a frame is whole posts.
        if self.0.is_empty() && whole(&came) == came.len() {
            return came;
        }
        self.0.extend_from_slice(&came);
        match whole(&self.0) {
            // A long post comes in many pieces: nothing is moved until it is whole.
            0 => Bytes::new(),
            whole => {
                let rest = self.0.split_off(whole);
                std::mem::replace(&mut self.0, rest).into()
            }
        }
    }

    /// How long the post is that is still coming, if that is known.
    pub fn bytes(&self) -> Option<usize> {
        first_bytes(&self.0)
    }

    /// Makes room for the rest of it.
    pub fn reserve(&mut self) {
        let missing = self.bytes().unwrap_or(0).saturating_sub(self.0.len());
        self.0.reserve_exact(missing);
    }
}

/// The posts in a piece of a stream that ends with one; `None` if it does not.
pub fn split_posts(mut body: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut posts = Vec::new();
    while !body.is_empty() {
        let (post, rest) = body.split_at_checked(first_bytes(body)?)?;
        posts.push(post[LENGTH_BYTES..].to_vec());
        body = rest;
    }
    Some(posts)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn posts_are_handed_on_whole_however_the_stream_is_cut(
            posts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..20),
            cuts in prop::collection::vec(1_usize..30, 1..20),
        ) {
            let mut stream = Vec::new();
            posts.iter().for_each(|post| put_post(&mut stream, post));
            let (mut incomplete, mut found, mut rest) = (Incomplete::default(), Vec::new(), &stream[..]);
            for cut in cuts.into_iter().cycle() {
                let (came, later) = rest.split_at(cut.min(rest.len()));
                found.extend(split_posts(&incomplete.take_in(Bytes::copy_from_slice(came))).unwrap());
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(incomplete.bytes(), None);
            prop_assert_eq!(found, posts);
        }

        #[test]
        fn any_bytes_are_no_posts_at_worst(pieces: Vec<Vec<u8>>) {
            let mut incomplete = Incomplete::default();
            for piece in pieces {
                prop_assert!(split_posts(&incomplete.take_in(piece.into())).is_some());
            }
            prop_assert!(incomplete.bytes().is_none_or(|bytes| bytes > incomplete.0.len()));
        }
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_body_that_was_replaced_takes_no_wakeup() {
        let mailbox = Arc::new(Mailbox::default());
        let [old, new] = [Arc::<Woken>::default(), Arc::default()];
        let poll = |body: &mut Posts, woken: &Arc<Woken>| {
            let waker = woken.clone().into();
            Pin::new(body).poll_frame(&mut Context::from_waker(&waker)).is_pending()
        };
        let (mut first, mut second) = (mailbox.body(), mailbox.body());
        assert!(poll(&mut second, &new));
        assert!(!poll(&mut first, &old));
        assert!(mailbox.put(vec![1], &Settings::default()));
        assert_eq!([old, new].map(|woken| woken.0.load(Ordering::Relaxed)), [0, 1]);
    }

    #[test]
    fn a_body_ends_when_it_is_replaced_and_when_the_mailbox_closes() {
        let mailbox = Arc::new(Mailbox::default());
        let settings = Settings { posts_waiting_max: 2, ..Settings::default() };
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut take = |body: &mut Posts| match Pin::new(body).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => split_posts(&frame.into_data().unwrap()),
            Poll::Ready(_) => Some(Vec::new()),
            Poll::Pending => None,
        };
        let mut first = mailbox.body();
        assert_eq!(take(&mut first), None);
        assert_eq!([1, 2, 3].map(|post| mailbox.put(vec![post], &settings)), [true, true, false]);
        assert_eq!(take(&mut first), Some(vec![vec![1], vec![2]]));
        assert!(mailbox.put(vec![4], &settings));
        assert_eq!(mailbox.empty(), 1);
        assert!(mailbox.put(vec![5], &settings));
        let mut second = mailbox.body();
        assert_eq!(take(&mut first), Some(Vec::new()));
        assert_eq!(take(&mut second), Some(vec![vec![5]]));
        mailbox.close();
        assert_eq!(take(&mut second), Some(Vec::new()));
    }
}
