//! Senders that know what was acked, and a check that all of it is there, once, bit by bit.
//!
//! A request whose answer did not come is *unknown*: it may be stored or not, and is sent again when the node is back, as
//! an agent would.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::client::Client;
use crate::known::{Known, Window};
pub use crate::known::{Shape, Verdict};

/// All that was sent, and what became of it.
#[derive(Debug)]
pub struct Load {
    known: Known,
    /// For each sender, for each request: whether it was acked. All but the last were.
    sent: Vec<Vec<bool>>,
    /// For each sender: the first request that [`Load::check`] has not seen yet.
    checked: Vec<usize>,
}

/// What a run of the senders did.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Samples that were acked.
    pub acked: u64,
    /// From the first request until the senders were told to stop.
    pub elapsed: Duration,
}

/// The senders' progress, for whoever disturbs them.
#[derive(Debug, Default)]
pub struct Progress {
    acked: AtomicU64,
    is_over: AtomicBool,
}

impl Progress {
    /// Samples acked so far.
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::SeqCst)
    }

    /// From here on no answer counts as received: in a power cut whoever would have got it is gone too.
    pub fn lose_answers(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

impl Load {
    /// Nothing sent yet.
    pub fn new(seed: u64, shape: Shape) -> Load {
        Load { known: Known { seed, shape }, sent: vec![vec![]; shape.senders], checked: vec![0; shape.senders] }
    }

    /// Runs the senders until `disturb`, which is called beside them, returns.
    pub fn run(&mut self, client: &Client, disturb: impl FnOnce(&Progress) -> Result<()>) -> Result<Run> {
        let progress = Progress::default();
        let stop = AtomicBool::new(false);
        let started = Instant::now();
        let known = self.known;
        let (result, elapsed) = std::thread::scope(|scope| {
            for (sender, sent) in self.sent.iter_mut().enumerate() {
                let (client, progress, stop) = (client.clone(), &progress, &stop);
                scope.spawn(move || send(known, sender, sent, &client, progress, stop));
            }
            let result = disturb(&progress);
            let elapsed = started.elapsed();
            stop.store(true, Ordering::Relaxed);
            (result, elapsed)
        });
        result?;
        Ok(Run { acked: progress.acked(), elapsed })
    }

    /// Samples acked so far.
    pub fn acked(&self) -> u64 {
        let requests: usize = self.sent.iter().flatten().filter(|acked| **acked).count();
        requests as u64 * self.known.shape.samples_per_request()
    }

    /// Reads back what was sent since the last check, or everything, and compares.
    pub fn check(&mut self, client: &Client, everything: bool) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        for sender in 0..self.known.shape.senders {
            let from = if everything { 0 } else { self.checked[sender] };
            let upto = self.sent[sender].len();
            // One query of at most this many requests stays far below the limit on samples.
            for first in (from..upto).step_by(200) {
                self.check_requests(client, sender, first, upto.min(first + 200), &mut verdict)?;
            }
            // The last request may be unknown yet, and be sent again.
            self.checked[sender] = upto.saturating_sub(1);
        }
        Ok(verdict)
    }

    fn check_requests(
        &self,
        client: &Client,
        sender: usize,
        first: usize,
        end: usize,
        verdict: &mut Verdict,
    ) -> Result<()> {
        let window = Window { sender, requests: first..end };
        let sent = &self.sent[sender];
        match self.known.ask(client, &window)? {
            Ok(answer) => self.known.judge(&window, &answer, |request| sent[request], sent.len(), verdict),
            Err(error) => bail!("{window:?}: {error}"),
        }
    }
}

fn send(known: Known, sender: usize, sent: &mut Vec<bool>, client: &Client, progress: &Progress, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // Only the last one can be without an ack: it is sent again.
        let request = sent.iter().rposition(|acked| !acked).unwrap_or(sent.len());
        if request == sent.len() {
            sent.push(false);
        }
        match client.push(&known.request(sender, request)) {
            Ok(_) if progress.is_over.load(Ordering::SeqCst) => return,
            Ok(response) if response.status / 100 == 2 => {
                sent[request] = true;
                progress.acked.fetch_add(known.shape.samples_per_request(), Ordering::SeqCst);
            }
            // Told to wait, or the node has gone: the same request is next. The pause only spares the processor.
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
