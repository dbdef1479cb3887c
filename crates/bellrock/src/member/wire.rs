//! Bodies of the messages between nodes, but for consensus's own. docs/formats/peer.md has the bytes.
//!
//! Nodes prove who they are before anything is read here, and every body is bounded; it is decoded under limits all the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use index::NodeInfo;
use model::{
    DecodeError, Histogram, Labels, MatchOp, Matcher, Metadata, MetricKind, NodeId, Reader, Revision, Samples, Shard,
    TenantId, TimeRange, WriterId, put_varint, put_zigzag,
};
use querier::HeadPlan;

/// A node is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renew {
    /// How to reach it.
    pub info: NodeInfo,
    /// The lowest revision that it still uses.
    pub lowest: Revision,
    /// Its wall clock, in milliseconds.
    pub now_ms: i64,
}

/// What a node says to a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewed {
    /// This node leads, and takes the renewal.
    Yes,
    /// Another node leads.
    LedBy {
        /// Which.
        node: NodeId,
        /// Where it is.
        peer: String,
    },
}

/// What a node says of itself, and of the others while it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSays {
    /// The revision that it has applied.
    pub applied: Revision,
    /// Bytes of samples in its heads.
    pub head_bytes: u64,
    /// What is wrong with it, in words for an operator.
    pub degraded: Vec<String>,
    /// What only the leader knows.
    pub leading: Option<Leading>,
}

/// What the leader knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leading {
    /// The term that it leads in.
    pub term: u64,
    /// The revision up to which the bucket holds the index; the lowest there is before it has stored any.
    pub stored: Revision,
    /// How many nodes may be lost now before writes stop.
    pub node_losses: u64,
    /// For how long each node has been silent, in milliseconds; who was not heard of in this term is left out.
    pub silent_ms: BTreeMap<NodeId, u64>,
    /// What is wrong with the cluster, in words for an operator.
    pub degraded: Vec<String>,
}

/// What is asked of a head.
#[derive(Debug, Clone)]
pub struct HeadQuestion {
    /// Which head, and which of its segments.
    pub plan: HeadPlan,
    /// Whose series.
    pub tenant: TenantId,
    /// Which series.
    pub matchers: Vec<Matcher>,
    /// When.
    pub range: TimeRange,
    /// The label, where its values are asked for; empty otherwise.
    pub label: String,
    /// Of which shard, where samples are asked for; the whole otherwise.
    pub shard: Shard,
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_texts(out: &mut Vec<u8>, texts: &[String]) {
    put_varint(out, texts.len() as u64);
    texts.iter().for_each(|text| put_text(out, text));
}

fn read_texts(reader: &mut Reader<'_>) -> Result<Vec<String>, DecodeError> {
    let mut texts = Vec::new();
    for _ in 0..reader.count(1)? {
        texts.push(reader.str()?.to_owned());
    }
    Ok(texts)
}

fn put_revision(out: &mut Vec<u8>, revision: Revision) {
    put_varint(out, revision.incarnation);
    put_varint(out, revision.position);
}

fn read_revision(reader: &mut Reader<'_>) -> Result<Revision, DecodeError> {
    Ok(Revision { incarnation: reader.varint()?, position: reader.varint()? })
}

fn whole<T>(reader: &Reader<'_>, value: T) -> Result<T, DecodeError> {
    if reader.is_empty() { Ok(value) } else { Err(reader.error("bytes after the end of a message")) }
}

impl Renew {
    /// The body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for text in [&self.info.name, &self.info.peer, &self.info.api] {
            put_text(&mut out, text);
        }
        put_revision(&mut out, self.lowest);
        put_zigzag(&mut out, self.now_ms);
        out
    }

    /// Reads what [`Renew::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Renew, DecodeError> {
        let mut reader = Reader::new(bytes);
        let info =
            NodeInfo { name: reader.str()?.to_owned(), peer: reader.str()?.to_owned(), api: reader.str()?.to_owned() };
        let renew = Renew { info, lowest: read_revision(&mut reader)?, now_ms: reader.zigzag()? };
        whole(&reader, renew)
    }
}

