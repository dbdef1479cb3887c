//! Random queries over random samples: nothing panics, what is held is given back, and a range query answers at each
//! step what an instant query at that time does.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Histogram, Labels, Sample, Samples, Shard, Value, stale_marker};
use proptest::prelude::*;
use proptest::sample::select;

use super::tests::{Counting, Memory};
use super::*;

/// A text made of others, in their order, where it has `#`.
fn fill(template: &'static str, parts: Vec<BoxedStrategy<String>>) -> BoxedStrategy<String> {
    let fill = move |parts: Vec<String>| {
        let mut parts = parts.into_iter();
        template.split_inclusive('#').map(|text| text.replace('#', &parts.next().unwrap_or_default())).collect()
    };
    parts.prop_map(fill).boxed()
}

fn any_of(all: Vec<BoxedStrategy<String>>) -> BoxedStrategy<String> {
    proptest::strategy::Union::new(all).boxed()
}

fn texts(all: &'static [&'static str]) -> BoxedStrategy<String> {
    select(all).prop_map(str::to_owned).boxed()
}

fn any_selector() -> BoxedStrategy<String> {
    texts(&[
        "m",
        "n",
        "b",
        "{a=\"1\"}",
        "m{a!=\"1\"}",
        "m offset 10s",
        "m @ 30",
        "m offset -20s",
        "nothing",
        "h",
        "m smoothed",
    ])
}

fn any_scalar(depth: u32) -> BoxedStrategy<String> {
    let plain = texts(&["0", "1", "0.5", "-1", "2.5", "NaN", "Inf", "time()", "pi()"]);
    if depth == 0 {
        return plain;
    }
    let scalar = || any_scalar(depth - 1);
    let vector = any_vector(depth - 1);
    any_of(vec![
        plain,
        fill("scalar(#)", vec![vector]),
        fill("(# + #)", vec![scalar(), scalar()]),
        fill("(# > bool #)", vec![scalar(), scalar()]),
        fill("-(#)", vec![scalar()]),
    ])
}

fn any_range(depth: u32) -> BoxedStrategy<String> {
    let plain = texts(&["m[30s]", "n[45s]", "m[20s] offset 15s", "m[1m] @ 40", "b[5m]", "h[30s]", "{a=\"1\"}[25s]"]);
    if depth == 0 {
        return plain;
    }
    let vector = || any_vector(depth - 1);
    any_of(vec![plain, fill("(#)[40s:10s]", vec![vector()]), fill("(#)[30s:20s] offset 5s", vec![vector()])])
}

fn any_vector(depth: u32) -> BoxedStrategy<String> {
    if depth == 0 {
        return any_selector();
    }
    let vector = || any_vector(depth - 1);
    let scalar = || any_scalar(depth - 1);
    let range = || any_range(depth - 1);
    let number = || texts(&["0", "0.5", "1", "2", "-0.3"]);
    let unary = texts(&[
        "abs",
        "ceil",
        "sgn",
        "ln",
        "round",
        "absent",
        "timestamp",
        "hour",
        "year",
        "sort",
        "-",
        "histogram_count",
    ]);
    let over_time = texts(&[
        "rate",
        "increase",
        "delta",
        "irate",
        "idelta",
        "deriv",
        "resets",
        "changes",
        "sum_over_time",
        "avg_over_time",
        "min_over_time",
        "max_over_time",
        "count_over_time",
        "stddev_over_time",
        "mad_over_time",
        "last_over_time",
        "first_over_time",
        "present_over_time",
        "absent_over_time",
        "ts_of_max_over_time",
        "ts_of_last_over_time",
    ]);
    let fold = texts(&[
        "sum",
        "avg",
        "min",
        "max",
        "count",
        "group",
        "stddev",
        "stdvar",
        "sum by (a)",
        "avg by (a)",
        "count without (a)",
        "max by (k)",
    ]);
    let arithmetic = texts(&["+", "-", "*", "/", "%", "^", ">", "<=", "== bool", "and", "unless", "atan2"]);
    let matching = texts(&["", "on (a)", "ignoring (k)", "on ()"]);
    any_of(vec![
        any_selector(),
        fill("#(#)", vec![unary, vector()]),
        fill("#(#)", vec![over_time, range()]),
        fill("#(m[30s] #)", vec![texts(&["rate", "increase", "delta"]), texts(&["anchored", "smoothed"])]),
        fill("quantile_over_time(#, #)", vec![scalar(), range()]),
        fill("predict_linear(#, #)", vec![range(), scalar()]),
        fill("#(#)", vec![fold, vector()]),
        // Constant: of a vector that does not change the parameter is evaluated only once, as in Prometheus. And of
        // selectors: which of equal values comes first depends on the order of series, which only they hold to.
        fill("topk by (a) (#, #)", vec![number(), any_selector()]),
        fill("bottomk(#, #)", vec![number(), any_selector()]),
        fill("quantile by (a) (#, #)", vec![number(), vector()]),
        fill("limit_ratio(#, #)", vec![number(), vector()]),
        fill("count_values(\"v\", #)", vec![vector()]),
        fill("(# # # #)", vec![vector(), arithmetic, matching, vector()]),
        fill("(# * on (a) group_left (k) #)", vec![vector(), vector()]),
        fill("(# + on (a) fill_right (#) #)", vec![vector(), texts(&["0", "7"]), vector()]),
        // Without names: of two series that only differ in whether it is to be dropped, the earlier one decides for both.
        fill("(sum by (a) (#) or max by (a) (#))", vec![vector(), vector()]),
        fill("(# > #)", vec![vector(), scalar()]),
        fill("(# - #)", vec![scalar(), vector()]),
        fill("clamp(#, #, #)", vec![vector(), scalar(), scalar()]),
        fill("vector(#)", vec![scalar()]),
        fill("label_replace(#, \"k\", \"x$1\", \"a\", \"(.*)\")", vec![vector()]),
        fill("histogram_quantile(#, #)", vec![scalar(), vector()]),
        fill("histogram_fraction(#, 2, #)", vec![scalar(), vector()]),
        fill("info(#, {__name__=\"n\"})", vec![vector()]),
    ])
}

