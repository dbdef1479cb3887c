//! Adopt: a fenced writer's segments become a head again, then a block, which closes the writer. A state machine.
//!
//! An adoption stands on a lease: a grant to this node that is the newest one. It loads the segments in order, PUTs
//! one block of all of them and proposes Cut; or Close, if nothing readable is left. What can't be decoded is put
//! aside by an entry first, with everything behind it, as segments build on one another (RELIABILITY.md, row 21).
//! When the index says that the writer is closed, or granted to another, it ends, wherever it is: nothing that it has done
//! harms anybody, because its entries are refused from then on and its block is dead.
//!
//! No clock, no I/O, no task: [`Adopt::step`] is given the time, what happened and the applied index.

use std::time::Duration;

use index::{Index, Stage};
use model::{Lease, NodeId, SegmentNumber, WriterId};

/// What the machine goes by.
#[derive(Debug, Clone, Copy)]
pub struct AdoptRules {
    /// Wait after the bucket failed, doubled with each further failure.
    pub retry_delay_min: Duration,
    /// Longest such wait.
    pub retry_delay_max: Duration,
}

impl Default for AdoptRules {
    fn default() -> AdoptRules {
        AdoptRules { retry_delay_min: Duration::from_millis(100), retry_delay_max: Duration::from_secs(10) }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The index moved, or time passed.
    Tick,
    /// The head took in a segment; they come in order.
    Loaded {
        /// Which.
        n: SegmentNumber,
    },
    /// The bucket did not give a segment; loading has stopped there.
    NotLoaded,
    /// A segment is not there or does not decode, and never will; loading has stopped there.
    Unreadable {
        /// Which.
        n: SegmentNumber,
    },
    /// The block is stored.
    Stored,
    /// It is not, or nobody knows.
    NotStored,
    /// The proposed entry was applied or refused; the index says which.
    Decided,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Load these segments into the head, in order, leaving quarantined ones out.
    Load {
        /// The first.
        from: SegmentNumber,
        /// The last.
        upto: SegmentNumber,
    },
    /// Propose Quarantine until it is decided.
    Quarantine {
        /// The first.
        from: SegmentNumber,
        /// The last.
        upto: SegmentNumber,
    },
    /// Pack the head, which holds all that is readable, and PUT the block under this attempt's key.
    Pack {
        /// Never the same twice.
        attempt: u64,
    },
    /// Propose Cut for the stored block until it is decided.
    Cut {
        /// The writer's last cut.
        from: SegmentNumber,
        /// Its last segment.
        upto: SegmentNumber,
    },
    /// Propose Close until it is decided.
    Close,
    /// Nothing more comes: drop the head.
    End(End),
}

/// How an adoption ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The writer is closed.
    Closed,
    /// The lease is somebody else's now.
    Superseded,
    /// The index refused what only this adoption may do: a bug.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Granted,
    Loading { upto: SegmentNumber },
    LoadingAgain { at: Duration },
    Quarantining,
    Packing,
    PackingAgain { at: Duration },
    Proposing,
    Ended,
}

/// The machine of one adoption; see the module.
#[derive(Debug)]
pub struct Adopt {
    rules: AdoptRules,
    writer: WriterId,
    node: NodeId,
    lease: Lease,
    state: State,
    /// The head has everything readable up to here.
    loaded: SegmentNumber,
    failures: u32,
    /// The next block's.
    attempt: u64,
}

/// The writers whose newest adoption is granted to `node`, oldest first.
pub fn granted(index: &Index, node: NodeId) -> impl Iterator<Item = (WriterId, Lease)> {
    let incarnation = index.incarnation();
    index
        .writers()
        .filter(move |(_, writer)| writer.stage == Stage::Fenced && writer.adopter == Some(node))
        .map(move |(id, writer)| (id, Lease { incarnation, number: writer.lease }))
}

/// The live writers of `node` that are not this process's writer, nor the one that it is registering.
///
/// Nobody else would fence them, because the node renews its session. They come from Registers that commit late: after their
/// process has ended, or a second time when their first writer is closed and forgotten.
pub fn strays(index: &Index, node: NodeId, is_ours: impl Fn(WriterId, u64) -> bool) -> impl Iterator<Item = WriterId> {
    let strays = index
        .writers()
        .filter(move |(id, writer)| writer.stage == Stage::Live && writer.node == node && !is_ours(*id, writer.nonce));
    strays.map(|(id, _)| id)
}

impl Adopt {
    /// The machine of an adoption by `node` under `lease`. The head holds the segments from the cut to `loaded` already.
    ///
    /// `nonce` is drawn at random: an earlier life of this node may have PUT blocks under the same lease, and no key
    /// is used for two contents.
    pub fn new(
        rules: AdoptRules,
        writer: WriterId,
        node: NodeId,
        lease: Lease,
        loaded: SegmentNumber,
        nonce: u64,
    ) -> Adopt {
        // Half of the range, so that counting on from there does not overflow.
        let attempt = nonce >> 1;
        Adopt { rules, writer, node, lease, state: State::Granted, loaded, failures: 0, attempt }
    }

