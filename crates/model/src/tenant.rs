//! Whose data it is.

use std::fmt;
use std::sync::Arc;

/// A tenant's name: 1 to 150 of `[A-Za-z0-9_.-]`, not `.` or `..`, so that it is safe in a path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

/// A name outside the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tenant {0:?} is not 1 to 150 characters of [A-Za-z0-9_.-], other than \".\" and \"..\"")]
pub struct TenantError(String);

impl TenantId {
    /// The tenant where tenancy is not used.
    pub fn anonymous() -> TenantId {
        TenantId("anonymous".into())
    }

    /// Checks `name` against the rule.
    pub fn new(name: &str) -> Result<TenantId, TenantError> {
        let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if name.is_empty() || name.len() > 150 || name == "." || name == ".." || !name.bytes().all(ok) {
            // A hostile header is not echoed at length.
            return Err(TenantError(name.chars().take(160).collect()));
        }
        Ok(TenantId(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_the_rule_are_refused() {
        for name in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(151)] {
            assert!(TenantId::new(name).is_err(), "{name}");
        }
        for name in ["a", "team-a.b_9", "...", &"x".repeat(150)] {
            assert!(TenantId::new(name).is_ok(), "{name}");
        }
    }
}
