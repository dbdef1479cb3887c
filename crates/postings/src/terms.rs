//! The term dictionary: which labels there are, and where their postings lie.

use model::{MatchOp, TenantId};
use tantivy_fst::{IntoStreamer, Map, Streamer};

use crate::automaton::{Search, ValueAutomaton};
use crate::error::PostingsError;
use crate::key;
use crate::list::Pointer;
use crate::matchers::{Matchers, Prepared};
use crate::plan::Plan;

/// A dictionary in memory: a finite state transducer over the keys of `key.rs`.
pub struct Terms {
    map: Map<Vec<u8>>,
}

impl Terms {
    /// Takes what [`crate::PostingsBuilder`] made. The caller has verified a checksum over all of it: the transducer's own
    /// reader trusts its bytes.
    ///
    /// Errors: `CorruptTerms` if the outline is wrong.
    pub fn decode(bytes: Vec<u8>) -> Result<Terms, PostingsError> {
        let map = Map::from_bytes(bytes).map_err(|_| PostingsError::CorruptTerms("not a transducer"))?;
        Ok(Terms { map })
    }

    /// Bytes of memory it takes.
    pub fn memory_bytes(&self) -> usize {
        self.map.as_fst().size()
    }

    /// Plans the selection of a tenant's series that satisfy all matchers, with Prometheus's semantics: a label that a
    /// series lacks has the value "", so matchers that match "" subtract what does not match instead of adding what does.
    ///
    /// Cost grows with the values that a pattern's automaton reaches, not with the series.
    pub fn plan(&self, tenant: &TenantId, matchers: &Matchers) -> Result<Plan, PostingsError> {
        let (mut include, mut exclude) = (Vec::new(), Vec::new());
        for prepared in matchers.iter() {
            if prepared.is_regex(MatchOp::Regex, ".*") {
                continue;
            }
            if prepared.matcher.name().is_empty() {
                // No label is called so; its keys would be those of all series.
                if prepared.matches_empty {
                    continue;
                }
                return Ok(Plan::default());
            }
            let prefix = key::prefix(tenant.as_str(), prepared.matcher.name());
            if prepared.matches_empty {
                exclude.push(self.values_not_matching(&prefix, prepared)?);
            } else {
                let values = self.values_matching(&prefix, prepared)?;
                if values.is_empty() {
                    return Ok(Plan::default());
                }
                include.push(values);
            }
        }
        if include.is_empty() {
            include.push(self.get(&key::prefix(tenant.as_str(), "")).into_iter().collect());
        }
        exclude.retain(|pointers| !pointers.is_empty());
        Ok(Plan::new(include, exclude))
    }

    /// Postings of the values that satisfy a matcher which "" does not satisfy.
    fn values_matching(&self, prefix: &[u8], prepared: &Prepared) -> Result<Vec<Pointer>, PostingsError> {
        let matcher = &prepared.matcher;
        match matcher.op() {
            MatchOp::Equal => Ok(self.get_value(prefix, matcher.value()).into_iter().collect()),
            MatchOp::NotEqual => Ok(self.get(prefix).into_iter().collect()),
            MatchOp::Regex if matcher.value() == ".+" => Ok(self.get(prefix).into_iter().collect()),
            MatchOp::Regex => self.search(prefix, prepared),
            MatchOp::NotRegex => self.scan(prefix, |value| matcher.matches(value)),
        }
    }

    /// Postings of the values that do not satisfy a matcher which "" does satisfy.
    fn values_not_matching(&self, prefix: &[u8], prepared: &Prepared) -> Result<Vec<Pointer>, PostingsError> {
        let matcher = &prepared.matcher;
        match matcher.op() {
            MatchOp::Equal => Ok(self.get(prefix).into_iter().collect()),
            MatchOp::NotEqual => Ok(self.get_value(prefix, matcher.value()).into_iter().collect()),
            MatchOp::Regex => self.scan(prefix, |value| !matcher.matches(value)),
            MatchOp::NotRegex if matcher.value() == ".+" => Ok(self.get(prefix).into_iter().collect()),
            MatchOp::NotRegex => self.search(prefix, prepared),
        }
    }

    /// Postings of the values that a pattern matches, "" aside.
    fn search(&self, prefix: &[u8], prepared: &Prepared) -> Result<Vec<Pointer>, PostingsError> {
        match prepared.search() {
            Search::Literals(values) => {
                let values = values.iter().filter(|value| !value.is_empty());
                Ok(values.filter_map(|value| self.get_value(prefix, value)).collect())
            }
            Search::Dfa(dfa) => {
                let automaton = ValueAutomaton { prefix, dfa };
                let mut found = Vec::new();
                let mut stream = self.map.search(automaton).gt(prefix).lt(key::after(prefix)).into_stream();
                while let Some((_, value)) = stream.next() {
                    found.push(Pointer::from_value(value));
                }
                Ok(found)
            }
            Search::Scan => {
                let pattern = prepared.matcher.pattern();
                self.scan(prefix, |value| pattern.is_some_and(|pattern| pattern.matches(value)))
            }
        }
    }

    /// Postings of those of all values that `keep` wants.
    fn scan(&self, prefix: &[u8], keep: impl Fn(&str) -> bool) -> Result<Vec<Pointer>, PostingsError> {
        let mut found = Vec::new();
        let mut stream = self.map.range().gt(prefix).lt(key::after(prefix)).into_stream();
        while let Some((key, value)) = stream.next() {
            let text = std::str::from_utf8(&key[prefix.len()..]);
            if keep(text.map_err(|_| PostingsError::CorruptTerms("a label value is not UTF-8"))?) {
                found.push(Pointer::from_value(value));
            }
        }
        Ok(found)
    }

    fn get(&self, key: &[u8]) -> Option<Pointer> {
        self.map.get(key).map(Pointer::from_value)
    }

    fn get_value(&self, prefix: &[u8], value: &str) -> Option<Pointer> {
        self.get(&[prefix, value.as_bytes()].concat())
    }

    /// Returns a tenant's label names, ascending. One seek a name.
    pub fn label_names(&self, tenant: &TenantId) -> Result<Vec<String>, PostingsError> {
        let all = key::prefix(tenant.as_str(), "");
        let tenant_bytes = all.len() - 1;
        let end = key::after(&all[..tenant_bytes]);
        let mut names = Vec::new();
        let mut from = key::after(&all);
        while let Some((key, _)) = self.map.range().ge(&from).lt(&end).into_stream().next() {
            let wrong = PostingsError::CorruptTerms("a key is not a label");
            let (name, _) = key::split(&key[tenant_bytes..]).ok_or(wrong)?;
            from = key::after(&key::prefix(tenant.as_str(), &name));
            names.push(name);
        }
        Ok(names)
    }

    /// Returns the values that a tenant's series have for a label, ascending.
    pub fn label_values(&self, tenant: &TenantId, name: &str) -> Result<Vec<String>, PostingsError> {
        let mut values = Vec::new();
        if name.is_empty() {
            return Ok(values);
        }
        let prefix = key::prefix(tenant.as_str(), name);
        let mut stream = self.map.range().gt(&prefix).lt(key::after(&prefix)).into_stream();
        while let Some((key, _)) = stream.next() {
            let value = std::str::from_utf8(&key[prefix.len()..]);
            values.push(value.map_err(|_| PostingsError::CorruptTerms("a label value is not UTF-8"))?.to_owned());
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests;
