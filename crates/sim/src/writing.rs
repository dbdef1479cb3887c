//! A writer's driver, as `ingester::writer` is one: the flush and cut machines are the product's, contents are sets.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use index::{BlockId, BlockMeta, Command, SegmentMeta, Stage};
use ingester::cut::{self, CutMachine};
use ingester::flush::{self, Flush};
use ingester::verdict::{self, Verdict};
use model::{ObjectKey, Right, SegmentNumber, TimeRange, WriterId};

use crate::ledger::{Block, Occurrence, Segment, Series};
use crate::plant::Plant;
use crate::process::{Op, Purpose, cut_rules, flush_rules};
use crate::querying::deletes_of;
use crate::store::{Answer, Object, Request};
use crate::world::{Outcome, World};

/// Segments on their way at which requests are refused.
const PENDING_MAX: usize = 40;

/// The open segment, and which series have been spelled since the cut.
#[derive(Debug, Default)]
pub(crate) struct Appender {
    open: Vec<Occurrence>,
    spells: Vec<Series>,
    waiters: Vec<u64>,
    spelled: BTreeSet<Series>,
    sealed: SegmentNumber,
    cut_wanted: bool,
    /// A cut point was set after the last seal.
    is_past_cut: bool,
}

/// A writer while it is registered.
#[derive(Debug)]
pub(crate) struct Life {
    pub id: WriterId,
    flush: Flush,
    cut: CutMachine,
    pending: BTreeMap<SegmentNumber, (Rc<Segment>, Vec<u64>)>,
}

/// A fold over committed segments.
#[derive(Debug)]
pub(crate) struct Head {
    /// The cut that it starts from.
    pub cut: SegmentNumber,
    pub growing: Vec<Rc<Segment>>,
    pub frozen: Option<(SegmentNumber, Vec<Rc<Segment>>)>,
    pub applied: SegmentNumber,
    /// Nothing more comes: an adopted one that is loaded.
    pub is_whole: bool,
    spelled: BTreeSet<Series>,
}

impl Head {
    pub(crate) fn new(cut: SegmentNumber) -> Head {
        Head { cut, growing: Vec::new(), frozen: None, applied: cut, is_whole: false, spelled: BTreeSet::new() }
    }

    fn freeze(&mut self) {
        self.frozen = Some((self.cut, std::mem::take(&mut self.growing)));
        self.cut = self.applied;
        self.spelled.clear();
    }

    /// As `ingester::heads`: one head of what is above `cut`, if it is one.
    pub(crate) fn settle(&mut self, cut: SegmentNumber) -> Option<SegmentNumber> {
        if self.cut != cut {
            return None;
        }
        self.frozen = None;
        Some(self.applied)
    }
}

/// Takes segments in as a head does: between two cut points each series is spelled once, before its id is used.
pub(crate) fn fold(world: &World, spelled: &mut BTreeSet<Series>, segment: &Segment) -> Result<(), String> {
    if segment.first_after_cut {
        spelled.clear();
    }
    if let Some(series) = segment.spells.iter().find(|series| !spelled.insert(**series)) {
        return Err(format!("segment {} of {} spells series {series} again", segment.n, segment.writer));
    }
    let strange = segment.occurrences.iter().find(|at| !spelled.contains(&world.ledger.sample(**at).series));
    match strange {
        Some(_) => Err(format!("segment {} of {} names a series that is not spelled", segment.n, segment.writer)),
        None => Ok(()),
    }
}

impl World {
    /// Takes a segment into a head of a process.
    pub(crate) fn take_in(&mut self, slot: usize, writer: WriterId, segment: Rc<Segment>) {
        let Some(mut head) = self.process(slot).heads.remove(&writer) else { return };
        if segment.n != head.applied + 1 {
            return self.fail(format!("{slot} takes in segment {} of {writer} after {}", segment.n, head.applied));
        }
        if let Err(why) = fold(self, &mut head.spelled, &segment) {
            return self.fail(why);
        }
        head.applied = segment.n;
        head.growing.push(segment);
        self.process(slot).heads.insert(writer, head);
    }

