//! This node among others: who it is, whom it follows, who follows it.
//!
//! [`Member`] is the node's side of `cluster`: it answers what other nodes send, renews this node's session with the leader,
//! and, while this node leads, decides who votes. Names and addresses of nodes are in the index, so that the cluster goes
//! on without DNS; a node that is not in it yet finds the others by [`join`].

pub mod heads;
pub mod homes;
pub mod join;
mod lead;
pub mod shares;
mod status;
pub mod together;
pub mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bucket::{Bucket, BucketError, Cluster, ReplicaNote};
use bytes::Bytes;
use cluster::{CallError, Discovery, Hello, Host, Judge, Message, Peers, Refusal, RefusalKind, Renewal, Sessions};
use consensus::Standing;
use futures::FutureExt;
use futures::future::BoxFuture;
use index::NodeInfo;
use ingester::Ingester;
use model::{NodeId, Revision};
use parking_lot::{Mutex, RwLock};
use querier::Querier;
use runtime::{Clock, Stage, Tasks};
use tokio::sync::watch;

use crate::heads::LocalHeads;
use crate::index_log::IndexGroup;
use crate::late::Late;
use wire::{Renew, Renewed};

pub use lead::change_members;
pub use status::Says;

/// A session lasts this long after its last renewal; the leader fences no earlier.
pub const SESSION_MAX: Duration = Duration::from_secs(3);
/// This node takes its own session for so much longer: the fence is what counts, and the next leader is there in less.
const SESSION_SLACK: Duration = Duration::from_secs(7);
/// So long after a look at `cluster.json` writes are answered (RELIABILITY.md, row 13); `recover.wait` is longer.
pub const BUCKET_SEEN_MAX: Duration = Duration::from_secs(20);
/// How often a session is renewed: several may be lost before it ends.
const RENEW_EVERY: Duration = Duration::from_millis(500);
/// How long a write waits for a leader of the index that was there when it came.
const LEADERLESS_MAX: Duration = Duration::from_millis(500);
/// A renewal that is not answered by then is tried again.
const RENEW_LIMIT: Duration = Duration::from_secs(1);

/// This node among others. Clones are the same.
#[derive(Clone)]
pub struct Member {
    shared: Arc<Shared>,
}

struct Shared {
    info: RwLock<NodeInfo>,
    group: RwLock<IndexGroup>,
    clock: Arc<dyn Clock>,
    peers: Late<Peers>,
    discovery: Option<Discovery>,
    /// Renewals with this node while it leads.
    sessions: Sessions,
    /// When this node began to lead, and in which term; `None` while it does not.
    leads: Mutex<Option<(u64, Duration)>>,
    /// Until when this node's session lasts as far as it knows, by boottime; `None`: it never had one.
    session_until: watch::Sender<Option<Duration>>,
    /// Until when it is sure enough that the bucket is still its cluster's, by boottime; `None`: not looked at yet.
    bucket_until: Mutex<Option<Duration>>,
    /// The cluster that it is about to join: what it says of itself before it has an index.
    joining: Mutex<Option<Cluster>>,
    heads: Late<LocalHeads>,
    ingester: Late<Ingester>,
    querier: Late<Querier>,
    says: Late<Says>,
    /// What keeps it from being part of the cluster, in words.
    trouble: Mutex<Option<String>>,
}

impl Member {
    /// Of nothing yet. `peers` is set once, by whoever makes them with this as their host.
    pub fn new(info: NodeInfo, group: IndexGroup, clock: Arc<dyn Clock>, discovery: Option<Discovery>) -> Member {
        Member {
            shared: Arc::new(Shared {
                info: RwLock::new(info),
                group: RwLock::new(group),
                clock,
                peers: Late::default(),
                discovery,
                sessions: Sessions::default(),
                leads: Mutex::new(None),
                session_until: watch::Sender::new(None),
                bucket_until: Mutex::new(None),
                joining: Mutex::new(None),
                heads: Late::default(),
                ingester: Late::default(),
                querier: Late::default(),
                says: Late::default(),
                trouble: Mutex::new(None),
            }),
        }
    }

    /// Who this node is.
    pub fn node(&self) -> NodeId {
        NodeId(self.group().identity().id)
    }

