//! Pack: a frozen head becomes the bytes of a block, in pieces.

use block::{BlockError, BlockWriter, Header};
use bytes::Bytes;
use head::Head;
use index::{BlockId, BlockMeta};
use model::Revision;

/// Packs a head, series by series, so that memory holds the head, the block and one series at a time.
///
/// Errors: a head whose codes do not decode, which is a bug.
pub(crate) fn pack(
    head: &Head,
    cluster: u128,
    id: BlockId,
    built_at: Revision,
) -> Result<(Vec<Bytes>, BlockMeta), PackError> {
    let mut writer = BlockWriter::new(Header { cluster, built_at });
    for series in head.sorted_series() {
        let (tenant, labels, samples) = series?;
        writer.add(&tenant, &labels, &samples)?;
    }
    for tenant in head.tenants() {
        for (metric, metadata) in head.metadata(tenant) {
            writer.put_metadata(tenant, metric, metadata);
        }
    }
    let (object, stats) = writer.finish()?;
    let block = BlockMeta {
        id,
        bytes: stats.bytes,
        range: stats.time_range,
        series: stats.series,
        samples: stats.samples,
        built_at,
    };
    Ok((object, block))
}

/// Why a head can't be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Its codes do not decode.
    #[error("read the head")]
    Head(#[from] head::HeadError),
    /// The block refuses what it was given.
    #[error("write the block")]
    Block(#[from] BlockError),
}
