//! What a metric is: its kind, unit and help text, as senders tell it.

/// The kind of a metric. The discriminants are those of remote-write 1.0 and are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum MetricKind {
    /// Not said.
    #[default]
    Unknown = 0,
    /// Only grows, or starts again.
    Counter = 1,
    /// Goes up and down.
    Gauge = 2,
    /// Observations in buckets that only grow.
    Histogram = 3,
    /// Observations in buckets that go up and down.
    GaugeHistogram = 4,
    /// Observations as quantiles.
    Summary = 5,
    /// Facts in labels, the value is 1.
    Info = 6,
    /// One series a state, the value is 0 or 1.
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

    /// The kind of this number, if there is one.
    pub fn from_number(number: u64) -> Option<MetricKind> {
        MetricKind::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// As the exposition formats and Prometheus's API write it.
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

/// What is known of one metric name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Metadata {
    /// Its kind.
    pub kind: MetricKind,
    /// Its unit, often empty.
    pub unit: String,
    /// Its help text.
    pub help: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_name_their_kinds() {
        for kind in MetricKind::ALL {
            assert_eq!(MetricKind::from_number(kind as u64), Some(kind));
        }
        assert_eq!(MetricKind::from_number(8), None);
    }
}
