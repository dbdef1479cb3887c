//! A head's series in the order of a block, for the cut.

use model::{Labels, Samples, TenantId, TimeRange};
use segment::SeriesId;

use crate::error::HeadError;
use crate::head::Head;
use crate::labels::pair_numbers;
use crate::select::decode_samples;

/// A series and the ranks of its first label pairs, as many as four words hold.
type Keyed = ([u32; 4], SeriesId);

impl Head {
    /// Every series with its samples, ordered by (tenant, labels) without repeats, decoded one at a time.
    ///
    /// Takes 20 bytes a series of the present tenant besides, and one series' samples.
    pub fn sorted_series(&self) -> SortedSeries<'_> {
        let mut tenants: Vec<u32> = (0..self.tenants.len() as u32).collect();
        tenants.sort_unstable_by(|&a, &b| self.tenants[b as usize].tenant.cmp(&self.tenants[a as usize].tenant));
        let series = Vec::new().into_iter().peekable();
        SortedSeries { head: self, tenants, tenant: 0, series, codes: Vec::new(), scratch: Samples::default() }
    }

    /// The ids of a tenant's series by ascending labels.
    fn sort_tenant(&self, tenant: u32) -> Vec<Keyed> {
        let labels = &self.tenants[tenant as usize];
        let ranks = labels.pair_ranks(&self.arena);
        let bits = usize::BITS - ranks.len().leading_zeros();
        let ranks_of = |id: SeriesId| pair_numbers(self.pair_list(id)).map(|pair| ranks[pair as usize]);
        let mut keyed: Vec<Keyed> =
            labels.all_series(&self.slab).into_iter().map(|id| (pack(ranks_of(id), bits), id)).collect();
        // Label sets compare pair by pair, and a shorter one comes before those that it begins: ranks start at 1.
        keyed.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| ranks_of(a.1).cmp(ranks_of(b.1))));
        keyed
    }
}

/// As many ranks as fit 128 bits, the first one highest; what a shorter list lacks is 0.
fn pack(mut ranks: impl Iterator<Item = u32>, bits: u32) -> [u32; 4] {
    let mut key = 0u128;
    for _ in 0..128 / bits.max(1) {
        key = key << bits | u128::from(ranks.next().unwrap_or(0));
    }
    [(key >> 96) as u32, (key >> 64) as u32, (key >> 32) as u32, key as u32]
}

/// See [`Head::sorted_series`].
#[derive(Debug)]
pub struct SortedSeries<'a> {
    head: &'a Head,
    /// Tenants still to come, the next one last.
    tenants: Vec<u32>,
    tenant: u32,
    series: std::iter::Peekable<std::vec::IntoIter<Keyed>>,
    codes: Vec<u8>,
    scratch: Samples,
}

impl Iterator for SortedSeries<'_> {
    type Item = Result<(TenantId, Labels, Samples), HeadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((key, id)) = self.series.next() else {
                self.tenant = self.tenants.pop()?;
                self.series = self.head.sort_tenant(self.tenant).into_iter().peekable();
                continue;
            };
            let mut samples = match self.samples(id) {
                Ok(samples) => samples.unwrap_or_default(),
                Err(e) => return Some(Err(e)),
            };
            // A writer gives a label set one id between two cuts. Should it ever give two, a block still has one series.
            let head = self.head;
            let is_twin = |other: &Keyed| other.0 == key && head.pair_list(other.1) == head.pair_list(id);
            while let Some((_, twin)) = self.series.next_if(is_twin) {
                match self.samples(twin) {
                    Ok(more) => samples.merge(more.unwrap_or_default()),
                    Err(e) => return Some(Err(e)),
                }
            }
            if !samples.is_empty() {
                let of = &head.tenants[self.tenant as usize];
                let labels = of.labels(head.pair_list(id), &head.arena, &mut self.codes);
                return Some(Ok((of.tenant.clone(), labels, samples)));
            }
        }
    }
}

impl SortedSeries<'_> {
    fn samples(&mut self, id: SeriesId) -> Result<Option<Samples>, HeadError> {
        let Some(series) = self.head.series.get(id) else {
            return Ok(None);
        };
        self.codes.clear();
        self.head.copy_codes(series, &mut self.codes);
        decode_samples(&self.codes, 0, TimeRange::ALL, &mut self.scratch)
            .map_err(|source| HeadError::Codes { id, source })
    }
}