    /// The index, as of now: the group that a node joins with may be closed and opened again as one that it begins.
    pub fn group(&self) -> IndexGroup {
        self.shared.group.read().clone()
    }

    fn peers(&self) -> Option<&Peers> {
        self.shared.peers.get()
    }

    /// Sets how the other nodes are reached.
    pub fn set_peers(&self, peers: Peers) {
        self.shared.peers.set(peers);
    }

    /// Sets what other nodes ask this one about, and hand their parts of requests to.
    pub fn set_roles(&self, ingester: Ingester, querier: Querier) {
        self.shared.heads.set(LocalHeads(ingester.heads()));
        self.shared.ingester.set(ingester);
        self.shared.querier.set(querier);
    }

    /// What keeps this node from being whole, in words for an operator.
    pub fn troubles(&self) -> Vec<String> {
        let mut troubles: Vec<String> = self.shared.trouble.lock().iter().cloned().collect();
        let group = self.group();
        if group.members().leader.is_none() && !self.is_alone() {
            troubles.push("the index has no leader: writes are refused until most voters are back (no-leader)".into());
        }
        troubles
    }

    /// What an operator should know of and need not act on at once.
    pub fn notices(&self) -> Vec<String> {
        let discovery = self.shared.discovery.as_ref();
        discovery.map_or_else(Vec::new, |discovery| discovery.snapshot().complaints(self.shared.clock.now_ms()))
    }

    /// Puts another group in the place of the one that this node was to join with.
    pub fn set_group(&self, group: IndexGroup) {
        *self.shared.group.write() = group;
    }

    /// Says from now on that it is of this cluster, before it has an index that says so.
    pub fn set_joining(&self, cluster: Cluster) {
        *self.shared.joining.lock() = Some(cluster);
    }

    /// Says that the bucket was found to be this cluster's, at a time by boottime. From then on writes are answered only
    /// within [`BUCKET_SEEN_MAX`] of such a look: a cluster that was recovered from the bucket waits for longer than that.
    pub fn bucket_seen(&self, at: Duration) {
        *self.shared.bucket_until.lock() = Some(at + BUCKET_SEEN_MAX);
    }

    /// Says that the bucket belongs to another cluster, or to a later life of this one: no write is answered any more.
    pub fn bucket_lost(&self) {
        *self.shared.bucket_until.lock() = Some(Duration::ZERO);
    }

    /// Notes in the bucket what this node's replica of the index has, if that is not what was `noted` last: a start with less
    /// is refused. The only one needs none: a log of its own that is old is found out by what the bucket holds of the index.
    pub async fn note_replica(&self, bucket: &Bucket, noted: &mut Option<ReplicaNote>) -> Result<(), BucketError> {
        if self.is_alone() {
            return Ok(());
        }
        let group = self.group();
        // In this order: what is applied is in the log, and stays there.
        let applied = group.read(|index| index.revision().position);
        let standing = group.standing();
        let note = ReplicaNote::new(standing.boots, standing.term, applied);
        if *noted != Some(note) {
            bucket.note_replica(self.node(), &note).await?;
            *noted = Some(note);
        }
        Ok(())
    }

    /// Waits until this node has a cluster's index and a session with its leader.
    pub async fn wait_until_in(&self) {
        let mut session = self.shared.session_until.subscribe();
        loop {
            let now = self.shared.clock.boottime();
            let is_in = session.borrow_and_update().is_some_and(|until| until > now);
            let group = self.group();
            let mut applied = group.watch_applied();
            if is_in && group.read(|index| index.cluster()) != 0 && group.members().leader.is_some() {
                return;
            }
            tokio::select! {
                _ = session.changed() => {}
                // A group that is closed is about to be another one, with which the session is renewed.
                Ok(()) = applied.changed() => {}
            }
        }
    }

    /// Whether nobody leads, as far as this node knows: nothing can be committed now.
    pub fn has_no_leader(&self) -> bool {
        self.group().watch_members().borrow().leader.is_none()
    }

