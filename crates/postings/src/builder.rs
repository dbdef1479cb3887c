//! Collects terms and postings while series come in order, and encodes them.
//!
//! One tenant's terms are in memory at a time: when the next tenant comes, they are sorted and go to the dictionary.
//! Neighbours share most labels, so a label is looked up only if it differs from the previous series' label of its name.

use std::collections::HashMap;

use model::{Labels, TenantId};
use tantivy_fst::MapBuilder;

use crate::error::PostingsError;
use crate::key::{prefix, put_name};
use crate::list::List;

/// What a builder makes.
#[derive(Debug)]
pub struct Encoded {
    /// The dictionary: what [`crate::Terms::decode`] reads.
    pub terms: Vec<u8>,
    /// All posting lists that the dictionary points at.
    pub postings: Vec<u8>,
}

/// See the module.
pub struct PostingsBuilder {
    dictionary: MapBuilder<Vec<u8>>,
    postings: Vec<u8>,
    tenant: Option<TenantId>,
    /// The least ordinal that may come next.
    next_ordinal: u32,
    all: List,
    /// Of the present tenant: escaped name, 00, value → place in `lists`.
    terms: HashMap<Box<[u8]>, u32>,
    lists: Vec<List>,
    last: Vec<LastLabel>,
    key: Vec<u8>,
}

/// A label of the previous series, and where its lists are.
#[derive(Default)]
struct LastLabel {
    name: Vec<u8>,
    value: Vec<u8>,
    list_of_name: u32,
    list: u32,
}

impl Default for PostingsBuilder {
    fn default() -> PostingsBuilder {
        PostingsBuilder {
            dictionary: MapBuilder::memory(),
            postings: Vec::new(),
            tenant: None,
            next_ordinal: 0,
            all: List::default(),
            terms: HashMap::new(),
            lists: Vec::new(),
            last: Vec::new(),
            key: Vec::new(),
        }
    }
}

impl PostingsBuilder {
    /// A builder without series.
    pub fn new() -> PostingsBuilder {
        PostingsBuilder::default()
    }

    /// Adds a series.
    ///
    /// Errors: `OutOfOrder` if its tenant is below the last series' tenant, or its ordinal not above the last.
    pub fn add(&mut self, tenant: &TenantId, labels: &Labels, ordinal: u32) -> Result<(), PostingsError> {
        if ordinal < self.next_ordinal || self.tenant.as_ref().is_some_and(|last| last > tenant) {
            return Err(PostingsError::OutOfOrder);
        }
        if self.tenant.as_ref() != Some(tenant) {
            self.end_tenant()?;
            self.tenant = Some(tenant.clone());
        }
        self.next_ordinal = ordinal.checked_add(1).ok_or(PostingsError::TooLarge)?;
        self.all.push(ordinal);
        // Both are sorted by name: labels of the previous series that this one lacks are dropped on the way.
        let mut at = 0;
        for (name, value) in labels.iter_bytes() {
            let lacking = self.last[at..].iter().take_while(|last| last.name.as_slice() < name).count();
            self.last.drain(at..at + lacking);
            if self.last.get(at).is_none_or(|last| last.name != name) {
                let list_of_name = self.list(name, b"");
                self.last.insert(at, LastLabel { name: name.to_owned(), list_of_name, ..LastLabel::default() });
            }
            if self.last[at].value != value {
                let list = self.list(name, value);
                let last = &mut self.last[at];
                last.list = list;
                value.clone_into(&mut last.value);
            }
            let last = &self.last[at];
            self.lists[last.list_of_name as usize].push(ordinal);
            self.lists[last.list as usize].push(ordinal);
            at += 1;
        }
        self.last.truncate(at);
        Ok(())
    }

    /// The list of a label of the present tenant, made if it is new.
    fn list(&mut self, name: &[u8], value: &[u8]) -> u32 {
        self.key.clear();
        put_name(&mut self.key, name);
        self.key.extend_from_slice(value);
        if let Some(&list) = self.terms.get(self.key.as_slice()) {
            return list;
        }
        let list = self.lists.len() as u32;
        self.terms.insert(self.key.as_slice().into(), list);
        self.lists.push(List::default());
        list
    }

    fn end_tenant(&mut self) -> Result<(), PostingsError> {
        let Some(tenant) = self.tenant.take() else { return Ok(()) };
        let mut key = prefix(tenant.as_str(), "");
        let value = std::mem::take(&mut self.all).finish(&mut self.postings)?;
        self.dictionary.insert(&key, value).map_err(|_| PostingsError::OutOfOrder)?;
        let mut terms: Vec<_> = std::mem::take(&mut self.terms).into_iter().collect();
        terms.sort_unstable();
        let tenant_bytes = tenant.as_str().len() + 1;
        for (term, list) in terms {
            key.truncate(tenant_bytes);
            key.extend_from_slice(&term);
            let value = std::mem::take(&mut self.lists[list as usize]).finish(&mut self.postings)?;
            self.dictionary.insert(&key, value).map_err(|_| PostingsError::OutOfOrder)?;
        }
        self.lists.clear();
        self.last.clear();
        Ok(())
    }

    /// Ends the last tenant and hands out both parts.
    ///
    /// Errors: `TooLarge` if the postings outgrow their format.
    pub fn finish(mut self) -> Result<Encoded, PostingsError> {
        self.end_tenant()?;
        let terms = self.dictionary.into_inner().map_err(|_| PostingsError::OutOfOrder)?;
        Ok(Encoded { terms, postings: self.postings })
    }
}
