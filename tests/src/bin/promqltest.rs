//! Runs PromQL scripts on the engine alone: `promqltest [--native] FILE[:LINE]...`.
//!
//! With a line only the evaluation that begins there is run. Prints what differs; exits with 1 if anything does.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use tests::promqltest::{self, Choice, MemoryStore, Report};

fn main() -> ExitCode {
    match run() {
        Ok(report) => {
            println!("{report}");
            ExitCode::from(u8::from(!report.failures.is_empty()))
        }
        Err(error) => {
            eprintln!("{error:#}\nusage: promqltest [--native] FILE[:LINE]...");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<Report> {
    let mut report = Report::default();
    let mut choice = Choice { at_modifiers: true, ..Choice::default() };
    for argument in std::env::args().skip(1) {
        if argument == "--native" {
            choice.native = true;
            continue;
        }
        let (file, line) = match argument.rsplit_once(':') {
            Some((file, line)) => (file, Some(line.parse().with_context(|| format!("line {line:?}"))?)),
            None => (argument.as_str(), None),
        };
        let script = promqltest::read(Path::new(file))?;
        report.add(promqltest::run(&script, &mut MemoryStore::default(), Choice { line, ..choice })?);
    }
    Ok(report)
}
