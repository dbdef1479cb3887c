//! Asks a Prometheus and a Bellrock that hold the same samples the same, and prints `equal/total, non-empty`.
//!
//! The program of issue 3, item 2; the test `agents` runs the same in the small.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use tests::Client;
use tests::compare::{Comparison, common_end, read_expressions};
use tests::promqltest::parse_duration;

const HELP: &str = "\
usage: compare --peer URL --bellrock URL [option VALUE]...
  --peer URL           a Prometheus, such as http://127.0.0.1:9090
  --bellrock URL       a Bellrock that was sent the same samples, such as http://127.0.0.1:9009
  --peer-version N     its major version; 2 leaves out by name what has changed in 3 (default 3)
  --end SECONDS        Unix time of the instant queries and of the last step (default: the latest that both hold)
  --range DURATION     how far range queries reach back (default 1h)
  --step DURATION      their step (default 15s)
  --interval DURATION  the agents' scrape interval; times are chosen between scrapes (default 15s)
  --expressions FILE   one expression a line (default: those of the tests)";

fn main() -> ExitCode {
    match compare() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn compare() -> Result<bool> {
    let mut peer = None;
    let mut bellrock = None;
    let mut end = None;
    let mut interval_ms = 15_000;
    let mut comparison = Comparison {
        expressions: read_expressions(include_str!("../../testdata/expressions.txt")),
        end: 0,
        range_ms: 3_600_000,
        step_ms: 15_000,
        peer_version: 3,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
        let duration = || parse_duration(&value).with_context(|| format!("{name} {value} is no duration"));
        match name.as_str() {
            "--peer" => peer = Some(Client::new(&value)),
            "--bellrock" => bellrock = Some(Client::new(&value)),
            "--peer-version" => comparison.peer_version = value.parse().context(name)?,
            "--end" => end = Some((value.parse::<f64>().context(name)? * 1000.0) as i64),
            "--range" => comparison.range_ms = duration()?,
            "--step" => comparison.step_ms = duration()?,
            "--interval" => interval_ms = duration()?,
            "--expressions" => comparison.expressions = read_expressions(&std::fs::read_to_string(value)?),
            _ => bail!("unknown option {name}"),
        }
    }
    let (peer, bellrock) = (peer.context("--peer is missing")?, bellrock.context("--bellrock is missing")?);
    comparison.end = match end {
        Some(end) => end,
        None => common_end(&peer, &bellrock, 1, interval_ms)?.context("`up` has no series: give --end")?,
    };
    let outcome = comparison.run(&peer, &bellrock)?;
    println!("{outcome}");
    Ok(outcome.differences.is_empty())
}
