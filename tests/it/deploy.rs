//! What `deploy/` says is done as it says: its scripts are run, and agents as Debian ships them find the nodes by name.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use model::TimestampMs;
use runtime::{Clock, SystemClock};
use serde_json::Value as Json;
use tempfile::TempDir;
use tests::agents::{self, Agent};
use tests::client::seconds;
use tests::garage::Garage;
use tests::process::Process;
use tests::wait::{DEADLINE, wait_within};
use tests::{Client, skips, wait_for};

use crate::BELLROCK;

/// The name of the three nodes, and their port on each address.
const NAME: &str = "bellrock.internal";
const PORT: u16 = 9009;

/// What every node is asked, at one time: as it is, and as a range.
const EXPRESSIONS: &[&str] = &[
    "up",
    "count by (job) (up)",
    "count_over_time(up[1h])",
    "timestamp(up)",
    "sum by (job) (scrape_samples_scraped)",
    "go_goroutines",
    "rate(process_cpu_seconds_total[1m])",
    "sum without (instance) (increase(bellrock_api_requests_total[5m]))",
    "histogram_quantile(0.9, sum by (le, route) (rate(bellrock_api_request_duration_seconds_bucket[5m])))",
    "quantile_over_time(0.5, scrape_duration_seconds[5m])",
    "topk(3, scrape_duration_seconds)",
];

/// Three nodes as `deploy/three-nodes/up` starts them, on loopback addresses of their own.
struct ThreeNodes {
    up: Process,
    setting: Setting,
    /// By number, from 1 on.
    pids: [u32; 3],
}

/// What its scripts are told.
struct Setting {
    garage: PathBuf,
    folder: TempDir,
    /// The first three bytes of all addresses.
    network: String,
}

