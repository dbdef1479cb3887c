//! Claims: writing a block takes about 60 ns a sample at ten minutes of 15 s scrapes, 22 at two hours (of that the pages
//! 30 and 20), and reading all of it 40 and 20, labels included. Pages take 1.3 and 1.2 bytes a sample of this data (0.91
//! and 0.82 of mbench's own), labels, postings and terms 10 to 13 bytes a series.
//!
//! `cargo bench -p benches --bench block`; prints CPU time of this thread, so other load distorts it less.

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;

use benches::{labels, timestamp, value};
use block::{BlockWriter, Header, Matchers, Open, Request, Select, SelectSeries, Step};
use bytes::Bytes;
use chunk::PageWriter;
use model::{Labels, MatchOp, Matcher, Revision, Samples, TenantId, TimeRange};
use rustix::time::{ClockId, clock_gettime};

fn main() -> Result<(), Box<dyn Error>> {
    run("10 min", 100_000, 40, 1)?;
    run("2 h", 20_000, 480, 3)
}

/// CPU time of this thread, in nanoseconds.
fn cpu_ns() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

/// Runs `work` and returns its result and the CPU time it took.
fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = cpu_ns();
    let result = black_box(work());
    (result, cpu_ns() - start)
}

fn run(name: &str, series: u32, steps: u32, level: i32) -> Result<(), Box<dyn Error>> {
    let tenant = TenantId::anonymous();
    let mut all: Vec<(Labels, Samples)> = Vec::new();
    for i in 0..series {
        let mut samples = Samples::default();
        (0..steps).for_each(|step| samples.push_float(timestamp(i, step), value(i, step)));
        all.push((labels(i)?, samples));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let count = f64::from(series) * f64::from(steps);
    let print = |claim: &str, figure: f64, unit: &str| report(name, claim, figure, unit);

    let mut pages = Vec::new();
    let (packed, ns) = timed(|| pack_pages(&all, level, &mut pages));
    packed?;
    print("pages: pack", ns / count, "ns/sample");
    print("pages: size", pages.len() as f64 / count, "B/sample");

    let mut writer = BlockWriter::new(Header { cluster: 1, built_at: Revision::default() }).with_level(level);
    let (added, add_ns) = timed(|| all.iter().try_for_each(|(labels, samples)| writer.add(&tenant, labels, samples)));
    added?;
    let (finished, finish_ns) = timed(|| writer.finish());
    let (object, stats) = finished?;
    print("block: write", (add_ns + finish_ns) / count, "ns/sample");
    print("block: size", stats.bytes as f64 / count, "B/sample");
    let sections = &stats.footer.sections;
    let per_series = |section: &std::ops::Range<u64>| (section.end - section.start) as f64 / f64::from(series);
    print("block: size of labels", per_series(&sections.series_pages), "B/series");
    print(
        "block: size of postings and terms",
        per_series(&sections.postings) + per_series(&sections.terms),
        "B/series",
    );

    let object = Bytes::from(object.concat());
    let (index, ns) = timed(|| read(&object, Open::new(object.len() as u64)));
    let index = Arc::new(index?);
    print("block: open", ns / 1e3, "µs");
    print("block: memory when open", index.memory_bytes() as f64 / f64::from(series), "B/series");
    let all = || Arc::new(Matchers::new([]));
    let (found, ns) = timed(|| read(&object, Select::new(index.clone(), &tenant, all(), TimeRange::ALL)));
    found?;
    print("block: select everything", ns / count, "ns/sample");
    let (found, ns) = timed(|| read(&object, SelectSeries::new(index.clone(), &tenant, all(), TimeRange::ALL)));
    found?;
    print("block: labels of everything", ns / f64::from(series), "ns/series");
    let few = Matchers::new([
        Matcher::equal("__name__", "node_metric_30_total"),
        Matcher::new("job", MatchOp::Regex, "kubelet|api-.*")?,
        Matcher::new("node", MatchOp::NotEqual, "node-00007")?,
    ]);
    let (found, ns) = timed(|| read(&object, Select::new(index.clone(), &tenant, Arc::new(few), TimeRange::ALL)));
    print("block: select a few by three matchers", ns / found?.len() as f64, "ns/series");
    Ok(())
}

fn pack_pages(all: &[(Labels, Samples)], level: i32, out: &mut Vec<u8>) -> Result<(), chunk::PageError> {
    let mut writer = PageWriter::new(level);
    for page in all.chunks(chunk::PAGE_SERIES_MAX) {
        page.iter().try_for_each(|(_, samples)| writer.add(samples).map(drop))?;
        writer.finish(out)?;
    }
    Ok(())
}

/// Drives a request over an object in memory.
fn read<R: Request>(object: &Bytes, mut request: R) -> Result<R::Output, block::BlockError> {
    loop {
        match request.step()? {
            Step::Done(output) => return Ok(output),
            Step::Fetch(ranges) => {
                request.supply(ranges.iter().map(|r| object.slice(r.start as usize..r.end as usize)).collect())?;
            }
        }
    }
}

#[allow(clippy::print_stdout, reason = "a bench talks to whoever runs it")]
fn report(name: &str, claim: &str, figure: f64, unit: &str) {
    println!("{name:>8}  {claim:<42} {figure:>8.2} {unit}");
}