    pub(crate) fn registered(&mut self, slot: usize, outcome: Outcome) {
        let id = match outcome {
            Ok(index::Applied::Registered { writer }) | Err(index::Refused::AlreadyRegistered { writer }) => writer,
            odd => return self.fail(format!("{slot} registers: {odd:?}")),
        };
        self.note(40, || format!("{slot} has writer {id}"));
        let rates = self.rates.clone();
        let process = self.process(slot);
        process.nonce = None;
        process.heads.insert(id, Head::new(0));
        process.life = Some(Life {
            id,
            flush: Flush::new(flush_rules(&rates)),
            cut: CutMachine::new(cut_rules(&rates)),
            pending: BTreeMap::new(),
        });
        self.look_at_writer(slot);
        self.step_flush_open(slot);
    }

    pub(crate) fn on_request(&mut self, slot: usize, id: u64) {
        let tick = self.tick;
        let Some(samples) = self.requests.get(&id).map(|request| request.samples.clone()) else { return };
        let process = self.process(slot);
        // As the product: what comes between two writers waits for the next.
        if !process.boot.is_empty() || process.life.as_ref().is_some_and(|life| life.pending.len() > PENDING_MAX) {
            return;
        }
        for sample in samples {
            let at = self.ledger.occurrences.len() as Occurrence;
            self.ledger.occurrences.push(sample);
            let state = &mut self.ledger.samples[sample as usize];
            state.last_arrived = tick;
            let series = state.series;
            let appender = &mut self.process(slot).appender;
            appender.open.push(at);
            if appender.spelled.insert(series) {
                appender.spells.push(series);
            }
        }
        self.process(slot).appender.waiters.push(id);
        self.step_flush_open(slot);
    }

    /// What is open is let go: its requests are answered 503.
    pub(crate) fn drop_open(&mut self, slot: usize) {
        let appender = &mut self.process(slot).appender;
        appender.open.clear();
        appender.waiters.clear();
        for series in std::mem::take(&mut appender.spells) {
            appender.spelled.remove(&series);
        }
        self.step_flush_open(slot);
    }

    pub(crate) fn step_flush_open(&mut self, slot: usize) {
        let bytes = self.process(slot).appender.open.len();
        self.step_flush(slot, flush::Input::Open { bytes });
    }

    pub(crate) fn wake_writer(&mut self, slot: usize) {
        self.step_flush_open(slot);
        self.step_cut(slot, cut::Input::Tick);
    }

    fn step_flush(&mut self, slot: usize, input: flush::Input) {
        let now = self.clock(slot);
        let Some(life) = &mut self.process(slot).life else { return };
        for output in life.flush.step(now, input) {
            match output {
                flush::Output::Seal(n) => self.seal(slot, n),
                flush::Output::Put { n, attempt } => self.put_segment(slot, n, attempt),
                flush::Output::Abandon { n, attempt, .. } => self.abandon_put(slot, n, attempt),
                flush::Output::Propose { n, attempt } => self.propose_segment(slot, n, attempt),
            }
        }
    }

    fn seal(&mut self, slot: usize, n: SegmentNumber) {
        let process = self.process(slot);
        let sealed_at = process.index.revision();
        let Some(life) = &mut process.life else { return };
        let appender = &mut process.appender;
        appender.sealed += 1;
        assert_eq!(appender.sealed, n, "the appender and the flush count alike");
        let segment = Rc::new(Segment {
            writer: life.id,
            n,
            sealed_at,
            first_after_cut: n == 1 || std::mem::take(&mut appender.is_past_cut),
            spells: std::mem::take(&mut appender.spells),
            occurrences: std::mem::take(&mut appender.open),
        });
        let waiters = std::mem::take(&mut appender.waiters);
        life.pending.insert(n, (segment.clone(), waiters));
        let is_cut_point = std::mem::take(&mut appender.cut_wanted);
        if is_cut_point {
            appender.spelled.clear();
            appender.is_past_cut = true;
        }
        let writer = segment.writer;
        self.ledger.segments.insert((writer, n), segment);
        if self.chance(self.rates.poison) {
            self.ledger.poisoned.insert((writer, n));
        }
        if is_cut_point {
            self.step_cut(slot, cut::Input::Pointed { upto: n });
        }
    }

    fn put_segment(&mut self, slot: usize, n: SegmentNumber, attempt: u32) {
        let Some(life) = &self.process(slot).life else { return };
        let (writer, segment) = (life.id, life.pending[&n].0.clone());
        let key = ObjectKey::Segment { writer, n, attempt };
        self.request(slot, Op::Segment { writer, n, attempt }, Request::Put(key, Object::Segment(segment)));
    }

