//! The float histograms of the scripts: `{{schema:0 sum:5 count:4 buckets:[1 2 1]}}`.
//!
//! Buckets lie in maps from index to count, so that two layouts of the same buckets are equal by construction.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Counts, Histogram, Span};

use super::series::parse_number;

/// A float histogram with its buckets by index; empty buckets may be there.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FloatHistogram {
    /// Resolution, or −53 for custom bounds.
    pub schema: i32,
    /// Observations in all.
    pub count: f64,
    /// Their sum.
    pub sum: f64,
    /// Observations in the zero bucket.
    pub zero: f64,
    /// Half the width of the zero bucket.
    pub zero_threshold: f64,
    /// Positive buckets.
    pub positive: BTreeMap<i32, f64>,
    /// Negative buckets.
    pub negative: BTreeMap<i32, f64>,
    /// Bounds of custom buckets.
    pub custom_bounds: Vec<f64>,
    /// Whether counters were reset before it.
    pub counter_reset_hint: CounterResetHint,
}

/// A histogram as a script spells it.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramLiteral {
    /// The histogram.
    pub histogram: FloatHistogram,
    /// Whether `counter_reset_hint` was spelled out, and so is compared.
    pub hint_is_given: bool,
}

impl FloatHistogram {
    /// Reads what stands between `{{` and `}}`.
    pub(super) fn parse(text: &str) -> Result<HistogramLiteral, String> {
        let mut histogram = FloatHistogram::default();
        let mut hint_is_given = false;
        let mut lists: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        let mut offsets = BTreeMap::new();
        let mut seen = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (key, value, after) = split_pair(rest)?;
            rest = after.trim_start();
            if seen.contains(&key) {
                return Err(format!("{key} is repeated in a histogram"));
            }
            seen.push(key);
            let number = || parse_number(value).ok_or_else(|| format!("bad number {value:?} in a histogram"));
            let integer = || value.parse::<i32>().map_err(|_| format!("bad integer {value:?} in a histogram"));
            match key {
                "schema" => histogram.schema = integer()?,
                "sum" => histogram.sum = number()?,
                "count" => histogram.count = number()?,
                "z_bucket" => histogram.zero = number()?,
                "z_bucket_w" => histogram.zero_threshold = number()?,
                "offset" | "n_offset" => drop(offsets.insert(key, integer()?)),
                "buckets" | "n_buckets" | "custom_values" => drop(lists.insert(key, floats(value)?)),
                "counter_reset_hint" => {
                    hint_is_given = true;
                    histogram.counter_reset_hint = hint(value)?;
                }
                _ => return Err(format!("unknown key {key:?} in a histogram")),
            }
        }
        let mut buckets = |list: &str, offset: &str| -> BTreeMap<i32, f64> {
            let first = offsets.get(offset).copied().unwrap_or(0);
            (first..).zip(lists.remove(list).unwrap_or_default()).collect()
        };
        histogram.positive = buckets("buckets", "offset");
        histogram.negative = buckets("n_buckets", "n_offset");
        histogram.custom_bounds = lists.remove("custom_values").unwrap_or_default();
        Ok(HistogramLiteral { histogram, hint_is_given })
    }

    /// Adds `other`, times `sign`, whose schema is at least as fine; the result has the coarser one.
    pub(super) fn add(&mut self, other: &FloatHistogram, sign: f64) -> Result<(), String> {
        let custom = |h: &FloatHistogram| h.schema == CUSTOM_BUCKETS_SCHEMA;
        if custom(self) != custom(other) || (custom(self) && self.custom_bounds != other.custom_bounds) {
            return Err("histograms of different bounds are added".into());
        }
        if self.zero_threshold != other.zero_threshold && other.zero != 0.0 {
            return Err("histograms of different zero buckets are added".into());
        }
        let coarser = other.schema - self.schema;
        self.count += sign * other.count;
        self.sum += sign * other.sum;
        self.zero += sign * other.zero;
        for (mine, theirs) in [(&mut self.positive, &other.positive), (&mut self.negative, &other.negative)] {
            for (&index, &count) in theirs {
                let index = if coarser > 0 { ((index - 1) >> coarser) + 1 } else { index };
                *mine.entry(index).or_default() += sign * count;
            }
        }
        Ok(())
    }

    /// As the store keeps it: empty buckets left out, runs as spans.
    pub fn to_model(&self) -> Histogram {
        let (positive_spans, positive) = spans(&self.positive);
        let (negative_spans, negative) = spans(&self.negative);
        Histogram {
            counter_reset_hint: self.counter_reset_hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            sum: self.sum,
            positive_spans,
            negative_spans,
            custom_bounds: self.custom_bounds.clone(),
            counts: Counts::Float { count: self.count, zero: self.zero, positive, negative },
        }
    }

    /// From the store's form, integer or float.
    pub fn from_model(h: &Histogram) -> FloatHistogram {
        let absolute = |deltas: &[i64]| -> Vec<f64> {
            let sums = deltas.iter().scan(0i64, |sum, delta| {
                *sum += delta;
                Some(*sum as f64)
            });
            sums.collect()
        };
        let (zero, positive, negative) = match &h.counts {
            Counts::Integer { zero, positive, negative, .. } => (*zero as f64, absolute(positive), absolute(negative)),
            Counts::Float { zero, positive, negative, .. } => (*zero, positive.clone(), negative.clone()),
        };
        FloatHistogram {
            schema: h.schema,
            count: h.count(),
            sum: h.sum,
            zero,
            zero_threshold: h.zero_threshold,
            positive: by_index(&h.positive_spans, &positive),
            negative: by_index(&h.negative_spans, &negative),
            custom_bounds: h.custom_bounds.clone(),
            counter_reset_hint: h.counter_reset_hint,
        }
    }

    /// The same without empty buckets.
    pub(super) fn compacted(&self) -> FloatHistogram {
        let mut compact = self.clone();
        compact.positive.retain(|_, count| *count != 0.0);
        compact.negative.retain(|_, count| *count != 0.0);
        compact
    }
}

