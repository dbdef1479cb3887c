//! What is known of a tenant's metrics: one frame a tenant. Format: docs/formats/block.md.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use model::{DecodeError, Metadata, MetricKind, Reader, TenantId, put_varint};

use crate::error::{BlockError, Section};
use crate::fetch::Fetch;
use crate::index::BlockIndex;
use crate::request::{Request, Step};
use crate::writer::METADATA_BYTES_MAX;

/// Reads a tenant's metadata: metric name and what is known of it, ascending.
pub struct FetchMetadata {
    index: Arc<BlockIndex>,
    tenant: TenantId,
    fetch: Option<Fetch>,
    metadata: Option<Vec<(String, Metadata)>>,
}

impl FetchMetadata {
    /// See the type.
    pub fn new(index: Arc<BlockIndex>, tenant: &TenantId) -> FetchMetadata {
        FetchMetadata { index, tenant: tenant.clone(), fetch: None, metadata: None }
    }
}

impl Request for FetchMetadata {
    type Output = Vec<(String, Metadata)>;

    fn step(&mut self) -> Result<Step<Self::Output>, BlockError> {
        if let Some(metadata) = self.metadata.take() {
            return Ok(Step::Done(metadata));
        }
        match self.index.directory.tenant(&self.tenant) {
            Some(entry) if !entry.metadata.is_empty() => {
                let fetch = Fetch::one(entry.metadata.clone());
                let ranges = fetch.ranges();
                self.fetch = Some(fetch);
                Ok(Step::Fetch(ranges))
            }
            _ => Ok(Step::Done(Vec::new())),
        }
    }

    fn supply(&mut self, parts: Vec<Bytes>) -> Result<(), BlockError> {
        let fetch = self.fetch.take().ok_or(BlockError::OutOfTurn("nothing was asked for"))?;
        let offset = fetch.ranges().first().map_or(0, |range| range.start);
        let corrupt = |what: &dyn std::fmt::Display| BlockError::corrupt(Section::Metadata, offset, what);
        for frame in fetch.cut(&parts)? {
            let body = chunk::open_frame(&frame, METADATA_BYTES_MAX).map_err(|e| corrupt(&e))?;
            self.metadata = Some(decode(&body).map_err(|e| corrupt(&e))?);
        }
        Ok(())
    }
}

pub(crate) fn encode(metrics: &BTreeMap<String, Metadata>) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, metrics.len() as u64);
    for (metric, metadata) in metrics {
        put_str(&mut out, metric);
        put_varint(&mut out, metadata.kind as u64);
        put_str(&mut out, &metadata.unit);
        put_str(&mut out, &metadata.help);
    }
    out
}

fn put_str(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn decode(body: &[u8]) -> Result<Vec<(String, Metadata)>, DecodeError> {
    let mut reader = Reader::new(body);
    let mut metrics = Vec::new();
    for _ in 0..reader.count(4)? {
        let metric = reader.str()?.to_owned();
        let kind = MetricKind::from_number(reader.varint()?).ok_or_else(|| reader.error("unknown kind of metric"))?;
        let metadata = Metadata { kind, unit: reader.str()?.to_owned(), help: reader.str()?.to_owned() };
        metrics.push((metric, metadata));
    }
    if !reader.is_empty() {
        return Err(reader.error("bytes after the last metric"));
    }
    Ok(metrics)
}
