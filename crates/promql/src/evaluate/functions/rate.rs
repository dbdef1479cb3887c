//! Rates and differences: how much a series changed over its window.

use model::TimestampMs;

use super::super::window::Window;

/// Which of the three `rate`, `increase` and `delta` is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChangeKind {
    /// Values only fall when the counter was reset, and then what it had is added.
    pub is_counter: bool,
    /// Per second.
    pub per_second: bool,
}

/// The places in a series where a counter was reset, and those of them that lie in the present window.
pub(super) struct Resets {
    /// Index and value before, ascending.
    all: Vec<(usize, f64)>,
    /// The first that may lie in a window from now on.
    next: usize,
}

impl Resets {
    pub fn of(values: &[f64]) -> Resets {
        let falls = values.windows(2).enumerate().filter(|(_, pair)| pair[1] < pair[0]);
        Resets { all: falls.map(|(i, pair)| (i + 1, pair[0])).collect(), next: 0 }
    }

    /// The values that counters had before each reset between two samples of the window.
    fn within(&mut self, window: &Window<'_>) -> impl Iterator<Item = f64> + '_ {
        let (first, end) = (window.first, window.first + window.values.len());
        while self.next < self.all.len() && self.all[self.next].0 <= first {
            self.next += 1;
        }
        self.all[self.next..].iter().take_while(move |(i, _)| *i < end).map(|(_, before)| *before)
    }
}

/// The change over a window, extrapolated to its ends; None with fewer than two samples.
///
/// If a sample lies as close to an end as samples usually follow each other (or a tenth more), the series is taken to
/// go on up to that end, else half such a distance beyond the sample; a counter not beyond where it would be 0.
pub(super) fn extrapolated(window: &Window<'_>, kind: ChangeKind, resets: &mut Resets, range: i64) -> Option<f64> {
    let Window { times, values, start, end, .. } = *window;
    let (&first, &last) = (values.first()?, values.last()?);
    let intervals = values.len() - 1;
    if intervals == 0 {
        return None;
    }
    let mut change = last - first;
    if kind.is_counter {
        for before in resets.within(window) {
            change += before;
        }
    }
    let seconds = |from: TimestampMs, to: TimestampMs| to.saturating_sub(from) as f64 / 1000.0;
    let (first_t, last_t) = (times[0], times[intervals]);
    let mut to_start = seconds(start, first_t);
    let mut to_end = seconds(last_t, end);
    let sampled = seconds(first_t, last_t);
    let usual = sampled / intervals as f64;
    let threshold = usual * 1.1;
    if to_start >= threshold {
        to_start = usual / 2.0;
    }
    if kind.is_counter && change > 0.0 && first >= 0.0 {
        let to_zero = sampled * (first / change);
        if to_zero < to_start {
            to_start = to_zero;
        }
    }
    if to_end >= threshold {
        to_end = usual / 2.0;
    }
    let mut factor = 1.0;
    if sampled != 0.0 {
        factor = (sampled + to_start + to_end) / sampled;
    }
    if kind.per_second {
        factor /= range_seconds(range);
    }
    Some(change * factor)
}

/// Milliseconds as seconds, rounded as Go's `Duration.Seconds` is.
pub(super) fn range_seconds(ms: i64) -> f64 {
    (ms / 1000) as f64 + ((ms % 1000) * 1_000_000) as f64 / 1e9
}

/// The change between the last two of a window's samples; of a counter per second, and from 0 if it was reset.
pub(super) fn between_last_two(before: (TimestampMs, f64), last: (TimestampMs, f64), is_rate: bool) -> Option<f64> {
    let interval = last.0.saturating_sub(before.0);
    if interval == 0 {
        return None;
    }
    if !is_rate {
        return Some(last.1 - before.1);
    }
    let change = if last.1 < before.1 { last.1 } else { last.1 - before.1 };
    Some(change / (interval as f64 / 1000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[f64], kind: ChangeKind, expected: Option<f64>) {
        let times: Vec<_> = (1..=values.len() as i64).map(|i| i * 10_000).collect();
        let window = Window {
            times: &times,
            values,
            histogram_times: &[],
            histograms: &[],
            start: 0,
            end: values.len() as i64 * 10_000,
            t: 0,
            step: 0,
            first: 0,
        };
        let found = extrapolated(&window, kind, &mut Resets::of(values), window.end);
        assert_eq!(found, expected);
    }

    #[test]
    fn change_is_extrapolated_to_the_window() {
        let delta = ChangeKind { is_counter: false, per_second: false };
        let increase = ChangeKind { is_counter: true, per_second: false };
        let rate = ChangeKind { is_counter: true, per_second: true };
        check(&[10.0, 20.0, 30.0], delta, Some(30.0));
        check(&[10.0, 20.0, 30.0], increase, Some(30.0));
        check(&[10.0, 20.0, 30.0], rate, Some(1.0));
        check(&[0.0, 20.0, 40.0], increase, Some(40.0));
        check(&[10.0, 20.0, 10.0], increase, Some(30.0));
        check(&[10.0], rate, None);
    }
}
