//! Drives the whole: one binary, one module per feature.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends there")]

mod layering;
mod promqltest;
