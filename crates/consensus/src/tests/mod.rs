//! The group on disks that fail, fill up, tear and lose power.

mod disk;
mod many;
mod sim;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use runtime::{ManualClock, Random, Registry};

use self::disk::Disk;
use crate::codec::{ENTRY_HEADER_BYTES, Tag};
use crate::log::{RECORD_HEADER_BYTES, log_name, read_log, record};
use crate::*;

/// The state remembers every entry with its position, so that anything lost, doubled or moved shows.
type State = Vec<(u64, Vec<u8>)>;
type TestGroup = Group<State, Vec<u8>, u64>;

const FOLDER: &str = "/data/index";

const MACHINE: Machine<State, Vec<u8>, u64> = Machine {
    apply: |state, position, entry| {
        assert_ne!(entry.as_slice(), b"panic", "planted");
        assert!(state.last().is_none_or(|(last, _)| *last < position));
        state.push((position, entry.clone()));
        position
    },
    advance: |_, _| {},
    encode: |entry| entry.clone(),
    decode: |bytes| if bytes.starts_with(b"new kind") { Err("unknown kind".into()) } else { Ok(bytes.to_vec()) },
    snapshot: |state| {
        let mut out = Vec::new();
        for (position, entry) in state {
            out.extend_from_slice(&position.to_le_bytes());
            out.extend_from_slice(&(entry.len() as u64).to_le_bytes());
            out.extend_from_slice(entry);
        }
        out
    },
    restore: |mut bytes| {
        let mut state = Vec::new();
        while let Some((head, rest)) = bytes.split_first_chunk::<16>() {
            let position = u64::from_le_bytes(head[..8].try_into()?);
            let length = u64::from_le_bytes(head[8..].try_into()?) as usize;
            let (entry, rest) = rest.split_at_checked(length).ok_or("short")?;
            state.push((position, entry.to_vec()));
            bytes = rest;
        }
        Ok(state)
    },
    hash: |state| {
        state
            .iter()
            .fold(0, |hash, (position, entry)| crc32c::crc32c_append(hash as u32 ^ *position as u32, entry).into())
    },
};

/// Small bounds, so that logs are begun and removed all the time.
fn settings() -> Settings {
    Settings { snapshot_after_bytes: 600, entry_bytes_max: 1000, recent_bytes_max: 1000, ..Settings::default() }
}

struct Fixture {
    group: TestGroup,
    fatal: Arc<Mutex<Vec<String>>>,
}

fn open(disk: &Disk, settings: Settings) -> Result<Fixture, OpenError> {
    let fatal = Arc::new(Mutex::new(Vec::new()));
    let told = fatal.clone();
    let parts = Parts {
        files: Arc::new(disk.clone()),
        clock: Arc::new(ManualClock::new(0)),
        random: Random::from_seed(1),
        transport: Arc::new(NoTransport),
        registry: Registry::new(),
        metrics: Default::default(),
        fatal: Arc::new(move |reason: &str| told.lock().push(reason.to_owned())),
    };
    let folder = Path::new(FOLDER);
    let start = if TestGroup::exists(disk, folder) { Start::Existing } else { Start::Bootstrap(Vec::new()) };
    let group = Group::open(folder, MACHINE, start, settings, parts)?;
    Ok(Fixture { group, fatal })
}

/// Waits for the reasons why the process would have ended: proposers learn a little before.
fn told(fatal: &Mutex<Vec<String>>) -> Vec<String> {
    while fatal.lock().is_empty() {
        std::thread::yield_now();
    }
    fatal.lock().clone()
}

fn entries(group: &TestGroup) -> Vec<Vec<u8>> {
    group.read(|state| state.iter().map(|(_, entry)| entry.clone()).collect())
}

