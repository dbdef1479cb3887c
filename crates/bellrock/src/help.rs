//! The text of `bellrock --help`, made from the table of settings.

use crate::settings::table::{GROUPS, Row};

/// Columns of a terminal that the text keeps to.
const WIDTH: usize = 100;

/// A space that no line ends at.
const UNBROKEN: char = '\u{a0}';

const INTRODUCTION: &str = "\
Bellrock stores metrics: agents push to it with Prometheus remote-write, Grafana and people query it
with PromQL. What it has answered for is on disk.

Usage:  bellrock [serve] [--SETTING VALUE]...
        bellrock bucket check [--SETTING VALUE]...   tries the store of --bucket
        bellrock status [URL] [--SETTING VALUE]...   asks a node how the cluster is; exits 0: healthy,
                                                     1: degraded, 2: nobody answers
        bellrock recover [--SETTING VALUE]...        rebuilds a lost index from the bucket
        bellrock --help | --version

Each setting is a flag (--log.level debug), an environment variable (BELLROCK_LOG_LEVEL=debug), or a
key of the YAML file that --config names (log: {level: debug}); dashes and dots become underscores in
a variable, dashes become underscores in the file. The first of these that gives it counts. Durations,
sizes and shares carry units: 250ms 30s 5m 1h30m 90d 2y, 512KiB 32MiB 2GiB, 50%.

  [reload]  SIGHUP applies a change; anything else needs a restart.
  [tenant]  a tenant may have its own:  tenants: {team-a: {ingester: {max_labels_per_series: 50}}}
";

const END: &str = "\
SIGTERM stops in order: requests are answered, everything is cut into blocks. Error ids in messages,
such as (bad-settings), are headings in docs/runbook.md.
";

/// Returns the whole text.
pub fn text() -> String {
    let mut text = INTRODUCTION.to_string();
    for (heading, rows) in GROUPS {
        text.push_str(&format!("\n{heading}\n"));
        for row in *rows {
            // A secret is no flag; it has a key in the file as well, like every setting.
            let name = if row.is_secret { format!("{}=", row.variable()) } else { format!("{} ", row.flag()) };
            text.push_str(&format!("\n  {name}{}{}\n", row.value, marks(row)));
            let default =
                if row.default.is_empty() { String::new() } else { format!(" Default:{UNBROKEN}{}.", row.default) };
            wrap(&format!("{}{default}", row.help), "      ", &mut text);
        }
    }
    text.push('\n');
    text.push_str(END);
    text
}

fn marks(row: &Row) -> String {
    let mut marks = String::new();
    for (mark, is_so) in [("[reload]", row.is_live), ("[tenant]", row.is_per_tenant)] {
        if is_so {
            marks.push_str(if marks.is_empty() { "  " } else { " " });
            marks.push_str(mark);
        }
    }
    marks
}

fn wrap(paragraph: &str, indent: &str, text: &mut String) {
    let mut column = 0;
    for word in paragraph.split(' ') {
        if column > 0 && column + 1 + word.len() > WIDTH {
            text.push('\n');
            column = 0;
        }
        let separator = if column == 0 { indent } else { " " };
        text.push_str(separator);
        text.push_str(&word.replace(UNBROKEN, " "));
        column += separator.len() + word.len();
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_as_reviewed() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/help.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, text()).unwrap();
        }
        let golden = std::fs::read_to_string(path).unwrap();
        assert_eq!(text(), golden, "UPDATE_GOLDEN=1 cargo test -p bellrock rewrites testdata/help.txt");
        assert!(golden.lines().all(|line| line.chars().count() <= WIDTH + 2));
    }
}
