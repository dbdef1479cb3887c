//! The conformance check of remote-write receivers, a program of its own, against a node.

use std::process::Command;

use tests::{Store, conformance, skips};

use crate::node_on;

/// Cases of remote-write 2.0, which is a later issue's.
const LEFT_OUT: &str = "^(v2_|proto2_|v1_body_with_v2_content_type)";

/// How often it is tried on a store that was too slow for it.
const ATTEMPTS_MAX: u32 = 3;

on_every_store! {
    the_receiver_check_passes,
}

fn the_receiver_check_passes(store: &Store) {
    let Some(check) = conformance("rw_receiver_check.py") else { return };
    let Some(python) = skips::program("python3", "python3") else { return };
    let node = node_on(store);
    let base = node.client().base();
    let mut attempts = 0;
    loop {
        let output = Command::new(&python)
            .arg(&check)
            .args([&format!("{base}/api/v1/write"), base, "--strict", "--skip", LEFT_OUT])
            // The data folder may be read-only, and is not ours to write to.
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .unwrap();
        attempts += 1;
        let text = String::from_utf8_lossy(&output.stdout);
        // A machine on which storing 12 MiB takes longer than a write may wait says nothing about the receiver.
        if text.contains("(ingester-ack-timeout)") && attempts < ATTEMPTS_MAX {
            continue;
        }
        let last = text.lines().last().unwrap_or_default();
        assert!(output.status.success() && last.starts_with("108 passed, 0 failed"), "{text}\n{:?}", output.stderr);
        return;
    }
}
