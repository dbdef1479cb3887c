//! What a selection needs of the postings, and the answer once it has them.

use std::ops::Range;

use roaring::{MultiOps, RoaringBitmap};

use crate::error::PostingsError;
use crate::list::{Pointer, decode};

/// A selection: the union of some lists for each matcher, intersected or subtracted. See [`crate::Terms::plan`].
///
/// The default selects nothing and needs nothing.
#[derive(Debug, Default)]
pub struct Plan {
    /// Places of the lists, ascending, without repeats.
    needs: Vec<Range<u64>>,
    /// A series must be in each of these.
    include: Vec<Vec<Pointer>>,
    /// And in none of these.
    exclude: Vec<Vec<Pointer>>,
}

impl Plan {
    pub(crate) fn new(include: Vec<Vec<Pointer>>, exclude: Vec<Vec<Pointer>>) -> Plan {
        if include.is_empty() || include.iter().any(Vec::is_empty) {
            return Plan::default();
        }
        let place = |pointer: &Pointer| match pointer {
            Pointer::Place(place) => Some(place.clone()),
            Pointer::Run(_) => None,
        };
        let mut needs: Vec<_> = include.iter().chain(&exclude).flatten().filter_map(place).collect();
        needs.sort_unstable_by_key(|place| (place.start, place.end));
        needs.dedup();
        Plan { needs, include, exclude }
    }

    /// The byte ranges of the postings that [`Plan::resolve`] wants, ascending, without repeats.
    pub fn needs(&self) -> &[Range<u64>] {
        &self.needs
    }

    /// Whether it is already known that nothing matches.
    pub fn is_empty(&self) -> bool {
        self.include.is_empty()
    }

    /// Returns the ordinals that are selected, ascending. `lists[i]` are the bytes at `needs()[i]`.
    ///
    /// Errors: `CorruptList` if one of them is not a list, or is missing.
    pub fn resolve(&self, lists: &[impl AsRef<[u8]>]) -> Result<RoaringBitmap, PostingsError> {
        let union = |pointers: &[Pointer]| -> Result<RoaringBitmap, PostingsError> {
            pointers.iter().map(|pointer| self.bitmap(pointer, lists)).union()
        };
        let mut answer: Option<RoaringBitmap> = None;
        for pointers in &self.include {
            let bitmap = union(pointers)?;
            answer = Some(match answer {
                Some(answer) => answer & bitmap,
                None => bitmap,
            });
        }
        let mut answer = answer.unwrap_or_default();
        for pointers in &self.exclude {
            if answer.is_empty() {
                break;
            }
            answer -= union(pointers)?;
        }
        Ok(answer)
    }

    fn bitmap(&self, pointer: &Pointer, lists: &[impl AsRef<[u8]>]) -> Result<RoaringBitmap, PostingsError> {
        match pointer {
            Pointer::Run(run) => {
                let mut bitmap = RoaringBitmap::new();
                bitmap.insert_range(run.clone());
                Ok(bitmap)
            }
            Pointer::Place(place) => {
                let i = self.needs.binary_search_by_key(&(place.start, place.end), |need| (need.start, need.end));
                let list = i.ok().and_then(|i| lists.get(i));
                decode(list.map_or(&[], |list| list.as_ref()), place.start)
            }
        }
    }
}
