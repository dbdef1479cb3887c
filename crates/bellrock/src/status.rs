//! `bellrock status [URL]`: the page `/api/v1/status/cluster` of a running node, as a text to read.

use std::process::ExitCode;
use std::time::Duration;

use runtime::{Clock, SystemClock};
use serde_json::Value as Json;

use crate::logging::chain;
use crate::settings::Loaded;

/// A node asks the others for a second at most, and may be busy.
const LIMIT: Duration = Duration::from_secs(10);

/// All is well.
const HEALTHY: u8 = 0;
/// Something is to be done.
const DEGRADED: u8 = 1;
/// Nobody answered, or not with a status.
const UNREACHABLE: u8 = 2;

/// Asks the node at `url`, or else at the address that these settings have a node listen on.
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]
pub fn run(loaded: &Loaded, url: Option<&str>) -> ExitCode {
    let url = url.map_or_else(|| own_url(loaded), |url| url.trim_end_matches('/').to_owned());
    match ask(&url) {
        Ok(report) => {
            print!("{}", text(&report, SystemClock.now_ms()));
            ExitCode::from(if report.pointer("/data/isHealthy") == Some(&Json::Bool(true)) {
                HEALTHY
            } else {
                DEGRADED
            })
        }
        Err(error) => {
            eprintln!("{url} does not say how the cluster is: {error}");
            ExitCode::from(UNREACHABLE)
        }
    }
}

/// Where a node with these settings is reached from this machine.
fn own_url(loaded: &Loaded) -> String {
    let Some(address) = loaded.settings.listen.first() else { return String::new() };
    let mut address = *address;
    match address {
        std::net::SocketAddr::V4(_) if address.ip().is_unspecified() => {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into())
        }
        std::net::SocketAddr::V6(_) if address.ip().is_unspecified() => {
            address.set_ip(std::net::Ipv6Addr::LOCALHOST.into())
        }
        _ => {}
    }
    format!("http://{address}")
}

fn ask(url: &str) -> Result<Json, String> {
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let executor = executor.map_err(|error| chain(&error))?;
    let page = executor.block_on(api::get(&format!("{url}/api/v1/status/cluster"), LIMIT, &SystemClock))?;
    let read: Result<Json, _> = serde_json::from_slice(&page.body);
    match read {
        Ok(json) if page.status == 200 && json["data"]["nodes"].is_array() => Ok(json),
        Ok(json) if json["error"].is_string() => Err(word(&json["error"])),
        _ => Err(format!("it answers {}, and not as Bellrock does", page.status)),
    }
}

/// The text; `now` in milliseconds.
fn text(answer: &Json, now: i64) -> String {
    let report = &answer["data"];
    let is_healthy = report["isHealthy"] == true;
    let name_of = |id: &Json| {
        let node = list(&report["nodes"]).iter().find(|node| node["id"] == *id);
        node.map_or_else(|| word(id), |node| word(&node["name"]))
    };
    let state = if is_healthy { "healthy" } else { "DEGRADED" };
    let mut text = format!("The cluster is {state}, says {}.\n", word(&report["answeredBy"]));
    for line in list(&report["durability"]["text"]) {
        text.push_str(&format!("- {}\n", word(line)));
    }
    for (heading, lines) in [("What to do", &report["degraded"]), ("Not known", &answer["warnings"])] {
        if !list(lines).is_empty() {
            text.push_str(&format!("\n{heading}:\n"));
        }
        list(lines).iter().for_each(|line| text.push_str(&format!("- {}\n", word(line))));
    }

    let nodes = list(&report["nodes"]).iter().map(|node| {
        let heard = match (node["isAlive"] == true, node["silentSeconds"].as_f64()) {
            (true, _) => "alive".to_owned(),
            (false, Some(seconds)) => format!("SILENT for {seconds:.0} s"),
            (false, None) => "SILENT".to_owned(),
        };
        let [name, role, peer, api, id] = ["name", "role", "peer", "api", "id"].map(|key| word(&node[key]));
        vec![name, role, heard, word(&node["applied"]), bytes(&node["headBytes"]), peer, api, id]
    });
    table(&mut text, &["NODE", "ROLE", "STATE", "APPLIED", "HEADS", "PEERS AT", "CLIENTS AT", "ID"], nodes);

    let writers = list(&report["writers"]).iter().map(|writer| {
        let waiting = writer["added"].as_u64().unwrap_or(0).saturating_sub(writer["cut"].as_u64().unwrap_or(0));
        let oldest = writer["oldestSample"].as_f64();
        let oldest = oldest.map_or_else(|| "-".to_owned(), |t| format!("{:.0} s ago", now as f64 / 1e3 - t));
        let adopter = if writer["adopter"].is_null() { "-".to_owned() } else { name_of(&writer["adopter"]) };
        let (id, node, stage) = (word(&writer["id"]), name_of(&writer["node"]), word(&writer["stage"]));
        vec![id, node, stage, adopter, waiting.to_string(), bytes(&writer["segmentBytes"]), oldest]
    });
    table(&mut text, &["WRITER", "NODE", "STAGE", "ADOPTER", "SEGMENTS", "BYTES", "OLDEST SAMPLE"], writers);

    let leases = list(&report["leases"]).iter().map(|lease| {
        let right = match word(&lease["right"]).as_str() {
            "adopt" => format!("adopt {}", word(&lease["writer"])),
            right => right.to_owned(),
        };
        vec![right, word(&lease["number"]), name_of(&lease["holder"])]
    });
    table(&mut text, &["LEASE", "NUMBER", "HOLDER"], leases);

    let leader = match &report["leader"] {
        Json::Null => "none".to_owned(),
        leader => format!("{}, term {}", name_of(&leader["node"]), word(&leader["term"])),
    };
    let (applied, stored) = (word(&report["revision"]["applied"]), word(&report["revision"]["stored"]));
    text.push_str(&format!(
        "\nLeader {leader}. Index at revision {applied}, in the bucket up to {stored}. Cluster {}, bellrock {}.\n",
        word(&report["cluster"]),
        word(&report["version"]),
    ));
    text
}