/// An aggregation over what looks at one series at a time, inside of something or not.
fn any_sharable() -> BoxedStrategy<String> {
    let fold = texts(&[
        "sum",
        "avg",
        "min",
        "max",
        "count",
        "group",
        "sum by (a)",
        "avg by (a, k)",
        "count without (a)",
        "max by (__name__)",
        "sum by (__name__)",
    ]);
    let over_time =
        texts(&["rate", "increase", "avg_over_time", "max_over_time", "changes", "last_over_time", "deriv"]);
    let inner = any_of(vec![
        any_selector(),
        fill("#(#)", vec![over_time.clone(), any_range(0)]),
        fill("#((#)[40s:10s])", vec![over_time, any_selector()]),
        fill("abs(# - 2)", vec![any_selector()]),
        fill("-(#)", vec![any_selector()]),
        fill("quantile_over_time(0.5, #)", vec![any_range(0)]),
    ]);
    let aggregation = fill("#(#)", vec![fold, inner]);
    any_of(vec![
        aggregation.clone(),
        fill("sort(# + 1)", vec![aggregation.clone()]),
        // No division: whether the least of 0 and -0 is one or the other depends on their order.
        fill("(# * on (a) #)", vec![aggregation.clone(), aggregation.clone()]),
        fill("max_over_time((#)[40s:10s])", vec![aggregation.clone()]),
        fill("sum(#)", vec![aggregation.clone()]),
        fill("scalar(#) + #", vec![aggregation.clone(), aggregation]),
    ])
}

fn any_value() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        8 => (-3..10_i32).prop_map(|v| Some(Value::Float(f64::from(v) / 2.0))),
        1 => select(vec![f64::NAN, f64::INFINITY, -0.0, 1e300, stale_marker()]).prop_map(|v| Some(Value::Float(v))),
        2 => Just(None),
    ]
}

/// Series at odd times, about one sample in ten seconds.
fn any_memory() -> impl Strategy<Value = Memory> {
    let names: &[&[(&str, &str)]] = &[
        &[("__name__", "m"), ("a", "1"), ("k", "x")],
        &[("__name__", "m"), ("a", "1"), ("k", "y")],
        &[("__name__", "m"), ("a", "2"), ("job", "j")],
        &[("__name__", "n"), ("a", "1"), ("job", "j"), ("le", "1")],
        &[("__name__", "n"), ("a", "2")],
        &[("__name__", "b"), ("a", "1"), ("le", "1")],
        &[("__name__", "b"), ("a", "1"), ("le", "2")],
        &[("__name__", "b"), ("a", "1"), ("le", "+Inf")],
        &[("__name__", "h"), ("a", "1")],
    ];
    let columns = proptest::collection::vec(proptest::collection::vec(any_value(), 15), names.len());
    (columns, 0..10_000_i64).prop_map(move |(columns, shift)| {
        let series = names.iter().zip(columns).map(|(pairs, values)| {
            let labels = Labels::from_pairs(pairs.iter().copied()).unwrap();
            let is_histogram = labels.metric_name() == "h";
            let samples = values.into_iter().enumerate().filter_map(|(i, v)| {
                let v = match v? {
                    Value::Float(v) if is_histogram && v > 2.0 => Value::Histogram(Arc::new(Histogram::default())),
                    v => v,
                };
                Some(Sample { t: shift + i as i64 * 10_000, v })
            });
            (labels, Arc::new(samples.collect::<Samples>()))
        });
        Memory(series.collect())
    })
}

