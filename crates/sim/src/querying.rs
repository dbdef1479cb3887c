//! Queries as PROTOCOL.md has them: a read index, one plan, blocks and heads, segments where no head answers, and again
//! with a new plan when something is missing. The answer is held against the ledger.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use index::{BlockMeta, Plan, PlannedWriter, Stage};
use model::{ObjectKey, Revision, SegmentNumber, TimeRange, WriterId};

use crate::ledger::{Deletes, Occurrence, Segment, group_of};
use crate::plant::Plant;
use crate::process::{Op, Stimulus};
use crate::rates::MS;
use crate::store::{Answer, Object, Request};
use crate::world::{Event, World};
use crate::writing::fold;

/// A query that has no answer by then fails, which is no wrong answer.
const DEADLINE: Duration = Duration::from_secs(12);
/// A head that does not answer within this time is read from its segments.
const HEAD_WAIT: Duration = Duration::from_millis(500);
/// A read index that does not come is asked for again.
const READ_INDEX_WAIT: Duration = Duration::from_millis(300);

/// What a head says.
#[derive(Debug, Clone)]
pub(crate) enum HeadAnswer {
    Segments(Vec<Rc<Segment>>),
    PlanAgain,
    /// Nothing yet, or no head here.
    NotHere,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    AsksIndex {
        again_at: Duration,
    },
    Waits {
        least: usize,
    },
    /// It has a plan, and is busy with something else.
    Dawdles {
        until: Duration,
    },
    Reads,
}

/// How a planned writer's segments are read.
#[derive(Debug)]
struct Part {
    writer: PlannedWriter,
    ask_until: Duration,
    ask_again_at: Duration,
    /// Read from the store: those that are here, and those that are not.
    segments: Option<(Vec<Rc<Segment>>, BTreeSet<SegmentNumber>)>,
}

#[derive(Debug)]
pub(crate) struct Query {
    /// What was acked before this must be in the answer.
    start: u64,
    until: Duration,
    phase: Phase,
    plan: Option<Plan>,
    blocks: BTreeSet<index::BlockId>,
    parts: Vec<Part>,
    got: Vec<Occurrence>,
    plans: u32,
}

impl Query {
    /// The revision that it pins.
    pub(crate) fn revision(&self) -> Option<Revision> {
        self.plan.as_ref().map(|plan| plan.revision)
    }
}

/// The deletes that an index has.
pub(crate) fn deletes_of(index: &index::Index) -> Deletes {
    index.deletes().map(|(at, delete)| (at, group_of(delete))).collect()
}

impl World {
    pub(crate) fn ask(&mut self, slot: usize) {
        let now = self.clock(slot);
        let start = self.tick;
        let process = self.process(slot);
        let id = process.next_token();
        let query = Query {
            start,
            until: now + DEADLINE,
            phase: Phase::AsksIndex { again_at: now },
            plan: None,
            blocks: BTreeSet::new(),
            parts: Vec::new(),
            got: Vec::new(),
            plans: 0,
        };
        process.queries.insert(id, query);
        self.queries_open += 1;
        self.note(70, || format!("{slot} is asked: query {id}"));
        self.ask_index(slot, id);
    }

    /// The leader confirms itself and says how much is committed: after the question, so nothing acked is missed.
    fn ask_index(&mut self, slot: usize, id: u64) {
        let again_at = self.clock(slot) + READ_INDEX_WAIT;
        if let Some(query) = self.process(slot).queries.get_mut(&id) {
            query.phase = Phase::AsksIndex { again_at };
        }
        let Some(leader) = self.log.leader else { return };
        if self.is_linked(slot, leader) && self.is_linked(leader, slot) && !self.chance(self.rates.net_loss) {
            let committed = self.log.entries.len();
            let least = if self.plant == Some(Plant::NoReadIndex) { 0 } else { committed };
            let life = self.slots[slot].life;
            let at = self.now + MS + self.random.below(2 * self.rates.net_delay);
            self.at(at, Event::Process { slot, life, what: Stimulus::ReadIndex { query: id, least } });
        }
    }

    pub(crate) fn on_read_index(&mut self, slot: usize, id: u64, least: usize) {
        if let Some(query) = self.process(slot).queries.get_mut(&id)
            && matches!(query.phase, Phase::AsksIndex { .. })
        {
            query.phase = Phase::Waits { least };
            self.wake_query(slot, id);
        }
    }

    pub(crate) fn wake_queries(&mut self, slot: usize) {
        for id in self.process(slot).queries.keys().copied().collect::<Vec<_>>() {
            self.wake_query(slot, id);
        }
    }