    /// Under which grant.
    pub fn lease(&self) -> Lease {
        self.lease
    }

    /// When `step` wants to be called (with `Tick`), if nothing else happens before.
    pub fn wake_at(&self) -> Option<Duration> {
        match self.state {
            State::LoadingAgain { at } | State::PackingAgain { at } => Some(at),
            _ => None,
        }
    }

    /// Takes in what happened and returns what to do. `index` is what is applied here.
    pub fn step(&mut self, now: Duration, input: Input, index: &Index) -> Option<Output> {
        if self.state == State::Ended {
            return None;
        }
        let Some(writer) = index.writer(self.writer) else { return self.end(End::Closed) };
        if index.adopt_lease(self.writer) != Some((self.node, self.lease)) {
            return self.end(End::Superseded);
        }
        match (input, self.state) {
            (Input::Loaded { n }, State::Loading { upto }) => {
                self.loaded = n;
                self.failures = 0;
                if n == upto { self.finish(index) } else { None }
            }
            (Input::NotLoaded, State::Loading { .. }) => {
                self.state = State::LoadingAgain { at: self.retry_at(now) };
                None
            }
            (Input::Unreadable { n }, State::Loading { upto }) => {
                self.state = State::Quarantining;
                Some(Output::Quarantine { from: n, upto })
            }
            (Input::Decided, State::Quarantining) => self.load(index),
            (Input::Stored, State::Packing) => {
                self.state = State::Proposing;
                Some(Output::Cut { from: writer.cut, upto: writer.added })
            }
            (Input::NotStored, State::Packing) => {
                self.state = State::PackingAgain { at: self.retry_at(now) };
                None
            }
            // The writer is still there and still ours.
            (Input::Decided, State::Proposing) => self.end(End::Refused),
            (_, State::Granted) => self.load(index),
            (_, State::LoadingAgain { at }) if at <= now => self.load(index),
            (_, State::PackingAgain { at }) if at <= now => self.pack(),
            _ => None,
        }
    }

    /// Loads what the head lacks, or goes on if it lacks nothing.
    fn load(&mut self, index: &Index) -> Option<Output> {
        let from = self.loaded + 1;
        match self.readable(index).filter(|n| *n >= from).last() {
            Some(upto) => {
                self.state = State::Loading { upto };
                Some(Output::Load { from, upto })
            }
            None => self.finish(index),
        }
    }

    fn finish(&mut self, index: &Index) -> Option<Output> {
        if self.readable(index).next().is_none() {
            self.state = State::Proposing;
            return Some(Output::Close);
        }
        self.failures = 0;
        self.pack()
    }

    fn pack(&mut self) -> Option<Output> {
        self.state = State::Packing;
        self.attempt += 1;
        Some(Output::Pack { attempt: self.attempt })
    }

    fn end(&mut self, end: End) -> Option<Output> {
        self.state = State::Ended;
        Some(Output::End(end))
    }

    /// The numbers of the writer's segments that are neither cut nor quarantined.
    fn readable(&self, index: &Index) -> impl Iterator<Item = SegmentNumber> {
        let all = index.writer(self.writer).into_iter().flat_map(|writer| writer.cut + 1..=writer.added);
        all.filter(|n| !index.is_quarantined(self.writer, *n))
    }

    fn retry_at(&mut self, now: Duration) -> Duration {
        let delay = self.rules.retry_delay_min.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        now + delay.min(self.rules.retry_delay_max)
    }
}

#[cfg(test)]
mod tests {
    use index::{BlockId, BlockMeta, Command, Entry, SegmentMeta};
    use model::{Revision, Right};

    use super::*;

