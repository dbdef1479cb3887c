//! `bellrock bucket check`: tries the store that the settings name and says in words what it found.

use std::process::ExitCode;

use anyhow::{Context, Result};
use bucket::{Bucket, Location};
use runtime::{Random, Registry, SystemClock};

use crate::logging::chain;
use crate::settings::Loaded;
use crate::settings::sources::Surroundings;

/// Tries it; the exit code is 1 if Bellrock can't use it.
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]
pub fn run(loaded: Loaded, _: Surroundings) -> ExitCode {
    match check(loaded) {
        Ok(true) => {
            println!("\nBellrock can use it.");
            ExitCode::SUCCESS
        }
        Ok(false) => {
            println!("\nBellrock cannot use it: what is MISSING has to be there.");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("the bucket cannot be checked: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "a program for a terminal")]
fn check(loaded: Loaded) -> Result<bool> {
    let settings = loaded.settings;
    // The data's own folder is not locked for this, so nothing that looks left over is touched in it.
    let location = settings.bucket.unwrap_or_else(|| Location::Shared(settings.data.join("bucket")));
    println!("{location}:\n");
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start threads")?;
    executor.block_on(async {
        let bucket = Bucket::open(location, SystemClock::shared(), &Registry::new()).await?;
        let findings = bucket.check(&Random::from_system()?).await;
        for finding in &findings.0 {
            println!("  {:<8}{}", finding.verdict, finding.text);
        }
        Ok(findings.is_usable())
    })
}
