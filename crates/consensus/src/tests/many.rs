//! Groups of many with their threads and the machine's clock, over a network in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use runtime::{Clock, Random, Registry, SystemClock};

use super::disk::Disk;
use super::{FOLDER, MACHINE, TestGroup, entries, entry};
use crate::*;

const HASH_EVERY: u64 = 8;

/// Who is reachable under which id. Messages are handed over on the sender's thread.
#[derive(Clone)]
struct Network {
    nodes: Arc<Mutex<BTreeMap<u64, TestGroup>>>,
    settings: Settings,
}

impl Default for Network {
    /// Of nodes that have patience: on a machine that is busy otherwise nobody loses the lead or gives an answer up.
    fn default() -> Network {
        let mut network = Network::of_defaults();
        network.settings.answer_wait = Duration::from_secs(60);
        network.settings.election_ticks = 40;
        network
    }
}

impl Network {
    /// For leaders that die.
    fn of_defaults() -> Network {
        Network { nodes: Arc::default(), settings: Settings { hash_every: HASH_EVERY, ..Settings::default() } }
    }
}

struct Link {
    network: Network,
    from: Arc<Mutex<u64>>,
}

impl Transport for Link {
    fn send(&self, to: u64, message: Vec<u8>) {
        let from = *self.from.lock();
        let nodes = self.network.nodes.lock();
        // Who is cut off neither sends nor receives.
        if let (Some(node), true) = (nodes.get(&to), nodes.contains_key(&from)) {
            node.receive(from, message);
        }
    }
}

struct Node {
    group: TestGroup,
    fatal: Arc<Mutex<Vec<String>>>,
    network: Network,
}

impl Node {
    fn judge(&self, other: &Node) -> Result<(), StandingRefused> {
        self.group.judge(&other.group.standing(), &self.group.seen())
    }

    fn open(network: &Network, disk: &Disk, start: Start<super::State>, seed: u64) -> Node {
        let fatal = Arc::new(Mutex::new(Vec::new()));
        let told = fatal.clone();
        let from = Arc::new(Mutex::new(0));
        let parts = Parts {
            files: Arc::new(disk.clone()),
            clock: Arc::new(SystemClock),
            random: Random::from_seed(seed),
            transport: Arc::new(Link { network: network.clone(), from: from.clone() }),
            registry: Registry::new(),
            metrics: Default::default(),
            fatal: Arc::new(move |reason: &str| told.lock().push(reason.to_owned())),
        };
        let settings = network.settings;
        let group: TestGroup = Group::open(Path::new(FOLDER), MACHINE, start, settings, parts).unwrap();
        *from.lock() = group.identity().id;
        let node = Node { group, fatal, network: network.clone() };
        node.connect();
        node
    }

    fn id(&self) -> u64 {
        self.group.identity().id
    }

    fn connect(&self) {
        let node = self.group.clone();
        self.network.nodes.lock().insert(self.id(), node);
    }

