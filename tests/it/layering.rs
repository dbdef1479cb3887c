//! Arrows between crates go down only: `cargo metadata` is held against ARCHITECTURE.md's table.
//!
//! The table is the rule and this test reads it, so the page cannot go stale. Dev-dependencies and the
//! packages outside `crates/` are exempt; rows of crates that do not exist yet are skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

/// A row of the table.
struct Row {
    /// None for `dev`, which lies beside the layers.
    layer: Option<u32>,
    may_use: String,
}

type Table = BTreeMap<String, Row>;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the workspace").to_path_buf()
}

fn metadata() -> Metadata {
    // Offline and for this platform alone: exactly what building this test has downloaded.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let options = ["--locked", "--offline", "--filter-platform", &platform].map(String::from);
    MetadataCommand::new().current_dir(workspace()).other_options(options).exec().unwrap()
}

/// Reads the rows `| layer | `crate` | purpose | may use |`; a blank layer is the one above.
fn parse_table(page: &str) -> Table {
    let mut table = Table::new();
    let mut layer = None;
    for line in page.lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [layer_cell, name, _purpose, may_use] = cells[..] else { continue };
        let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else { continue };
        if !layer_cell.is_empty() {
            layer = layer_cell.chars().next().and_then(|digit| digit.to_digit(10));
        }
        table.insert(name.to_string(), Row { layer, may_use: may_use.to_string() });
    }
    table
}

/// The crates that `may_use` names: crates, `roles` (layer 3), `layers A to B`, or `all`.
fn allowed(table: &Table, may_use: &str) -> BTreeSet<String> {
    let in_layers = |from: u32, to: u32| -> Vec<String> {
        let within = |row: &Row| row.layer.is_some_and(|layer| (from..=to).contains(&layer));
        table.iter().filter(|(_, row)| within(row)).map(|(name, _)| name.clone()).collect()
    };
    let words: Vec<&str> = may_use.split_whitespace().collect();
    if let ["layers", from, "to", to] = words[..] {
        return in_layers(from.parse().unwrap(), to.parse().unwrap()).into_iter().collect();
    }
    let mut names = BTreeSet::new();
    for word in words {
        match word {
            "–" => {}
            "all" => names.extend(table.keys().cloned()),
            "roles" => names.extend(in_layers(3, 3)),
            name => {
                assert!(table.contains_key(name), "the table lets someone use {name:?}, which has no row");
                names.insert(name.to_string());
            }
        }
    }
    names
}

/// The crates under `crates/` and the arrows between them, without dev-dependencies.
fn arrows(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    let crates = workspace().join("crates");
    let ours: BTreeMap<String, _> = metadata
        .workspace_packages()
        .into_iter()
        .filter(|package| package.manifest_path.as_std_path().starts_with(&crates))
        .map(|package| (package.name.to_string(), package))
        .collect();
    let is_arrow = |dependency: &&cargo_metadata::Dependency| {
        dependency.kind != DependencyKind::Development && ours.contains_key(&dependency.name)
    };
    ours.iter()
        .map(|(name, package)| {
            let to = package.dependencies.iter().filter(is_arrow).map(|to| to.name.clone()).collect();
            (name.clone(), to)
        })
        .collect()
}

fn faults(table: &Table, arrows: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut faults = Vec::new();
    for (from, to) in arrows {
        let Some(row) = table.get(from) else {
            faults.push(format!("crate {from} has no row in ARCHITECTURE.md's table"));
            continue;
        };
        let allowed = allowed(table, &row.may_use);
        for to in to.iter().filter(|to| !allowed.contains(*to)) {
            faults.push(format!("new arrow {from} → {to}: ARCHITECTURE.md lets {from} use: {}", row.may_use));
        }
    }
    faults
}

/// Everything that `id` pulls into a build, dev-dependencies left out, by name.
fn closure(metadata: &Metadata, id: &PackageId) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().expect("cargo metadata resolves");
    let nodes: BTreeMap<&PackageId, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut seen = BTreeSet::new();
    let mut open = vec![id];
    while let Some(id) = open.pop() {
        for dependency in &nodes[id].deps {
            let is_dev = |kind: &cargo_metadata::DepKindInfo| kind.kind == DependencyKind::Development;
            if !dependency.dep_kinds.iter().all(is_dev) && seen.insert(&dependency.pkg) {
                open.push(&dependency.pkg);
            }
        }
    }
    seen.into_iter().map(|id| metadata[id].name.to_string()).collect()
}

fn architecture() -> Table {
    parse_table(&std::fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap())
}

#[test]
fn arrows_between_crates_go_down_only() {
    let faults = faults(&architecture(), &arrows(&metadata()));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn each_crate_lies_in_the_folder_of_its_name() {
    for package in metadata().workspace_packages() {
        let folder = package.manifest_path.parent().unwrap().file_name().unwrap();
        assert_eq!(package.name.as_str(), folder, "{}", package.manifest_path);
    }
}

#[test]
fn pure_crates_pull_in_no_runtime() {
    let (metadata, table) = (metadata(), architecture());
    for package in metadata.workspace_packages() {
        let name = package.name.to_string();
        let is_pure = name == "model" || table.get(&name).is_some_and(|row| row.layer == Some(1));
        for outside in ["tokio", "mio", "rustix", "getrandom", "tracing", "prometheus-client"] {
            let pulls = is_pure && closure(&metadata, &package.id).contains(outside);
            assert!(!pulls, "{name} is pure and pulls in {outside}");
        }
    }
}

#[test]
fn an_arrow_up_and_a_crate_without_a_row_are_named() {
    let table = parse_table(
        "| layer | crate | purpose | may use |\n|---|---|---|---|\n\
         | 0 words | `model` | types | – |\n| | `runtime` | door | – |\n\
         | 1 pure | `head` | samples | model |\n| 3 roles | `ingester` | accepts | layers 0 to 2 |\n\
         | | `querier` | reads | layers 0 to 2 |\n| 4 face | `api` | HTTP | roles model |\n",
    );
    let check = |from: &str, to: &[&str], expected: &[&str]| {
        let to = to.iter().map(|to| to.to_string()).collect();
        let found = faults(&table, &BTreeMap::from([(from.to_string(), to)]));
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found}");
        }
    };
    check("head", &["model"], &[]);
    check("head", &["model", "runtime"], &["head → runtime"]);
    check("ingester", &["head", "runtime", "querier"], &["ingester → querier"]);
    check("api", &["ingester", "head"], &["api → head"]);
    check("common", &[], &["crate common has no row"]);
}
