//! A pattern as something a dictionary can be searched with: a few literal values, or an automaton over the keys.

use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::hir::{Class, Hir, HirKind, Look};

use model::Pattern;

/// Bytes that an automaton may take, and the work of making it; a larger one is answered by scanning the values.
const DFA_BYTES_MAX: usize = 1 << 20;
/// Values that a pattern may stand for and still be looked up one by one.
const LITERALS_MAX: usize = 4096;
/// Bytes of all of them.
const LITERAL_BYTES_MAX: usize = 1 << 18;

/// How to find the values that match a pattern.
pub(crate) enum Search {
    /// Just these can.
    Literals(Vec<String>),
    /// Those that the automaton accepts.
    Dfa(Box<dense::DFA<Vec<u32>>>),
    /// Ask for each value.
    Scan,
}

impl Search {
    pub(crate) fn new(pattern: &Pattern) -> Search {
        if let Some(literals) = literals(pattern) {
            return Search::Literals(literals);
        }
        // Every match counts, not the leftmost first: the dictionary asks about whole values.
        let config = dense::Config::new()
            .match_kind(MatchKind::All)
            .start_kind(StartKind::Anchored)
            .dfa_size_limit(Some(DFA_BYTES_MAX))
            .determinize_size_limit(Some(DFA_BYTES_MAX));
        match dense::Builder::new().configure(config).build(pattern.as_str()) {
            Ok(dfa) => Search::Dfa(Box::new(dfa)),
            Err(_) => Search::Scan,
        }
    }
}

/// The values that a pattern stands for, if they are few: `a|b`, `node-[12]`, `x(y|z)?`.
fn literals(pattern: &Pattern) -> Option<Vec<String>> {
    let hir = regex_syntax::parse(pattern.as_str()).ok()?;
    let HirKind::Concat(parts) = hir.kind() else { return None };
    let [start, middle @ .., end] = parts.as_slice() else { return None };
    if !matches!(start.kind(), HirKind::Look(Look::Start)) || !matches!(end.kind(), HirKind::Look(Look::End)) {
        return None;
    }
    let mut all = vec![Vec::new()];
    for part in middle {
        all = product(all, expand(part)?)?;
    }
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(|bytes| String::from_utf8(bytes).ok()).collect()
}

fn expand(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    match hir.kind() {
        HirKind::Empty => Some(vec![Vec::new()]),
        HirKind::Literal(literal) => Some(vec![literal.0.to_vec()]),
        HirKind::Capture(capture) => expand(&capture.sub),
        HirKind::Class(Class::Unicode(class)) => {
            let count: usize = class.iter().map(|range| range.end() as usize - range.start() as usize + 1).sum();
            if count > LITERALS_MAX {
                return None;
            }
            Some(class.iter().flat_map(|r| r.start()..=r.end()).map(|c| c.to_string().into_bytes()).collect())
        }
        HirKind::Class(Class::Bytes(class)) => {
            class.is_ascii().then(|| class.iter().flat_map(|r| r.start()..=r.end()).map(|b| vec![b]).collect())
        }
        HirKind::Repetition(repetition) if (repetition.min, repetition.max) == (0, Some(1)) => {
            let mut all = expand(&repetition.sub)?;
            all.push(Vec::new());
            Some(all)
        }
        HirKind::Concat(parts) => {
            let mut all = vec![Vec::new()];
            for part in parts {
                all = product(all, expand(part)?)?;
            }
            Some(all)
        }
        HirKind::Alternation(parts) => {
            let mut all = Vec::new();
            for part in parts {
                all.extend(expand(part)?);
                within_limits(&all)?;
            }
            Some(all)
        }
        HirKind::Look(_) | HirKind::Repetition(_) => None,
    }
}

fn product(heads: Vec<Vec<u8>>, tails: Vec<Vec<u8>>) -> Option<Vec<Vec<u8>>> {
    let tail_bytes: usize = tails.iter().map(Vec::len).sum();
    let head_bytes: usize = heads.iter().map(Vec::len).sum();
    let bytes = head_bytes.saturating_mul(tails.len()).saturating_add(tail_bytes.saturating_mul(heads.len()));
    if heads.len().saturating_mul(tails.len()) > LITERALS_MAX || bytes > LITERAL_BYTES_MAX {
        return None;
    }
    Some(heads.iter().flat_map(|head| tails.iter().map(|tail| [head.as_slice(), tail].concat())).collect())
}

fn within_limits(all: &[Vec<u8>]) -> Option<()> {
    let bytes: usize = all.iter().map(Vec::len).sum();
    (all.len() <= LITERALS_MAX && bytes <= LITERAL_BYTES_MAX).then_some(())
}

/// Accepts the keys that are `prefix` and then a value that the pattern's automaton accepts.
pub(crate) struct ValueAutomaton<'a> {
    pub(crate) prefix: &'a [u8],
    pub(crate) dfa: &'a dense::DFA<Vec<u32>>,
}

#[derive(Clone, Copy)]
pub(crate) enum State {
    /// This many bytes of the prefix were read.
    Prefix(usize),
    Value(StateID),
    Dead,
}

impl tantivy_fst::Automaton for ValueAutomaton<'_> {
    type State = State;

    fn start(&self) -> State {
        if self.prefix.is_empty() { self.start_of_value() } else { State::Prefix(0) }
    }

    fn is_match(&self, state: &State) -> bool {
        match *state {
            State::Value(id) => self.dfa.is_match_state(self.dfa.next_eoi_state(id)),
            _ => false,
        }
    }

    fn can_match(&self, state: &State) -> bool {
        !matches!(state, State::Dead)
    }

    fn accept(&self, state: &State, byte: u8) -> State {
        match *state {
            State::Prefix(n) if self.prefix[n] != byte => State::Dead,
            State::Prefix(n) if n + 1 < self.prefix.len() => State::Prefix(n + 1),
            State::Prefix(_) => self.start_of_value(),
            State::Value(id) => {
                let next = self.dfa.next_state(id, byte);
                if self.dfa.is_dead_state(next) { State::Dead } else { State::Value(next) }
            }
            State::Dead => State::Dead,
        }
    }
}

impl ValueAutomaton<'_> {
    fn start_of_value(&self) -> State {
        let config = start::Config::new().anchored(Anchored::Yes);
        self.dfa.start_state(&config).map_or(State::Dead, State::Value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, expected: Option<&[&str]>) {
        let found = literals(&Pattern::new(pattern).unwrap());
        let expected = expected.map(|values| values.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(found, expected, "{pattern}");
    }

    #[test]
    fn alternations_become_literals() {
        check("a|bc|", Some(&["", "a", "bc"]));
        check("foo|foobar|fob", Some(&["fob", "foo", "foobar"]));
        check(
            "node-[1-3](a|b)?",
            Some(&["node-1", "node-1a", "node-1b", "node-2", "node-2a", "node-2b", "node-3", "node-3a", "node-3b"]),
        );
        check("(?i)a", Some(&["A", "a"]));
        check("é|x", Some(&["x", "é"]));
        check("", Some(&[""]));
        check("a.*", None);
        check("a+", None);
        check("[^a]", None);
        check("([0-9a-f][0-9a-f][0-9a-f][0-9a-f])", None);
    }

    #[test]
    fn huge_automata_are_not_made() {
        let large = Pattern::new(r"(?i).*[\pL]{10}.{30}").unwrap();
        assert!(matches!(Search::new(&large), Search::Scan));
        assert!(matches!(Search::new(&Pattern::new("a.*b").unwrap()), Search::Dfa(_)));
    }
}
