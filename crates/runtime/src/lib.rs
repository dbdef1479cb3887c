//! The only door to time, randomness, tasks, files, sockets and metric registration.
//!
//! Components are handed a [`Clock`], a [`Random`], [`Tasks`] and a [`Registry`] and reach for nothing
//! else; `clippy.toml` shuts the other doors. So a test decides what time it is and which numbers are
//! drawn, and a process can be stopped in order.
//!
//! This crate knows nothing of metrics stores: no series, no segments, no settings.

#![allow(clippy::disallowed_methods, reason = "this crate is the door that the others go through")]

mod append_file;
mod clock;
mod control;
mod data_dir;
mod files;
mod interfaces;
pub mod metrics;
pub mod process;
mod random;
mod secret;
mod shutdown;
mod sockets;
mod tasks;

pub use append_file::AppendFile;
pub use clock::{Clock, ManualClock, Sleep, SystemClock, TimedOut, timeout};
pub use control::{connect_in, listen_in};
pub use data_dir::{DataDir, DataDirError};
pub use files::{create_folder, free_bytes, sync_folder, write_atomically};
pub use interfaces::{InterfaceAddress, address_towards, interface_addresses};
pub use metrics::{Counter, Counters, Gauge, GaugeF64, Gauges, Histogram, Histograms, Registry};
pub use random::{Random, RandomError};
pub use secret::Secret;
pub use shutdown::{Shutdown, Stage, StopReason};
pub use sockets::{ListenError, listen};
pub use tasks::{Tasks, blocking, panic_message, spawn};
