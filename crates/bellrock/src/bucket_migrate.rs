//! `bellrock bucket migrate`: asks the process that serves `--data` to move its bucket, and prints how far it is.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::control::{self, Question, Target};
use crate::logging::chain;
use crate::settings::Loaded;
use crate::settings::sources::Surroundings;

/// Asks and waits; the exit code is 1 if the bucket was not moved.
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]
pub fn run(loaded: Loaded, _: Surroundings) -> ExitCode {
    match migrate(loaded) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("the bucket was not moved: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "a program for a terminal")]
fn migrate(loaded: Loaded) -> Result<String> {
    let settings = loaded.settings;
    let Some(location) = settings.bucket else {
        bail!("where to? --to s3://NAME/PREFIX, with --to.endpoint and the like as they are --bucket's")
    };
    let question = Question::Migrate(Target::of(&location));
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")?;
    let mut last = String::new();
    executor.block_on(control::ask(&settings.data, &question, |text| {
        if text != last {
            println!("{text}");
            text.clone_into(&mut last);
        }
    }))
}