    const ME: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);
    const NOW: Duration = Duration::from_secs(100);
    const W: WriterId = WriterId(Revision { incarnation: 1, position: 1 });

    fn apply(index: &mut Index, command: Command) {
        index.apply(index.revision().position + 1, &Entry { incarnation: 1, command }).unwrap();
    }

    /// A fenced writer with so many segments, granted to this node, and its adoption.
    fn world(segments: u64) -> (Index, Adopt) {
        let mut index = Index::new(7, 1);
        apply(&mut index, Command::Register { node: OTHER, nonce: 0 });
        for n in 1..=segments {
            let segment = SegmentMeta { attempt: 0, bytes: 1, range: None };
            apply(&mut index, Command::AddSegment { writer: W, n, segment });
        }
        apply(&mut index, Command::Fence { writer: W });
        apply(&mut index, Command::GrantAdopt { writer: W, node: ME, number: 1 });
        let (id, lease) = granted(&index, ME).next().unwrap();
        (index, Adopt::new(AdoptRules::default(), id, ME, lease, 0, 10))
    }

    fn cut(index: &mut Index, attempt: u64) {
        let (_, lease) = index.adopt_lease(W).unwrap();
        let added = index.writer(W).unwrap().added;
        let id = BlockId { right: Right::Adopter(W, lease), attempt };
        let block = BlockMeta { id, bytes: 1, range: None, series: 1, samples: 1, built_at: index.revision() };
        apply(index, Command::Cut { writer: W, from: 0, upto: added, block, lease: Some(lease) });
    }

    #[test]
    fn segments_become_a_block() {
        let (mut index, mut adopt) = world(2);
        assert_eq!(adopt.step(NOW, Input::Tick, &index), Some(Output::Load { from: 1, upto: 2 }));
        assert_eq!(adopt.step(NOW, Input::Loaded { n: 1 }, &index), None);
        assert_eq!(adopt.step(NOW, Input::Loaded { n: 2 }, &index), Some(Output::Pack { attempt: 6 }));
        assert_eq!(adopt.step(NOW, Input::NotStored, &index), None);
        let again = adopt.wake_at().unwrap();
        assert_eq!(adopt.step(again, Input::Tick, &index), Some(Output::Pack { attempt: 7 }));
        assert_eq!(adopt.step(again, Input::Stored, &index), Some(Output::Cut { from: 0, upto: 2 }));
        cut(&mut index, 7);
        assert_eq!(adopt.step(again, Input::Tick, &index), Some(Output::End(End::Closed)));
        assert_eq!(adopt.step(again, Input::Decided, &index), None);
    }

    #[test]
    fn a_writer_without_segments_is_closed() {
        let (mut index, mut adopt) = world(0);
        assert_eq!(adopt.step(NOW, Input::Tick, &index), Some(Output::Close));
        apply(&mut index, Command::Close { writer: W, lease: adopt.lease() });
        assert_eq!(adopt.step(NOW, Input::Decided, &index), Some(Output::End(End::Closed)));
    }

    #[test]
    fn a_superseded_adoption_ends_wherever_it_is() {
        for steps in 0..4 {
            let (mut index, mut adopt) = world(1);
            for input in [Input::Tick, Input::Loaded { n: 1 }, Input::Stored].into_iter().take(steps) {
                assert!(adopt.step(NOW, input, &index).is_some());
            }
            apply(&mut index, Command::GrantAdopt { writer: W, node: OTHER, number: 2 });
            assert_eq!(adopt.step(NOW, Input::Tick, &index), Some(Output::End(End::Superseded)));
        }
    }

    #[test]
    fn what_does_not_decode_is_put_aside_with_what_is_behind_it() {
        let (mut index, mut adopt) = world(4);
        adopt.step(NOW, Input::Tick, &index);
        adopt.step(NOW, Input::Loaded { n: 1 }, &index);
        let aside = adopt.step(NOW, Input::Unreadable { n: 2 }, &index);
        assert_eq!(aside, Some(Output::Quarantine { from: 2, upto: 4 }));
        apply(&mut index, Command::Quarantine { writer: W, from: 2, upto: 4, lease: adopt.lease() });
        assert_eq!(adopt.step(NOW, Input::Decided, &index), Some(Output::Pack { attempt: 6 }));

        // The next adopter, which reads even less.
        apply(&mut index, Command::GrantAdopt { writer: W, node: ME, number: 2 });
        let (_, lease) = granted(&index, ME).next().unwrap();
        let mut next = Adopt::new(AdoptRules::default(), W, ME, lease, 0, 0);
        assert_eq!(next.step(NOW, Input::Tick, &index), Some(Output::Load { from: 1, upto: 1 }));
        let aside = next.step(NOW, Input::Unreadable { n: 1 }, &index);
        assert_eq!(aside, Some(Output::Quarantine { from: 1, upto: 1 }));
        apply(&mut index, Command::Quarantine { writer: W, from: 1, upto: 1, lease });
        assert_eq!(next.step(NOW, Input::Decided, &index), Some(Output::Close));
    }

    #[test]
    fn a_register_that_comes_twice_leaves_a_stray() {
        let mut index = Index::new(7, 1);
        let register = Command::Register { node: ME, nonce: 5 };
        apply(&mut index, register.clone());
        apply(&mut index, Command::Register { node: OTHER, nonce: 6 });
        assert_eq!(strays(&index, ME, |id, nonce| id == W || nonce == 9).count(), 0);
        apply(&mut index, Command::Fence { writer: W });
        apply(&mut index, Command::GrantAdopt { writer: W, node: ME, number: 1 });
        let (_, lease) = granted(&index, ME).next().unwrap();
        apply(&mut index, Command::Close { writer: W, lease });
        // Its writer is forgotten, so nothing refuses it.
        apply(&mut index, register);
        let second = WriterId(index.revision());
        assert_eq!(strays(&index, ME, |id, nonce| id == W || nonce == 9).collect::<Vec<_>>(), [second]);
    }

    #[test]
    fn loading_goes_on_where_the_bucket_failed() {
        let (index, mut adopt) = world(3);
        adopt.step(NOW, Input::Tick, &index);
        adopt.step(NOW, Input::Loaded { n: 1 }, &index);
        assert_eq!(adopt.step(NOW, Input::NotLoaded, &index), None);
        assert_eq!(adopt.step(NOW, Input::Tick, &index), None, "not at once");
        let at = adopt.wake_at().unwrap();
        assert_eq!(adopt.step(at, Input::Tick, &index), Some(Output::Load { from: 2, upto: 3 }));
    }
}
