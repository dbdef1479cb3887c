//! What can go wrong with a write, and who acts.

use std::collections::BTreeMap;
use std::fmt;

use model::SegmentNumber;

/// Refused series that a report spells out; the rest are counted.
const REPORTED_MAX: usize = 10;

/// Why a sample, or all samples of a series, can never be stored as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// No `__name__`, or an empty one.
    MissingMetricName,
    /// An empty or repeated label name.
    InvalidLabels,
    /// A label that is not UTF-8.
    LabelsNotUtf8,
    /// More labels than `max-labels-per-series`.
    MaxLabelsPerSeries,
    /// A name longer than `max-label-name-bytes`.
    MaxLabelNameBytes,
    /// A value longer than `max-label-value-bytes`.
    MaxLabelValueBytes,
    /// A timestamp before 1970.
    BeforeEpoch,
    /// Older than `retention`.
    Retention,
    /// Further ahead of the clock than `max-future`.
    MaxFuture,
    /// A native histogram whose parts contradict one another.
    InvalidHistogram,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 10] = [
        Reason::MissingMetricName,
        Reason::InvalidLabels,
        Reason::LabelsNotUtf8,
        Reason::MaxLabelsPerSeries,
        Reason::MaxLabelNameBytes,
        Reason::MaxLabelValueBytes,
        Reason::BeforeEpoch,
        Reason::Retention,
        Reason::MaxFuture,
        Reason::InvalidHistogram,
    ];

    /// The id: a metric label, and (with dashes) a heading of docs/runbook.md.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::MissingMetricName => "missing_metric_name",
            Reason::InvalidLabels => "invalid_labels",
            Reason::LabelsNotUtf8 => "labels_not_utf8",
            Reason::MaxLabelsPerSeries => "max_labels_per_series",
            Reason::MaxLabelNameBytes => "max_label_name_bytes",
            Reason::MaxLabelValueBytes => "max_label_value_bytes",
            Reason::BeforeEpoch => "before_epoch",
            Reason::Retention => "retention",
            Reason::MaxFuture => "max_future",
            Reason::InvalidHistogram => "invalid_histogram",
        }
    }
}

impl Reason {
    /// Its number between nodes; docs/formats/peer.md. A new reason takes the next one.
    pub(crate) fn number(self) -> u8 {
        // The order of `ALL` is the enum's own.
        self as u8
    }

    /// The reason of a number.
    pub(crate) fn from_number(number: u8) -> Option<Reason> {
        Reason::ALL.get(usize::from(number)).copied()
    }
}

/// What was refused of a request: counts per reason, and the first few series in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rejected {
    counts: BTreeMap<Reason, u64>,
    first: Vec<String>,
}

impl Rejected {
    /// Whether nothing was refused.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Samples refused, by reason.
    pub fn counts(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        self.counts.iter().map(|(&reason, &count)| (reason, count))
    }

    /// The first series that were refused, in words: at most ten.
    pub(crate) fn first(&self) -> &[String] {
        &self.first
    }

    /// Adds what was refused of another part of the same request.
    pub(crate) fn merge(&mut self, other: Rejected) {
        for (reason, count) in other.counts {
            let sum = self.counts.entry(reason).or_default();
            *sum = sum.saturating_add(count);
        }
        let room = REPORTED_MAX - self.first.len();
        self.first.extend(other.first.into_iter().take(room));
    }

    /// Of counts and of series in words, of which it keeps as many as it reports.
    pub(crate) fn from_parts(counts: BTreeMap<Reason, u64>, mut first: Vec<String>) -> Rejected {
        first.truncate(REPORTED_MAX);
        Rejected { counts, first }
    }

    /// Counts `samples` for a reason; the series is described only if there is room for it in the report.
    pub(crate) fn add(&mut self, reason: Reason, samples: u64, describe: impl FnOnce() -> String) {
        *self.counts.entry(reason).or_default() += samples;
        if self.first.len() < REPORTED_MAX {
            self.first.push(describe());
        }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.counts.values().fold(0_u64, |total, count| total.saturating_add(*count));
        write!(f, "{total} samples refused, every other sample of the request is stored:")?;
        for (i, (reason, count)) in self.counts().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma} {count} {}", reason.as_str())?;
        }
        for line in &self.first {
            write!(f, "\n{line}")?;
        }
        Ok(())
    }
}

