//! Parts of a process that are there later than who needs them: the HTTP port answers before the node has a cluster.

use std::sync::{Arc, OnceLock};

/// Set once. Clones are the same.
#[derive(Debug)]
pub struct Late<T>(Arc<OnceLock<T>>);

impl<T> Default for Late<T> {
    fn default() -> Late<T> {
        Late(Arc::default())
    }
}

impl<T> Clone for Late<T> {
    fn clone(&self) -> Late<T> {
        Late(self.0.clone())
    }
}

impl<T> Late<T> {
    /// Sets it; a second time changes nothing.
    pub fn set(&self, value: T) {
        let _is_first = self.0.set(value).is_ok();
    }

    /// What it is; `None` before it is set.
    pub fn get(&self) -> Option<&T> {
        self.0.get()
    }
}
