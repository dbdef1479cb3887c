//! What senders say about a metric: its kind, unit and help text. Hints for people; no query depends on them.

/// What kind of metric it is, as OpenMetrics names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum MetricKind {
    /// Not said.
    #[default]
    Unknown = 0,
    /// Only grows, but for resets.
    Counter = 1,
    /// Goes up and down.
    Gauge = 2,
    /// Observations in buckets.
    Histogram = 3,
    /// A histogram whose buckets go up and down.
    GaugeHistogram = 4,
    /// Quantiles that the sender computed.
    Summary = 5,
    /// Constant labels that describe something.
    Info = 6,
    /// One of several states.
    StateSet = 7,
}

impl MetricKind {
    /// Every kind, by its number.
    pub const ALL: [MetricKind; 8] = [
        MetricKind::Unknown,
        MetricKind::Counter,
        MetricKind::Gauge,
        MetricKind::Histogram,
        MetricKind::GaugeHistogram,
        MetricKind::Summary,
        MetricKind::Info,
        MetricKind::StateSet,
    ];

    /// The kind with this number, as remote-write and our stored formats number them.
    pub fn from_number(number: u64) -> Option<MetricKind> {
        MetricKind::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Its number.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Its name in exposition formats and in Prometheus's API.
    pub fn as_str(self) -> &'static str {
        match self {
            MetricKind::Unknown => "unknown",
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
            MetricKind::GaugeHistogram => "gaugehistogram",
            MetricKind::Summary => "summary",
            MetricKind::Info => "info",
            MetricKind::StateSet => "stateset",
        }
    }
}

/// The metadata of one metric; the last that was sent is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Metadata {
    /// What kind of metric it is.
    pub kind: MetricKind,
    /// Its unit, or "".
    pub unit: String,
    /// What it means, or "".
    pub help: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_return() {
        for kind in MetricKind::ALL {
            assert_eq!(MetricKind::from_number(u64::from(kind.number())), Some(kind));
        }
        assert_eq!(MetricKind::from_number(8), None);
    }
}