/// What there is at one time, by labels.
fn at(result: &QueryResult, t: i64) -> BTreeMap<Labels, Value> {
    match result {
        QueryResult::Vector(samples) => samples.iter().map(|s| (s.labels.clone(), s.v.clone())).collect(),
        QueryResult::Matrix(series) => series
            .iter()
            .filter_map(|s| Some((s.labels.clone(), s.samples.iter().find(|sample| sample.t == t)?.v)))
            .collect(),
        other => panic!("{other:?}"),
    }
}

fn is_near(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => quantile::almost_equal(*a, *b, 1e-9),
        (a, b) => a == b,
    }
}

/// Some series, whose aggregations are evaluated in shares, each sent as bytes.
struct Sharded {
    memory: Memory,
    query: Query,
    options: Options,
    shards: u32,
}

impl Storage for Sharded {
    fn select(&self, selection: &Selection) -> Result<Vec<(Labels, Arc<Samples>)>, StorageError> {
        self.memory.select(selection)
    }

    fn partials(&self, request: &PartialRequest<'_>) -> Result<Option<Vec<Partial>>, StorageError> {
        let shares = (0..self.shards).map(|number| {
            let shard = Shard { number, count: self.shards };
            let of_shard = self.memory.0.iter().filter(|(labels, _)| shard.has(labels)).cloned();
            let share =
                self.query.partial(request.position, &Memory(of_shard.collect()), &Unlimited, &self.options).ok()?;
            Some(Partial::decode(&share.encode()).unwrap())
        });
        Ok(shares.collect())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_range_query_is_many_instant_queries(memory in any_memory(), text in any_vector(3)) {
        let options = Options { lookback_ms: 25_000, ..Options::default() };
        let Ok(query) = Query::range(&text, 0, 120_000, 15_000) else { return Err(TestCaseError::reject("no query")) };
        let budget = Counting::new(u64::MAX);
        let (result, _) = query.evaluate(&memory, &budget, &options);
        prop_assert_eq!(budget.held(), 0);
        let Ok(result) = result else { return Ok(()) };
        for t in (0..=120_000).step_by(15_000) {
            let (once, _) = Query::instant(&text, t).unwrap().evaluate(&memory, &budget, &options);
            let once = at(&once.unwrap(), t);
            let of_many = at(&result, t);
            prop_assert_eq!(once.keys().collect::<Vec<_>>(), of_many.keys().collect::<Vec<_>>(), "{} at {}", text, t);
            let near = once.values().zip(of_many.values()).all(|(a, b)| is_near(a, b));
            prop_assert!(near, "{} at {}: {:?} and {:?}", text, t, once, of_many);
        }
    }

    #[test]
    fn an_aggregation_in_shares_is_the_whole(memory in any_memory(), text in any_sharable(), shards in 1..4_u32) {
        let options = Options { lookback_ms: 25_000, ..Options::default() };
        let query = Query::range(&text, 0, 120_000, 15_000).unwrap();
        let (whole, said) = query.evaluate(&memory, &Unlimited, &options);
        let sharded = Sharded { memory, query: query.clone(), options: options.clone(), shards };
        let (in_shares, said_in_shares) = query.evaluate(&sharded, &Unlimited, &options);
        prop_assert_eq!(whole.is_ok(), in_shares.is_ok(), "{}", text);
        let (Ok(whole), Ok(in_shares)) = (whole, in_shares) else { return Ok(()) };
        for t in (0..=120_000).step_by(15_000) {
            let (a, b) = (at(&whole, t), at(&in_shares, t));
            prop_assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{} at {}", text, t);
            prop_assert!(a.values().zip(b.values()).all(|(a, b)| is_near(a, b)), "{} at {}: {:?} and {:?}", text, t, a, b);
        }
        let sorted = |mut texts: Vec<String>| { texts.sort(); texts };
        prop_assert_eq!(sorted(said.warnings(&text)), sorted(said_in_shares.warnings(&text)), "{}", text);
        prop_assert_eq!(sorted(said.infos(&text)), sorted(said_in_shares.infos(&text)), "{}", text);
    }
}
