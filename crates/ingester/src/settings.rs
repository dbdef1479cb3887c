//! What an operator may set of the ingester. The binary maps flags, environment and file onto it.

use std::time::Duration;

/// About what a series takes in a head beside its samples: labels, postings, its row.
pub const SERIES_BYTES: usize = 160;

/// Settings of the ingester; see each field for its default.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Limits that a reload may change; the ones of tenants that have their own lie beside.
    pub limits: Limits,
    /// Least time between two flushes: bounds fsyncs, and PUTs that a store bills for. Default 10 ms.
    pub flush_interval_min: Duration,
    /// Segments that may be on their way at once, from seal to commit, where PUTs cross a network; to a disk it is one. Default 2.
    pub remote_segment_slots: usize,
    /// A segment of this many bytes in memory is full. Default 4 MiB.
    pub segment_bytes_max: usize,
    /// Open and sealed segments that are not committed may take this many bytes; beyond it writes get 503. Default 64 MiB.
    pub buffer_bytes_max: usize,
    /// What is on its way to other nodes may take this many bytes; beyond it requests stay here. Default 64 MiB.
    pub forward_bytes_max: usize,
    /// A request that is not durable after this time is answered 503. Default 10 s.
    pub ack_timeout: Duration,
    /// A head is cut into a block at this age. Default 10 min.
    pub cut_age_max: Duration,
    /// A head is cut into a block at this size, whatever its age: what its memory allows. Default 256 MiB.
    pub head_bytes_max: usize,
    /// A head is also cut when its samples take this many bytes, its series counted at [`SERIES_BYTES`] not among them:
    /// a flood of samples gains nothing from a larger head, while many series want their ten minutes. Default 48 MiB.
    pub head_sample_bytes_max: usize,
    /// Memory that heads, tables and buffers may take: at 80 % new series get 503, at 100 % every write.
    pub memory_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            limits: Limits::default(),
            flush_interval_min: Duration::from_millis(10),
            remote_segment_slots: 2,
            segment_bytes_max: 4 << 20,
            buffer_bytes_max: 64 << 20,
            forward_bytes_max: 64 << 20,
            ack_timeout: Duration::from_secs(10),
            cut_age_max: Duration::from_secs(600),
            head_bytes_max: 256 << 20,
            head_sample_bytes_max: 48 << 20,
            memory_bytes_max: 1 << 30,
        }
    }
}

/// Limits on what a sender may send; a reload changes them.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Labels of a series, the metric's name included. Default 100.
    pub max_labels_per_series: usize,
    /// Bytes of a label's name. Default 1 KiB.
    pub max_label_name_bytes: usize,
    /// Bytes of a label's value. Default 8 KiB.
    pub max_label_value_bytes: usize,
    /// Samples older than this are refused; `None` keeps everything. Default `None`.
    pub retention: Option<Duration>,
    /// Samples further ahead of the clock than this are refused. Default 10 min.
    pub max_future: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_labels_per_series: 100,
            max_label_name_bytes: 1 << 10,
            max_label_value_bytes: 8 << 10,
            retention: None,
            max_future: Duration::from_secs(600),
        }
    }
}
