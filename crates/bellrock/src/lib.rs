//! The program: reads the configuration, builds the roles, wires them, stops them in order.
//!
//! `settings` is what an operator writes; `serve` is the wiring. A library, so that tests can start
//! what users start.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests set the scene with files of their own"))]

mod arguments;
mod bucket_check;
mod cluster_status;
mod greeting;
mod heads;
mod health;
mod help;
mod index_log;
mod late;
mod logging;
mod member;
mod process_metrics;
mod recover;
mod roles;
mod serve;
mod services;
mod settings;
mod signals;
mod status;

use std::process::ExitCode;

use arguments::Command;
use settings::sources::Surroundings;
use settings::{Faults, Loaded};

// Resident memory falls back after a burst where glibc's allocator keeps what threads have freed; its
// options are in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What the process exits with when the settings are wrong and nothing was touched.
const EXIT_BAD_SETTINGS: u8 = 2;

/// Does what was asked for, with settings that were found good.
type Run = Box<dyn FnOnce(Loaded, Surroundings) -> ExitCode>;

/// Runs the program with the arguments and the environment of this process.
#[allow(clippy::print_stdout, reason = "before there is a log, and for who asks for help")]
pub fn main() -> ExitCode {
    let (run, flags, mut faults): (Run, _, _) = match arguments::parse(&words()) {
        Command::Help => {
            print!("{}", help::text());
            return ExitCode::SUCCESS;
        }
        Command::Version => {
            println!("bellrock {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Command::Serve { flags, faults } => (Box::new(serve::run), flags, faults),
        Command::BucketCheck { flags, faults } => (Box::new(bucket_check::run), flags, faults),
        Command::Recover { flags, faults } => (Box::new(recover::run), flags, faults),
        Command::Status { url, flags, faults } => {
            (Box::new(move |loaded, _| status::run(&loaded, url.as_deref())), flags, faults)
        }
    };
    let surroundings = Surroundings { flags, variables: variables() };
    match Loaded::read(&surroundings) {
        Ok(loaded) if faults.is_empty() => return run(loaded, surroundings),
        Ok(_) => {}
        Err(Faults(more)) => faults.extend(more),
    }
    refuse(&Faults(faults))
}

#[allow(clippy::print_stderr, reason = "there is no log yet")]
fn refuse(faults: &Faults) -> ExitCode {
    eprintln!("bellrock cannot start: {faults}\nSee bellrock --help.");
    ExitCode::from(EXIT_BAD_SETTINGS)
}

#[allow(clippy::disallowed_methods, reason = "the one place where the environment is read")]
fn variables() -> Vec<(String, String)> {
    std::env::vars_os().map(|(name, text)| (lossy(name), lossy(text))).collect()
}

#[allow(clippy::disallowed_methods, reason = "the one place where the arguments are read")]
fn words() -> Vec<String> {
    std::env::args_os().skip(1).map(lossy).collect()
}

fn lossy(text: std::ffi::OsString) -> String {
    text.to_string_lossy().into_owned()
}