/// Adds a table after an empty line; nothing if it has no rows.
fn table(text: &mut String, heading: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let rows: Vec<Vec<String>> = rows.collect();
    if rows.is_empty() {
        return;
    }
    let heading: Vec<String> = heading.iter().map(|word| (*word).to_owned()).collect();
    let all = || std::iter::once(&heading).chain(&rows);
    let widths: Vec<usize> =
        (0..heading.len()).map(|i| all().map(|row| row[i].chars().count()).max().unwrap_or(0)).collect();
    text.push('\n');
    for row in all() {
        let mut line = String::new();
        for (word, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{word:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

fn list(json: &Json) -> &[Json] {
    json.as_array().map_or(&[], Vec::as_slice)
}

/// A value as it is read; `-` for none. Control characters are left out: names come from elsewhere, and this is a terminal.
fn word(json: &Json) -> String {
    match json {
        Json::Null => "-".to_owned(),
        Json::String(text) if text.is_empty() => "-".to_owned(),
        Json::String(text) => text.chars().filter(|c| !c.is_control()).collect(),
        other => other.to_string(),
    }
}

fn bytes(json: &Json) -> String {
    match json.as_u64() {
        None => "-".to_owned(),
        Some(bytes) if bytes < 10 << 10 => format!("{bytes} B"),
        Some(bytes) if bytes < 10 << 20 => format!("{} KiB", bytes >> 10),
        Some(bytes) => format!("{} MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEGRADED_CLUSTER: &str = r#"{"status":"success","data":{
        "cluster":"00000000000000000000000000000007","version":"0.1.0","answeredBy":"n1","isHealthy":false,
        "degraded":["node n2 (0000000000000002) has not been heard of for 12 s: start it again (node-silent)"],
        "leader":{"node":"0000000000000001","term":5},"revision":{"applied":"1.30","stored":"1.20"},
        "nodes":[
          {"id":"0000000000000001","role":"leader","name":"n1","peer":"10.0.0.1:9010","api":"http://10.0.0.1:9009",
           "isAlive":true,"silentSeconds":0,"applied":"1.30","headBytes":123456},
          {"id":"0000000000000002","role":"voter","name":"n2","peer":"10.0.0.2:9010","api":"",
           "isAlive":false,"silentSeconds":12.3,"applied":null,"headBytes":null}],
        "writers":[{"id":"1.9","node":"0000000000000002","stage":"fenced","adopter":"0000000000000001","added":7,"cut":4,
           "segmentBytes":2048,"oldestSample":1000.5}],
        "leases":[{"right":"adopt","writer":"1.9","number":"1.1","holder":"0000000000000001"}],
        "durability":{"nodeLosses":0,"bucket":"s3://m","text":["no node may be lost now","what was answered is in s3://m"]}},
        "warnings":["something\u001b[31m"]}"#;

    #[test]
    fn the_text_says_what_to_do_before_it_shows_tables() {
        let answer: Json = serde_json::from_str(DEGRADED_CLUSTER).unwrap();
        let expected = "\
The cluster is DEGRADED, says n1.
- no node may be lost now
- what was answered is in s3://m

What to do:
- node n2 (0000000000000002) has not been heard of for 12 s: start it again (node-silent)

Not known:
- something[31m

NODE  ROLE    STATE            APPLIED  HEADS    PEERS AT       CLIENTS AT            ID
n1    leader  alive            1.30     120 KiB  10.0.0.1:9010  http://10.0.0.1:9009  0000000000000001
n2    voter   SILENT for 12 s  -        -        10.0.0.2:9010  -                     0000000000000002

WRITER  NODE  STAGE   ADOPTER  SEGMENTS  BYTES   OLDEST SAMPLE
1.9     n2    fenced  n1       3         2048 B  20 s ago

LEASE      NUMBER  HOLDER
adopt 1.9  1.1     n1

Leader n1, term 5. Index at revision 1.30, in the bucket up to 1.20. Cluster 00000000000000000000000000000007, bellrock 0.1.0.
";
        assert_eq!(text(&answer, 1_020_500), expected);
    }

    #[test]
    fn a_report_that_lacks_everything_is_no_panic() {
        assert!(text(&Json::Null, 0).starts_with("The cluster is DEGRADED"));
        assert!(ask("https://127.0.0.1:1").unwrap_err().contains("http://"));
    }

    #[test]
    fn the_own_node_is_asked_where_it_listens() {
        for (listen, expected) in [
            ("127.0.0.1:9", "http://127.0.0.1:9"),
            ("0.0.0.0:9009", "http://127.0.0.1:9009"),
            ("[::]:9009", "http://[::1]:9009"),
        ] {
            let flags = vec![("listen".to_owned(), listen.to_owned())];
            let surroundings = crate::settings::sources::Surroundings { flags, variables: Vec::new() };
            assert_eq!(own_url(&Loaded::read(&surroundings).unwrap()), expected);
        }
    }
}