    fn wake_query(&mut self, slot: usize, id: u64) {
        let now = self.clock(slot);
        let process = self.process(slot);
        let Some(query) = process.queries.get(&id) else { return };
        if now >= query.until {
            process.queries.remove(&id);
            self.queries_open -= 1;
            self.note(71, || format!("query {id} of {slot} fails: time"));
            if self.is_healed && self.now > self.rates.faults_end + 60 * crate::rates::SECOND {
                self.fail(format!("query {id} of {slot} has no answer though all is well"));
            }
            return;
        }
        match query.phase {
            Phase::AsksIndex { again_at } if again_at <= now => self.ask_index(slot, id),
            Phase::Waits { least } if process.applied >= least => self.plan(slot, id),
            Phase::Dawdles { until } if until <= now => self.read(slot, id),
            Phase::Reads => self.read_heads(slot, id),
            _ => {}
        }
    }

    fn plan(&mut self, slot: usize, id: u64) {
        let now = self.clock(slot);
        let dawdles = if self.chance(self.rates.query_slow) { self.random.below(8_000) } else { 0 };
        let process = self.process(slot);
        let plan = process.index.plan(TimeRange::ALL);
        let Some(query) = process.queries.get_mut(&id) else { return };
        query.phase = Phase::Dawdles { until: now + Duration::from_millis(dawdles) };
        query.got.clear();
        query.plans += 1;
        let revision = plan.revision;
        query.plan = Some(plan);
        self.note(revision.position << 8 | 72, || format!("query {id} of {slot} plans at {revision}"));
        if dawdles == 0 {
            self.read(slot, id);
        }
    }

    fn read(&mut self, slot: usize, id: u64) {
        let now = self.clock(slot);
        let Some(query) = self.process(slot).queries.get_mut(&id) else { return };
        let Some(plan) = &query.plan else { return };
        query.phase = Phase::Reads;
        query.blocks = plan.blocks.iter().map(|block| block.id).collect();
        let part = |writer: &PlannedWriter| Part {
            writer: *writer,
            ask_until: now + HEAD_WAIT,
            ask_again_at: now,
            segments: None,
        };
        query.parts = plan.writers.iter().map(part).collect();
        for block in plan.blocks.clone() {
            self.request(slot, Op::QueryBlock { query: id, block }, Request::Get(block.id.key()));
        }
        self.read_heads(slot, id);
        self.finish_query(slot, id);
    }

    /// Never skip what is missing: a newer plan names what took its place.
    fn plan_again(&mut self, slot: usize, id: u64) {
        let plant = self.plant;
        let Some(query) = self.process(slot).queries.get_mut(&id) else { return };
        if query.plans > 100 {
            return self.fail(format!("query {id} of {slot} plans again and again"));
        }
        query.blocks.clear();
        query.parts.clear();
        if plant == Some(Plant::SkipMissing) {
            return self.finish_query(slot, id);
        }
        query.plan = None;
        self.note(73, || format!("query {id} of {slot} plans again"));
        self.ask_index(slot, id);
    }

    // ---- blocks ----------------------------------------------------------------------------

    pub(crate) fn query_block(&mut self, slot: usize, id: u64, block: BlockMeta, answer: Answer) {
        let Some(query) = self.process(slot).queries.get(&id) else { return };
        // Of an earlier plan, perhaps: a block that both name is the same.
        if !query.blocks.contains(&block.id) {
            return;
        }
        match answer {
            Answer::Got(Object::Block(object)) => {
                let deletes = self.planned_deletes(slot, id);
                let left: Vec<_> = self.ledger.left(&object.occurrences, object.built_at, &deletes).collect();
                if let Some(query) = self.process(slot).queries.get_mut(&id) {
                    query.got.extend(left);
                    query.blocks.remove(&block.id);
                }
                self.finish_query(slot, id);
            }
            Answer::NotFound => self.plan_again(slot, id),
            _ => self.request(slot, Op::QueryBlock { query: id, block }, Request::Get(block.id.key())),
        }
    }

    fn planned_deletes(&mut self, slot: usize, id: u64) -> Deletes {
        let plan = self.process(slot).queries.get(&id).and_then(|query| query.plan.as_ref());
        plan.map(|plan| plan.deletes.iter().map(|(at, delete)| (*at, group_of(delete))).collect()).unwrap_or_default()
    }

    // ---- heads and segments ----------------------------------------------------------------

