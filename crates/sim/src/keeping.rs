//! The leader's care for the bucket, as `compactor::drive` does it: checkpoints, changes, garbage; and the recovery.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bucket::Folder;
use compactor::Settings;
use compactor::checkpoint::{self, Checkpointer};
use compactor::collect::{self, Collector};
use compactor::recover::{newest_checkpoint, next_changes, recover};
use index::{Changes, Index, SegmentMeta};
use model::{ObjectKey, Revision};

use crate::plant::Plant;
use crate::process::Op;
use crate::store::{Answer, Object, Request};
use crate::world::{CLUSTER, World};

/// An hour of the product in a few seconds.
fn settings() -> Settings {
    Settings {
        tick: Duration::from_millis(100),
        changes_every: Duration::from_millis(700),
        checkpoint_every: Duration::from_secs(3),
        retry_after: Duration::from_secs(1),
        bucket_timeout: Duration::from_secs(3),
        checkpoints_kept: 2,
        deletes_max: 20,
    }
}

#[derive(Debug, Clone)]
enum What {
    Whole(Revision),
    Changes { first: Revision, last: u64 },
    Checkpoint(Revision),
}

/// A write to the bucket that is under way, and counts when it is read back.
#[derive(Debug)]
struct Writing {
    what: What,
    key: ObjectKey,
    bytes: Rc<Vec<u8>>,
}

#[derive(Debug)]
pub(crate) struct Keeper {
    checkpointer: Checkpointer,
    collector: Collector,
    /// The index as it was read back from the bucket.
    pub stored: Option<Index>,
    inputs: VecDeque<collect::Input>,
    writing: Option<Writing>,
    is_collecting: bool,
    /// The rest of the batch that is being deleted, and what of it failed.
    deleting: Vec<ObjectKey>,
    failed: Vec<ObjectKey>,
}

impl Keeper {
    pub(crate) fn new() -> Keeper {
        Keeper {
            checkpointer: Checkpointer::new(settings()),
            collector: Collector::new(settings()),
            stored: None,
            inputs: VecDeque::new(),
            writing: None,
            is_collecting: false,
            deleting: Vec::new(),
            failed: Vec::new(),
        }
    }
}

impl World {
    pub(crate) fn keep(&mut self, slot: usize) {
        if self.process(slot).keeper.is_none() {
            return;
        }
        let applied = self.process(slot).index.revision().position;
        self.step_checkpointer(slot, checkpoint::Input::Tick { applied });
        let lowest_in_use = self.lowest_in_use(slot);
        let plant = self.plant;
        if let Some(keeper) = &mut self.process(slot).keeper {
            // One tick at a time waits, as the product's loop has it.
            if !keeper.inputs.iter().any(|input| matches!(input, collect::Input::Tick { .. })) {
                if plant == Some(Plant::CollectUnstored) {
                    keeper.inputs.push_back(collect::Input::WholeStored);
                }
                keeper.inputs.push_back(collect::Input::Tick { lowest_in_use });
            }
        }
        self.collect(slot);
    }

    fn step_checkpointer(&mut self, slot: usize, input: checkpoint::Input) {
        let now = self.clock(slot);
        let mut input = input;
        loop {
            let Some(keeper) = &mut self.process(slot).keeper else { return };
            let Some(output) = keeper.checkpointer.step(now, input) else { return };
            match self.begin_write(slot, output) {
                None => return,
                Some(answer) => input = answer,
            }
        }
    }

