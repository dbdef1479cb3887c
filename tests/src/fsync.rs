//! Makes fsync fail, for the files of a path: a library that is loaded before the system's.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::node::Settings;
use crate::skips;

/// A switch for the fsyncs of one process.
#[derive(Debug)]
pub struct FailingFsync {
    folder: TempDir,
    library: PathBuf,
}

impl FailingFsync {
    /// Builds the library; skips and gives `None` without a C compiler.
    #[track_caller]
    pub fn new() -> Option<FailingFsync> {
        let cc = skips::program("cc", "gcc libc6-dev")?;
        Some(FailingFsync::build(&cc).expect("the library builds"))
    }

    fn build(cc: &Path) -> Result<FailingFsync> {
        let folder = tempfile::tempdir()?;
        let library = folder.path().join("failing_fsync.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/failing_fsync.c");
        let output =
            Command::new(cc).args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").output()?;
        if !output.status.success() {
            bail!("cc: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(FailingFsync { folder, library })
    }

    fn switch(&self) -> PathBuf {
        self.folder.path().join("switch")
    }

    /// Settings of a node whose fsyncs this switch is for.
    pub fn settings(&self, settings: Settings) -> Settings {
        let (library, switch) = (self.library.display().to_string(), self.switch().display().to_string());
        settings.variable("LD_PRELOAD", library).variable("FAILING_FSYNC", switch)
    }

    /// From now on fsync fails for files whose path contains this text.
    pub fn fail(&self, path_contains: &str) -> Result<()> {
        let new = self.folder.path().join("new");
        std::fs::write(&new, path_contains)?;
        std::fs::rename(new, self.switch()).context("turn the switch on")
    }

    /// From now on it works.
    pub fn work(&self) -> Result<()> {
        std::fs::remove_file(self.switch()).context("turn the switch off")
    }
}
