//! Readers that ask every node all the time, and judge each answer by what had been acked when they asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use regex::Regex;

use crate::client::Client;
use crate::known::{Verdict, Window};
use crate::promqltest::Answer;
use crate::random::Random;
use crate::torture::findings::Findings;
use crate::torture::gap::Gap;
use crate::torture::writing::Writing;

/// From one question of a reader to its next.
const PERIOD: Duration = Duration::from_millis(150);

/// How long a query may take before it counts as not answered.
const QUERY_TIMEOUT: Duration = Duration::from_secs(15);

/// Requests of a sender that one question is about.
const REQUESTS_ASKED: usize = 12;

/// Of so many questions one is about old samples.
const OLD_EVERY: u64 = 5;

/// A warning says how old an answer is in whole seconds, rounded down, from some moment within an earlier query.
const AGE_SLACK: Duration = Duration::from_secs(2);

/// The readers, one for each node, and what they saw.
#[derive(Debug)]
pub struct Reading {
    /// The longest time without an answer, from any node.
    pub gap: Gap,
    /// The same, without one that says that it may be old.
    pub fresh_gap: Gap,
    writing: Arc<Writing>,
    findings: Arc<Findings>,
    errors: Mutex<Errors>,
}

/// Questions that were not answered.
#[derive(Debug)]
struct Errors {
    /// Of those that were asked since then.
    since: Instant,
    /// How many, and the last reason, by node.
    by_node: BTreeMap<String, (u64, String)>,
}

/// What an answer claims to have.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Claim {
    /// Everything.
    Newest,
    /// What was acked so long ago.
    AsOf(Duration),
    /// Perhaps nothing.
    Unknown,
}

impl Reading {
    /// Nothing seen yet.
    pub fn new(writing: Arc<Writing>, findings: Arc<Findings>) -> Reading {
        let errors = Mutex::new(Errors { since: Instant::now(), by_node: BTreeMap::new() });
        Reading { gap: Gap::default(), fresh_gap: Gap::default(), writing, findings, errors }
    }

    /// Starts `count` readers: each asks the node of its number, whoever that is, until the senders end.
    pub fn start(self: &Arc<Reading>, count: usize) -> Vec<JoinHandle<()>> {
        let start = |number| {
            let this = self.clone();
            std::thread::spawn(move || this.watch(number))
        };
        (0..count).map(start).collect()
    }

    /// Forgets the errors, also those of questions that are under way.
    pub fn forget_errors(&self) {
        *self.lock_errors() = Errors { since: Instant::now(), by_node: BTreeMap::new() };
    }

    /// Errors if any question that was asked since was not answered.
    pub fn no_errors(&self, when: &str) -> Result<()> {
        let errors = self.lock_errors();
        if !errors.by_node.is_empty() {
            bail!("queries failed {when}: {:?}", errors.by_node);
        }
        Ok(())
    }

    fn watch(&self, number: usize) {
        let mut random = Random::new(self.writing.known.seed ^ (0x100 + number as u64));
        while !self.writing.is_over() {
            let began = Instant::now();
            if let Some(node) = self.writing.nodes().get(number) {
                let window = self.window(&mut random);
                if let Err(error) = self.ask(node, &window) {
                    self.lock_errors().add(began, node, format!("{error:#}"));
                }
            }
            std::thread::sleep(PERIOD.saturating_sub(began.elapsed()));
        }
    }

    /// Some requests, mostly the latest; also those that are to come, of which nothing may be there.
    fn window(&self, random: &mut Random) -> Window {
        let sender = random.below(self.writing.known.shape.senders as u64) as usize;
        let acked = self.writing.acked_requests(sender);
        let end = match random.below(OLD_EVERY) {
            0 => 1 + random.below(acked.max(1) as u64) as usize,
            _ => acked + 2,
        };
        Window { sender, requests: end.saturating_sub(REQUESTS_ASKED)..end }
    }

    /// Asks a node; an error is no answer, and all else is judged.
    fn ask(&self, node: &str, window: &Window) -> Result<()> {
        let (began, acked) = (Instant::now(), self.writing.acked_requests(window.sender));
        let client = Client::with_timeout(node, QUERY_TIMEOUT);
        let answer = self.writing.known.ask(&client, window)?.map_err(anyhow::Error::msg)?;
        let sent = self.writing.sent_requests(window.sender);
        let claim = match claim(&answer) {
            Ok(claim) => claim,
            Err(error) => {
                self.findings.add(format!("{node}: {error:#}"));
                return Ok(());
            }
        };
        let acked = match claim {
            Claim::Newest => acked,
            Claim::AsOf(age) => began
                .checked_sub(age + AGE_SLACK)
                .map_or(0, |when| self.writing.acked_requests_before(window.sender, when)),
            Claim::Unknown => 0,
        };
        let mut verdict = Verdict::default();
        self.writing.known.judge(window, &answer, |request| request < acked, sent, &mut verdict)?;
        if !verdict.is_clean() {
            let after = began.elapsed();
            self.findings.add(format!(
                "{node} answered {window:?} ({acked} acked, {sent} sent, {claim:?}) after {after:?}: {verdict:?}"
            ));
            return Ok(());
        }
        self.gap.mark();
        if claim == Claim::Newest {
            self.fresh_gap.mark();
        }
        Ok(())
    }

    fn lock_errors(&self) -> std::sync::MutexGuard<'_, Errors> {
        self.errors.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Errors {
    fn add(&mut self, asked: Instant, node: &str, error: String) {
        if asked >= self.since {
            let (count, last) = self.by_node.entry(node.to_owned()).or_default();
            (*count, *last) = (*count + 1, error);
        }
    }
}

/// What an answer claims by its warnings. Errors: a warning that is none of these.
fn claim(answer: &Answer) -> Result<Claim> {
    let mut claim = Claim::Newest;
    for warning in &answer.warnings {
        if !warning.contains("(no-leader)") {
            bail!("an answer came with the warning {warning:?}");
        }
        let age = Regex::new(r"which a query (\d+) s ago")?.captures(warning);
        claim = match age {
            Some(age) => Claim::AsOf(Duration::from_secs(age[1].parse().context("seconds")?)),
            None => Claim::Unknown,
        };
    }
    Ok(claim)
}
