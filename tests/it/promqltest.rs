//! Prometheus's own PromQL tests: that the scripts are read whole, and what each store makes of them.

use tests::promqltest::{self, Action, Choice, HttpStore, Item, MemoryStore, Report};
use tests::{Node, Store, conformance};

use crate::settings;

/// Left out whole: start timestamps are a later issue's.
const LEFT_OUT: &str = "start_timestamps.test";

/// Evaluations that need neither native histograms nor start timestamps; no fewer may be run.
const EVALUATIONS_MIN: usize = 1_083;

fn scripts() -> Option<Vec<promqltest::Script>> {
    let folder = conformance("promqltest")?;
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "test"));
    files.sort();
    Some(files.iter().map(|file| promqltest::read(file).unwrap()).collect())
}

#[test]
fn every_script_is_read() {
    let Some(scripts) = scripts() else { return };
    let mut evals = 0;
    let mut native = 0;
    for script in &scripts {
        let mut loaded = Vec::new();
        let mut here = (0, 0);
        for command in &script.commands {
            match &command.action {
                Action::Clear => loaded.clear(),
                Action::Load(load) => loaded.extend(load.native_metrics().cloned()),
                Action::Eval(eval) => {
                    here.0 += 1;
                    here.1 += usize::from(script.name == LEFT_OUT || promqltest::is_native(eval, &loaded));
                }
            }
        }
        println!("{}: {} evaluations, {} native", script.name, here.0, here.1);
        evals += here.0;
        native += here.1;
    }
    println!("{evals} evaluations, {} without native histograms and start timestamps", evals - native);
    assert_eq!(evals, 1_887);
}

#[test]
fn series_descriptions_are_read_as_prometheus_does() {
    let Some(file) = conformance("series_desc_cases.json") else { return };
    let cases: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    for case in cases["cases"].as_array().unwrap() {
        let input = case["input"].as_str().unwrap();
        let read = promqltest::parse_series(input);
        assert_eq!(read.is_ok(), case["ok"].as_bool().unwrap(), "{input:?}: {read:?}");
        let Ok((labels, items)) = read else { continue };
        let pairs: serde_json::Map<_, _> = labels.iter().map(|(n, v)| (n.to_owned(), v.into())).collect();
        assert_eq!(serde_json::Value::from(pairs), case["labels"], "{input:?}");
        let shown: Vec<String> = items
            .iter()
            .map(|item| match item {
                Item::Missing => "_".to_owned(),
                Item::Float(v) => v.to_string(),
                Item::Histogram(_) => "histogram".to_owned(),
            })
            .collect();
        let expected = case["values"].as_array().cloned().unwrap_or_default();
        assert_eq!(serde_json::Value::from(shown), serde_json::Value::from(expected), "{input:?}");
    }
}

#[test]
fn the_engine_answers_as_expected() {
    let Some(scripts) = scripts() else { return };
    let mut report = Report::default();
    let choice = Choice { at_modifiers: true, ..Choice::default() };
    for script in scripts.iter().filter(|script| script.name != LEFT_OUT) {
        report.add(promqltest::run(script, &mut MemoryStore::default(), choice).unwrap());
    }
    println!("{report}");
    assert!(report.failures.is_empty(), "{report}");
    assert!(report.run() >= EVALUATIONS_MIN, "{report}");
}

on_every_store! {
    a_node_answers_as_expected_from_its_head_and_from_blocks,
}

fn a_node_answers_as_expected_from_its_head_and_from_blocks(store: &Store) {
    let Some(scripts) = scripts() else { return };
    // What the scripts are written for; a node's own default is 50 million.
    let mut node = Node::start(&store.apply(settings().argument("--querier.max-samples=10000"))).unwrap();
    for from in ["head", "blocks"] {
        let mut report = Report::default();
        for script in scripts.iter().filter(|script| script.name != LEFT_OUT) {
            let mut samples = match from {
                "head" => HttpStore::new(node.client(), &script.name),
                _ => HttpStore::only_ask(node.client(), &script.name),
            };
            report.add(promqltest::run(script, &mut samples, Choice::default()).unwrap());
        }
        println!("from the {from}: {report}");
        assert!(report.failures.is_empty(), "from the {from}: {report}");
        assert!(report.run() >= EVALUATIONS_MIN, "{report}");
        // A stop in order cuts the head: from there on the samples come from blocks.
        assert!(node.terminate().unwrap().success());
        node.start_again().unwrap();
    }
}
