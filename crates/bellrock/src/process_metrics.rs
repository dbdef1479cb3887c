//! Metrics about the process and its disk, read when they are scraped.

use std::path::Path;

use runtime::{Clock, Registry};

/// Registers `bellrock_build_info` and the `process_…` metrics that dashboards of every exporter know.
pub fn register_process(registry: &Registry, version: &str, clock: &dyn Clock) {
    registry.gauges("bellrock_build_info", "Always 1; the version is its label", ["version"]).with([version]).set(1);
    let started = clock.now_ms() as f64 / 1e3;
    registry.gauge_f64("process_start_time_seconds", "When the process started, since 1970").set(started);
    registry.gauge_fn("process_resident_memory_bytes", "Memory that the process holds", || {
        runtime::process::resident_bytes().map(|bytes| bytes as f64)
    });
    registry.counter_fn("process_cpu_seconds_total", "Processor time that the process has used", || {
        Some(runtime::process::cpu_time().as_secs_f64())
    });
    registry.gauge_fn("process_open_fds", "Files and sockets that are open", || {
        runtime::process::open_files().map(|count| count as f64)
    });
    registry.gauge_fn("process_max_fds", "Files and sockets that may be open; connections wait beyond it", || {
        runtime::process::open_files_max().map(|count| count as f64)
    });
}

/// Registers how much room there is for data.
pub fn register_data(registry: &Registry, data: &Path) {
    let data = data.to_path_buf();
    let help = "Room left on the disk of the data folder; writes get 503 at 0";
    registry
        .gauge_fn("bellrock_data_free_bytes", help, move || runtime::free_bytes(&data).ok().map(|bytes| bytes as f64));
}
