//! What nodes say to one another: the map of the traffic between them. What the bodies hold is the host's.

/// A kind of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Message {
    /// Messages of consensus: a body that goes on, of posts; the answer, when it ends, is empty.
    Consensus,
    /// A node is alive, and says which revision it still uses.
    Renew,
    /// What a node knows of the cluster and of itself.
    Status,
    /// A part of a request that another node has received, for the writer of the node.
    Append,
    /// Asks whether the node takes such parts now.
    TakesParts,
    /// Reads the samples of matching series in a head.
    SelectHead,
    /// Reads the label sets of matching series in a head.
    HeadSeries,
    /// Reads label names in a head.
    HeadLabelNames,
    /// Reads a label's values in a head.
    HeadLabelValues,
    /// Reads metadata in a head.
    HeadMetadata,
    /// Evaluates a shard of the series of a query's aggregation.
    Share,
}

/// What shares a connection: nothing large may be before a heartbeat in a socket's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Small and urgent.
    Control,
    /// What queries read.
    Bulk,
    /// Samples. When a store stalls, parts of requests wait here for seconds, as many as a connection has calls for.
    Parts,
}

impl Message {
    /// Every kind.
    pub const ALL: [Message; 11] = [
        Message::Consensus,
        Message::Renew,
        Message::Status,
        Message::Append,
        Message::TakesParts,
        Message::SelectHead,
        Message::HeadSeries,
        Message::HeadLabelNames,
        Message::HeadLabelValues,
        Message::HeadMetadata,
        Message::Share,
    ];

    /// Its name in paths, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Message::Consensus => "consensus",
            Message::Renew => "renew",
            Message::Status => "status",
            Message::Append => "append",
            Message::TakesParts => "takes_parts",
            Message::SelectHead => "select_head",
            Message::HeadSeries => "head_series",
            Message::HeadLabelNames => "head_label_names",
            Message::HeadLabelValues => "head_label_values",
            Message::HeadMetadata => "head_metadata",
            Message::Share => "share",
        }
    }

    pub(crate) fn of_name(name: &str) -> Option<Message> {
        Message::ALL.into_iter().find(|message| message.name() == name)
    }

    /// The longest body; of [`Message::Consensus`] the longest post.
    pub fn request_bytes_max(self) -> usize {
        match self {
            // A snapshot of the index is one message.
            Message::Consensus => 160 << 20,
            Message::Renew | Message::Status | Message::TakesParts => 64 << 10,
            // A part with labels is a MiB, or one series, and the request that it is of is at most 32 MiB by default, decoded.
            Message::Append => 64 << 20,
            // The names of a plan's blocks.
            Message::Share => 32 << 20,
            // Matchers.
            _ => 4 << 20,
        }
    }

    /// The longest answer.
    pub fn answer_bytes_max(self) -> usize {
        match self {
            Message::SelectHead => 256 << 20,
            Message::HeadSeries
            | Message::HeadLabelNames
            | Message::HeadLabelValues
            | Message::HeadMetadata
            | Message::Share => 64 << 20,
            _ => 4 << 20,
        }
    }

    pub(crate) fn lane(self) -> Lane {
        match self {
            Message::Consensus | Message::Renew | Message::Status | Message::TakesParts => Lane::Control,
            Message::Append => Lane::Parts,
            _ => Lane::Bulk,
        }
    }
}
