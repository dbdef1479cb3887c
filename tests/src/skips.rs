//! Says aloud what could not be tested here, and with which line to install what is missing.
//!
//! An empty clone must pass its tests without Prometheus, root or the files beside the project, so such tests leave
//! with a line that begins `SKIPPED:`. CI sets `BELLROCK_FORBID_SKIPS=1`, and then the same is a failure.

use std::io::Write;
use std::path::{Path, PathBuf};

/// The environment variable that turns skips into failures when it is `1`.
pub const FORBID_SKIPS: &str = "BELLROCK_FORBID_SKIPS";

/// Prints `SKIPPED: what is missing; install`, past the capture of the test runner.
///
/// Panics if skips are forbidden. The caller returns after it.
#[track_caller]
pub fn skip(what: &str, install: &str) {
    let line = format!("SKIPPED: {what}; {install}");
    if std::env::var(FORBID_SKIPS).is_ok_and(|v| v == "1") {
        panic!("{line} ({FORBID_SKIPS}=1 forbids it)");
    }
    // `eprintln!` would be captured while the test passes; if stderr is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The path of a file or folder of the conformance data that lies beside the workspace; skips and gives `None` if it
/// is not there.
#[track_caller]
pub fn conformance(name: &str) -> Option<PathBuf> {
    let path = workspace().join("../shared/conformance").join(name);
    if path.exists() {
        return Some(path);
    }
    // A worktree may lie a folder deeper than the main clone.
    let deeper = workspace().join("../../shared/conformance").join(name);
    if deeper.exists() {
        return Some(deeper);
    }
    skip(
        &format!("no conformance data at {}", path.display()),
        "put the steering repository's `shared` folder beside the clone: cp -r STEERING/shared ../shared",
    );
    None
}

/// The path of a program in `PATH`; skips and gives `None` if it is not there.
#[track_caller]
pub fn program(name: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    if found.is_none() {
        skip(&format!("no `{name}` in PATH"), &format!("apt-get install -y --no-install-recommends {package}"));
    }
    found
}

/// The folder of the workspace's Cargo.toml.
pub fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