    /// Asks the heads that have not answered; reads segments where the wait is over.
    fn read_heads(&mut self, slot: usize, id: u64) {
        let now = self.clock(slot);
        let Some(query) = self.process(slot).queries.get_mut(&id) else { return };
        let (mut ask, mut read) = (Vec::new(), Vec::new());
        for part in query.parts.iter_mut().filter(|part| part.segments.is_none()) {
            if now >= part.ask_until {
                read.push(part.writer);
            } else if now >= part.ask_again_at {
                part.ask_again_at = now + Duration::from_millis(60);
                ask.push(part.writer);
            }
        }
        for writer in ask {
            let node = match writer.stage {
                Stage::Live => Some(writer.node),
                Stage::Fenced => writer.adopter.or(Some(writer.node)),
            };
            let to = self.slots.iter().position(|other| Some(other.node) == node && other.process.is_some());
            if let Some(to) = to {
                self.message(slot, to, Stimulus::AskHead { query: id, slot, writer });
            }
        }
        for writer in read {
            self.read_segments(slot, id, writer);
        }
    }

    pub(crate) fn on_ask_head(&mut self, slot: usize, query: u64, from: usize, planned: PlannedWriter) {
        let answer = self.head_answer(slot, &planned);
        self.message(slot, from, Stimulus::HeadAnswer { query, writer: planned.id, answer });
    }

    /// As `ingester::heads`: exactly the plan's segments, or not at all.
    fn head_answer(&mut self, slot: usize, planned: &PlannedWriter) -> HeadAnswer {
        let Some(head) = self.process(slot).heads.get(&planned.id) else { return HeadAnswer::NotHere };
        if head.applied < planned.readable {
            return if head.is_whole { HeadAnswer::PlanAgain } else { HeadAnswer::NotHere };
        }
        let mut segments = Vec::new();
        match &head.frozen {
            Some((from, frozen)) if *from == planned.cut => segments.extend(frozen.iter().cloned()),
            _ if head.cut == planned.cut => {}
            _ => return HeadAnswer::PlanAgain,
        }
        segments.extend(head.growing.iter().cloned());
        segments.retain(|segment| segment.n <= planned.added);
        HeadAnswer::Segments(segments)
    }

    pub(crate) fn on_head_answer(&mut self, slot: usize, id: u64, writer: WriterId, answer: HeadAnswer) {
        let Some(query) = self.process(slot).queries.get(&id) else { return };
        if query.phase != Phase::Reads {
            return;
        }
        let is_open = |part: &&Part| part.writer.id == writer && part.segments.is_none();
        let Some(part) = query.parts.iter().find(is_open) else { return };
        let (cut, added) = (part.writer.cut, part.writer.added);
        match answer {
            // An answer to an earlier plan's question says nothing of this one's.
            HeadAnswer::Segments(segments)
                if segments.iter().all(|segment| cut < segment.n && segment.n <= added)
                    && self.is_complete(slot, id, writer, &segments) =>
            {
                self.take_part(slot, id, writer, &segments);
            }
            HeadAnswer::Segments(_) | HeadAnswer::NotHere => {}
            HeadAnswer::PlanAgain => self.plan_again(slot, id),
        }
    }

    /// Whether these are all of the plan's segments of a writer, quarantined ones left out.
    fn is_complete(&mut self, slot: usize, id: u64, writer: WriterId, segments: &[Rc<Segment>]) -> bool {
        let Some(query) = self.process(slot).queries.get(&id) else { return false };
        let Some(part) = query.parts.iter().find(|part| part.writer.id == writer) else { return false };
        let here: BTreeSet<SegmentNumber> = segments.iter().map(|segment| segment.n).collect();
        (part.writer.cut + 1..=part.writer.added).all(|n| here.contains(&n) || is_aside(query, writer, n))
    }

    fn take_part(&mut self, slot: usize, id: u64, writer: WriterId, segments: &[Rc<Segment>]) {
        let deletes = self.planned_deletes(slot, id);
        let mut left = Vec::new();
        let Some(query) = self.slots[slot].process.as_ref().and_then(|process| process.queries.get(&id)) else {
            return;
        };
        for segment in segments.iter().filter(|segment| !is_aside(query, writer, segment.n)) {
            left.extend(self.ledger.left(&segment.occurrences, segment.sealed_at, &deletes));
        }
        if let Some(query) = self.process(slot).queries.get_mut(&id) {
            query.got.extend(left);
            query.parts.retain(|part| part.writer.id != writer);
        }
        self.finish_query(slot, id);
    }

    fn read_segments(&mut self, slot: usize, id: u64, planned: PlannedWriter) {
        let Some(segments) = self.process(slot).index.planned_segments(&planned) else {
            return self.plan_again(slot, id);
        };
        let Some(query) = self.process(slot).queries.get_mut(&id) else { return };
        let Some(part) = query.parts.iter_mut().find(|part| part.writer.id == planned.id) else { return };
        part.segments = Some((Vec::new(), segments.iter().map(|(n, _)| *n).collect()));
        let writer = planned.id;
        if segments.is_empty() {
            return self.take_part(slot, id, writer, &[]);
        }
        for (n, segment) in segments {
            let key = ObjectKey::Segment { writer, n, attempt: segment.attempt };
            self.request(slot, Op::QuerySegment { query: id, writer, n }, Request::Get(key));
        }
    }