fn entry(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

#[tokio::test]
async fn an_answer_means_durable_and_applied() {
    let disk = Disk::default();
    assert!(!TestGroup::exists(&disk, Path::new(FOLDER)));
    let Fixture { group, .. } = open(&disk, settings()).unwrap();
    assert!(TestGroup::exists(&disk, Path::new(FOLDER)));
    // The snapshot is at 1, and the leader begins its term at 2.
    assert_eq!(group.propose(entry("a")).await.unwrap(), 3);
    assert_eq!(group.propose(entry("b")).await.unwrap(), 4);
    assert_eq!((group.applied(), group.read_index().await.unwrap()), (4, 4));
    assert_eq!(entries(&group), [b"a", b"b"]);
    group.wait_applied(4).await.unwrap();

    let lost = disk.copy();
    lost.power_loss(&Random::from_seed(1));
    let Fixture { group, .. } = open(&lost, settings()).unwrap();
    assert_eq!(entries(&group), [b"a", b"b"]);
    assert_eq!(group.propose(entry("c")).await.unwrap(), 6);
}

#[tokio::test]
async fn waiting_proposals_share_a_record() {
    let disk = Disk::default();
    let Fixture { group, .. } = open(&disk, Settings::default()).unwrap();
    let before = disk.operations();
    let proposals = (0..200).map(|i| {
        let group = group.clone();
        runtime::spawn(async move { group.propose(vec![i as u8; 10]).await })
    });
    for proposal in proposals.collect::<Vec<_>>() {
        proposal.await.unwrap().unwrap();
    }
    // Three operations a record; how many share one is the scheduler's affair.
    assert!(disk.operations() - before < 3 * 150, "{}", disk.operations() - before);
    assert_eq!(entries(&group).len(), 200);
}

#[tokio::test]
async fn a_closed_group_begins_with_its_snapshot() {
    let disk = Disk::default();
    let Fixture { group, .. } = open(&disk, Settings::default()).unwrap();
    group.propose(entry("a")).await.unwrap();
    group.close().await;
    assert!(matches!(group.propose(entry("b")).await, Err(ProposeError::Closed)));
    assert!(matches!(group.wait_applied(5).await, Err(ProposeError::Closed)));
    assert_eq!(disk.names(), ["identity".to_owned(), log_name(2), crate::snapshot::snapshot_name(3)]);
    disk.power_loss(&Random::from_seed(2));
    let Fixture { group, .. } = open(&disk, settings()).unwrap();
    assert_eq!(entries(&group), [b"a"]);
    assert_eq!(group.propose(entry("b")).await.unwrap(), 5);
}

#[tokio::test]
async fn old_logs_and_snapshots_go() {
    let disk = Disk::default();
    let Fixture { group, .. } = open(&disk, settings()).unwrap();
    for i in 0..100 {
        group.propose(vec![i; 50]).await.unwrap();
    }
    group.close().await;
    assert_eq!(disk.names().len(), 3, "{:?}", disk.names());
}

#[tokio::test]
async fn a_full_disk_refuses_and_goes_on_by_itself() {
    let disk = Disk::default();
    let Fixture { group, fatal } = open(&disk, settings()).unwrap();
    group.propose(entry("a")).await.unwrap();
    disk.set_full(true);
    let refused = group.propose(entry("b")).await.unwrap_err();
    assert!(matches!(refused, ProposeError::NoSpace { .. }) && refused.is_certain());
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    // A start needs no space either.
    open(&disk.copy(), settings()).unwrap();
    disk.set_full(false);
    assert_eq!(group.propose(entry("c")).await.unwrap(), 4);
    assert_eq!(entries(&group), [b"a", b"c"]);
    assert!(fatal.lock().is_empty());
}

#[tokio::test]
async fn a_full_disk_only_puts_the_snapshot_off() {
    let disk = Disk::default();
    let Fixture { group, fatal } = open(&disk, Settings { snapshot_after_bytes: 100, ..settings() }).unwrap();
    disk.set_fails_create(true);
    for i in 0..20 {
        group.propose(vec![i; 50]).await.unwrap();
    }
    disk.set_fails_create(false);
    group.propose(entry("x")).await.unwrap();
    assert!(fatal.lock().is_empty());
    let lost = disk.copy();
    lost.power_loss(&Random::from_seed(7));
    assert_eq!(entries(&open(&lost, settings()).unwrap().group).len(), 21);
}

#[tokio::test]
async fn a_failed_fsync_is_fatal_and_answers_nobody() {
    let disk = Disk::default();
    let Fixture { group, fatal } = open(&disk, settings()).unwrap();
    group.propose(entry("a")).await.unwrap();
    disk.set_fails_sync(true);
    assert!(matches!(group.propose(entry("b")).await, Err(ProposeError::Closed)));
    disk.set_fails_sync(false);
    // The kernel would now call the next fsync a success: nothing may try it.
    assert!(matches!(group.propose(entry("c")).await, Err(ProposeError::Closed)));
    assert_eq!(entries(&group), [b"a"]);
    let reasons = told(&fatal);
    assert!(reasons.len() == 1 && reasons[0].contains("planted: fsync"), "{reasons:?}");
}

#[tokio::test]
async fn a_panic_while_applying_is_fatal() {
    let disk = Disk::default();
    let Fixture { group, fatal } = open(&disk, settings()).unwrap();
    assert!(matches!(group.propose(entry("panic")).await, Err(ProposeError::Closed)));
    assert_eq!(told(&fatal)[0], "the log's thread panicked");
}

#[tokio::test]
async fn an_entry_that_is_too_large_is_refused() {
    let Fixture { group, .. } = open(&Disk::default(), settings()).unwrap();
    let refused = group.propose(vec![0; 1001]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Bug);
}

#[tokio::test]
async fn an_unknown_entry_stops_the_start() {
    let disk = Disk::default();
    let Fixture { group, .. } = open(&disk, settings()).unwrap();
    group.propose(entry("new kind of entry")).await.unwrap();
    drop(group);
    let error = open(&disk, settings()).err().unwrap();
    assert!(matches!(error, OpenError::Unreadable { .. }), "{error}");
}

#[tokio::test]
async fn followers_get_what_they_have_not_seen() {
    let Fixture { group, .. } = open(&Disk::default(), settings()).unwrap();
    for i in 0..5 {
        group.propose(vec![i]).await.unwrap();
    }
    let (entries, upto) = group.entries_after(5).unwrap();
    assert_eq!((entries, upto), (vec![(6, vec![3]), (7, vec![4])], 7));
    assert_eq!(group.entries_after(7), Some((vec![], 7)));
    assert_eq!(group.entries_after(1).unwrap().0.len(), 5, "the leader's own entry is none of theirs");
    for i in 0..50 {
        group.propose(vec![i; 50]).await.unwrap();
    }
    assert_eq!(group.entries_after(7), None, "too long ago");
    assert_eq!(group.entries_after(52).unwrap().0.len(), 5);
}

/// What a proposal of 40 bytes takes in the log.
const RECORD_BYTES: usize = RECORD_HEADER_BYTES + ENTRY_HEADER_BYTES + Tag::BYTES + 40;

/// No snapshot is taken meanwhile.
fn large() -> Settings {
    Settings { snapshot_after_bytes: 1 << 20, ..settings() }
}

/// A log that ends with four records, one proposal each.
async fn four_records() -> Disk {
    let disk = Disk::default();
    let Fixture { group, .. } = open(&disk, large()).unwrap();
    for i in 0..4 {
        group.propose(vec![i; 40]).await.unwrap();
    }
    disk
}

#[tokio::test]
async fn a_torn_last_record_is_cut_off_wherever_it_is_torn() {
    let disk = four_records().await;
    let length = disk.bytes(&log_name(1)).len();
    for torn in 1..RECORD_BYTES {
        let disk = disk.copy();
        disk.damage(&log_name(1), |bytes| bytes.truncate(length - torn));
        let Fixture { group, .. } = open(&disk, large()).unwrap();
        assert_eq!(entries(&group).len(), 3, "{torn}");
        assert_eq!(group.propose(entry("after")).await.unwrap(), 7);
        drop(group);
        assert_eq!(entries(&open(&disk, large()).unwrap().group).len(), 4);
    }
    for zeros in 1..100 {
        let disk = disk.copy();
        disk.damage(&log_name(1), |bytes| bytes.resize(length + zeros, 0));
        assert_eq!(entries(&open(&disk, large()).unwrap().group).len(), 4);
    }
}

#[tokio::test]
async fn damage_before_a_whole_record_stops_the_start_and_changes_nothing() {
    let disk = four_records().await;
    let length = disk.bytes(&log_name(1)).len();
    for at in 0..length - RECORD_BYTES {
        for bit in [0, 7] {
            let disk = disk.copy();
            disk.damage(&log_name(1), |bytes| bytes[at] ^= 1 << bit);
            let before = disk.bytes(&log_name(1));
            let error = open(&disk, settings()).err().unwrap_or_else(|| panic!("byte {at} bit {bit} went unseen"));
            let is_version = (4..8).contains(&at);
            assert!(matches!(error, OpenError::Corrupt { .. }) || is_version, "{error}");
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert_eq!(disk.bytes(&log_name(1)), before);
        }
    }
    // Bytes that are missing in the middle, too.
    for gone in 1..RECORD_BYTES {
        let disk = disk.copy();
        let from = length - 3 * RECORD_BYTES;
        disk.damage(&log_name(1), |bytes| drop(bytes.drain(from..from + gone)));
        assert!(open(&disk, settings()).is_err(), "{gone}");
    }
}

#[tokio::test]
async fn a_damaged_snapshot_or_a_missing_file_stops_the_start() {
    let disk = Disk::default();
    let Fixture { group, .. } = open(&disk, settings()).unwrap();
    for i in 0..20 {
        group.propose(vec![i; 50]).await.unwrap();
    }
    drop(group);
    let names = disk.names();
    let snapshot = names.iter().find(|name| name.starts_with("snapshot-")).unwrap();
    let length = disk.bytes(snapshot).len();
    for at in 0..length {
        let disk = disk.copy();
        disk.damage(snapshot, |bytes| bytes[at] ^= 1);
        assert!(open(&disk, settings()).is_err(), "{at}");
    }
    let without = disk.copy();
    without.remove(&Path::new(FOLDER).join(snapshot)).unwrap();
    assert!(matches!(open(&without, settings()), Err(OpenError::Corrupt { .. })));
}

#[tokio::test]
async fn a_folder_from_before_there_were_groups_is_refused_by_name() {
    let old = |magic: &[u8], position: u64| {
        let mut bytes = [magic, &1_u32.to_le_bytes(), &position.to_le_bytes()].concat();
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    };
    let folder = Path::new(FOLDER);
    let only_log = Disk::default();
    only_log.write_atomically(&folder.join(log_name(1)), &old(b"BRLG", 1)).unwrap();
    let whole = only_log.copy();
    whole.write_atomically(&folder.join(crate::snapshot::snapshot_name(0)), &old(b"BRSN", 0)).unwrap();
    assert!(TestGroup::exists(&only_log, folder) && TestGroup::exists(&whole, folder), "nobody begins another over it");
    let refused = open(&whole, settings()).err().unwrap();
    assert!(refused.to_string().contains("start the program that wrote it"), "{refused}");
    assert!(refused.to_string().contains("(index-log-unreadable)"), "{refused}");
    let refused = read_log(folder, &old(b"BRLG", 1), 1).err().unwrap();
    assert!(refused.to_string().contains("version 1 of the log"), "{refused}");
}

#[test]
fn any_bytes_are_an_error_at_worst() {
    let random = Random::from_seed(11);
    let hard_state = raft::eraftpb::HardState { term: 1, commit: 0, ..Default::default() };
    let record = record(1, 1, &hard_state, &[raft::eraftpb::Entry { term: 1, index: 1, ..Default::default() }]);
    for _ in 0..3000 {
        let mut bytes: Vec<u8> = (0..random.below(200)).map(|_| random.u64() as u8).collect();
        if random.below(2) == 0 {
            bytes.extend_from_slice(&record);
        }
        let path = Path::new("log");
        if let Ok(Some(contents)) = read_log(path, &bytes, 1) {
            assert!(contents.whole_bytes <= bytes.len() as u64);
        }
        let _ = crate::envelope::decode(1, 2, &bytes).is_ok();
        let _ = crate::snapshot::read_snapshot(path, &bytes, 1).is_ok();
    }
}

/// Proposes until the machine dies, in the middle of any operation, several times over; what was answered
/// must be there after the power loss, in its place, and nothing twice, and nothing that was not proposed.
async fn survive(seed: u64) {
    let random = Random::from_seed(seed);
    let disk = Disk::default();
    let mut answered: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut proposed = 0_u64;
    for round in 0..8 {
        let settings = Settings { snapshot_after_bytes: 100 + random.below(800), ..settings() };
        disk.die_after(random.below(60));
        if let Ok(Fixture { group, .. }) = open(&disk, settings) {
            for (position, entry) in &answered {
                let found = group.read(|state| state.iter().find(|(at, _)| at == position).cloned());
                assert_eq!(found.as_ref().map(|(_, entry)| entry), Some(entry), "seed {seed} round {round}");
            }
            let state = group.read(|state| state.clone());
            let mut unique: Vec<_> = state.iter().map(|(_, entry)| entry).collect();
            unique.sort();
            unique.dedup();
            assert_eq!(unique.len(), state.len(), "seed {seed} round {round}: doubled");
            let is_proposed = |entry: &[u8]| u64::from_le_bytes(entry[..8].try_into().unwrap()) < proposed;
            assert!(state.iter().all(|(_, entry)| is_proposed(entry)), "seed {seed} round {round}");

            // What was seen once stays, answered or not.
            answered.extend(state);

            let mut waiting = Vec::new();
            let proposals = if random.below(4) == 0 { 0 } else { random.below(60) };
            for _ in 0..proposals {
                let mut entry = proposed.to_le_bytes().to_vec();
                entry.resize(8 + random.below(100) as usize, seed as u8);
                proposed += 1;
                let (proposer, payload) = (group.clone(), entry.clone());
                waiting.push((entry, runtime::spawn(async move { proposer.propose(payload).await })));
                if random.below(3) == 0 {
                    for (entry, answer) in waiting.drain(..) {
                        if let Ok(position) = answer.await.unwrap() {
                            assert!(answered.insert(position, entry).is_none());
                        }
                    }
                }
            }
            for (entry, answer) in waiting {
                if let Ok(position) = answer.await.unwrap() {
                    assert!(answered.insert(position, entry).is_none());
                }
            }
            if random.below(3) == 0 {
                group.close().await;
            }
            // The thread must be gone before the disk is touched.
            let shared = group.shared.clone();
            drop(group);
            while Arc::strong_count(&shared) > 1 {
                tokio::task::yield_now().await;
            }
        }
        if random.below(4) == 0 { disk.process_dies() } else { disk.power_loss(&random) }
    }
    let Fixture { group, .. } = open(&disk, settings()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    for (position, entry) in &answered {
        assert!(group.read(|state| state.contains(&(*position, entry.clone()))), "seed {seed}");
    }
}

#[tokio::test]
async fn whatever_was_answered_survives_power_losses_at_any_moment() {
    for seed in 0..400 {
        survive(seed).await;
    }
}

#[tokio::test]
async fn real_files_work_too() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("data/index");
    let parts = || Parts::system(Arc::new(ManualClock::new(0)), Random::from_seed(1), Registry::new());
    let start = Start::Bootstrap(Vec::new());
    let group: TestGroup = Group::open(&folder, MACHINE, start, settings(), parts()).unwrap();
    for i in 0..60 {
        group.propose(vec![i; 30]).await.unwrap();
    }
    group.close().await;
    drop(group);
    let group: TestGroup = Group::open(&folder, MACHINE, Start::Existing, settings(), parts()).unwrap();
    assert_eq!(entries(&group).len(), 60);
    assert_eq!(group.propose(vec![1]).await.unwrap(), 64);
}