impl Setting {
    /// One of the scripts, to be run there.
    fn script(&self, name: &str) -> Command {
        let mut command = Command::new(skips::workspace().join("deploy/three-nodes").join(name));
        // A developer's own settings must not reach the tests' nodes.
        let is_theirs = |name: &str| name.starts_with("BELLROCK_") || name.starts_with("AWS_");
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_theirs(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        command.env("FOLDER", self.folder.path()).env("NETWORK", &self.network);
        command.env("BELLROCK", BELLROCK).env("GARAGE", &self.garage).env("NAME", NAME).env("PORT", PORT.to_string());
        command
    }

    /// A node, by number.
    fn node(&self, number: usize) -> Client {
        Client::new(&format!("http://{}.{number}:{PORT}", self.network))
    }

    /// Starts everything and waits until the script says that it is up.
    fn up(self) -> ThreeNodes {
        let mut up = Process::start("three-nodes/up", &mut self.script("up")).unwrap();
        // Garage and three nodes start within it.
        let pids = wait_within(3 * DEADLINE, || {
            if let Some(status) = up.ended() {
                panic!("it ended with {status}:\n{}{}", up.output(), self.logs());
            }
            up.find_line(|line| line.starts_with("Pids: ").then(|| [1, 2, 3].map(|number| pid(line, number))))
        });
        let pids = pids.unwrap_or_else(|| panic!("the nodes are not up:\n{}{}", up.output(), self.logs()));
        ThreeNodes { up, setting: self, pids }
    }

    /// The last lines of every log.
    fn logs(&self) -> String {
        let mut text = String::new();
        for file in std::fs::read_dir(self.folder.path().join("log")).into_iter().flatten().flatten() {
            let log = std::fs::read_to_string(file.path()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(20)..].join("\n");
            text.push_str(&format!("--- {} ---\n{last}\n", file.path().display()));
        }
        text
    }

    /// A query to the name, by curl as a person would: it tries the next address when one does not answer.
    fn ask_name(&self, query: &str) -> Option<Json> {
        let mut curl = self.script("with-name");
        curl.args(["curl", "--silent", "--fail", "--get", "--data-urlencode"]).arg(format!("query={query}"));
        let output = curl.arg(format!("http://{NAME}:{PORT}/api/v1/query")).stderr(Stdio::null()).output().unwrap();
        serde_json::from_slice::<Json>(&output.stdout).ok()
    }

    /// When the agent's own target was scraped last, as whoever answers to the name knows.
    fn last_scrape(&self) -> Option<TimestampMs> {
        let answer = self.ask_name("max(timestamp(up{job=\"agent\"}))")?;
        let text = answer["data"]["result"][0]["value"][1].as_str()?;
        Some((text.parse::<f64>().ok()? * 1e3) as TimestampMs)
    }

    /// Starts an agent that scrapes itself and the nodes, and writes to the name.
    fn start_agent(&self, vmagent: &Path) -> Agent {
        let mut command = self.script("with-name");
        command.arg(vmagent);
        let url = format!("http://{NAME}:{PORT}/api/v1/write");
        let agent = agents::start_vmagent_by(command, "500ms", &[url]).unwrap();
        let nodes = [1, 2, 3].map(|number| format!("{}.{number}:{PORT}", self.network));
        let mut targets = vec![("agent", agent.address())];
        targets.extend(nodes.iter().map(|address| ("bellrock", address.as_str())));
        agents::set_targets(&agent, &targets).unwrap();
        agent
    }

    /// Asks these nodes the same at one time: every answer is there, and they are equal to the byte.
    #[track_caller]
    fn check_equal(&self, numbers: &[usize]) {
        let now = SystemClock.now_ms();
        let (end, start) = (seconds(now), seconds(now - 60_000));
        for query in EXPRESSIONS {
            for (path, parameters) in [
                ("/api/v1/query", vec![("query", *query), ("time", &end)]),
                ("/api/v1/query_range", vec![("query", *query), ("start", &start), ("end", &end), ("step", "5")]),
            ] {
                let mut first: Option<String> = None;
                for number in numbers {
                    let answer = self.node(*number).get(path, &parameters).unwrap();
                    assert_eq!(answer.status, 200, "{query} of node {number}: {}", answer.text());
                    let json: Json = serde_json::from_slice(&answer.body).unwrap();
                    assert_eq!(json["warnings"], Json::Null, "{query} of node {number}: {}", answer.text());
                    let result = json["data"]["result"].as_array().unwrap();
                    assert!(!result.is_empty(), "{query} of node {number} finds nothing");
                    let first = first.get_or_insert_with(|| answer.text());
                    assert_eq!(*first, answer.text(), "{query}: nodes {} and {number} differ", numbers[0]);
                }
            }
        }
    }
}

impl Drop for ThreeNodes {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.setting.logs());
        }
    }
}

/// The pid behind `node1` in a line such as `Pids: node1 12  node2 13`.
fn pid(line: &str, number: usize) -> u32 {
    let mut words = line.split_whitespace().skip_while(|word| *word != format!("node{number}"));
    words.nth(1).and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("no pid of node {number}: {line}"))
}

/// The first three bytes of loopback addresses on which nobody listens where the scripts will.
fn free_network() -> String {
    let is_free = |network: &str| {
        let at = |last: u8, port: u16| -> SocketAddr {
            (format!("{network}.{last}").parse::<IpAddr>().unwrap(), port).into()
        };
        let nodes = (1..=3).flat_map(|node| [at(node, PORT), at(node, PORT + 1)]);
        let mut all = nodes.chain([at(4, 3900), at(4, 3901)]);
        // 53 for root, else 5353; who is not root cannot try the first.
        let dns_port = if rustix::process::geteuid().is_root() { 53 } else { 5353 };
        all.all(|address| TcpListener::bind(address).is_ok()) && UdpSocket::bind(at(53, dns_port)).is_ok()
    };
    // Different from those of a test that runs at the same time.
    let networks = (0..1000).map(|i| (std::process::id() + i * 7919) % 65_000);
    let mut networks = networks.map(|n| format!("127.{}.{}", 1 + n / 256, n % 256));
    networks.find(|network| is_free(network)).expect("some loopback addresses are free")
}

