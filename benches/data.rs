//! Series like those of mbench's workload A (a node exporter, containers, an HTTP service), without its 30 ns a value.
//!
//! A target has a thousand series that share a scrape's timestamp: two fifths never change, the rest are counters of
//! whole units, CPU seconds, page-multiple gauges, decimal gauges and histogram buckets. Everything follows from the
//! series' number and the step.

use model::{LabelError, Labels};

/// Series of one target.
pub const TARGET_SERIES: u32 = 1000;

/// Milliseconds from scrape to scrape.
pub const INTERVAL_MS: i64 = 15_000;

/// SplitMix64: a well-mixed 64-bit hash of one word.
pub fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// When series `i` is scraped: each target has its own offset.
pub fn timestamp(i: u32, step: u32) -> i64 {
    let offset = mix(u64::from(i / TARGET_SERIES)) % INTERVAL_MS as u64;
    1_795_000_000_000 + i64::from(step) * INTERVAL_MS + offset as i64
}

/// The value of series `i`.
pub fn value(i: u32, step: u32) -> f64 {
    let seed = mix(u64::from(i) << 8);
    let noise = mix(seed ^ u64::from(step)) >> 40; // 24 bits
    let part = noise as f64 / f64::from(1 << 24);
    let spread = [0.1, 0.3, 1.0, 3.0, 10.0][seed as usize % 5];
    let ticks = f64::from(step + 100_000) + part;
    match i % TARGET_SERIES {
        0..420 => (seed % 1000) as f64,
        420..560 => (3.0 * spread * ticks * 100.0).floor() / 100.0, // CPU seconds
        560..660 => (1e9 + 4e6 * spread * part + f64::from(step) * 4096.0).floor() / 4096.0 * 4096.0,
        660..700 => ((2e5 + 900.0 * spread * part).floor() + f64::from(step)) * 4096.0,
        700..740 => (0.1 + 8.0 * part * 100.0).round() / 100.0, // load, temperatures
        740..800 => (1.5e6 * spread * ticks).floor(),           // bytes
        800..980 => (60.0 * spread * ticks).floor(),            // requests, packets, buckets
        980..990 => (0.9 * spread * ticks * 1e6).floor() / 1e6, // histogram sums
        _ => 0.01 + 0.2 * part,                                 // raw floats
    }
}

/// The labels of series `i`: six to nine.
pub fn labels(i: u32) -> Result<Labels, LabelError> {
    let (target, n) = (i / TARGET_SERIES, i % TARGET_SERIES);
    let node = format!("node-{target:05}");
    let instance = format!("10.16.{}.{}:{}", target / 256, target % 256, [9100, 10250, 8443][n as usize % 3]);
    let name = format!("node_metric_{}_total", n / 16);
    let cluster = format!("prod-{}-{}", ["eu", "us", "ap"][target as usize % 3], target / 3 % 4);
    let (cpu, pod) = ((n % 16).to_string(), format!("web-{:08x}", mix(u64::from(target * 20 + n % 20)) as u32));
    let job = ["node-exporter", "kubelet", "api-server"][n as usize % 3];
    let mut pairs = vec![
        ("__name__", name.as_str()),
        ("cluster", &cluster),
        ("cpu", &cpu),
        ("instance", &instance),
        ("job", job),
        ("node", &node),
    ];
    if n % 3 == 1 {
        pairs.extend([("namespace", "team-web"), ("pod", &pod), ("container", "app")]);
    }
    Labels::from_pairs(pairs)
}