impl Renewed {
    /// The body.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Renewed::Yes => vec![0],
            Renewed::LedBy { node, peer } => {
                let mut out = vec![1];
                out.extend_from_slice(&node.0.to_le_bytes());
                put_text(&mut out, peer);
                out
            }
        }
    }

    /// Reads what [`Renewed::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Renewed, DecodeError> {
        let mut reader = Reader::new(bytes);
        let renewed = match reader.u8()? {
            0 => Renewed::Yes,
            1 => Renewed::LedBy { node: NodeId(reader.u64()?), peer: reader.str()?.to_owned() },
            _ => return Err(reader.error("unknown answer to a renewal")),
        };
        whole(&reader, renewed)
    }
}

impl NodeSays {
    /// The body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_revision(&mut out, self.applied);
        put_varint(&mut out, self.head_bytes);
        put_texts(&mut out, &self.degraded);
        out.push(u8::from(self.leading.is_some()));
        if let Some(leading) = &self.leading {
            put_varint(&mut out, leading.term);
            put_revision(&mut out, leading.stored);
            put_varint(&mut out, leading.node_losses);
            put_varint(&mut out, leading.silent_ms.len() as u64);
            for (node, ms) in &leading.silent_ms {
                out.extend_from_slice(&node.0.to_le_bytes());
                put_varint(&mut out, *ms);
            }
            put_texts(&mut out, &leading.degraded);
        }
        out
    }

    /// Reads what [`NodeSays::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<NodeSays, DecodeError> {
        let mut reader = Reader::new(bytes);
        let (applied, head_bytes) = (read_revision(&mut reader)?, reader.varint()?);
        let degraded = read_texts(&mut reader)?;
        let leading = match reader.u8()? {
            0 => None,
            1 => Some(Leading::read(&mut reader)?),
            _ => return Err(reader.error("a flag is 0 or 1")),
        };
        whole(&reader, NodeSays { applied, head_bytes, degraded, leading })
    }
}

impl Leading {
    fn read(reader: &mut Reader<'_>) -> Result<Leading, DecodeError> {
        let (term, stored, node_losses) = (reader.varint()?, read_revision(reader)?, reader.varint()?);
        let mut silent_ms = BTreeMap::new();
        for _ in 0..reader.count(9)? {
            silent_ms.insert(NodeId(reader.u64()?), reader.varint()?);
        }
        Ok(Leading { term, stored, node_losses, silent_ms, degraded: read_texts(reader)? })
    }
}

impl HeadQuestion {
    /// The body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_revision(&mut out, self.plan.writer.0);
        put_varint(&mut out, self.plan.cut);
        put_varint(&mut out, self.plan.added);
        put_text(&mut out, self.tenant.as_str());
        put_zigzag(&mut out, self.range.start);
        put_zigzag(&mut out, self.range.end);
        put_text(&mut out, &self.label);
        put_varint(&mut out, self.matchers.len() as u64);
        for matcher in &self.matchers {
            out.push(match matcher.op() {
                MatchOp::Equal => 0,
                MatchOp::NotEqual => 1,
                MatchOp::Regex => 2,
                MatchOp::NotRegex => 3,
            });
            put_text(&mut out, matcher.name());
            put_text(&mut out, matcher.value());
        }
        put_varint(&mut out, u64::from(self.shard.number));
        put_varint(&mut out, u64::from(self.shard.count));
        out
    }

    /// Reads what [`HeadQuestion::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<HeadQuestion, DecodeError> {
        let mut reader = Reader::new(bytes);
        let plan =
            HeadPlan { writer: WriterId(read_revision(&mut reader)?), cut: reader.varint()?, added: reader.varint()? };
        let tenant = TenantId::new(reader.str()?).map_err(|_| reader.error("not a tenant"))?;
        let range = TimeRange { start: reader.zigzag()?, end: reader.zigzag()? };
        let label = reader.str()?.to_owned();
        let mut matchers = Vec::new();
        for _ in 0..reader.count(3)? {
            let op = match reader.u8()? {
                0 => MatchOp::Equal,
                1 => MatchOp::NotEqual,
                2 => MatchOp::Regex,
                3 => MatchOp::NotRegex,
                _ => return Err(reader.error("unknown operator of a matcher")),
            };
            let (name, value) = (reader.str()?, reader.str()?);
            matchers.push(Matcher::new(name, op, value).map_err(|_| reader.error("not a matcher"))?);
        }
        let mut number = || u32::try_from(reader.varint()?).map_err(|_| reader.error("a shard has four bytes"));
        let shard = Shard { number: number()?, count: number()? };
        if shard.number >= shard.count {
            return Err(reader.error("a shard that is none"));
        }
        whole(&reader, HeadQuestion { plan, tenant, matchers, range, label, shard })
    }
}

