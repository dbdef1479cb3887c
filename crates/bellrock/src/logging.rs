//! Log lines on stderr: logfmt for people and Loki, or JSON.
//!
//! A line has the time, the level, the crate that speaks, a constant message, and the facts as fields:
//! those of the spans around it from the outside in, then its own. Each line is one `write`, so lines
//! of several threads do not mix. The level can be changed while running.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;

use runtime::Clock;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber, span};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::{Layer, reload};

use crate::settings::LogFormat;

/// Changes the level of a running log.
#[derive(Debug, Clone)]
pub struct LogLevel {
    handle: reload::Handle<LevelFilter, Registry>,
}

impl LogLevel {
    /// Logs what is at least as severe as `level` from now on.
    pub fn set(&self, level: LevelFilter) {
        // The subscriber lives as long as the process.
        let _gone = self.handle.modify(|filter| *filter = level).is_err();
    }
}

/// Where lines go: stderr, or a test's buffer.
type Sink = Box<dyn Fn(&[u8]) + Send + Sync>;

/// Sends the log of the whole process to stderr, panics included.
///
/// Call it once; a second call changes nothing and its handle moves nothing.
pub fn start(format: LogFormat, level: LevelFilter, clock: Arc<dyn Clock>) -> LogLevel {
    // Nobody can be told that stderr is gone, and serving goes on without it.
    let sink = Box::new(|line: &[u8]| drop(std::io::stderr().write_all(line)));
    let (subscriber, level) = subscriber(format, level, clock, sink);
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            let message = runtime::panic_message(panic.payload());
            tracing::error!(error = message, place, id = "task-panicked", "panicked");
        }));
    }
    level
}

fn subscriber(
    format: LogFormat,
    level: LevelFilter,
    clock: Arc<dyn Clock>,
    sink: Sink,
) -> (impl Subscriber + Send + Sync, LogLevel) {
    let (filter, handle) = reload::Layer::new(level);
    let subscriber = tracing_subscriber::registry().with(filter).with(Lines { format, clock, sink });
    (subscriber, LogLevel { handle })
}

struct Lines {
    format: LogFormat,
    clock: Arc<dyn Clock>,
    sink: Sink,
}

/// Names and values in their order; the last of a name counts.
#[derive(Debug, Default, Clone)]
struct Fields {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Fields {
    fn set(&mut self, name: &'static str, value: Value) {
        match self.fields.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.fields.push((name, value)),
        }
    }

    fn set_text(&mut self, field: &Field, text: String) {
        match field.name() {
            "message" => self.message = text,
            name => self.set(name, Value::String(text)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.set_text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set_text(field, value.to_string());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.set_text(field, chain(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinity.
        self.set(
            field.name(),
            serde_json::Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number),
        );
    }
}

/// An error with its causes, each once: `read block: get footer: timed out`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                of_span.fields.iter().for_each(|(name, value)| fields.set(name, value.clone()));
            }
        }
        event.record(&mut fields);
        let metadata = event.metadata();
        let component = metadata.target().split("::").next().unwrap_or_default();
        let level = metadata.level().as_str().to_ascii_lowercase();
        let time = time_text(self.clock.now_ms());
        let mut line = match self.format {
            LogFormat::Logfmt => logfmt(&time, &level, component, &fields),
            LogFormat::Json => json(&time, &level, component, &fields),
        };
        line.push('\n');
        (self.sink)(line.as_bytes());
    }
}

fn logfmt(time: &str, level: &str, component: &str, fields: &Fields) -> String {
    let mut line = format!("time={time} level={level} component={component} msg={}", quoted(&fields.message));
    for (name, value) in &fields.fields {
        let text = match value {
            Value::String(text) => quoted(text),
            other => other.to_string(),
        };
        // Writing to a string does not fail.
        let _ok = write!(line, " {name}={text}");
    }
    line
}

