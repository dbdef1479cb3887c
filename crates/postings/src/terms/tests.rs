use std::collections::BTreeSet;

use model::{Labels, Matcher};
use proptest::prelude::*;

use super::*;
use crate::builder::{Encoded, PostingsBuilder};

/// Series in order; the ordinals are 10, 20, 30 …, to show that the caller chooses them.
type Series = Vec<(TenantId, Labels)>;

fn build(series: &Series) -> (Terms, Vec<u8>) {
    let mut builder = PostingsBuilder::new();
    for (i, (tenant, labels)) in series.iter().enumerate() {
        builder.add(tenant, labels, ordinal(i)).unwrap();
    }
    let Encoded { terms, postings } = builder.finish().unwrap();
    (Terms::decode(terms).unwrap(), postings)
}

fn ordinal(i: usize) -> u32 {
    10 * (i as u32 + 1)
}

fn select(terms: &Terms, postings: &[u8], tenant: &TenantId, matchers: &Matchers) -> Vec<u32> {
    let plan = terms.plan(tenant, matchers).unwrap();
    assert!(plan.needs().windows(2).all(|pair| pair[0].end <= pair[1].start));
    let lists: Vec<_> = plan.needs().iter().map(|need| &postings[need.start as usize..need.end as usize]).collect();
    let found = plan.resolve(&lists).unwrap();
    assert!(!plan.is_empty() || found.is_empty());
    found.into_iter().collect()
}

fn any_text() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!['a', 'b', '\0', '\u{1}', 'é', '\u{10ffff}', '\n']), 1..4)
        .prop_map(String::from_iter)
}

fn any_series() -> impl Strategy<Value = Series> {
    let name = || prop_oneof![3 => prop::sample::select(vec!["x", "y"]).prop_map(str::to_owned), 1 => any_text()];
    let value = || prop_oneof![prop::sample::select(vec!["a", "b", "ab", "c"]).prop_map(str::to_owned), any_text()];
    let labels = prop::collection::btree_map(name(), value(), 0..4)
        .prop_map(|pairs| Labels::from_pairs(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))).unwrap());
    let tenant = prop::sample::select(vec!["t", "t.", "t0"]).prop_map(|name| TenantId::new(name).unwrap());
    prop::collection::btree_set((tenant, labels), 0..40).prop_map(|series| series.into_iter().collect())
}