    /// Waits for a write to be durable; `None` if nobody has led the index for a while. It may be committed still, when there
    /// is a leader again: the sender sends it again, which is harmless.
    pub async fn while_led<T>(&self, write: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = write => Some(done),
            () = self.leaderless_for(LEADERLESS_MAX) => None,
        }
    }

    /// Waits until nobody has led for `patience`.
    pub async fn leaderless_for(&self, patience: Duration) {
        let mut members = self.group().watch_members();
        loop {
            if members.wait_for(|members| members.leader.is_none()).await.is_err() {
                return std::future::pending().await;
            }
            tokio::select! {
                _ = members.wait_for(|members| members.leader.is_some()) => {}
                () = self.shared.clock.sleep(patience) => return,
            }
        }
    }

    fn set_trouble(&self, trouble: Option<String>) {
        *self.shared.trouble.lock() = trouble;
    }

    /// Whether this node is the only member there is.
    pub fn is_alone(&self) -> bool {
        let members = self.group().members();
        members.voters == [self.node().0] && members.learners.is_empty()
    }

    /// Waits until this node leads, or no longer does.
    pub async fn wait_leads(&self, leads: bool) {
        let mut members = self.group().watch_members();
        if members.wait_for(|members| members.is_leader == leads).await.is_err() {
            // The group is closed: nobody leads it from here.
            std::future::pending::<()>().await;
        }
    }

    /// The term in which this node leads.
    pub fn leading_term(&self) -> Option<u64> {
        let members = self.group().members();
        members.is_leader.then_some(members.term)
    }

    /// The lowest revision that any node with a session uses; `None` while this node can't know, as it has not led for long.
    pub fn lowest_in_use(&self) -> Option<Revision> {
        let (_, since) = (*self.shared.leads.lock())?;
        let now = self.shared.clock.boottime();
        if now.saturating_sub(since) < 2 * SESSION_MAX && !self.is_alone() {
            return None;
        }
        let own = self.lowest_here();
        Some(self.shared.sessions.lowest_in_use(now, SESSION_MAX).map_or(own, |lowest| lowest.min(own)))
    }

    /// The lowest revision that this node uses: the oldest plan's, or what is applied here.
    fn lowest_here(&self) -> Revision {
        // In this order: a plan that is made in between is of this revision or a later one.
        let applied = self.group().read(|index| index.revision());
        let plan = self.shared.querier.get().and_then(|querier| querier.plans().revision());
        plan.map_or(applied, |oldest| oldest.min(applied))
    }

    /// Keeps this node's session, and the addresses of the others, until the end.
    pub async fn renew(self, tasks: Tasks) {
        let shutdown = tasks.shutdown().clone();
        let mut known = BTreeMap::new();
        loop {
            self.look_who_leads();
            self.follow_addresses(&mut known);
            let renewed = self.renew_once().await;
            self.set_trouble(renewed.err().filter(|_| !self.is_alone()));
            tokio::select! {
                () = shutdown.reached(Stage::Closing) => return,
                () = self.shared.clock.sleep(RENEW_EVERY) => {}
            }
        }
    }

    /// Notes the begin and the end of a term that this node leads in: what was renewed in another is worth nothing.
    fn look_who_leads(&self) {
        let term = self.leading_term();
        let mut leads = self.shared.leads.lock();
        if term != leads.map(|(term, _)| term) {
            self.shared.sessions.clear();
            *leads = term.map(|term| (term, self.shared.clock.boottime()));
        }
    }

    fn follow_addresses(&self, known: &mut BTreeMap<NodeId, String>) {
        let Some(peers) = self.peers() else { return };
        let own = self.node();
        let addresses: BTreeMap<NodeId, String> = self.group().read(|index| {
            let others = index.nodes().filter(|(node, _)| *node != own);
            others.map(|(node, info)| (node, info.peer.clone())).collect()
        });
        // Before the index has come nobody is known, but whoever sends it.
        if !addresses.is_empty() && addresses != *known {
            peers.set_addresses(addresses.clone());
            *known = addresses;
        }
    }

    /// Renews with the leader, wherever it is known to be; `Err` in words.
    async fn renew_once(&self) -> Result<(), String> {
        let at = self.shared.clock.boottime();
        let renew = Renew {
            info: self.shared.info.read().clone(),
            lowest: self.lowest_here(),
            now_ms: self.shared.clock.now_ms(),
        };
        let members = self.group().members();
        if members.is_leader {
            self.shared.sessions.renew(self.node(), Renewal { at, lowest: renew.lowest, clock_ahead_ms: 0 });
            self.set_node(self.node(), &renew.info);
            self.extend_session(at);
            return Ok(());
        }
        let Some(peers) = self.peers() else { return Err("there is no peer port (peer.listen)".into()) };
        let body = Bytes::from(renew.encode());
        let mut reason = "no other node is found".to_owned();
        if let Some(leader) = members.leader.map(NodeId)
            && peers.address(leader).is_some()
        {
            let answer = peers.call(leader, Message::Renew, body.clone(), RENEW_LIMIT).await;
            match self.is_renewed(answer).await {
                Ok(true) => {
                    self.extend_session(at);
                    return Ok(());
                }
                Ok(false) => {}
                Err(error) => reason = error,
            }
        }
        // A node that is new, or was away for so long that the others moved: whoever is found knows who leads.
        let found = self.shared.discovery.as_ref().map(|discovery| discovery.snapshot().addresses).unwrap_or_default();
        for address in found {
            let address = address.to_string();
            if address == self.shared.info.read().peer {
                continue;
            }
            let answer = peers.call_at(&address, Message::Renew, body.clone(), RENEW_LIMIT).await;
            match self.is_renewed(answer).await {
                Ok(true) => {
                    self.extend_session(at);
                    return Ok(());
                }
                Ok(false) => {}
                Err(error) => reason = error,
            }
        }
        Err(format!("this node has no session with the index's leader: {reason} (no-session)"))
    }

    /// Whether an answer says so; goes on to the leader that it names.
    async fn is_renewed(&self, answer: Result<Bytes, CallError>) -> Result<bool, String> {
        let answer = answer.map_err(|error| error.to_string())?;
        match Renewed::decode(&answer).map_err(|error| error.to_string())? {
            Renewed::Yes => Ok(true),
            Renewed::LedBy { node, peer } => {
                let Some(peers) = self.peers() else { return Ok(false) };
                let renew = Renew {
                    info: self.shared.info.read().clone(),
                    lowest: self.lowest_here(),
                    now_ms: self.shared.clock.now_ms(),
                };
                peers.set_address(node, &peer);
                let answer = peers.call(node, Message::Renew, renew.encode().into(), RENEW_LIMIT).await;
                let answer = answer.map_err(|error| error.to_string())?;
                Ok(Renewed::decode(&answer).map_err(|error| error.to_string())? == Renewed::Yes)
            }
        }
    }

    fn extend_session(&self, renewed_at: Duration) {
        self.shared.session_until.send_replace(Some(renewed_at + SESSION_MAX + SESSION_SLACK));
    }

    /// Notes in the index how a node is reached, if it says something new. Only the leader does.
    fn set_node(&self, node: NodeId, info: &NodeInfo) {
        let group = self.group();
        let is_known = group.read(|index| index.node(node) == Some(info));
        if is_known {
            return;
        }
        let command = index::Command::SetNode { node, info: info.clone() };
        let incarnation = group.read(|index| index.incarnation());
        runtime::spawn(async move {
            let proposed = group.propose(index::Entry { incarnation, command }).await;
            if let Err(error) = proposed {
                // It renews again soon.
                tracing::debug!(%node, %error, "node not noted in the index");
            }
        });
    }

    /// Takes another node's renewal, or says who leads.
    fn take_renewal(&self, from: &Hello, body: &[u8]) -> Result<Renewed, Refusal> {
        let invalid = |error: model::DecodeError| Refusal::new(RefusalKind::Invalid, error.to_string());
        let renew = Renew::decode(body).map_err(invalid)?;
        let members = self.group().members();
        if !members.is_leader {
            let leader = members.leader.map(NodeId).filter(|leader| *leader != self.node());
            let known = leader.and_then(|leader| {
                let listed = self.group().read(|index| index.node(leader).map(|info| info.peer.clone()));
                let peer = listed.or_else(|| self.peers().and_then(|peers| peers.address(leader)))?;
                Some(Renewed::LedBy { node: leader, peer })
            });
            let no_leader = || Refusal::new(RefusalKind::Unavailable, "this node knows of no leader of the index");
            return known.ok_or_else(no_leader);
        }
        self.look_who_leads();
        let clock_ahead_ms = renew.now_ms.saturating_sub(self.shared.clock.now_ms());
        let renewal = Renewal { at: self.shared.clock.boottime(), lowest: renew.lowest, clock_ahead_ms };
        self.shared.sessions.renew(from.node, renewal);
        self.set_node(from.node, &renew.info);
        Ok(Renewed::Yes)
    }
}

