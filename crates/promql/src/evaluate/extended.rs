//! Windows with made-up ends: `anchored` takes the sample before the window for its beginning, `smoothed` interpolates
//! at both ends. So increases of adjacent windows add up.

use model::{Samples, TimestampMs};

use super::window::Window;
use crate::ast::RangeMode;

/// The value at `t` on the line through two points. Of a counter that was reset between them, the line begins at 0.
pub(crate) fn interpolate(
    left: (TimestampMs, f64),
    right: (TimestampMs, f64),
    t: TimestampMs,
    is_counter: bool,
) -> f64 {
    let start = if is_counter && right.1 < left.1 { 0.0 } else { left.1 };
    start + (right.1 - start) * t.saturating_sub(left.0) as f64 / right.0.saturating_sub(left.0) as f64
}

/// A window's ends, and the samples strictly within.
struct Ends<'w> {
    left: f64,
    right: f64,
    times: &'w [TimestampMs],
    values: &'w [f64],
}

impl<'w> Ends<'w> {
    /// None if no sample lies after the window's beginning. Needs a float.
    fn of(window: &Window<'w>, is_smoothed: bool, is_counter: bool) -> Option<Ends<'w>> {
        let Window { times, values, start, end, .. } = *window;
        let mut last = times.len() - 1;
        let mut first = times[..last].partition_point(|&t| t <= start).saturating_sub(1);
        if is_smoothed {
            last = times[..last].partition_point(|&t| t < end);
        }
        if times[last] <= start || (is_smoothed && times[first] > end) {
            return None;
        }
        let line = |i: usize, t| interpolate((times[i], values[i]), (times[i + 1], values[i + 1]), t, is_counter);
        let left = if is_smoothed && times[first] < start { line(first, start) } else { values[first] };
        let right = if is_smoothed && last > 0 && times[last] > end { line(last - 1, end) } else { values[last] };
        if times[first] <= start {
            first += 1;
        }
        let upto = if times[last] >= end { last } else { last + 1 };
        let within = first..upto.max(first);
        Some(Ends { left, right, times: &times[within.clone()], values: &values[within] })
    }
}

/// The increase from a window's beginning to its end; of a counter, with what resets took from it.
pub(crate) fn extended_increase(window: &Window<'_>, mode: RangeMode, is_counter: bool) -> Option<f64> {
    let ends = Ends::of(window, mode == RangeMode::Smoothed, is_counter)?;
    let mut increase = ends.right - ends.left;
    if is_counter {
        let mut correction = 0.0;
        let mut previous = ends.left;
        for &v in ends.values.iter().chain([&ends.right]) {
            if v < previous {
                correction += previous;
            }
            previous = v;
        }
        increase += correction;
    }
    Some(increase)
}

/// A window as a range query of it answers: with a sample at its beginning and one at its end.
pub(crate) fn extend_floats(window: &Window<'_>, mode: RangeMode) -> Samples {
    let mut samples = Samples::default();
    if let Some(ends) = Ends::of(window, mode == RangeMode::Smoothed, false) {
        samples.push_float(window.start, ends.left);
        ends.times.iter().zip(ends.values).for_each(|(&t, &v)| samples.push_float(t, v));
        samples.push_float(window.end, ends.right);
    }
    samples
}
