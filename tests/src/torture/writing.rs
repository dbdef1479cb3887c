//! Senders that behave as agents do: each has one request under way, and sends it until it is acked, to one node after another.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::{Client, Response};
use crate::known::{Known, Shape};
use crate::random::Random;
use crate::torture::findings::Findings;
use crate::torture::gap::Gap;

/// Four senders of 100 samples ten times a second: 4,000 samples a second, which leaves two cores some air.
const SHAPE: Shape = Shape { senders: 4, series: 20, samples: 5 };

/// From one request of a sender to its next.
const PERIOD: Duration = Duration::from_millis(100);

/// How long a push may take before the sender turns to another node.
const PUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// A node that has failed is left alone for so long, if there is another.
const SHUNNED_FOR: Duration = Duration::from_secs(3);

/// A sender changes the node after so many requests at most, as a load balancer would.
const REQUESTS_AT_ONE_NODE_MAX: u64 = 200;

/// How long it is remembered when what was acked: longer than a warning may say that an answer is old.
const REMEMBERED_FOR: Duration = Duration::from_secs(900);

/// The senders, and what was acked.
#[derive(Debug)]
pub struct Writing {
    /// What they send.
    pub known: Known,
    /// The longest time without an ack.
    pub gap: Gap,
    senders: Vec<Sender>,
    nodes: RwLock<Vec<String>>,
    findings: Arc<Findings>,
    /// Answers to requests of an older epoch do not count.
    epoch: AtomicU64,
    is_over: AtomicBool,
}

/// What one sender has done. All requests below `acked` were acked; those below `sent` may be there.
#[derive(Debug, Default)]
struct Sender {
    sent: AtomicUsize,
    acked: AtomicUsize,
    /// When how many were acked.
    history: Mutex<VecDeque<(Instant, usize)>>,
}

impl Writing {
    /// Nothing sent yet. `nodes` are URLs.
    pub fn new(seed: u64, nodes: Vec<String>, findings: Arc<Findings>) -> Writing {
        Writing {
            known: Known { seed, shape: SHAPE },
            gap: Gap::default(),
            senders: (0..SHAPE.senders).map(|_| Sender::default()).collect(),
            nodes: RwLock::new(nodes),
            findings,
            epoch: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// Starts the senders.
    pub fn start(self: &Arc<Writing>) -> Vec<JoinHandle<()>> {
        let start = |sender| {
            let this = self.clone();
            std::thread::spawn(move || this.send(sender))
        };
        (0..SHAPE.senders).map(start).collect()
    }

    /// Ends them.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Whether they were told to end.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// From now on requests go to these nodes, by their URLs.
    pub fn set_nodes(&self, nodes: Vec<String>) {
        *self.nodes.write().unwrap_or_else(|e| e.into_inner()) = nodes;
    }

    /// Where what is wrong is noted.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// The nodes that requests go to.
    pub fn nodes(&self) -> Vec<String> {
        self.nodes.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Requests of a sender that were acked.
    pub fn acked_requests(&self, sender: usize) -> usize {
        self.senders[sender].acked.load(Ordering::SeqCst)
    }

    /// Requests of a sender that were acked `ago`.
    pub fn acked_requests_before(&self, sender: usize, when: Instant) -> usize {
        let history = self.senders[sender].history.lock().unwrap_or_else(|e| e.into_inner());
        history.iter().rev().find(|(at, _)| *at <= when).map_or(0, |(_, acked)| *acked)
    }

    /// Requests of a sender that were sent, or are about to be.
    pub fn sent_requests(&self, sender: usize) -> usize {
        self.senders[sender].sent.load(Ordering::SeqCst)
    }

    /// Samples that were acked.
    pub fn acked_samples(&self) -> u64 {
        let requests: usize = (0..SHAPE.senders).map(|sender| self.acked_requests(sender)).sum();
        requests as u64 * SHAPE.samples_per_request()
    }

    /// No answer to what is under way counts: in a power cut whoever would have got it is gone too.
    pub fn lose_answers(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    fn send(&self, number: usize) {
        let sender = &self.senders[number];
        let mut choice = Choice::new(Random::new(self.known.seed ^ (number as u64 + 1)));
        while !self.is_over() {
            let began = Instant::now();
            let request = sender.acked.load(Ordering::SeqCst);
            sender.sent.store(request + 1, Ordering::SeqCst);
            let epoch = self.epoch.load(Ordering::SeqCst);
            let node = choice.node(&self.nodes());
            let answer = Client::with_timeout(&node, PUSH_TIMEOUT).push(&self.known.request(number, request));
            if answer.is_ok_and(|answer| self.is_acked(&node, &answer)) && self.epoch.load(Ordering::SeqCst) == epoch {
                sender.acked.store(request + 1, Ordering::SeqCst);
                self.gap.mark();
                sender.remember(request + 1);
                std::thread::sleep(PERIOD.saturating_sub(began.elapsed()));
            } else {
                choice.failed();
                // Told to wait, or the node has gone: the next is asked. The pause only spares the processor.
                std::thread::sleep(PERIOD / 5);
            }
        }
    }

    /// Whether an answer is an ack; it may also be one that no node may give.
    fn is_acked(&self, node: &str, answer: &Response) -> bool {
        match answer.status {
            200..300 => return true,
            503 if answer.header("retry-after").is_some() => {}
            // A body that came too slowly, as its reader was stopped.
            408 => {}
            status => self.findings.add(format!("{node} answered a write with {status}: {}", answer.text().trim())),
        }
        false
    }
}

impl Sender {
    fn remember(&self, acked: usize) {
        let mut history = self.history.lock().unwrap_or_else(|e| e.into_inner());
        history.push_back((Instant::now(), acked));
        while history.front().is_some_and(|(at, _)| at.elapsed() > REMEMBERED_FOR) {
            history.pop_front();
        }
    }
}

/// Which node a sender uses.
struct Choice {
    random: Random,
    current: Option<String>,
    requests_left: u64,
    shunned: Vec<(String, Instant)>,
}

impl Choice {
    fn new(random: Random) -> Choice {
        Choice { random, current: None, requests_left: 0, shunned: vec![] }
    }

    /// The node for the next request.
    fn node(&mut self, nodes: &[String]) -> String {
        self.shunned.retain(|(_, since)| since.elapsed() < SHUNNED_FOR);
        self.requests_left = self.requests_left.saturating_sub(1);
        if let Some(current) = self.current.as_ref().filter(|current| self.requests_left > 0 && nodes.contains(current))
        {
            return current.clone();
        }
        let liked: Vec<&String> =
            nodes.iter().filter(|node| !self.shunned.iter().any(|(shunned, _)| shunned == *node)).collect();
        let among = if liked.is_empty() { nodes.iter().collect() } else { liked };
        let node = among[self.random.below(among.len() as u64) as usize].clone();
        self.requests_left = 1 + self.random.below(REQUESTS_AT_ONE_NODE_MAX);
        self.current = Some(node.clone());
        node
    }

    /// The request to it was not acked.
    fn failed(&mut self) {
        if let Some(node) = self.current.take() {
            self.shunned.push((node, Instant::now()));
        }
    }
}
