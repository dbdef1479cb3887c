//! Samples that are known without being remembered, and the judgement of an answer that should hold them.
//!
//! What a sample is follows from the seed, the sender, the series and its number; so nothing but the numbers of the
//! requests needs to be remembered.

use std::ops::Range;

use anyhow::{Result, bail};
use model::{Labels, Samples, TimestampMs, Value};

use crate::client::{Client, Series, labels};
use crate::promqltest::{Answer, Data};
use crate::random::mix;

/// When the first sample is: long past, so that no clock matters.
const START: TimestampMs = 1_700_000_000_000;

/// Between two samples of a series.
const STEP_MS: i64 = 1_000;

/// How the requests look.
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

impl Shape {
    /// Samples of a request.
    pub fn samples_per_request(&self) -> u64 {
        (self.series * self.samples) as u64
    }
}

/// All samples there could be.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// What decides their values.
    pub seed: u64,
    /// How they lie in requests.
    pub shape: Shape,
}

/// Requests of one sender, by number.
#[derive(Debug, Clone)]
pub struct Window {
    /// Whose.
    pub sender: usize,
    /// Which.
    pub requests: Range<usize>,
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

impl Known {
    /// What a sender's request has.
    pub fn request(&self, sender: usize, request: usize) -> Vec<Series> {
        let samples = self.shape.samples;
        let numbers = request * samples..(request + 1) * samples;
        let series = |series| {
            let floats: Vec<_> = numbers.clone().map(|n| (time(n), self.value(sender, series, n))).collect();
            Series::floats(&series_labels(sender, series), &floats)
        };
        (0..self.shape.series).map(series).collect()
    }

    /// Asks for what these requests have. The inner error is the query's.
    pub fn ask(&self, client: &Client, window: &Window) -> Result<Result<Answer, String>> {
        let numbers = self.numbers(window);
        // A range selector leaves out its start and includes its end.
        let width_ms = numbers.len() as i64 * STEP_MS;
        client.instant(&format!("crash{{sender=\"{}\"}}[{width_ms}ms]", window.sender), time(numbers.end - 1))
    }

    /// Asks how many samples there are in the first so many requests of all senders. The inner error is the query's.
    pub fn count(&self, client: &Client, requests: usize) -> Result<Result<u64, String>> {
        let numbers = requests * self.shape.samples;
        let counted = format!("sum(count_over_time(crash[{}ms]))", numbers as i64 * STEP_MS);
        Ok(client.instant(&counted, time(numbers) - STEP_MS)?.map(|answer| match &answer.data {
            Data::Vector(vector) => {
                vector.first().map_or(0, |(_, v)| if let Value::Float(v) = v { *v as u64 } else { 0 })
            }
            _ => 0,
        }))
    }

    /// Judges the answer to [`Known::ask`]: whether it has what `is_acked` says of each request, and nothing that was not sent,
    /// which is every request from number `sent` on.
    pub fn judge(
        &self,
        window: &Window,
        answer: &Answer,
        is_acked: impl Fn(usize) -> bool,
        sent: usize,
        verdict: &mut Verdict,
    ) -> Result<()> {
        let Data::Matrix(matrix) = &answer.data else { bail!("the samples of {window:?} are not a matrix") };
        let numbers = self.numbers(window);
        let mut by_series = vec![vec![Vec::new(); numbers.len()]; self.shape.series];
        for (labels, got) in matrix {
            match (0..self.shape.series).find(|i| series_labels(window.sender, *i) == *labels) {
                Some(series) => self.sort(labels, got, &numbers, sent, &mut by_series[series], verdict),
                None => {
                    verdict.wrong += got.len() as u64;
                    verdict.note(format!("{labels} was never sent"));
                }
            }
        }
        for (series, got) in by_series.iter().enumerate() {
            for (number, values) in numbers.clone().zip(got) {
                let is_acked = is_acked(number / self.shape.samples);
                self.judge_sample(window.sender, series, number, values, is_acked, verdict);
            }
        }
        Ok(())
    }

    /// Sorts a series' samples by their numbers.
    fn sort(
        &self,
        labels: &Labels,
        got: &Samples,
        numbers: &Range<usize>,
        sent: usize,
        sorted: &mut [Vec<f64>],
        verdict: &mut Verdict,
    ) {
        for (t, v) in got.timestamps.iter().zip(&got.floats) {
            let number = ((t - START) / STEP_MS) as usize;
            if *t != time(number) || !numbers.contains(&number) || number >= sent * self.shape.samples {
                verdict.wrong += 1;
                verdict.note(format!("{labels} at {t} was never sent"));
                continue;
            }
            sorted[number - numbers.start].push(*v);
        }
    }

    fn judge_sample(
        &self,
        sender: usize,
        series: usize,
        number: usize,
        got: &[f64],
        is_acked: bool,
        verdict: &mut Verdict,
    ) {
        let place = || format!("{} number {number} (at {})", series_labels(sender, series), time(number));
        let expected = self.value(sender, series, number);
        if got.len() > 1 {
            verdict.doubled += 1;
            verdict.note(format!("{} is there {} times", place(), got.len()));
        }
        match got.first() {
            None if is_acked => {
                verdict.missing += 1;
                verdict.note(format!("{} is missing", place()));
            }
            Some(v) if v.to_bits() != expected.to_bits() => {
                verdict.wrong += 1;
                verdict.note(format!("{} is {v}, sent was {expected}", place()));
            }
            Some(_) if is_acked => verdict.present += 1,
            _ => {}
        }
    }

    fn numbers(&self, window: &Window) -> Range<usize> {
        let samples = self.shape.samples;
        window.requests.start * samples..window.requests.end * samples
    }

    /// Every kind of value that a codec treats in its own way: counters, decimals, and bits at random.
    fn value(&self, sender: usize, series: usize, number: usize) -> f64 {
        let bits = mix(self.seed ^ mix((sender as u64) << 48 | (series as u64) << 32 | number as u64));
        match series % 4 {
            0 => (number as u64 * 10 + bits % 10) as f64,
            1 => (bits % 100_000) as f64 / 100.0 - 500.0,
            2 => number as f64 * 0.25,
            _ => Some(f64::from_bits(bits)).filter(|v| v.is_finite()).unwrap_or(0.0),
        }
    }
}

fn series_labels(sender: usize, series: usize) -> Labels {
    labels("crash", &[("sender", &sender.to_string()), ("series", &series.to_string())])
}

fn time(number: usize) -> TimestampMs {
    START + number as i64 * STEP_MS
}