    /// Begins a write; or answers at once that there is nothing to write.
    fn begin_write(&mut self, slot: usize, output: checkpoint::Output) -> Option<checkpoint::Input> {
        let applied = self.process(slot).applied;
        let index = &self.slots[slot].process.as_ref()?.index;
        let keeper = self.slots[slot].process.as_ref()?.keeper.as_ref()?;
        let incarnation = index.incarnation();
        let (what, bytes) = match output {
            checkpoint::Output::PutWhole => (What::Whole(index.revision()), index.encode_checkpoint()),
            checkpoint::Output::PutCheckpoint => match &keeper.stored {
                Some(stored) => (What::Checkpoint(stored.revision()), stored.encode_checkpoint()),
                None => return Some(checkpoint::Input::ChangesGone),
            },
            checkpoint::Output::PutChanges { after } => {
                if self.random.below(50) == 0 {
                    return Some(checkpoint::Input::ChangesGone);
                }
                let entries = self.log.entries.iter().enumerate().take(applied).skip(after as usize);
                let entries = entries.map(|(at, (_, entry, _))| (at as u64 + 1, entry.clone())).collect();
                let first = Revision { incarnation, position: after + 1 };
                let last = applied as u64;
                let changes = Changes { cluster: CLUSTER, incarnation, first: after + 1, last, entries };
                (What::Changes { first, last }, changes.encode())
            }
            checkpoint::Output::Done => return None,
        };
        let key = match what {
            What::Whole(at) | What::Checkpoint(at) => ObjectKey::Checkpoint(at),
            What::Changes { first, last } => ObjectKey::Changes { first, last },
        };
        let bytes = Rc::new(bytes);
        let object = Object::Bytes(bytes.clone());
        if let Some(keeper) = &mut self.process(slot).keeper {
            keeper.writing = Some(Writing { what, key, bytes });
        }
        self.request(slot, Op::KeepPut, Request::Put(key, object));
        None
    }

    pub(crate) fn keep_put(&mut self, slot: usize, answer: Answer) {
        let Some(key) = self.writing_key(slot) else { return };
        match answer {
            Answer::Done => self.request(slot, Op::KeepGet, Request::Get(key)),
            _ => self.write_failed(slot, key),
        }
    }

    fn writing_key(&mut self, slot: usize) -> Option<ObjectKey> {
        Some(self.process(slot).keeper.as_ref()?.writing.as_ref()?.key)
    }

    fn write_failed(&mut self, slot: usize, key: ObjectKey) {
        if let Some(keeper) = &mut self.process(slot).keeper {
            keeper.writing = None;
            keeper.inputs.push_back(collect::Input::PerhapsStored { key });
        }
        self.step_checkpointer(slot, checkpoint::Input::Failed);
    }

    pub(crate) fn keep_got(&mut self, slot: usize, answer: Answer) {
        let Some(key) = self.writing_key(slot) else { return };
        let Some(keeper) = &mut self.process(slot).keeper else { return };
        let Some(writing) = keeper.writing.take() else { return };
        let is_same = matches!(&answer, Answer::Got(Object::Bytes(bytes)) if *bytes == writing.bytes);
        if !is_same {
            return self.write_failed(slot, key);
        }
        let input = match writing.what {
            What::Whole(at) => {
                keeper.stored = Some(Index::decode_checkpoint(&writing.bytes).expect("was encoded here"));
                keeper.inputs.push_back(collect::Input::WholeStored);
                keeper.inputs.push_back(collect::Input::CheckpointStored { at });
                checkpoint::Input::WholeStored { at: at.position }
            }
            What::Checkpoint(at) => {
                keeper.inputs.push_back(collect::Input::CheckpointStored { at });
                checkpoint::Input::CheckpointStored
            }
            What::Changes { first, last } => match &mut keeper.stored {
                None => checkpoint::Input::ChangesGone,
                Some(stored) => {
                    let changes = Changes::decode(&writing.bytes).expect("was encoded here");
                    match stored.replay(&changes) {
                        Ok(outcomes) => {
                            let applied = outcomes.into_iter().flatten().collect();
                            keeper.inputs.push_back(collect::Input::ChangesStored { first, last, applied });
                            checkpoint::Input::ChangesStored { last }
                        }
                        Err(why) => return self.fail(format!("{slot} replays its own changes: {why}")),
                    }
                }
            },
        };
        self.note(60, || format!("{slot} has stored {key}"));
        self.step_checkpointer(slot, input);
        self.collect(slot);
    }

    // ---- garbage ---------------------------------------------------------------------------

    fn collect(&mut self, slot: usize) {
        let (now, plant) = (self.clock(slot), self.plant);
        loop {
            let in_memory = (plant == Some(Plant::CollectUnstored)).then(|| self.process(slot).index.clone());
            let Some(keeper) = &mut self.process(slot).keeper else { return };
            if keeper.is_collecting {
                return;
            }
            let Some(input) = keeper.inputs.pop_front() else { return };
            let Some(stored) = &keeper.stored else { continue };
            let stored = in_memory.as_ref().unwrap_or(stored);
            let Some(output) = keeper.collector.step(now, input, stored) else { continue };
            keeper.is_collecting = true;
            match output {
                collect::Output::List(folder) => self.request(slot, Op::CollectList(folder), Request::List(folder)),
                collect::Output::Delete(keys) => {
                    keeper.deleting = keys;
                    self.delete_next(slot);
                }
            }
        }
    }