fn any_matcher() -> impl Strategy<Value = Matcher> {
    let name =
        prop_oneof![4 => prop::sample::select(vec!["x", "y", "absent", ""]).prop_map(str::to_owned), 1 => any_text()];
    let op = prop::sample::select(vec![MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex]);
    let value = prop::sample::select(vec![
        "",
        "a",
        "b",
        "ab",
        "a|b",
        "a|b|",
        "a.*",
        ".*",
        ".+",
        "a?b?",
        "[^a]+",
        "(a|b)c?",
        "(?i)A",
        ".",
        "..",
        r"\x{10ffff}",
        "é|\n",
        "(?s:.)b",
        "(a|ab)(b|)",
        "a.*|.*b",
        r"\bab?\b",
        r"[\pL]{1,3}",
        "(a|b|c|é){1,9}.{0,40}",
        "",
    ]);
    (name, op, value).prop_map(|(name, op, value)| Matcher::new(name, op, value).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn selecting_equals_asking_each_series(
        series in any_series(),
        questions in prop::collection::vec(prop::collection::vec(any_matcher(), 0..4), 1..20),
    ) {
        let (terms, postings) = build(&series);
        for matchers in questions {
            let text = format!("{matchers:?}");
            let matchers = Matchers::new(matchers);
            for name in ["t", "t.", "t0", "none"] {
                let tenant = TenantId::new(name).unwrap();
                let of_tenant = series.iter().enumerate().filter(|(_, (owner, _))| *owner == tenant);
                let expected: Vec<_> =
                    of_tenant.filter(|(_, (_, labels))| matchers.matches_labels(labels)).map(|(i, _)| ordinal(i)).collect();
                prop_assert_eq!(select(&terms, &postings, &tenant, &matchers), expected, "{}", text);
            }
        }
    }

    #[test]
    fn names_and_values_are_listed(series in any_series()) {
        let (terms, _) = build(&series);
        for name in ["t", "t.", "t0", "none"] {
            let tenant = TenantId::new(name).unwrap();
            let of_tenant = || series.iter().filter(|(owner, _)| *owner == tenant).flat_map(|(_, labels)| labels.iter());
            let names: BTreeSet<_> = of_tenant().map(|(name, _)| name.to_owned()).collect();
            prop_assert_eq!(terms.label_names(&tenant).unwrap(), names.iter().cloned().collect::<Vec<_>>());
            for name in names.iter().map(String::as_str).chain(["absent", ""]) {
                let values: BTreeSet<_> = of_tenant().filter(|(n, _)| *n == name).map(|(_, v)| v.to_owned()).collect();
                prop_assert_eq!(terms.label_values(&tenant, name).unwrap(), values.into_iter().collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn common_selections_need_no_postings() {
    // Sorted by "m", as a block is by metric: the lists of "m" are runs, and so is that of all series.
    let tenant = TenantId::anonymous();
    let labels = |m: usize, x: usize| Labels::from_pairs([("m", ["a", "b"][m]), ("x", ["1", "2"][x])]).unwrap();
    let series: Series = (0..4).map(|i| (tenant.clone(), labels(i / 2, i % 2))).collect();
    let mut builder = PostingsBuilder::new();
    for (i, (tenant, labels)) in series.iter().enumerate() {
        builder.add(tenant, labels, i as u32).unwrap();
    }
    let Encoded { terms, .. } = builder.finish().unwrap();
    let terms = Terms::decode(terms).unwrap();
    let needs = |name: &str, op, value: &str| {
        let matchers = Matchers::new([Matcher::new(name, op, value).unwrap()]);
        terms.plan(&tenant, &matchers).unwrap().needs().len()
    };
    assert_eq!(needs("m", MatchOp::Equal, "a"), 0);
    assert_eq!(needs("m", MatchOp::Regex, "a|b"), 0);
    assert_eq!(needs("m", MatchOp::NotEqual, "a"), 0);
    assert_eq!(needs("absent", MatchOp::Equal, ""), 0);
    assert_eq!(needs("x", MatchOp::Equal, "1"), 1);
}

#[test]
fn missing_and_damaged_lists_are_errors() {
    let tenant = TenantId::anonymous();
    let labels = |i: u32| Labels::from_pairs([("x", if i.is_multiple_of(3) { "1" } else { "2" })]).unwrap();
    let mut builder = PostingsBuilder::new();
    (0..50).for_each(|i| builder.add(&tenant, &labels(i), i).unwrap());
    assert_eq!(builder.add(&tenant, &labels(1), 49), Err(PostingsError::OutOfOrder));
    assert_eq!(builder.add(&TenantId::new("a").unwrap(), &labels(1), 50), Err(PostingsError::OutOfOrder));
    let Encoded { terms, postings } = builder.finish().unwrap();
    let terms = Terms::decode(terms).unwrap();
    let plan = terms.plan(&tenant, &Matchers::new([Matcher::equal("x", "1")])).unwrap();
    let [need] = plan.needs() else { panic!("one list") };
    let mut list = postings[need.start as usize..need.end as usize].to_vec();
    assert_eq!(plan.resolve(&[&list]).unwrap().len(), 17);
    assert!(plan.resolve(&[] as &[Vec<u8>]).is_err());
    list[2] ^= 1;
    let error = plan.resolve(&[&list]).unwrap_err();
    assert_eq!(error.to_string(), format!("posting list at {}: checksum does not match at byte 0", need.start));
}