    /// Nobody waits for it any more; it may land all the same.
    fn abandon_put(&mut self, slot: usize, n: SegmentNumber, attempt: u32) {
        let process = self.process(slot);
        let Some(id) = process.writer_id() else { return };
        let is_it = |op: &Op| matches!(op, Op::Segment { writer, n: of, attempt: number } if (*writer, *of, *number) == (id, n, attempt));
        process.ops.retain(|_, op| !is_it(op));
    }

    pub(crate) fn segment_stored(
        &mut self,
        slot: usize,
        writer: WriterId,
        n: SegmentNumber,
        attempt: u32,
        answer: Answer,
    ) {
        if self.process(slot).writer_id() != Some(writer) {
            return;
        }
        let is_stored = matches!(answer, Answer::Done);
        if is_stored && self.plant == Some(Plant::AckBeforeCommit) {
            self.ack_segment(slot, n);
        }
        let input =
            if is_stored { flush::Input::Stored { n, attempt } } else { flush::Input::NotStored { n, attempt } };
        self.step_flush(slot, input);
    }

    fn ack_segment(&mut self, slot: usize, n: SegmentNumber) {
        let Some(life) = &mut self.process(slot).life else { return };
        let Some((_, waiters)) = life.pending.get_mut(&n) else { return };
        for request in std::mem::take(waiters) {
            self.ack(slot, request);
        }
    }

    fn propose_segment(&mut self, slot: usize, n: SegmentNumber, attempt: u32) {
        let Some(life) = &self.process(slot).life else { return };
        let (writer, bytes) = (life.id, life.pending[&n].0.occurrences.len() as u64);
        let segment = SegmentMeta { attempt, bytes, range: Some(TimeRange { start: 0, end: 1 }) };
        let command = Command::AddSegment { writer, n, segment };
        self.propose(slot, Purpose::AddSegment { writer, n }, command);
    }

    pub(crate) fn segment_decided(&mut self, slot: usize, writer: WriterId, n: SegmentNumber, outcome: &Outcome) {
        if self.process(slot).writer_id() != Some(writer) {
            return;
        }
        match verdict::of_add(outcome) {
            Verdict::Done => {}
            Verdict::Fenced if self.plant == Some(Plant::NoFence) => {}
            Verdict::Fenced => return self.begin_again(slot),
            Verdict::Odd => return self.fail(format!("segment {n} of {writer}: {outcome:?}")),
        }
        let Some(life) = &mut self.process(slot).life else { return };
        let Some((segment, waiters)) = life.pending.remove(&n) else { return };
        if self.process(slot).heads.contains_key(&writer) {
            self.take_in(slot, writer, segment);
        }
        if self.is_out_of_session(slot) {
            self.note(41, || format!("{slot} finds its session over"));
            return self.begin_again(slot);
        }
        for request in waiters {
            self.ack(slot, request);
        }
        let Some(head) = self.process(slot).heads.get(&writer) else { return };
        let bytes = head.growing.iter().map(|segment| segment.occurrences.len()).sum();
        self.step_cut(slot, cut::Input::TakenIn { n, head_bytes: bytes, sample_bytes: bytes });
        self.step_flush(slot, flush::Input::Committed { n });
    }

    /// The applied index may say that the writer is not live any more.
    pub(crate) fn look_at_writer(&mut self, slot: usize) {
        let process = self.process(slot);
        let Some(id) = process.writer_id() else { return };
        if !is_live(&process.index, id) && self.plant != Some(Plant::NoFence) {
            self.begin_again(slot);
        }
    }

    /// The writer was fenced: a new one registers in the same process.
    fn begin_again(&mut self, slot: usize) {
        let process = self.process(slot);
        let Some(life) = process.life.take() else { return };
        process.appender = Appender::default();
        let (id, added) = (life.id, process.index.writer(life.id).map(|writer| writer.added));
        let is_live = is_live(&process.index, id);
        if process.heads.get(&id).is_some_and(|head| is_live || Some(head.applied) != added) {
            process.heads.remove(&id);
        }
        self.note(42, || format!("{slot} ends writer {id} and begins again"));
        if is_live {
            self.propose(slot, Purpose::FenceOwn { writer: id }, Command::Fence { writer: id });
        }
        self.process(slot).wants_writer = true;
        self.register_if_wanted(slot);
    }

    // ---- cut -------------------------------------------------------------------------------