impl Host for Member {
    fn hello(&self) -> Hello {
        let group = self.group();
        let (mut cluster, mut incarnation) = group.read(|index| (index.cluster(), index.incarnation()));
        if cluster == 0
            && let Some(joining) = *self.shared.joining.lock()
        {
            (cluster, incarnation) = (joining.id, joining.incarnation);
        }
        let standing = group.standing();
        let info = self.shared.info.read().clone();
        Hello {
            cluster,
            incarnation,
            node: NodeId(standing.id),
            name: info.name,
            peer: info.peer,
            api: info.api,
            last_index: standing.last_index,
            term: standing.term,
            boots: standing.boots,
        }
    }

    fn judge(&self) -> Judge {
        let group = self.group();
        let before = group.seen();
        Box::new(move |other| {
            let standing =
                Standing { id: other.node.0, last_index: other.last_index, term: other.term, boots: other.boots };
            group.judge(&standing, &before).map_err(|refused| refused.to_string())
        })
    }

    fn answer(&self, from: Hello, message: Message, body: Bytes) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let this = self.clone();
        async move {
            match message {
                Message::Consensus => {
                    // Whoever sends before the index names it says in its hello where answers go.
                    if let Some(peers) = this.peers()
                        && peers.address(from.node).is_none()
                        && !from.peer.is_empty()
                    {
                        peers.set_address(from.node, &from.peer);
                    }
                    let posts = cluster::split_posts(&body);
                    let posts = posts.ok_or_else(|| Refusal::new(RefusalKind::Invalid, "not posts"))?;
                    let group = this.group();
                    posts.into_iter().for_each(|post| group.receive(from.node.0, post));
                    Ok(Bytes::new())
                }
                Message::Renew => Ok(this.take_renewal(&from, &body)?.encode().into()),
                Message::Status => Ok(this.says().encode().into()),
                Message::SelectHead
                | Message::HeadSeries
                | Message::HeadLabelNames
                | Message::HeadLabelValues
                | Message::HeadMetadata => {
                    let starting = || Refusal::new(RefusalKind::NotHere, "this node is starting");
                    heads::answer(this.shared.heads.get().ok_or_else(starting)?, message, &body).await
                }
                Message::Share => {
                    let starting = || Refusal::new(RefusalKind::NotHere, "this node is starting");
                    shares::answer(this.shared.querier.get().ok_or_else(starting)?, &body).await
                }
                Message::Append | Message::TakesParts => {
                    let starting = || Refusal::new(RefusalKind::Unavailable, "this node is starting");
                    let ingester = this.shared.ingester.get().ok_or_else(starting)?;
                    match message {
                        Message::Append => homes::append(&this, ingester, body).await,
                        _ => homes::takes_parts(&this, ingester),
                    }
                }
            }
        }
        .boxed()
    }
}

/// The session as the ingester sees it.
impl ingester::SessionGuard for Member {
    fn deadline(&self) -> Option<Duration> {
        // Nobody could fence the only one. Of others, who never had a session may answer nothing.
        let session = (!self.is_alone()).then(|| self.shared.session_until.borrow().unwrap_or_default());
        let bucket = *self.shared.bucket_until.lock();
        session.into_iter().chain(bucket).min()
    }
}

/// The sessions as the warden sees them.
impl ingester::Sessions for Member {
    fn leading_term(&self) -> Option<u64> {
        Member::leading_term(self)
    }

    fn renewals(&self) -> Vec<(NodeId, Duration)> {
        self.shared.sessions.renewals().into_iter().map(|(node, renewal)| (node, renewal.at)).collect()
    }
}
