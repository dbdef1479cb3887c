//! Label matchers: `name="value"` and its three siblings.

use std::fmt;

use crate::labels::Labels;
use crate::pattern::{Pattern, PatternError};

/// How a matcher compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl MatchOp {
    /// As PromQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        }
    }
}

/// A matcher that can't be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp {pattern:?}: {source}")]
pub struct MatcherError {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub source: PatternError,
}

/// One condition on one label; a label that is not there has the value "".
#[derive(Debug, Clone)]
pub struct Matcher {
    name: String,
    op: MatchOp,
    value: String,
    /// Only for the two regular operators.
    pattern: Option<Pattern>,
}

impl Matcher {
    /// Errors: a pattern that does not compile.
    pub fn new(name: impl Into<String>, op: MatchOp, value: impl Into<String>) -> Result<Matcher, MatcherError> {
        let value = value.into();
        let pattern = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => {
                Some(Pattern::new(&value).map_err(|source| MatcherError { pattern: value.clone(), source })?)
            }
        };
        Ok(Matcher { name: name.into(), op, value, pattern })
    }

    /// A matcher for equality, which can't fail.
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Matcher {
        Matcher { name: name.into(), op: MatchOp::Equal, value: value.into(), pattern: None }
    }

    /// The label's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it compares.
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// The value or pattern as it was written.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The compiled pattern of a regular operator.
    pub fn pattern(&self) -> Option<&Pattern> {
        self.pattern.as_ref()
    }

    /// Whether a label with this value ("" if it is not there) satisfies the matcher.
    #[inline]
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.pattern) {
            (MatchOp::NotEqual, _) => self.value != value,
            (MatchOp::Regex, Some(pattern)) => pattern.matches(value),
            (MatchOp::NotRegex, Some(pattern)) => !pattern.matches(value),
            _ => self.value == value,
        }
    }

    /// Whether a label set satisfies the matcher.
    pub fn matches_labels(&self, labels: &Labels) -> bool {
        self.matches(labels.get(&self.name).unwrap_or(""))
    }

    /// Whether a series without the label satisfies the matcher.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }
}

/// Without the compiled pattern, which follows from the rest.
impl PartialEq for Matcher {
    fn eq(&self, other: &Matcher) -> bool {
        (&self.name, self.op, &self.value) == (&other.name, other.op, &other.value)
    }
}

impl Eq for Matcher {}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.op.as_str(), self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operator_matches_its_values() {
        let check = |op, value: &str, given: &str| Matcher::new("l", op, value).unwrap().matches(given);
        assert!(check(MatchOp::Equal, "a", "a") && !check(MatchOp::Equal, "a", ""));
        assert!(check(MatchOp::NotEqual, "a", "") && !check(MatchOp::NotEqual, "a", "a"));
        assert!(check(MatchOp::Regex, "a.*", "ab") && !check(MatchOp::Regex, "a.*", "ba"));
        assert!(check(MatchOp::NotRegex, "a.*", "") && !check(MatchOp::NotRegex, "a.*", "a"));
        assert!(Matcher::new("l", MatchOp::Regex, "(").is_err());
    }
}