/// The text as it is, or in quotes with escapes where a reader of logfmt would stumble.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '=' | '\\');
    if !text.is_empty() && text.chars().all(is_plain) { text.to_string() } else { Value::from(text).to_string() }
}

/// Written by hand to keep the order: a map would sort the names.
fn json(time: &str, level: &str, component: &str, fields: &Fields) -> String {
    let message = fields.message.as_str();
    let mut line = format!(
        "{{\"time\":\"{time}\",\"level\":\"{level}\",\"component\":{},\"msg\":{}",
        Value::from(component),
        Value::from(message),
    );
    for (name, value) in &fields.fields {
        // Writing to a string does not fail.
        let _ok = write!(line, ",{}:{value}", Value::from(*name));
    }
    line.push('}');
    line
}

/// RFC 3339 in UTC, to the millisecond.
fn time_text(now_ms: i64) -> String {
    let (days, of_day_ms) = (now_ms.div_euclid(86_400_000), now_ms.rem_euclid(86_400_000));
    // Days since 0000-03-01, in cycles of 400 years (Howard Hinnant's `civil_from_days`).
    let z = days + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (seconds, ms) = (of_day_ms / 1_000, of_day_ms % 1_000);
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use runtime::ManualClock;

    /// What `work` logs, in this format, from `level` on.
    fn logged(format: LogFormat, level: LevelFilter, work: impl FnOnce(&LogLevel)) -> String {
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = written.clone();
        let clock = Arc::new(ManualClock::new(1_763_740_800_123));
        let sink = Box::new(move |line: &[u8]| sink.lock().extend_from_slice(line));
        let (subscriber, level) = subscriber(format, level, clock, sink);
        tracing::subscriber::with_default(subscriber, || work(&level));
        String::from_utf8(std::mem::take(&mut *written.lock())).unwrap()
    }

    #[test]
    fn logfmt_quotes_what_needs_it_and_keeps_the_spans_fields() {
        let text = logged(LogFormat::Logfmt, LevelFilter::INFO, |_| {
            let span = tracing::info_span!("ingester.push", tenant = "team-a", bytes = 1u64);
            let _entered = span.enter();
            tracing::info!(bytes = 7u64, share = 0.5, done = true, error = "a \"b\"\n=c", path = "", "block uploaded");
        });
        let expected = "time=2025-11-21T16:00:00.123Z level=info component=bellrock msg=\"block uploaded\" \
                        tenant=team-a bytes=7 share=0.5 done=true error=\"a \\\"b\\\"\\n=c\" path=\"\"\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged(LogFormat::Json, LevelFilter::INFO, |_| {
            tracing::warn!(tenant = "a", value = f64::NAN, "took long");
            tracing::info!("x");
        });
        let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        let expected = serde_json::json!({
            "time": "2025-11-21T16:00:00.123Z", "level": "warn", "component": "bellrock",
            "msg": "took long", "tenant": "a", "value": "NaN",
        });
        assert_eq!((first, text.lines().count()), (expected, 2));
    }

    #[test]
    fn the_level_can_be_changed_while_running() {
        let text = logged(LogFormat::Logfmt, LevelFilter::WARN, |level| {
            tracing::info!("one");
            level.set(LevelFilter::DEBUG);
            tracing::debug!("two");
            level.set(LevelFilter::ERROR);
            tracing::warn!("three");
        });
        assert!(text.contains("two") && text.lines().count() == 1, "{text}");
    }

    #[test]
    fn times_are_right_across_the_calendar() {
        assert_eq!(time_text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time_text(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(time_text(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(time_text(1_740_787_199_999), "2025-02-28T23:59:59.999Z");
        assert_eq!(time_text(4_102_444_800_000), "2100-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_chain_tells_each_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("read block: {0}")]
        struct Outer(#[source] std::io::Error);
        let outer = Outer(std::io::Error::other("timed out"));
        assert_eq!(chain(&outer), "read block: timed out");
    }
}
