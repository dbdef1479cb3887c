//! The ledger: everything that was sent, stored, acked and deleted, which no process of the cluster sees.
//!
//! A sample that arrives at a writer becomes an *occurrence* there; one that is sent again becomes another. An answer is the
//! set of occurrences that a query found: each committed one exactly once, so a sample that is counted through both a
//! block and a head shows, though merging would hide it from a user.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use index::{Delete, DeleteMatcher};
use model::{MatchOp, Revision, SegmentNumber, TenantId, TimeRange, WriterId};

/// One sample as a client sends it.
pub(crate) type SampleId = u32;
/// One sample as one writer took it in.
pub(crate) type Occurrence = u32;
/// A series; deletes match its group.
pub(crate) type Series = u16;

/// What a segment's object holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub writer: WriterId,
    pub n: SegmentNumber,
    pub sealed_at: Revision,
    /// What follows a cut point: every series is spelled anew, whether the cut is ever committed or not.
    pub first_after_cut: bool,
    /// Series named for the first time since the cut point.
    pub spells: Vec<Series>,
    pub occurrences: Vec<Occurrence>,
}

/// What a block's object holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub built_at: Revision,
    pub occurrences: Vec<Occurrence>,
}

#[derive(Debug)]
pub(crate) struct Sample {
    pub series: Series,
    pub group: u16,
    pub first_sent: u64,
    pub last_arrived: u64,
    pub acked: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct DeleteState {
    pub group: u16,
    pub proposed: u64,
    pub revision: Option<Revision>,
    pub answered: Option<u64>,
}

/// Occurrences that are data from a revision on; later deletes than `built_at` concern them.
#[derive(Debug)]
struct Data {
    since: Revision,
    built_at: Revision,
    origin: Option<(WriterId, SegmentNumber)>,
    occurrences: Rc<Segment>,
}

/// See the module. Times are counts of events, so that "before" is exact.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub samples: Vec<Sample>,
    pub occurrences: Vec<SampleId>,
    pub segments: BTreeMap<(WriterId, SegmentNumber), Rc<Segment>>,
    pub deletes: Vec<DeleteState>,
    /// Segments whose objects do not decode.
    pub poisoned: BTreeSet<(WriterId, SegmentNumber)>,
    data: Vec<Data>,
}

/// Deletes as the index has them: at which revision, which group.
pub(crate) type Deletes = Vec<(Revision, u16)>;

/// A delete of one group's samples.
pub(crate) fn delete_of(group: u16, nonce: u64) -> Delete {
    Delete {
        nonce,
        tenant: TenantId::new("sim").expect("a valid tenant"),
        matchers: vec![DeleteMatcher { name: "group".to_owned(), op: MatchOp::Equal, value: group.to_string() }],
        range: TimeRange::ALL,
    }
}

/// The group of such a delete.
pub(crate) fn group_of(delete: &Delete) -> u16 {
    delete.matchers.first().and_then(|matcher| matcher.value.parse().ok()).expect("made by delete_of")
}

impl Ledger {
    pub(crate) fn group(&self, occurrence: Occurrence) -> u16 {
        self.sample(occurrence).group
    }

    pub(crate) fn sample(&self, occurrence: Occurrence) -> &Sample {
        &self.samples[self.occurrences[occurrence as usize] as usize]
    }

    /// Those of `occurrences`, stored in something built at a revision, that deletes leave.
    pub(crate) fn left<'a>(
        &'a self,
        occurrences: &'a [Occurrence],
        built_at: Revision,
        deletes: &'a Deletes,
    ) -> impl Iterator<Item = Occurrence> + 'a {
        let is_left = move |occurrence: &Occurrence| {
            let group = self.group(*occurrence);
            !deletes.iter().any(|(at, deleted)| *deleted == group && *at > built_at)
        };
        occurrences.iter().copied().filter(is_left)
    }

    /// A segment was committed.
    pub(crate) fn added(&mut self, writer: WriterId, n: SegmentNumber, at: Revision) {
        let segment = self.segments[&(writer, n)].clone();
        let built_at = segment.sealed_at;
        self.data.push(Data { since: at, built_at, origin: Some((writer, n)), occurrences: segment });
    }

    /// A recovery starts from these: segments, and contents of blocks.
    pub(crate) fn begin(&mut self, segments: &[Rc<Segment>], blocks: &[Rc<Block>]) {
        self.data.clear();
        let since = Revision::default();
        for segment in segments {
            let origin = Some((segment.writer, segment.n));
            self.data.push(Data { since, built_at: segment.sealed_at, origin, occurrences: segment.clone() });
        }
        for block in blocks {
            let contents = Segment {
                writer: WriterId(since),
                n: 0,
                sealed_at: block.built_at,
                first_after_cut: false,
                spells: vec![],
                occurrences: block.occurrences.clone(),
            };
            self.data.push(Data { since, built_at: block.built_at, origin: None, occurrences: Rc::new(contents) });
        }
    }

    /// Exactly what a query at this revision finds, ascending; quarantined segments left out.
    pub(crate) fn expected(
        &self,
        at: Revision,
        deletes: &Deletes,
        quarantined: impl Fn(WriterId, SegmentNumber) -> bool,
    ) -> Vec<Occurrence> {
        let mut all = Vec::new();
        for data in self.data.iter().filter(|data| data.since <= at) {
            if data.origin.is_some_and(|(writer, n)| quarantined(writer, n)) {
                continue;
            }
            all.extend(self.left(&data.occurrences.occurrences, data.built_at, deletes));
        }
        all.sort_unstable();
        all
    }

    /// The first sample that was acked before `start` and is not in the answer, without an excuse.
    pub(crate) fn missing(&self, start: u64, answer: &[Occurrence]) -> Option<SampleId> {
        let mut found = vec![false; self.samples.len()];
        for at in answer {
            found[self.occurrences[*at as usize] as usize] = true;
        }
        for sample in self.behind_poison() {
            found[sample as usize] = true;
        }
        let is_missing = |id: &SampleId| {
            let sample = &self.samples[*id as usize];
            let excused = self.deletes.iter().any(|delete| {
                delete.group == sample.group && delete.answered.is_none_or(|answered| sample.first_sent < answered)
            });
            sample.acked.is_some_and(|acked| acked <= start) && !found[*id as usize] && !excused
        };
        (0..self.samples.len() as SampleId).find(is_missing)
    }

    /// Samples in segments that can't be decoded, and in those behind them, which build on them.
    fn behind_poison(&self) -> impl Iterator<Item = SampleId> {
        let behind =
            self.poisoned.iter().flat_map(|(writer, n)| self.segments.range((*writer, *n)..=(*writer, u64::MAX)));
        behind.flat_map(|(_, segment)| segment.occurrences.iter().map(|at| self.occurrences[*at as usize]))
    }

    /// The first sample in the answer whose delete was answered before `start`, and that was not sent since.
    pub(crate) fn undead(&self, start: u64, answer: &[Occurrence]) -> Option<SampleId> {
        let is_undead = |at: &Occurrence| {
            let sample = self.sample(*at);
            self.deletes.iter().any(|delete| {
                delete.group == sample.group
                    && sample.last_arrived < delete.proposed
                    && delete.answered.is_some_and(|answered| answered <= start)
            })
        };
        answer.iter().find(|at| is_undead(at)).map(|at| self.occurrences[*at as usize])
    }
}