#[test]
fn one_command_starts_three_nodes_behind_a_name_and_one_of_them_may_be_killed() {
    let (Some(_), Some(garage)) = (tests::dns::find(), Garage::program()) else { return };
    let (Some(vmagent), Some(_)) = (skips::program("vmagent", "victoria-metrics"), skips::program("curl", "curl"))
    else {
        return;
    };
    let folder = tempfile::Builder::new().prefix("bellrock-three-nodes-").tempdir().unwrap();
    let mut nodes = Setting { garage, folder, network: free_network() }.up();
    let setting = &nodes.setting;

    // An agent writes to the name; each node answers for all of it.
    let mut agent = setting.start_agent(&vmagent);
    let begun = SystemClock.now_ms();
    wait_for("samples are found by the name", || setting.last_scrape().filter(|at| *at > begun + 5_000));
    // It sends what it still has, so that nothing changes while the nodes are compared.
    agent.process().terminate().unwrap();
    setting.check_equal(&[1, 2, 3]);

    // The node that the agent writes through is killed: writes and queries to the name go on.
    let agent_again = || setting.start_agent(&vmagent);
    let mut agent = agent_again();
    let taken = |number: usize| setting.node(number).metric("bellrock_ingester_samples_total").unwrap().unwrap_or(0.0);
    let before = [1, 2, 3].map(taken);
    let victim = wait_for("a node takes samples", || (1..=3).find(|number| taken(*number) > before[number - 1]));
    let killed_at = SystemClock.now_ms();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(nodes.pids[victim - 1] as i32).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    wait_for("writes to the name go on", || setting.last_scrape().filter(|at| *at > killed_at));
    assert!(setting.node(victim).get("/-/healthy", &[]).is_err(), "the node is gone");
    let dropped = agent.client().metric("vmagent_remotewrite_packets_dropped_total").unwrap();
    assert_eq!(dropped.unwrap_or(0.0), 0.0, "the agent dropped nothing");
    agent.process().terminate().unwrap();
    let survivors: Vec<usize> = (1..=3).filter(|number| *number != victim).collect();
    setting.check_equal(&survivors);

    // It comes back as the script says.
    let mut node = Process::start("three-nodes/node", setting.script("node").arg(victim.to_string())).unwrap();
    let is_ready = |number: usize| setting.node(number).get("/-/ready", &[]).is_ok_and(|answer| answer.status == 200);
    wait_for("the node is ready again", || is_ready(victim).then_some(()));
    setting.check_equal(&[1, 2, 3]);

    // Everything stops, nobody waits for who is gone already, and nothing is left behind.
    node.signal(rustix::process::Signal::TERM).unwrap();
    assert!(nodes.up.terminate().unwrap().success(), "{}", nodes.up.output());
    node.wait().unwrap();
    for log in [setting.logs(), node.output()] {
        assert!(!log.contains("task did not stop in time"), "{log}");
    }
    let last_octets = [1, 2, 3].map(|number| (number, PORT)).into_iter().chain([(4, 3900)]);
    for (last, port) in last_octets {
        let address: SocketAddr = format!("{}.{last}:{port}", setting.network).parse().unwrap();
        assert!(TcpListener::bind(address).is_ok(), "{address} is still listened on");
    }
}

#[test]
fn the_systemd_unit_and_its_settings_are_understood() {
    let Some(analyze) = skips::program("systemd-analyze", "systemd") else { return };
    let folder = tempfile::tempdir().unwrap();
    let ours = skips::workspace().join("deploy/systemd");
    let unit = std::fs::read_to_string(ours.join("bellrock.service")).unwrap();
    // It looks whether the program is there.
    let file = folder.path().join("bellrock.service");
    std::fs::write(&file, unit.replace("/usr/local/bin/bellrock", BELLROCK)).unwrap();
    let output = Command::new(analyze).arg("verify").arg(&file).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && text.is_empty(), "{}", String::from_utf8_lossy(&text));

    // With wrong settings it would exit with 2. Nothing answers at this endpoint.
    let output = Command::new(BELLROCK)
        .args(["bucket", "check", "--bucket.endpoint", "http://127.0.0.1:1", "--config"])
        .arg(ours.join("bellrock.yml"))
        .env("BELLROCK_PEER_SECRET", "0123456789abcdef")
        .env("AWS_ACCESS_KEY_ID", "GK0123456789abcdef01234567")
        .env("AWS_SECRET_ACCESS_KEY", "0123456789abcdef")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
}
