//! A big aggregation is spread over the nodes, and comes to what it comes to on one.

use model::TimestampMs;
use tests::cluster::Cluster;
use tests::store::Kind;
use tests::{Client, Series, Store, labels, wait_for};

use crate::settings;

/// A time in the past, so that no clock matters.
const T: TimestampMs = 1_700_000_000_000;

/// Aggregations that can be spread, and what is around them.
const QUERIES: &[&str] = &[
    "sum(m)",
    "avg by (s) (m)",
    "count without (i) (m)",
    "max by (__name__) (m)",
    "min(rate(m[1m]))",
    "sum by (s) (rate(m[1m])) / count by (s) (m)",
    "max_over_time(sum by (s) (m)[2m:10s])",
    "topk(2, sum by (i) (increase(m[2m])))",
    "group by (s) (-m > -40)",
    "quantile(0.5, m)",
];

fn push(client: &Client, seconds: i64) {
    let series: Vec<Series> = (0..30)
        .map(|i| {
            let labels = labels("m", &[("i", &i.to_string()), ("s", &(i % 4).to_string())]);
            Series::floats(&labels, &[(T + seconds * 1_000, (seconds * i) as f64)])
        })
        .collect();
    wait_for("the write is taken", || {
        client.push(&series).is_ok_and(|response| response.status / 100 == 2).then_some(())
    });
}

/// The answer as text. `is_whole` asks for what is never spread.
fn ask(client: &Client, query: &str, is_whole: bool) -> Option<String> {
    let (start, end) = ((T / 1_000).to_string(), (T / 1_000 + 300).to_string());
    let mut parameters = vec![("query", query), ("start", start.as_str()), ("end", end.as_str()), ("step", "10")];
    if is_whole {
        parameters.push(("partial_response", "true"));
    }
    let response = client.get("/api/v1/query_range", &parameters).ok()?;
    (response.status == 200 && !response.text().contains("warnings")).then(|| response.text())
}

fn shares(client: &Client, place: &str) -> f64 {
    let name = format!("bellrock_querier_shares_total{{where=\"{place}\"}}");
    let page = client.get("/metrics", &[]).unwrap().text();
    page.lines().find_map(|line| line.strip_prefix(&name)?.trim().parse().ok()).unwrap_or(0.0)
}

#[test]
fn an_aggregation_that_is_spread_over_the_nodes_is_the_same() {
    let settings = settings().argument("--querier.shard-samples-min=1").argument("--ingester.cut-age-max=1s");
    let store = Store::start(Kind::Directory).unwrap();
    let mut cluster = Cluster::start(&settings, store, 3).unwrap();
    for i in 0..30 {
        push(cluster.nodes[i as usize % 3].client(), i * 10);
    }
    let client = cluster.nodes[0].client().clone();
    // Only what is in blocks is counted, and a cut comes when its time has come.
    wait_for("a query is spread", || {
        ask(&client, "sum(m)", false)?;
        (shares(&client, "elsewhere") > 0.0).then_some(())
    });
    for query in QUERIES {
        for node in &cluster.nodes {
            let whole = wait_for("there is an answer", || ask(node.client(), query, true));
            assert_eq!(wait_for("there is an answer", || ask(node.client(), query, false)), whole, "{query}");
        }
    }
    let whole = ask(&client, "sum by (s) (m)", true).unwrap();
    assert!(whole.contains("\"s\":\"3\""), "{whole}");

    // A node that is gone: its shard is evaluated by whoever asked, until nobody counts on it any more.
    cluster.nodes[2].kill().unwrap();
    for query in QUERIES {
        let spread = wait_for("there is an answer", || ask(&client, query, false));
        assert_eq!(wait_for("there is an answer", || ask(&client, query, true)), spread, "{query}");
    }
}
