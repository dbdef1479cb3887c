//! Raft's own log lines, which it writes with slog, as our debug lines.

use std::fmt::Write;

use slog::{Drain, KV, Level, Logger, Never, OwnedKVList, Record, Serializer};

/// A logger for raft.
pub fn to_tracing() -> Logger {
    Logger::root(ToTracing, slog::o!())
}

struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        // Whether a line matters to an operator, raft can't know: what does is logged by us.
        if !self.is_enabled(record.level()) {
            return Ok(());
        }
        let mut fields = Fields(String::new());
        // Writing to a string can't fail.
        let _ = record.kv().serialize(record, &mut fields);
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(raft = %record.msg(), fields = fields.0, "raft error"),
            _ => tracing::debug!(raft = %record.msg(), fields = fields.0, "raft"),
        }
        Ok(())
    }

    fn is_enabled(&self, level: Level) -> bool {
        match level {
            Level::Critical | Level::Error => true,
            Level::Warning | Level::Info => tracing::enabled!(tracing::Level::DEBUG),
            _ => false,
        }
    }
}

struct Fields(String);

impl Serializer for Fields {
    fn emit_arguments(&mut self, key: slog::Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        let separator = if self.0.is_empty() { "" } else { " " };
        write!(self.0, "{separator}{key}={value}").map_err(Into::into)
    }
}
