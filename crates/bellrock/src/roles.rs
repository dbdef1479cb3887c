//! Maps what an operator has written onto the roles' own settings.

use std::collections::HashMap;
use std::time::Duration;

use model::TenantId;

use crate::settings::{Limits, Settings};

/// The least memory that a machine is taken to have when it does not say.
const MACHINE_BYTES_UNKNOWN: u64 = 1 << 30;

/// Heads of all sizes up to this are cut by age alone.
const HEAD_BYTES_MAX: u64 = 256 << 20;

/// The memory that shares are shares of.
pub fn memory_total_bytes() -> u64 {
    runtime::process::memory_total().map_or(MACHINE_BYTES_UNKNOWN, |total| total.bytes)
}

/// The ingester's settings.
pub fn ingester(settings: &Settings, total_bytes: u64) -> ingester::Settings {
    let memory_bytes_max = settings.memory_max.bytes(total_bytes);
    let defaults = ingester::Settings::default();
    ingester::Settings {
        limits: ingester_limits(&settings.limits),
        cut_age_max: settings.cut_age_max,
        memory_bytes_max: to_usize(memory_bytes_max),
        // Two heads stand side by side while one is cut; a quarter leaves half for tables and buffers.
        head_bytes_max: to_usize((memory_bytes_max / 4).min(HEAD_BYTES_MAX)),
        buffer_bytes_max: defaults.buffer_bytes_max.min(to_usize(memory_bytes_max / 8)),
        forward_bytes_max: defaults.forward_bytes_max.min(to_usize(memory_bytes_max / 16)),
        ..defaults
    }
}

/// Bounds of what nodes send one another.
pub fn cluster(settings: &Settings, total_bytes: u64) -> cluster::Settings {
    let defaults = cluster::Settings::default();
    let parts_bytes_max = defaults.parts_bytes_max.min(to_usize(settings.memory_max.bytes(total_bytes) / 16));
    cluster::Settings { parts_bytes_max, ..defaults }
}

/// The limits that the ingester holds a tenant to.
pub fn ingester_limits(limits: &Limits) -> ingester::Limits {
    ingester::Limits {
        max_labels_per_series: to_usize(limits.max_labels_per_series),
        max_label_name_bytes: to_usize(limits.max_label_name_bytes),
        max_label_value_bytes: to_usize(limits.max_label_value_bytes),
        retention: limits.retention,
        max_future: limits.max_future,
    }
}

/// The same for every tenant that has limits of its own.
pub fn ingester_tenants(settings: &Settings) -> HashMap<TenantId, ingester::Limits> {
    settings.tenants.iter().map(|(tenant, limits)| (tenant.clone(), ingester_limits(limits))).collect()
}

/// The querier's settings.
pub fn querier(settings: &Settings, total_bytes: u64) -> querier::Settings {
    let defaults = querier::Settings::default();
    querier::Settings {
        limits: querier_limits(settings, total_bytes),
        block_cache_bytes: defaults.block_cache_bytes.min(to_usize(total_bytes / 16)),
        ..defaults
    }
}

/// The limits of one query.
pub fn querier_limits(settings: &Settings, total_bytes: u64) -> querier::Limits {
    querier::Limits {
        timeout: settings.query_timeout,
        max_samples: settings.max_samples,
        max_bytes: settings.query_max_bytes.bytes(total_bytes),
        lookback: settings.lookback,
        shard_samples_min: settings.shard_samples_min,
    }
}

/// The face's settings.
pub fn api(settings: &Settings, total_bytes: u64) -> api::Settings {
    let defaults = api::Settings::default();
    let limits = |limits: &Limits| api::TenantLimits { points_per_series_max: limits.max_points_per_series };
    let tenants = settings.tenants.iter().map(|(tenant, own)| (tenant.clone(), limits(own)));
    api::Settings {
        request_bytes_max: to_usize(settings.request_bytes_max),
        request_decoded_bytes_max: to_usize(settings.request_decoded_bytes_max),
        bodies_bytes_max: defaults.bodies_bytes_max.min(to_usize(settings.memory_max.bytes(total_bytes) / 4)),
        limits: limits(&settings.limits),
        tenants: tenants.collect(),
        ..defaults
    }
}

/// How long each stage of a stop may take before what is left is aborted.
pub fn stop_limit(stage: runtime::Stage) -> Duration {
    match stage {
        // The longest request is a query; who stops a node does not wait two minutes for one.
        runtime::Stage::Draining => Duration::from_secs(20),
        // A full head is flushed and cut in seconds; a slow disk gets its time, as the alternative is a slower start.
        runtime::Stage::Flushing => Duration::from_secs(60),
        _ => Duration::from_secs(20),
    }
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Loaded;
    use crate::settings::sources::Surroundings;

    fn settings(flags: &[(&str, &str)]) -> Settings {
        let flags = flags.iter().map(|(key, text)| (key.to_string(), text.to_string())).collect();
        Loaded::read(&Surroundings { flags, variables: Vec::new() }).unwrap().settings
    }

    #[test]
    fn without_settings_the_roles_have_their_own_defaults() {
        let (settings, total) = (settings(&[]), 64 << 30);
        assert_eq!(ingester(&settings, total).limits, ingester::Limits::default());
        let queries = querier(&settings, total);
        assert_eq!(
            (queries.limits.timeout, queries.limits.max_samples, queries.limits.lookback),
            (querier::Limits::default().timeout, 50_000_000, querier::Limits::default().lookback),
        );
        assert_eq!(api(&settings, total), api::Settings::default());
    }

    #[test]
    fn buffers_and_heads_fit_into_a_small_memory() {
        let (settings, total) = (settings(&[("memory.max", "64MiB")]), 256 << 20);
        let taking_in = ingester(&settings, total);
        assert_eq!(taking_in.memory_bytes_max, 64 << 20);
        assert!(2 * taking_in.head_bytes_max + taking_in.buffer_bytes_max <= taking_in.memory_bytes_max);
        // One request of the largest size must still find room.
        let face = api(&settings, total);
        assert!(face.bodies_bytes_max >= 16 << 20 && face.bodies_bytes_max <= 64 << 20);
        assert!(querier(&settings, total).limits.max_bytes <= 64 << 20);
    }
}