    fn step_cut(&mut self, slot: usize, input: cut::Input) {
        let now = self.clock(slot);
        let Some(life) = &mut self.process(slot).life else { return };
        let id = life.id;
        for output in life.cut.step(now, input) {
            match output {
                cut::Output::Point => self.point(slot),
                cut::Output::Freeze { upto } => {
                    if let Some(head) = self.process(slot).heads.get_mut(&id) {
                        assert_eq!(head.applied, upto, "a head is frozen at its last segment");
                        head.freeze();
                    }
                }
                cut::Output::Pack { upto, attempt, .. } => self.pack_own(slot, upto, attempt),
                cut::Output::Propose { .. } => {}
                cut::Output::Thaw => {
                    if let Some(head) = self.process(slot).heads.get_mut(&id) {
                        head.frozen = None;
                    }
                }
            }
        }
    }

    fn point(&mut self, slot: usize) {
        let appender = &mut self.process(slot).appender;
        if appender.open.is_empty() {
            appender.spelled.clear();
            appender.is_past_cut = true;
            let upto = appender.sealed;
            self.step_cut(slot, cut::Input::Pointed { upto });
        } else {
            appender.cut_wanted = true;
            self.step_flush(slot, flush::Input::Hurry);
        }
    }

    fn pack_own(&mut self, slot: usize, upto: SegmentNumber, attempt: u32) {
        let plant = self.plant;
        let process = self.process(slot);
        let Some(id) = process.writer_id() else { return };
        let Some((_, segments)) = process.heads.get(&id).and_then(|head| head.frozen.clone()) else { return };
        let upto = match (plant, process.index.writer(id)) {
            (Some(Plant::CutRetiresTooMuch), Some(writer)) => writer.added.max(upto),
            _ => upto,
        };
        let attempt = ObjectKey::cut_attempt(upto, u16::try_from(attempt).unwrap_or(u16::MAX));
        let (block, object) = self.pack(slot, BlockId { right: Right::Writer(id), attempt }, &segments);
        self.request(slot, Op::OwnBlock { writer: id, block }, Request::Put(block.id.key(), Object::Block(object)));
    }

    /// A block of segments, with the deletes of this process's view applied.
    pub(crate) fn pack(&mut self, slot: usize, id: BlockId, segments: &[Rc<Segment>]) -> (BlockMeta, Rc<Block>) {
        let process = self.process(slot);
        let (built_at, deletes) = (process.index.revision(), deletes_of(&process.index));
        let mut occurrences = Vec::new();
        for segment in segments {
            occurrences.extend(self.ledger.left(&segment.occurrences, segment.sealed_at, &deletes));
        }
        let samples = occurrences.len() as u64;
        let range = Some(TimeRange { start: 0, end: 1 });
        (
            BlockMeta { id, bytes: samples, range, series: 1, samples, built_at },
            Rc::new(Block { built_at, occurrences }),
        )
    }

    pub(crate) fn own_block_stored(&mut self, slot: usize, writer: WriterId, block: BlockMeta, answer: Answer) {
        let process = self.process(slot);
        if process.writer_id() != Some(writer) {
            return;
        }
        if !matches!(answer, Answer::Done) {
            return self.step_cut(slot, cut::Input::NotStored);
        }
        let Some(from) = process.index.writer(writer).map(|writer| writer.cut) else { return };
        let upto = ObjectKey::cut_reaches(block.id.attempt);
        let command = Command::Cut { writer, from, upto, block, lease: None };
        self.propose(slot, Purpose::OwnCut { writer, upto }, command);
        self.step_cut(slot, cut::Input::Stored);
    }

    pub(crate) fn own_cut_decided(&mut self, slot: usize, writer: WriterId, upto: SegmentNumber, outcome: &Outcome) {
        if self.process(slot).writer_id() != Some(writer) {
            return;
        }
        match verdict::of_cut(upto, outcome) {
            Verdict::Done => self.step_cut(slot, cut::Input::Committed),
            Verdict::Fenced if self.plant == Some(Plant::NoFence) => {}
            Verdict::Fenced => self.begin_again(slot),
            // The planted cut runs into its own trail.
            Verdict::Odd if self.plant == Some(Plant::CutRetiresTooMuch) => {}
            Verdict::Odd => self.fail(format!("cut of {writer} up to {upto}: {outcome:?}")),
        }
    }
}

fn is_live(index: &index::Index, id: WriterId) -> bool {
    index.writer(id).is_some_and(|writer| writer.stage == Stage::Live)
}
