//! The matchers of one selector, with what can be prepared of them for every dictionary they will be asked of.

use std::sync::OnceLock;

use model::{Labels, MatchOp, Matcher};

use crate::automaton::Search;

/// Matchers, all of which must hold. Make it once a query and share it: automata are built at the first use.
pub struct Matchers {
    matchers: Vec<Prepared>,
}

/// A matcher and its search.
pub(crate) struct Prepared {
    pub(crate) matcher: Matcher,
    /// Whether it keeps series without the label.
    pub(crate) matches_empty: bool,
    search: OnceLock<Search>,
}

impl Prepared {
    /// How to find the values that match the pattern; needs a regular operator.
    pub(crate) fn search(&self) -> &Search {
        self.search.get_or_init(|| self.matcher.pattern().map_or(Search::Scan, Search::new))
    }

    /// Whether the pattern is one that is common and needs no search: `.*` or `.+`.
    pub(crate) fn is_regex(&self, op: MatchOp, source: &str) -> bool {
        self.matcher.op() == op && self.matcher.value() == source
    }
}

impl Matchers {
    /// Takes the matchers in any order; none at all select every series.
    pub fn new(matchers: impl IntoIterator<Item = Matcher>) -> Matchers {
        let prepare =
            |matcher: Matcher| Prepared { matches_empty: matcher.matches_empty(), matcher, search: OnceLock::new() };
        Matchers { matchers: matchers.into_iter().map(prepare).collect() }
    }

    /// Whether a label set satisfies all: what selecting by postings must equal.
    pub fn matches_labels(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|prepared| prepared.matcher.matches_labels(labels))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.matchers.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Prepared> {
        self.matchers.iter()
    }
}

impl From<&[Matcher]> for Matchers {
    fn from(matchers: &[Matcher]) -> Matchers {
        Matchers::new(matchers.iter().cloned())
    }
}
