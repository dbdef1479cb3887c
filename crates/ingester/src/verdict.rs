//! What the answer to a writer's own entry means for it.

use index::{Applied, Refused};
use model::SegmentNumber;

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The index is as the entry wanted it, by this try or an earlier one.
    Done,
    /// The writer is fenced, or closed already: it ends.
    Fenced,
    /// What only a bug explains.
    Odd,
}

/// Of AddSegment. Only `Done` may be followed by an ack.
pub fn of_add(answer: &Result<Applied, Refused>) -> Verdict {
    match answer {
        Ok(Applied::Added { .. }) | Err(Refused::AlreadyAdded { .. }) => Verdict::Done,
        other => fenced_or_odd(other),
    }
}

/// Of the writer's own Cut up to this segment.
pub fn of_cut(upto: SegmentNumber, answer: &Result<Applied, Refused>) -> Verdict {
    match answer {
        Ok(Applied::Cut { .. }) | Err(Refused::AlreadyNamed { .. }) => Verdict::Done,
        // An earlier try got through, and its block is compacted already.
        Err(Refused::CutMoved { cut, .. }) if *cut >= upto => Verdict::Done,
        other => fenced_or_odd(other),
    }
}

fn fenced_or_odd(answer: &Result<Applied, Refused>) -> Verdict {
    match answer {
        Err(Refused::WrongStage { .. } | Refused::Closed { .. }) => Verdict::Fenced,
        _ => Verdict::Odd,
    }
}
