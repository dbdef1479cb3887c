//! Drives the whole: one binary, one module per feature.

mod layering;
mod promqltest;