    pub(crate) fn collect_listed(&mut self, slot: usize, folder: Folder, answer: Answer) {
        let plant = self.plant;
        let process = self.process(slot);
        let Some(keeper) = &mut process.keeper else { return };
        keeper.is_collecting = false;
        let mut absent = Vec::new();
        let input = match answer {
            Answer::Listed(listed) => {
                let keys: Vec<ObjectKey> = listed.into_iter().map(|listed| listed.key).collect();
                if plant == Some(Plant::DeleteByAbsence) {
                    absent = keys.iter().copied().filter(|key| is_absent(&process.index, key)).collect();
                }
                collect::Input::Listed { folder, keys }
            }
            _ => collect::Input::ListFailed { folder },
        };
        keeper.inputs.push_front(input);
        for key in absent {
            self.request(slot, Op::Absent, Request::Delete(key));
        }
        self.collect(slot);
    }

    /// Deletes one after another; `cluster.json` says whether this process may.
    fn delete_next(&mut self, slot: usize) {
        let is_ours = self.store.incarnation == self.process(slot).index.incarnation();
        let Some(keeper) = &mut self.process(slot).keeper else { return };
        if !is_ours {
            keeper.failed.append(&mut keeper.deleting);
        }
        match keeper.deleting.pop() {
            Some(key) => self.request(slot, Op::CollectDelete(key), Request::Delete(key)),
            None => {
                let failed = std::mem::take(&mut keeper.failed);
                keeper.is_collecting = false;
                keeper.inputs.push_front(collect::Input::Deleted { failed });
                self.collect(slot);
            }
        }
    }

    pub(crate) fn collect_deleted(&mut self, slot: usize, key: ObjectKey, answer: Answer) {
        let Some(keeper) = &mut self.process(slot).keeper else { return };
        if !keeper.is_collecting {
            // Of an earlier reign of this process.
            return;
        }
        if !matches!(answer, Answer::Done) {
            keeper.failed.push(key);
            keeper.failed.append(&mut keeper.deleting);
        }
        self.delete_next(slot);
    }

    // ---- recovery --------------------------------------------------------------------------

    /// The index of the new incarnation, as the bucket has it; `None` if it has no checkpoint.
    pub(crate) fn recovered_index(&self) -> Result<Option<Index>, String> {
        let checkpoints = self.store.list(Folder::Checkpoints);
        let Some(key) = newest_checkpoint(&checkpoints) else { return Ok(None) };
        let bytes = |key: &ObjectKey| match self.store.get(key) {
            Some(Object::Bytes(bytes)) => Ok(bytes.clone()),
            _ => Err(format!("{key} is gone")),
        };
        let checkpoint = Index::decode_checkpoint(&bytes(&key)?).map_err(|e| e.to_string())?;
        let listed = self.store.list(Folder::Changes);
        let (mut all, mut at) = (Vec::new(), checkpoint.revision());
        while let Some(key) = next_changes(&listed, at) {
            let changes = Changes::decode(&bytes(&key)?).map_err(|e| e.to_string())?;
            at.position = changes.last;
            all.push(changes);
        }
        Ok(Some(self.recovered_from(checkpoint, &all)))
    }

    pub(crate) fn recovered_from(&self, checkpoint: Index, changes: &[Changes]) -> Index {
        let mut segments = self.store.list(Folder::Segments);
        if self.plant == Some(Plant::RecoverCheckpointOnly) {
            segments.clear();
        }
        recover(self.store.incarnation, checkpoint, changes, &segments).expect("what is stored follows")
    }
}

/// The planted collector's idea of garbage: what the index that it sees does not name.
fn is_absent(index: &Index, key: &ObjectKey) -> bool {
    match *key {
        ObjectKey::Segment { writer, n, attempt } => {
            let known: BTreeMap<u64, SegmentMeta> = index
                .writer(writer)
                .into_iter()
                .flat_map(|writer| writer.segments().map(|(n, segment)| (n, *segment)))
                .collect();
            known.get(&n).is_none_or(|segment| segment.attempt != attempt) && !index.is_quarantined(writer, n)
        }
        ObjectKey::Block { right, attempt } => index.block(&index::BlockId { right, attempt }).is_none(),
        _ => false,
    }
}
