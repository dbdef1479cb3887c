//! Pack: a frozen head becomes the bytes of a block, in pieces.

use std::iter::Peekable;
use std::sync::Arc;

use block::{BlockError, BlockWriter, Header};
use bytes::Bytes;
use head::{Head, HeadError, SortedSeries};
use index::{BlockId, BlockMeta};
use model::{Labels, Revision, Samples, TenantId};

/// Packs heads, oldest first, series by series, so that memory holds the heads, the block and one series at a time.
///
/// Errors: a head whose codes do not decode, which is a bug.
pub(crate) fn pack(
    heads: &[Arc<Head>],
    cluster: u128,
    id: BlockId,
    built_at: Revision,
) -> Result<(Vec<Bytes>, BlockMeta), PackError> {
    let mut writer = BlockWriter::new(Header { cluster, built_at });
    let add = |series: Result<(TenantId, Labels, Samples), HeadError>| -> Result<(), PackError> {
        let (tenant, labels, samples) = series?;
        Ok(writer.add(&tenant, &labels, &samples)?)
    };
    match heads {
        [head] => head.sorted_series().try_for_each(add)?,
        heads => Merged::new(heads).try_for_each(add)?,
    }
    for head in heads {
        for tenant in head.tenants() {
            for (metric, metadata) in head.metadata(tenant) {
                writer.put_metadata(tenant, metric, metadata);
            }
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

/// The series of several heads in one order; one that is in more than one comes once, with all its samples.
struct Merged<'a> {
    heads: Vec<Peekable<SortedSeries<'a>>>,
}

impl<'a> Merged<'a> {
    fn new(heads: &'a [Arc<Head>]) -> Merged<'a> {
        Merged { heads: heads.iter().map(|head| head.sorted_series().peekable()).collect() }
    }
}

impl Iterator for Merged<'_> {
    type Item = Result<(TenantId, Labels, Samples), HeadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut least: Option<(TenantId, Labels)> = None;
        for head in &mut self.heads {
            match head.peek() {
                Some(Ok((tenant, labels, _))) if least.as_ref().is_none_or(|(t, l)| (tenant, labels) < (t, l)) => {
                    least = Some((tenant.clone(), labels.clone()));
                }
                Some(Err(_)) => return head.next(),
                Some(Ok(_)) | None => {}
            }
        }
        let (tenant, labels) = least?;
        let mut all = Samples::default();
        for head in &mut self.heads {
            let is_it = |series: &Self::Item| matches!(series, Ok((t, l, _)) if (t, l) == (&tenant, &labels));
            if let Some(Ok((_, _, samples))) = head.next_if(is_it) {
                all.merge(samples);
            }
        }
        Some(Ok((tenant, labels, all)))
    }
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