    /// Nothing reaches it any more, and nothing leaves it.
    fn cut_off(&self) {
        let node = self.network.nodes.lock().remove(&self.id());
        drop(node);
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = SystemClock.boottime() + Duration::from_secs(20);
    while !is_so() {
        assert!(SystemClock.boottime() < deadline, "{what}");
        SystemClock.sleep(Duration::from_millis(5)).await;
    }
}

/// Proposes until it is known to be applied: who leads may change once more on a busy machine.
async fn propose(node: &Node, text: &str) {
    let deadline = SystemClock.boottime() + Duration::from_secs(20);
    while let Err(error) = node.group.propose(entry(text)).await {
        assert!(SystemClock.boottime() < deadline, "{text}: {error}");
    }
}

/// One voter that two others have joined as voters.
async fn three(network: &Network, disks: &[Disk; 3]) -> [Node; 3] {
    let first = Node::open(network, &disks[0], Start::Bootstrap(Vec::new()), 1);
    first.group.propose(entry("before")).await.unwrap();
    let others = [1, 2].map(|i| Node::open(network, &disks[i], Start::Join(Vec::new()), 1 + i as u64));
    for node in &others {
        add(&first, node.id()).await;
    }
    let [second, third] = others;
    [first, second, third]
}

async fn add(leader: &Node, id: u64) {
    leader.group.add_learner(id).await.unwrap();
    until("the learner catches up", || {
        leader.group.members().progress.get(&id).is_some_and(|peer| peer.matched == leader.group.applied())
    })
    .await;
    leader.group.promote(id).await.unwrap();
}

fn leader(nodes: &[Node]) -> Option<&Node> {
    nodes.iter().find(|node| node.group.members().is_leader)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_grows_to_three_and_any_of_them_takes_proposals_and_reads() {
    let network = Network::default();
    let nodes = three(&network, &Default::default()).await;
    for (i, node) in nodes.iter().enumerate() {
        node.group.propose(entry(&format!("{i}"))).await.unwrap();
        for other in &nodes {
            let newest = other.group.read_index().await.unwrap();
            other.group.wait_applied(newest).await.unwrap();
            assert_eq!(entries(&other.group).last(), Some(&entry(&format!("{i}"))));
        }
    }
    let members = nodes[1].group.members();
    assert_eq!((members.voters.len(), members.leader), (3, Some(nodes[0].id())));
    assert!(nodes.iter().all(|node| node.judge(&nodes[0]).is_ok()));
    assert!(nodes.iter().all(|node| node.fatal.lock().is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_closes_hands_over_and_one_that_dies_is_replaced() {
    let network = Network::of_defaults();
    let mut nodes = Vec::from(three(&network, &Default::default()).await);
    let first = nodes.remove(0);
    first.group.close().await;
    until("another leads", || leader(&nodes).is_some()).await;
    propose(&nodes[0], "after").await;
    assert!(matches!(first.group.propose(entry("closed")).await, Err(ProposeError::Closed)));
    first.cut_off();

    // The first comes back, the present leader dies without a word.
    let dead = nodes.iter().position(|node| node.group.members().is_leader).unwrap();
    let dead = nodes.remove(dead);
    first.connect();
    let _ = first;
    dead.cut_off();
    // Of three voters one is closed and one dead: nobody leads, and says so at once when that is known.
    until("the last knows no leader", || nodes[0].group.members().leader.is_none()).await;
    until("and says so", || nodes[0].group.members().leader.is_none()).await;
    let refused = nodes[0].group.propose(entry("nobody")).await.unwrap_err();
    assert!(matches!(refused, ProposeError::NoLeader { is_certain: true }), "{refused:?}");
    assert!(matches!(nodes[0].group.read_index().await, Err(ProposeError::NoLeader { .. })));
    dead.connect();
    until("two of three lead again", || nodes[0].group.members().leader.is_some()).await;
    propose(&nodes[0], "again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_leader_is_replaced() {
    let network = Network::of_defaults();
    let mut nodes = Vec::from(three(&network, &Default::default()).await);
    let dead = nodes.remove(0);
    dead.cut_off();
    nodes[0].group.propose(entry("after")).await.ok();
    until("another leads", || leader(&nodes).is_some()).await;
    propose(&nodes[0], "again").await;
    dead.connect();
    until("it follows", || entries(&dead.group).last() == Some(&entry("again"))).await;
    assert!(!dead.group.members().is_leader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_removed_while_away_is_told_and_keeps_quiet() {
    let network = Network::default();
    let [first, second, third] = three(&network, &Default::default()).await;
    third.cut_off();
    first.group.remove(third.id()).await.unwrap();
    assert_eq!(first.group.members().voters.len(), 2);
    third.connect();
    until("it knows", || !third.group.members().contains(third.id())).await;
    let term = first.group.members().term;
    assert!(matches!(third.group.propose(entry("x")).await, Err(ProposeError::NoLeader { .. })));
    first.group.propose(entry("y")).await.unwrap();
    assert_eq!(second.group.members().term, term, "nobody was disturbed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_of_a_disk_is_refused() {
    let network = Network::default();
    let disks: [Disk; 3] = Default::default();
    let [first, second, third] = three(&network, &disks).await;
    let old = disks[2].copy();
    for i in 0..20 {
        first.group.propose(entry(&format!("{i}"))).await.unwrap();
    }
    until("it has them", || third.group.applied() == first.group.applied()).await;
    for node in [&first, &second] {
        node.judge(&third).unwrap();
    }
    third.cut_off();
    third.group.close().await;
    drop(third);
    let back = Node::open(&Network::default(), &old, Start::Existing, 9);
    let refused = first.judge(&back).unwrap_err();
    assert_eq!((refused.what, refused.id), ("last position", back.id()));
    assert!(refused.to_string().contains("(replica-went-back)"));
    // Whoever did not ask: the leader's next heartbeat shows it, and it stops before it can vote.
    network.nodes.lock().insert(back.id(), back.group.clone());
    until("it stops", || !back.fatal.lock().is_empty()).await;
    assert!(back.fatal.lock()[0].contains("(replica-went-back)"), "{:?}", back.fatal.lock());
    drop(second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_is_replaced_in_one_change_and_leadership_moves_where_it_is_told() {
    let network = Network::default();
    let [first, second, third] = three(&network, &Default::default()).await;
    third.cut_off();
    let fourth = Node::open(&network, &Disk::default(), Start::Join(Vec::new()), 4);
    first.group.add_learner(fourth.id()).await.unwrap();
    let behind = first.group.replace(third.id(), first.id()).await.unwrap_err();
    assert!(matches!(behind, MembersError::Invalid { .. }), "{behind}");
    until("it catches up", || entries(&fourth.group).len() == entries(&first.group).len()).await;
    until("the leader knows", || first.group.members().progress[&fourth.id()].matched > 0).await;
    first.group.replace(third.id(), fourth.id()).await.unwrap();
    let mut wanted = vec![first.id(), second.id(), fourth.id()];
    wanted.sort_unstable();
    until("everybody knows", || fourth.group.members().voters == wanted).await;
    assert!(matches!(first.group.remove(first.id()).await, Err(MembersError::Invalid { .. })));
    assert!(matches!(second.group.add_learner(9).await, Err(MembersError::NotLeader { .. })));
    first.group.transfer_leader(fourth.id()).await.unwrap();
    until("it knows itself", || fourth.group.members().is_leader).await;
    fourth.group.remove(first.id()).await.unwrap();
    assert_eq!(fourth.group.members().voters.len(), 2);
    fourth.group.propose(entry("two")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_state_is_not_the_others_stops() {
    let network = Network::default();
    let [first, second, third] = three(&network, &Default::default()).await;
    second.group.shared.state.write()[0].1 = entry("a bit that flipped");
    for i in 0..2 * HASH_EVERY {
        first.group.propose(entry(&format!("{i}"))).await.unwrap();
    }
    until("it stops", || !second.fatal.lock().is_empty()).await;
    assert!(second.fatal.lock()[0].contains("(index-diverged)"), "{:?}", second.fatal.lock());
    assert!(first.fatal.lock().is_empty() && third.fatal.lock().is_empty());
}

#[tokio::test]
async fn a_joined_replica_may_still_begin_a_group_and_keeps_its_id() {
    let disk = Disk::default();
    let network = Network::default();
    let node = Node::open(&network, &disk, Start::Join(Vec::new()), 5);
    let Identity { id, boots } = node.group.identity();
    assert_eq!((boots, node.group.members().voters.len()), (1, 0));
    node.group.close().await;
    drop(node);
    let node = Node::open(&network, &disk, Start::Bootstrap(Vec::new()), 6);
    assert_eq!(node.group.identity(), Identity { id, boots: 2 });
    node.group.propose(entry("a")).await.unwrap();
    node.group.close().await;
    drop(node);
    let parts = || Parts {
        files: Arc::new(disk.clone()),
        ..Parts::system(SystemClock::shared(), Random::from_seed(1), Registry::new())
    };
    for start in [Start::Bootstrap(Vec::new()), Start::Join(Vec::new())] {
        let refused = TestGroup::open(Path::new(FOLDER), MACHINE, start, Settings::default(), parts());
        assert!(matches!(refused.err().unwrap(), OpenError::Start { .. }));
    }
    let empty = Parts { files: Arc::new(Disk::default()), ..parts() };
    let refused = TestGroup::open(Path::new(FOLDER), MACHINE, Start::Existing, Settings::default(), empty);
    assert!(matches!(refused.err().unwrap(), OpenError::Start { .. }));
}