/// Series with their samples.
pub fn encode_series(series: &[(Labels, Samples)]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, series.len() as u64);
    for (labels, samples) in series {
        put_varint(&mut out, labels.as_bytes().len() as u64);
        out.extend_from_slice(labels.as_bytes());
        put_samples(&mut out, samples);
    }
    out
}

/// Reads what [`encode_series`] wrote.
pub fn decode_series(bytes: &[u8]) -> Result<Vec<(Labels, Samples)>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut series = Vec::new();
    for _ in 0..reader.count(3)? {
        let labels = Labels::decode(reader.bytes()?)?;
        series.push((labels, read_samples(&mut reader)?));
    }
    whole(&reader, series)
}

fn put_samples(out: &mut Vec<u8>, samples: &Samples) {
    put_varint(out, samples.len() as u64);
    let mut last = 0_i64;
    for &t in &samples.timestamps {
        put_zigzag(out, t.wrapping_sub(last));
        last = t;
    }
    for v in &samples.floats {
        out.extend_from_slice(&v.to_bits().to_le_bytes());
    }
    out.push(u8::from(!samples.histograms.is_empty()));
    for histogram in &samples.histograms {
        let encoded = histogram.as_ref().map(|histogram| histogram.encode()).unwrap_or_default();
        put_varint(out, encoded.len() as u64);
        out.extend_from_slice(&encoded);
    }
}

fn read_samples(reader: &mut Reader<'_>) -> Result<Samples, DecodeError> {
    // A time and a float of each at least.
    let count = reader.count(9)?;
    let mut samples = Samples::default();
    let mut last = 0_i64;
    for _ in 0..count {
        last = last.wrapping_add(reader.zigzag()?);
        samples.timestamps.push(last);
    }
    for _ in 0..count {
        samples.floats.push(f64::from_bits(reader.u64()?));
    }
    match reader.u8()? {
        0 => {}
        1 => {
            for _ in 0..count {
                let encoded = reader.bytes()?;
                let histogram = if encoded.is_empty() { None } else { Some(Arc::new(Histogram::decode(encoded)?)) };
                samples.histograms.push(histogram);
            }
        }
        _ => return Err(reader.error("a flag is 0 or 1")),
    }
    if !samples.is_sorted() {
        return Err(reader.error("samples are not in order"));
    }
    Ok(samples)
}

/// Label sets.
pub fn encode_label_sets(sets: &[Labels]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, sets.len() as u64);
    for labels in sets {
        put_varint(&mut out, labels.as_bytes().len() as u64);
        out.extend_from_slice(labels.as_bytes());
    }
    out
}

/// Reads what [`encode_label_sets`] wrote.
pub fn decode_label_sets(bytes: &[u8]) -> Result<Vec<Labels>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut sets = Vec::new();
    for _ in 0..reader.count(1)? {
        sets.push(Labels::decode(reader.bytes()?)?);
    }
    whole(&reader, sets)
}

/// Names or values.
pub fn encode_texts(texts: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    put_texts(&mut out, texts);
    out
}

/// Reads what [`encode_texts`] wrote.
pub fn decode_texts(bytes: &[u8]) -> Result<Vec<String>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let texts = read_texts(&mut reader)?;
    whole(&reader, texts)
}

/// Metadata by metric.
pub fn encode_metadata(metrics: &[(String, Metadata)]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, metrics.len() as u64);
    for (metric, metadata) in metrics {
        put_text(&mut out, metric);
        out.push(metadata.kind.number());
        put_text(&mut out, &metadata.unit);
        put_text(&mut out, &metadata.help);
    }
    out
}

