//! What was measured, a line for each kind of fault.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::torture::nemesis::Fault;

/// The most of each fault's repetitions.
#[derive(Debug, Default)]
pub struct Table {
    rows: BTreeMap<Fault, Row>,
}

/// One kind of fault.
#[derive(Debug, Default, Clone)]
pub struct Row {
    /// How often it came.
    pub times: u32,
    /// The longest time without any acked write.
    pub write_gap: Duration,
    /// The longest time without an answer from any node.
    pub query_gap: Duration,
    /// The same, without one that says that it may be old.
    pub fresh_gap: Duration,
    /// Until all was well, from the fault's beginning.
    pub whole: Duration,
    /// What else there is to say, of the last time.
    pub note: String,
}

impl Table {
    /// Adds what was measured once.
    pub fn add(&mut self, fault: Fault, row: Row) {
        let sum = self.rows.entry(fault).or_default();
        sum.times += row.times;
        sum.write_gap = sum.write_gap.max(row.write_gap);
        sum.query_gap = sum.query_gap.max(row.query_gap);
        sum.fresh_gap = sum.fresh_gap.max(row.fresh_gap);
        sum.whole = sum.whole.max(row.whole);
        sum.note = row.note;
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| # | fault | times | write gap ms | query gap ms | query gap ms, newest | whole again s | |")?;
        writeln!(f, "|---|---|---|---|---|---|---|---|")?;
        for (fault, row) in &self.rows {
            writeln!(
                f,
                "| {} | {} | {} | {} | {} | {} | {:.1} | {} |",
                fault.number(),
                fault.text(),
                row.times,
                row.write_gap.as_millis(),
                row.query_gap.as_millis(),
                row.fresh_gap.as_millis(),
                row.whole.as_secs_f64(),
                row.note,
            )?;
        }
        Ok(())
    }
}
