//! Faults that a test plants between the bucket and its caller.
//!
//! They are in the product's code because the roles' tests, in other crates, need them; without any planted
//! they cost one empty lock.

use std::sync::Arc;

use model::ObjectKey;
use parking_lot::Mutex;

use crate::error::Operation;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing happens, and the answer is an error.
    Fail,
    /// Nothing happens for want of space.
    NoSpace,
    /// It happens, and the answer is an error: a lost answer, or an fsync that failed after the rename.
    LoseAnswer,
    /// It happens, and there is no answer, ever.
    Hang,
    /// A fetched object has one bit flipped in its middle.
    FlipBit,
}

/// A planted fault.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// In which operation.
    pub operation: Operation,
    /// Of which objects; a listing asks with [`ObjectKey::Cluster`].
    pub concerns: fn(&ObjectKey) -> bool,
    /// How often.
    pub times: u32,
    /// What goes wrong.
    pub effect: Effect,
}

/// Planted faults; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    planted: Arc<Mutex<Vec<Fault>>>,
    /// Objects whose bytes are on their way to the caller, to be flipped.
    flips: Arc<Mutex<Vec<ObjectKey>>>,
}

impl Faults {
    /// Plants one more.
    pub fn plant(&self, fault: Fault) {
        self.planted.lock().push(fault);
    }

    /// Takes all out.
    pub fn clear(&self) {
        self.planted.lock().clear();
    }

    /// The fault that hits this operation, used up by once.
    pub(crate) fn strike(&self, operation: Operation, key: &ObjectKey) -> Option<Effect> {
        let mut planted = self.planted.lock();
        let hits = |fault: &Fault| fault.operation == operation && fault.times > 0 && (fault.concerns)(key);
        let fault = planted.iter_mut().find(|fault| hits(fault))?;
        fault.times -= 1;
        Some(fault.effect)
    }

    pub(crate) fn flip_next(&self, key: ObjectKey) {
        self.flips.lock().push(key);
    }

    pub(crate) fn take_flip(&self, key: &ObjectKey) -> bool {
        let mut flips = self.flips.lock();
        let at = flips.iter().position(|other| other == key);
        at.map(|at| flips.swap_remove(at)).is_some()
    }
}