/// Reads what [`encode_metadata`] wrote.
pub fn decode_metadata(bytes: &[u8]) -> Result<Vec<(String, Metadata)>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut metrics = Vec::new();
    for _ in 0..reader.count(4)? {
        let metric = reader.str()?.to_owned();
        let number = u64::from(reader.u8()?);
        let kind = MetricKind::from_number(number).ok_or_else(|| reader.error("unknown kind of metric"))?;
        let metadata = Metadata { kind, unit: reader.str()?.to_owned(), help: reader.str()?.to_owned() };
        metrics.push((metric, metadata));
    }
    whole(&reader, metrics)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn renewals_are_read_back() {
        let info = NodeInfo { name: "a".into(), peer: "[::1]:7".into(), api: "http://a".into() };
        let renew = Renew { info, lowest: Revision { incarnation: 1, position: 900 }, now_ms: -5 };
        assert_eq!(Renew::decode(&renew.encode()), Ok(renew));
        for renewed in [Renewed::Yes, Renewed::LedBy { node: NodeId(u64::MAX), peer: "b:1".into() }] {
            assert_eq!(Renewed::decode(&renewed.encode()), Ok(renewed));
        }
    }

    #[test]
    fn what_nodes_say_is_read_back() {
        let at = |position| Revision { incarnation: 1, position };
        let leading = Leading {
            term: 3,
            stored: at(800),
            node_losses: 1,
            silent_ms: [(NodeId(1), 0), (NodeId(u64::MAX), 70_000)].into(),
            degraded: vec!["n2 is silent (node-silent)".into()],
        };
        for leading in [None, Some(leading)] {
            let says = NodeSays { applied: at(900), head_bytes: 1 << 30, degraded: vec!["ä".into()], leading };
            assert_eq!(NodeSays::decode(&says.encode()), Ok(says));
        }
    }

    #[test]
    fn questions_are_read_back() {
        let question = HeadQuestion {
            plan: HeadPlan { writer: WriterId(Revision { incarnation: 1, position: 2 }), cut: 3, added: 4 },
            tenant: TenantId::anonymous(),
            matchers: vec![
                Matcher::new("a", MatchOp::Regex, "b|c").unwrap(),
                Matcher::new("d", MatchOp::NotEqual, "").unwrap(),
            ],
            range: TimeRange { start: -1, end: i64::MAX },
            label: "x".into(),
            shard: Shard { number: 2, count: 3 },
        };
        let read = HeadQuestion::decode(&question.encode()).unwrap();
        assert_eq!(
            (read.plan, &read.tenant, read.range, &read.label, read.shard),
            (question.plan, &question.tenant, question.range, &question.label, question.shard)
        );
        let texts = |matchers: &[Matcher]| matchers.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&read.matchers), texts(&question.matchers));
    }

    #[test]
    fn answers_are_read_back_bit_by_bit() {
        let labels = Labels::from_pairs([("__name__", "m"), ("a", "b")]).unwrap();
        let mut samples = Samples::default();
        for (t, v) in [(i64::MIN / 2, 1.5), (0, f64::NAN), (7, f64::from_bits(model::STALE_NAN_BITS)), (8, -0.0)] {
            samples.push_float(t, v);
        }
        let series = vec![(labels.clone(), samples), (Labels::empty(), Samples::default())];
        let read = decode_series(&encode_series(&series)).unwrap();
        let bits = |series: &[(Labels, Samples)]| -> Vec<(Labels, Vec<i64>, Vec<u64>)> {
            let of = |(l, s): &(Labels, Samples)| {
                (l.clone(), s.timestamps.clone(), s.floats.iter().map(|v| v.to_bits()).collect())
            };
            series.iter().map(of).collect()
        };
        assert_eq!(bits(&read), bits(&series));
        assert_eq!(decode_label_sets(&encode_label_sets(std::slice::from_ref(&labels))), Ok(vec![labels]));
        let texts = vec!["ä".to_owned(), String::new()];
        assert_eq!(decode_texts(&encode_texts(&texts)), Ok(texts));
        let metadata = Metadata { kind: MetricKind::Counter, unit: "s".into(), help: "h".into() };
        let metrics = vec![("m".to_owned(), metadata)];
        assert_eq!(decode_metadata(&encode_metadata(&metrics)), Ok(metrics));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_error_at_worst(bytes: Vec<u8>) {
            let _ = Renew::decode(&bytes).is_ok();
            let _ = Renewed::decode(&bytes).is_ok();
            let _ = HeadQuestion::decode(&bytes).is_ok();
            let _ = NodeSays::decode(&bytes).is_ok();
            let _ = decode_series(&bytes).is_ok();
            let _ = decode_label_sets(&bytes).is_ok();
            let _ = decode_texts(&bytes).is_ok();
            let _ = decode_metadata(&bytes).is_ok();
        }
    }
}