impl HistogramLiteral {
    /// As the store keeps it.
    pub fn to_value(&self) -> model::Value {
        model::Value::Histogram(Arc::new(self.histogram.to_model()))
    }
}

/// Splits `key:value rest`; a value in brackets may hold blanks.
fn split_pair(text: &str) -> Result<(&str, &str, &str), String> {
    let (key, rest) = text.split_once(':').ok_or_else(|| format!("expected key:value in a histogram, not {text:?}"))?;
    if let Some(list) = rest.strip_prefix('[') {
        let end = list.find(']').ok_or("a list without ] in a histogram")?;
        return Ok((key, &list[..end], &list[end + 1..]));
    }
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    Ok((key, &rest[..end], &rest[end..]))
}

fn floats(text: &str) -> Result<Vec<f64>, String> {
    let number = |word| parse_number(word).ok_or_else(|| format!("bad number {word:?} in a histogram"));
    text.split_whitespace().map(number).collect()
}

fn hint(word: &str) -> Result<CounterResetHint, String> {
    match word {
        "unknown" => Ok(CounterResetHint::Unknown),
        "reset" => Ok(CounterResetHint::Reset),
        "not_reset" => Ok(CounterResetHint::NotReset),
        "gauge" => Ok(CounterResetHint::Gauge),
        _ => Err(format!("unknown counter_reset_hint {word:?}")),
    }
}

fn spans(buckets: &BTreeMap<i32, f64>) -> (Vec<Span>, Vec<f64>) {
    let mut spans: Vec<Span> = Vec::new();
    let mut counts = Vec::new();
    let mut next = 0;
    for (&index, &count) in buckets.iter().filter(|(_, count)| **count != 0.0) {
        match spans.last_mut() {
            Some(span) if index == next => span.length += 1,
            _ => spans.push(Span { offset: index - next, length: 1 }),
        }
        next = index + 1;
        counts.push(count);
    }
    (spans, counts)
}

fn by_index(spans: &[Span], counts: &[f64]) -> BTreeMap<i32, f64> {
    let mut buckets = BTreeMap::new();
    let mut counts = counts.iter();
    let mut index = 0;
    for span in spans {
        index += span.offset;
        for &count in counts.by_ref().take(span.length as usize) {
            buckets.insert(index, count);
            index += 1;
        }
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_returns_from_the_stored_form() {
        let text =
            "schema:1 count:9 sum:2.5 z_bucket:1 z_bucket_w:0.001 buckets:[1 0 2] offset:-1 n_buckets:[5] n_offset:3";
        let literal = FloatHistogram::parse(text).unwrap();
        assert_eq!(FloatHistogram::from_model(&literal.histogram.to_model()), literal.histogram.compacted());
        assert!(!literal.hint_is_given);
        assert!(FloatHistogram::parse("sum:1 sum:2").is_err());
        assert!(FloatHistogram::parse("nothing:1").is_err());
    }

    #[test]
    fn a_finer_step_is_brought_to_the_coarser_schema() {
        let mut sum = FloatHistogram::parse("schema:0 buckets:[1 1]").unwrap().histogram;
        sum.add(&FloatHistogram::parse("schema:1 buckets:[1 1 1]").unwrap().histogram, 1.0).unwrap();
        assert_eq!(sum.positive, BTreeMap::from([(0, 2.0), (1, 3.0)]));
    }
}
