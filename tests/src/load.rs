//! Senders that know what was acked, and a check that all of it is there, once, bit by bit.
//!
//! What a sample is follows from the seed, the sender, the series and its number; so nothing but the numbers of the
//! requests needs to be remembered. A request whose answer did not come is *unknown*: it may be stored or not, and is
//! sent again when the node is back, as an agent would.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use model::{Labels, TimestampMs};

use crate::client::{Client, Series, labels};
use crate::promqltest::Data;
use crate::random::mix;

/// When the first sample is: long past, so that no clock matters.
const START: TimestampMs = 1_700_000_000_000;

/// Between two samples of a series.
const STEP_MS: i64 = 1_000;

/// How the load looks.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Senders at work side by side.
    pub senders: usize,
    /// Series of each.
    pub series: usize,
    /// Samples of each series in a request.
    pub samples: usize,
}

impl Default for Shape {
    /// 500 samples a request, as Prometheus's default sends up to 2,000.
    fn default() -> Shape {
        Shape { senders: 4, series: 50, samples: 10 }
    }
}

/// All that was sent, and what became of it.
#[derive(Debug)]
pub struct Load {
    seed: u64,
    shape: Shape,
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

/// What is wrong with the answers: empty if all is well.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Verdict {
    /// Acked samples that were read back.
    pub present: u64,
    /// Acked, and not there.
    pub missing: u64,
    /// There with another value, or never sent.
    pub wrong: u64,
    /// There more than once.
    pub doubled: u64,
    /// The first few of them.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Whether every acked sample is there, once, as it was sent.
    pub fn is_clean(&self) -> bool {
        self.missing + self.wrong + self.doubled == 0
    }

    fn note(&mut self, example: String) {
        if self.examples.len() < 10 {
            self.examples.push(example);
        }
    }
}

impl Load {
    /// Nothing sent yet.
    pub fn new(seed: u64, shape: Shape) -> Load {
        Load { seed, shape, sent: vec![vec![]; shape.senders], checked: vec![0; shape.senders] }
    }

    /// Runs the senders until `disturb`, which is called beside them, returns.
    pub fn run(&mut self, client: &Client, disturb: impl FnOnce(&Progress) -> Result<()>) -> Result<Run> {
        let progress = Progress::default();
        let stop = AtomicBool::new(false);
        let started = Instant::now();
        let (seed, shape) = (self.seed, self.shape);
        let (result, elapsed) = std::thread::scope(|scope| {
            for (sender, sent) in self.sent.iter_mut().enumerate() {
                let (client, progress, stop) = (client.clone(), &progress, &stop);
                scope.spawn(move || send(seed, shape, sender, sent, &client, progress, stop));
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
        (requests * self.shape.series * self.shape.samples) as u64
    }

    /// Reads back what was sent since the last check, or everything, and compares.
    pub fn check(&mut self, client: &Client, everything: bool) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        for sender in 0..self.shape.senders {
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
        let samples = self.shape.samples;
        let (from, to) = (first * samples, end * samples);
        let selector = format!("crash{{sender=\"{sender}\"}}");
        // A range selector leaves out its start and includes its end.
        let range = format!("{selector}[{}ms]", (to - from) as i64 * STEP_MS);
        let data = match client.instant(&range, time(to - 1))? {
            Ok(answer) => answer.data,
            Err(error) => bail!("{range}: {error}"),
        };
        let Data::Matrix(matrix) = data else { bail!("{range} is not a matrix") };
        let mut by_series = vec![vec![Vec::new(); to - from]; self.shape.series];
        for (labels, got) in &matrix {
            let Some(series) = (0..self.shape.series).find(|i| self.labels(sender, *i) == *labels) else {
                verdict.wrong += got.len() as u64;
                verdict.note(format!("{labels} was never sent"));
                continue;
            };
            for (t, v) in got.timestamps.iter().zip(&got.floats) {
                let number = ((t - START) / STEP_MS) as usize;
                if *t != time(number) || !(from..to).contains(&number) {
                    verdict.wrong += 1;
                    verdict.note(format!("{labels} at {t} was never sent"));
                    continue;
                }
                by_series[series][number - from].push(*v);
            }
        }
        for (series, numbers) in by_series.iter().enumerate() {
            for (i, values) in numbers.iter().enumerate() {
                self.check_sample(sender, series, from + i, values, verdict);
            }
        }
        Ok(())
    }

    fn check_sample(&self, sender: usize, series: usize, number: usize, got: &[f64], verdict: &mut Verdict) {
        let acked = self.sent[sender][number / self.shape.samples];
        let place = || format!("{} number {number} (at {})", self.labels(sender, series), time(number));
        let expected = value(self.seed, sender, series, number);
        if got.len() > 1 {
            verdict.doubled += 1;
            verdict.note(format!("{} is there {} times", place(), got.len()));
        }
        match got.first() {
            None if acked => {
                verdict.missing += 1;
                verdict.note(format!("{} is missing", place()));
            }
            Some(v) if v.to_bits() != expected.to_bits() => {
                verdict.wrong += 1;
                verdict.note(format!("{} is {v}, sent was {expected}", place()));
            }
            Some(_) if acked => verdict.present += 1,
            _ => {}
        }
    }

    fn labels(&self, sender: usize, series: usize) -> Labels {
        series_labels(sender, series)
    }
}

fn series_labels(sender: usize, series: usize) -> Labels {
    labels("crash", &[("sender", &sender.to_string()), ("series", &series.to_string())])
}

fn time(number: usize) -> TimestampMs {
    START + number as i64 * STEP_MS
}

/// Every kind of value that a codec treats in its own way: counters, decimals, and bits at random.
fn value(seed: u64, sender: usize, series: usize, number: usize) -> f64 {
    let bits = mix(seed ^ mix((sender as u64) << 48 | (series as u64) << 32 | number as u64));
    match series % 4 {
        0 => (number as u64 * 10 + bits % 10) as f64,
        1 => (bits % 100_000) as f64 / 100.0 - 500.0,
        2 => number as f64 * 0.25,
        _ => Some(f64::from_bits(bits)).filter(|v| v.is_finite()).unwrap_or(0.0),
    }
}

fn send(
    seed: u64,
    shape: Shape,
    sender: usize,
    sent: &mut Vec<bool>,
    client: &Client,
    progress: &Progress,
    stop: &AtomicBool,
) {
    while !stop.load(Ordering::Relaxed) {
        // Only the last one can be without an ack: it is sent again.
        let request = sent.iter().rposition(|acked| !acked).unwrap_or(sent.len());
        if request == sent.len() {
            sent.push(false);
        }
        let numbers = request * shape.samples..(request + 1) * shape.samples;
        let series: Vec<Series> = (0..shape.series)
            .map(|series| {
                let floats: Vec<_> = numbers.clone().map(|n| (time(n), value(seed, sender, series, n))).collect();
                Series::floats(&series_labels(sender, series), &floats)
            })
            .collect();
        match client.push(&series) {
            Ok(_) if progress.is_over.load(Ordering::SeqCst) => return,
            Ok(response) if response.status / 100 == 2 => {
                sent[request] = true;
                progress.acked.fetch_add((shape.series * shape.samples) as u64, Ordering::SeqCst);
            }
            // Told to wait, or the node has gone: the same request is next. The pause only spares the processor.
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
