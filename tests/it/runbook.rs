//! Every error id in the code is a heading of docs/runbook.md, so that whoever reads a message finds what to do.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;
use tests::skips::workspace;

/// The Rust files below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The ids in a text: `(some-id)` at the end of a part of a message, and the log field `id = "some-id"`.
fn ids(text: &str) -> BTreeSet<String> {
    let id = Regex::new(r#"\s\(([a-z]+(?:-[a-z]+)+)\)(?:[.:"\\]|\s|$)|\bid = "([a-z-]+)""#).unwrap();
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let found = code.flat_map(|line| id.captures_iter(line));
    found.filter_map(|found| found.get(1).or(found.get(2))).map(|id| id.as_str().to_owned()).collect()
}

#[test]
fn every_error_id_is_a_heading() {
    let mut files = Vec::new();
    sources(&workspace().join("crates"), &mut files);
    let runbook = fs::read_to_string(workspace().join("docs/runbook.md")).unwrap();
    let headings: BTreeSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let mut missing = Vec::new();
    for file in files {
        let unknown = ids(&fs::read_to_string(&file).unwrap());
        let unknown = unknown.into_iter().filter(|id| !headings.contains(id.as_str()));
        missing.extend(unknown.map(|id| format!("{id} ({})", file.display())));
    }
    assert!(missing.is_empty(), "ids without a heading in docs/runbook.md:\n{}", missing.join("\n"));
}

#[test]
fn ids_are_found_in_messages_and_log_fields() {
    let text = "#[error(\"no room (bucket-no-space)\")]\n// (not-this)\nwarn!(id = \"no-auth\", \"x\"); f(a-b)\n\
                \"the limit is {max} (max-labels). Raise it\"";
    assert_eq!(ids(text).into_iter().collect::<Vec<_>>(), ["bucket-no-space", "max-labels", "no-auth"]);
}