/// Why a write is not answered 2xx.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Part of the request can never be stored as sent; everything else is durable.
    #[error("{0}")]
    Rejected(Rejected),
    /// The node has no memory for series it does not know yet.
    #[error(
        "{series} new series were not taken in: this node uses {used_bytes} of {max_bytes} bytes of memory (memory-max), \
         and takes no new series above 80 %. Raise --memory.max, or send fewer series."
    )]
    NewSeries {
        /// How many series of the request.
        series: u64,
        /// What is in use.
        used_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// The node has no memory.
    #[error(
        "this node uses {used_bytes} of {max_bytes} bytes of memory (memory-max). Raise --memory.max, or send less."
    )]
    Memory {
        /// What is in use.
        used_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// Flushes do not keep up, or the store fails.
    #[error(
        "{used_bytes} bytes wait for the bucket, the limit is {max_bytes} (ingester-buffer-bytes-max): the bucket is slow \
         or failing, see /-/ready and the log."
    )]
    BufferFull {
        /// Bytes of open and sealed segments.
        used_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// The request's segment was not durable in time. It may be yet: sending it again is harmless.
    #[error(
        "not durable after {after_ms} ms (ingester-ack-timeout): the bucket is slow or failing, see /-/ready and the log."
    )]
    AckTimeout {
        /// The limit, in milliseconds.
        after_ms: u128,
    },
    /// This process's writer was fenced while the request waited: the others took the node for dead.
    #[error(
        "this node's writer was fenced while the request waited, and a new one takes its place: send it again \
         (writer-fenced)"
    )]
    Fenced,
    /// What is on its way to other nodes takes all the memory there is for it, and this node is passed over itself.
    #[error(
        "{used_bytes} bytes are on their way to other nodes, the limit is {max_bytes} (forward-bytes-max), and this node can't \
         store segments itself, see /-/ready and the log."
    )]
    ForwardsFull {
        /// What is on its way.
        used_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// No node took a part of the request.
    #[error("no node took a part of the request in, the last that was tried said: {why} (no-writer)")]
    NoWriter {
        /// What the last one said.
        why: String,
    },
    /// The node can't store segments now; what is sent to it is taken all the same, parts of what other nodes receive are not.
    #[error("this node takes no parts of other nodes' requests: {why}")]
    Failing {
        /// What fails.
        why: String,
    },
    /// The node is shutting down.
    #[error("this node takes no more writes: it is shutting down.")]
    Closed,
}

/// Who acts on an error (STYLE.md, "Errors").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The sender: 400.
    Invalid,
    /// Nobody, it passes or an operator helps: 503.
    Unavailable,
}

impl PushError {
    /// Who acts.
    pub fn kind(&self) -> Kind {
        match self {
            PushError::Rejected(_) => Kind::Invalid,
            _ => Kind::Unavailable,
        }
    }
}

/// Why the ingester stops, or does not start.
#[derive(Debug, thiserror::Error)]
pub enum IngesterError {
    /// The index refused what only this writer may do.
    #[error("the index refused {what} of writer {writer}: {reason}")]
    Refused {
        /// Which entry.
        what: &'static str,
        /// Whose.
        writer: String,
        /// The index's words.
        reason: String,
    },
    /// The index takes no entries.
    #[error("propose {what}")]
    Propose {
        /// Which entry.
        what: &'static str,
        /// Why.
        source: consensus::ProposeError,
    },
    /// The bucket failed while a dead writer's segments were loaded.
    #[error("load segment {n} of writer {writer}")]
    Load {
        /// Whose.
        writer: String,
        /// Which.
        n: SegmentNumber,
        /// Why.
        source: bucket::BucketError,
    },
    /// A head could not be packed.
    #[error("pack the head of writer {writer} into a block")]
    Pack {
        /// Whose.
        writer: String,
        /// Why.
        source: crate::pack::PackError,
    },
    /// Our own segment does not fold into the head: a bug.
    #[error("take in segment {n} of writer {writer}")]
    TakeIn {
        /// Whose.
        writer: String,
        /// Which.
        n: SegmentNumber,
        /// Why.
        source: head::HeadError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_for_reasons() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_number(reason.number()), Some(reason));
        }
        assert_eq!(Reason::from_number(200), None);
    }

    #[test]
    fn reports_of_parts_are_one_report() {
        let mut parts = [Rejected::default(), Rejected::default()];
        for i in 0..12 {
            parts[i % 2].add(Reason::ALL[i % 3], 1, || format!("series {i}"));
        }
        let [mut all, other] = parts;
        all.merge(other);
        all.merge(Rejected::default());
        let counts: Vec<_> = all.counts().collect();
        assert_eq!(counts, [(Reason::ALL[0], 4), (Reason::ALL[1], 4), (Reason::ALL[2], 4)]);
        assert_eq!(all.first().len(), 10);
    }

    #[test]
    fn a_report_counts_all_and_names_ten() {
        let mut rejected = Rejected::default();
        for i in 0..12 {
            rejected.add(Reason::Retention, 2, || format!("series {i}"));
        }
        rejected.add(Reason::MissingMetricName, 1, || unreachable!());
        let text = rejected.to_string();
        assert!(text.starts_with("25 samples refused"), "{text}");
        assert!(text.contains("1 missing_metric_name, 24 retention"), "{text}");
        assert_eq!(text.lines().count(), 11);
    }
}