    pub(crate) fn query_segment(&mut self, slot: usize, id: u64, writer: WriterId, n: SegmentNumber, answer: Answer) {
        let is_poisoned = self.ledger.poisoned.contains(&(writer, n));
        let process = self.process(slot);
        let attempt = process.index.writer(writer).and_then(|writer| writer.segment(n)).map(|segment| segment.attempt);
        let Some(query) = process.queries.get_mut(&id) else { return };
        let Some(part) = query.parts.iter_mut().find(|part| part.writer.id == writer) else { return };
        let cut = part.writer.cut;
        let Some((segments, missing)) = &mut part.segments else { return };
        if !missing.contains(&n) {
            return;
        }
        match answer {
            Answer::Got(Object::Segment(_)) if is_poisoned => {
                // It fails and names the object; once it is put aside, the plan says so.
                process.queries.remove(&id);
                self.queries_open -= 1;
                self.note(74, || format!("query {id} of {slot} fails: segment {n} of {writer} can't be read"));
            }
            Answer::Got(Object::Segment(segment)) => {
                missing.remove(&n);
                segments.push(segment);
                if missing.is_empty() {
                    let mut whole = std::mem::take(segments);
                    whole.sort_by_key(|segment| segment.n);
                    self.fold_part(slot, id, writer, cut, &whole);
                }
            }
            Answer::NotFound => self.plan_again(slot, id),
            _ => match attempt {
                Some(attempt) => {
                    let key = ObjectKey::Segment { writer, n, attempt };
                    self.request(slot, Op::QuerySegment { query: id, writer, n }, Request::Get(key));
                }
                None => self.plan_again(slot, id),
            },
        }
    }

    /// Segments are read as a head takes them in: from the cut on, in order.
    fn fold_part(&mut self, slot: usize, id: u64, writer: WriterId, cut: SegmentNumber, segments: &[Rc<Segment>]) {
        let mut spelled = BTreeSet::new();
        for (expected, segment) in (cut + 1..).zip(segments) {
            if segment.n != expected {
                return self.fail(format!("query {id} of {slot} reads {} of {writer} for {expected}", segment.n));
            }
            if let Err(why) = fold(self, &mut spelled, segment) {
                return self.fail(format!("query {id} of {slot}: {why}"));
            }
        }
        self.take_part(slot, id, writer, segments);
    }

    // ---- the answer ------------------------------------------------------------------------

    fn finish_query(&mut self, slot: usize, id: u64) {
        let process = self.process(slot);
        let is_done = |query: &Query| {
            query.phase == Phase::Reads && query.plan.is_some() && query.blocks.is_empty() && query.parts.is_empty()
        };
        if !process.queries.get(&id).is_some_and(is_done) {
            return;
        }
        let Some(query) = process.queries.remove(&id) else { return };
        self.queries_open -= 1;
        self.queries_checked += 1;
        let Some(plan) = &query.plan else { return };
        let mut got = query.got.clone();
        got.sort_unstable();
        let deletes: Deletes = plan.deletes.iter().map(|(at, delete)| (*at, group_of(delete))).collect();
        let expected = self.ledger.expected(plan.revision, &deletes, |writer, n| is_aside(&query, writer, n));
        self.note(got.len() as u64, || format!("query {id} of {slot} at {}: {} found", plan.revision, got.len()));
        if let Some(pair) = got.windows(2).find(|pair| pair[0] == pair[1]) {
            return self.fail(format!("query {id} of {slot} counts occurrence {} twice", pair[0]));
        }
        if let Some(sample) = self.ledger.missing(query.start, &got) {
            return self.fail(format!("query {id} of {slot} misses sample {sample}, acked before it began"));
        }
        if let Some(sample) = self.ledger.undead(query.start, &got) {
            return self.fail(format!("query {id} of {slot} finds sample {sample}, which was deleted before it began"));
        }
        if got != expected {
            let differs = got.iter().find(|at| !expected.contains(at)).or(expected.iter().find(|at| !got.contains(at)));
            self.fail(format!(
                "query {id} of {slot} is not the data at {}: {} found, {} there; {differs:?}",
                plan.revision,
                got.len(),
                expected.len()
            ));
        }
    }
}

fn is_aside(query: &Query, writer: WriterId, n: SegmentNumber) -> bool {
    let aside = query.plan.iter().flat_map(|plan| &plan.quarantined);
    aside.into_iter().any(|aside| aside.writer == writer && aside.from <= n && n <= aside.upto)
}
