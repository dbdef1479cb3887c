//! What was found to be wrong, by whoever looks.

use std::sync::Mutex;

use anyhow::{Result, bail};

/// No more are kept.
const FINDINGS_MAX: usize = 20;

/// Everything found so far.
#[derive(Debug, Default)]
pub struct Findings {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    during: String,
    found: Vec<String>,
}

impl Findings {
    /// Notes what goes on now; later findings say so.
    pub fn during(&self, what: &str) {
        self.lock().during = what.to_owned();
    }

    /// Notes that something is wrong.
    pub fn add(&self, what: String) {
        let mut inner = self.lock();
        if inner.found.len() < FINDINGS_MAX {
            let line = format!("during {}: {what}", inner.during);
            eprintln!("FOUND {line}");
            inner.found.push(line);
        }
    }

    /// Errors with everything found, if there is anything.
    pub fn none(&self) -> Result<()> {
        let inner = self.lock();
        if !inner.found.is_empty() {
            bail!("{}", inner.found.join("\n"));
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }
}
