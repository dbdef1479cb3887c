//! What a steady sender's sample costs in a segment and in the head, in time and bytes, and what a series takes there.
//!
//! Measured with mbench's data on two cores under load (November 2026): 36 ns and 1.13 bytes a sample in a segment, 28 ns to
//! take it in, 124 bytes a series of 40 samples in the head, labels and postings included.
//!
//! `cargo bench -p benches --bench segment_and_head`; prints CPU time of this thread, so other load distorts it less.

use std::error::Error;
use std::hint::black_box;

use benches::{TARGET_SERIES, labels, mix, timestamp, value};
use head::Head;
use model::{Labels, MatchOp, Matcher, Revision, TenantId, TimeRange, WriterId};
use rustix::time::{ClockId, clock_gettime};
use segment::{Columns, Header, SeriesState, decode, encode};

const SERIES: u32 = 100_000;
/// Ten minutes.
const STEPS: u32 = 40;
/// Samples of a request: its series follow one another in every step.
const REQUEST: usize = 1000;

/// In which order samples come.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    /// Requests are the same in each step.
    Steady,
    /// As before, but scraped up to 3 ms early or late.
    Jitter,
    /// Every sample anywhere in its step.
    Random,
}

fn main() -> Result<(), Box<dyn Error>> {
    for (order, name) in [(Order::Steady, "steady"), (Order::Jitter, "±3 ms jitter"), (Order::Random, "random order")]
    {
        run(order, name)?;
    }
    Ok(())
}

/// CPU time of this thread, in nanoseconds.
fn cpu_ns() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

/// Runs `work` and adds the CPU time it took.
fn timed<T>(spent: &mut f64, work: impl FnOnce() -> T) -> T {
    let start = cpu_ns();
    let result = black_box(work());
    *spent += cpu_ns() - start;
    result
}

fn run(order: Order, name: &str) -> Result<(), Box<dyn Error>> {
    let tenant = TenantId::anonymous();
    let mut ids: Vec<u32> = (0..SERIES).collect();
    let mut states = vec![SeriesState::default(); SERIES as usize];
    let mut head = Head::new(0);
    let [mut spell, mut append, mut seal, mut pack, mut unpack, mut take_in] = [0.0; 6];
    let (mut bytes, mut n) = (0, 0);
    for step in 0..STEPS {
        if order == Order::Random && step > 0 {
            (1..ids.len())
                .rev()
                .for_each(|i| ids.swap(i, (mix(u64::from(step) << 32 | i as u64) % (i as u64 + 1)) as usize));
        }
        for part in ids.chunks(100 * REQUEST) {
            n += 1;
            let late = |i: u32| match order {
                Order::Jitter => mix(u64::from(step) << 32 | u64::from(i / TARGET_SERIES)) as i64 % 4,
                _ => 0,
            };
            let samples: Vec<_> = part.iter().map(|&i| (i, timestamp(i, step) + late(i), value(i, step))).collect();
            let mut columns = Columns::new();
            if step == 0 {
                let new: Vec<Labels> = part.iter().map(|&i| labels(i)).collect::<Result<_, _>>()?;
                timed(&mut spell, || part.iter().zip(&new).for_each(|(&i, labels)| columns.spell(i, &tenant, labels)));
            }
            timed(&mut append, || {
                samples.iter().for_each(|&(i, t, v)| columns.push_float(i, &mut states[i as usize], t, v));
            });
            timed(&mut seal, || columns.seal());
            let writer = WriterId(Revision { incarnation: 1, position: 1 });
            let sealed_at = writer.0;
            let header = Header { cluster: 1, writer, n, sealed_at, first_after_cut: n == 1 };
            let object = timed(&mut pack, || encode(&header, &columns));
            bytes += object.len();
            timed(&mut take_in, || head.take_in(n, &columns))?;
            timed(&mut unpack, || decode(&object))?;
        }
    }
    let stats = head.stats();
    let samples = stats.samples as f64;
    let [mut cut, mut select, mut read] = [0.0; 3];
    timed(&mut cut, || head.sorted_series().try_for_each(|series| series.map(drop)))?;
    let selection = timed(&mut select, || head.select(&tenant, &[], TimeRange::ALL, n))?;
    timed(&mut read, || selection.decode().try_for_each(|series| series.map(drop)))?;
    let matchers = [
        Matcher::equal("__name__", "node_metric_30_total"),
        Matcher::new("job", MatchOp::Regex, "kubelet|api-server")?,
        Matcher::new("node", MatchOp::NotEqual, "node-00007")?,
    ];
    let mut few = 0.0;
    let found = timed(&mut few, || head.select(&tenant, &matchers, TimeRange::ALL, n))?.series_count();

    let print = |claim: &str, figure: f64, unit: &str| report(name, claim, figure, unit);
    print("segment: spell a series", spell / f64::from(SERIES), "ns");
    print("segment: append", append / samples, "ns/sample");
    print("segment: sort", seal / samples, "ns/sample");
    print("segment: encode", pack / samples, "ns/sample");
    print("segment: decode", unpack / samples, "ns/sample");
    print("segment: size, spelled series included", bytes as f64 / samples, "B/sample");
    print("head: take in", take_in / samples, "ns/sample");
    print("head: memory", stats.bytes as f64 / stats.series as f64, "B/series");
    print("head: read in order, for a cut", cut / samples, "ns/sample");
    print("head: select everything, under the lock", select / f64::from(SERIES), "ns/series");
    print("head: decode a selection", read / samples, "ns/sample");
    print("head: select a few by three matchers", few / found as f64, "ns/series");
    Ok(())
}

#[allow(clippy::print_stdout, reason = "a bench talks to whoever runs it")]
fn report(order: &str, claim: &str, figure: f64, unit: &str) {
    println!("{order:>14}  {claim:<42} {figure:>8.2} {unit}");
}
