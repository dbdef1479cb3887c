//! Chains of bytes that grow a few bytes at a time, a million of them: the codes of series, and postings.
//!
//! A chain is a ring of 32-byte nodes. Its owner knows the last node, and the last knows the first; so a chain costs
//! eight bytes beside its nodes, and appending touches one cache line.

use crate::pages::Pages;

/// Bytes of a node that are a chain's.
const NODE_BYTES: usize = 28;

/// The tail of a chain without nodes.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Node {
    /// The next node; of the last node, the first.
    next: u32,
    bytes: [u8; NODE_BYTES],
}

/// One chain, by its last node. 8 bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chain {
    tail: u32,
    /// Not the slab's: how many samples a series repeated, that are not yet written.
    pub(crate) repeats: u16,
    /// Bytes in the last node.
    fill: u8,
}

impl Chain {
    /// A chain without bytes.
    pub(crate) const EMPTY: Chain = Chain { tail: NONE, repeats: 0, fill: 0 };

    /// Whether there is neither a byte nor a repeat.
    pub(crate) fn is_empty(self) -> bool {
        self.tail == NONE && self.repeats == 0
    }
}

/// The nodes of all chains.
#[derive(Debug, Default)]
pub(crate) struct Slab {
    nodes: Pages<Node>,
}

impl Slab {
    /// Appends the first `len` of these bytes. Copies all eight if there is room for them: what lies behind a chain's
    /// end does not matter, and a copy of fixed length has no branch.
    #[inline]
    pub(crate) fn append_word(&mut self, chain: &mut Chain, word: [u8; 8], len: usize) {
        let fill = usize::from(chain.fill);
        if chain.tail != NONE && fill + 8 <= NODE_BYTES {
            self.nodes.get_mut(chain.tail).bytes[fill..fill + 8].copy_from_slice(&word);
            chain.fill += len as u8;
        } else {
            self.append(chain, &word[..len]);
        }
    }

    /// Appends `bytes` to a chain.
    #[inline]
    pub(crate) fn append(&mut self, chain: &mut Chain, bytes: &[u8]) {
        let fill = usize::from(chain.fill);
        if chain.tail != NONE && fill + bytes.len() <= NODE_BYTES {
            let node = &mut self.nodes.get_mut(chain.tail).bytes[fill..fill + bytes.len()];
            // Most appends are of 1 to 3 bytes: a loop beats the call of memcpy.
            for (to, from) in node.iter_mut().zip(bytes) {
                *to = *from;
            }
            chain.fill += bytes.len() as u8;
            return;
        }
        self.append_over_nodes(chain, bytes);
    }

    fn append_over_nodes(&mut self, chain: &mut Chain, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if chain.tail == NONE || usize::from(chain.fill) == NODE_BYTES {
                self.add_node(chain);
            }
            let fill = usize::from(chain.fill);
            let (now, later) = bytes.split_at(bytes.len().min(NODE_BYTES - fill));
            self.nodes.get_mut(chain.tail).bytes[fill..fill + now.len()].copy_from_slice(now);
            chain.fill += now.len() as u8;
            bytes = later;
        }
    }

    fn add_node(&mut self, chain: &mut Chain) {
        let new = self.nodes.push(Node { next: 0, bytes: [0; NODE_BYTES] });
        let first = match chain.tail {
            NONE => new,
            tail => std::mem::replace(&mut self.nodes.get_mut(tail).next, new),
        };
        self.nodes.get_mut(new).next = first;
        (chain.tail, chain.fill) = (new, 0);
    }

    /// Appends all bytes of a chain to `out`.
    pub(crate) fn copy(&self, chain: Chain, out: &mut Vec<u8>) {
        if chain.tail == NONE {
            return;
        }
        let mut at = self.nodes.get(chain.tail).next;
        while at != chain.tail {
            let node = self.nodes.get(at);
            out.extend_from_slice(&node.bytes);
            at = node.next;
        }
        out.extend_from_slice(&self.nodes.get(at).bytes[..usize::from(chain.fill)]);
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.nodes.memory_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn chains_hold_what_was_appended(pieces in prop::collection::vec((0usize..4, prop::collection::vec(any::<u8>(), 0..70)), 0..90)) {
            let mut slab = Slab::default();
            let mut chains = [Chain::EMPTY; 4];
            let mut expected: [Vec<u8>; 4] = Default::default();
            for (i, bytes) in &pieces {
                match bytes.first_chunk() {
                    Some(word) if bytes.len() % 2 == 0 => {
                        slab.append_word(&mut chains[*i], *word, bytes.len() % 9);
                        expected[*i].extend_from_slice(&word[..bytes.len() % 9]);
                    }
                    _ => {
                        slab.append(&mut chains[*i], bytes);
                        expected[*i].extend_from_slice(bytes);
                    }
                }
            }
            for (chain, expected) in chains.iter().zip(&expected) {
                let mut found = Vec::new();
                slab.copy(*chain, &mut found);
                prop_assert_eq!(&found, expected);
            }
        }
    }

    #[test]
    fn sizes_are_what_the_memory_goal_counts_on() {
        assert_eq!((size_of::<Chain>(), size_of::<Node>()), (8, 32));
    }
}
