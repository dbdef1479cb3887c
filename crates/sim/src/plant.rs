//! Bugs that the simulator puts in on purpose: a checker that finds none of them proves nothing.

/// Which bug. They live in the simulator's drivers, so that the product has no such switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// Requests are answered when their segment is stored, before its entry is applied.
    AckBeforeCommit,
    /// The collector deletes what its index does not name, instead of what no later entry can name.
    DeleteByAbsence,
    /// A fence stops nobody: the refusal of a fenced writer's AddSegment counts as its commit.
    NoFence,
    /// A cut names everything committed as covered, and its block holds what was frozen.
    CutRetiresTooMuch,
    /// A Replace under a superseded or spent number is accepted; its block is dead by its key.
    StaleReplace,
    /// A recovery takes the checkpoint for everything, and does not look at the segments.
    RecoverCheckpointOnly,
    /// The collector goes by the index in memory, not by what the bucket holds.
    CollectUnstored,
    /// A query plans at whatever its node has applied.
    NoReadIndex,
    /// A query answers with what it has when something is missing, instead of planning again.
    SkipMissing,
}

impl Plant {
    /// Every bug.
    pub const ALL: [Plant; 9] = [
        Plant::AckBeforeCommit,
        Plant::DeleteByAbsence,
        Plant::NoFence,
        Plant::CutRetiresTooMuch,
        Plant::StaleReplace,
        Plant::RecoverCheckpointOnly,
        Plant::CollectUnstored,
        Plant::NoReadIndex,
        Plant::SkipMissing,
    ];

    /// What the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Plant::AckBeforeCommit => "ack-before-commit",
            Plant::DeleteByAbsence => "delete-by-absence",
            Plant::NoFence => "no-fence",
            Plant::CutRetiresTooMuch => "cut-retires-too-much",
            Plant::StaleReplace => "stale-replace",
            Plant::RecoverCheckpointOnly => "recover-checkpoint-only",
            Plant::CollectUnstored => "collect-unstored",
            Plant::NoReadIndex => "no-read-index",
            Plant::SkipMissing => "skip-missing",
        }
    }
}
