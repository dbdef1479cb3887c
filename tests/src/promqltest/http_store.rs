//! A node as a store of scripts: loads by remote-write, asks by the API.
//!
//! `clear` goes to a fresh tenant. What a script has loaded up to an evaluation is a *state*; with
//! [`HttpStore::only_ask`] the same states, loaded before, are asked again: after a restart they come from blocks.

use model::{Labels, Samples, TimestampMs, Value};

use super::runner::{Answer, Store};
use super::script::Steps;
use crate::client::{Client, Series};

/// Samples in one request: far below every limit.
const SAMPLES_A_REQUEST: usize = 10_000;

/// Plays scripts against a server.
#[derive(Debug)]
pub struct HttpStore {
    client: Client,
    prefix: String,
    state: usize,
    loaded: Vec<(Labels, Samples)>,
    loads: bool,
}

impl HttpStore {
    /// Loads and asks; its tenants are named after `prefix`.
    pub fn new(client: &Client, prefix: &str) -> HttpStore {
        HttpStore { client: client.clone(), prefix: prefix.to_owned(), state: 0, loaded: vec![], loads: true }
    }

    /// Asks what another one with this `prefix` has loaded, and loads nothing.
    pub fn only_ask(client: &Client, prefix: &str) -> HttpStore {
        HttpStore { loads: false, ..HttpStore::new(client, prefix) }
    }

    fn tenant(&self) -> Client {
        self.client.tenant(&format!("{}.{}", self.prefix, self.state))
    }

    /// Pushes all that is loaded. Some scripts load histograms that a receiver must refuse (gauges below 0): those
    /// are left out of the store, as the evaluations that need them are.
    fn push(&self) -> anyhow::Result<()> {
        let client = self.tenant();
        let mut request = Vec::new();
        let mut samples = 0;
        for (labels, all) in &self.loaded {
            let mut series = Series::floats(labels, &[]);
            for sample in all.iter() {
                match sample.v {
                    Value::Float(v) => series.floats.push((sample.t, v)),
                    Value::Histogram(h) => series.histograms.push((sample.t, (*h).clone())),
                }
            }
            if !series.histograms.is_empty() {
                let response = client.push(&[series])?;
                if !matches!(response.status, 200..=299 | 400) {
                    anyhow::bail!("the push was answered {}: {}", response.status, response.text());
                }
                continue;
            }
            samples += all.len();
            request.push(series);
            if samples >= SAMPLES_A_REQUEST {
                client.push_ok(&request)?;
                request.clear();
                samples = 0;
            }
        }
        client.push_ok(&request)
    }
}

impl Store for HttpStore {
    fn clear(&mut self) -> anyhow::Result<()> {
        self.state += 1;
        self.loaded.clear();
        Ok(())
    }

    /// A new state, with what was there and what comes: earlier states stay as they were asked.
    fn load(&mut self, series: &[(Labels, Samples)]) -> anyhow::Result<()> {
        self.state += 1;
        for (labels, samples) in series {
            match self.loaded.iter_mut().find(|(l, _)| l == labels) {
                Some((_, before)) => before.merge(samples.clone()),
                None => self.loaded.push((labels.clone(), samples.clone())),
            }
        }
        if self.loads { self.push() } else { Ok(()) }
    }

    fn instant(&mut self, expr: &str, at: TimestampMs) -> Result<Answer, String> {
        self.tenant().instant(expr, at).unwrap_or_else(|e| Err(format!("no answer: {e:#}")))
    }

    fn range(&mut self, expr: &str, steps: Steps) -> Result<Answer, String> {
        self.tenant().range(expr, steps).unwrap_or_else(|e| Err(format!("no answer: {e:#}")))
    }
}
