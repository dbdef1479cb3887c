//! Real agents: Debian's Prometheus, node exporter and vmagent, on ports that the system chooses.
//!
//! Prometheus gets its targets from a file that it watches, because its own port is known only once it runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use tempfile::TempDir;

use crate::client::Client;
use crate::process::Process;
use crate::skips::program;
use crate::wait::{DEADLINE, wait_within};

/// The environment variable that names a Prometheus to use instead of the installed one.
pub const PROMETHEUS: &str = "BELLROCK_PROMETHEUS";

/// What a text-file collector shows: lines as backup scripts write them.
const TEXT_FILE: &str = include_str!("../testdata/backups.prom");

/// A program that serves HTTP on a port of its own.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    client: Client,
    folder: TempDir,
}

impl Agent {
    /// Starts `command`, which must listen on 127.0.0.1 with port 0, and waits until `path` answers 200.
    pub fn start(name: &str, mut command: Command, folder: TempDir, path: &str) -> Result<Agent> {
        let mut process = Process::start(name, &mut command)?;
        let ready = wait_within(DEADLINE, || {
            if process.ended().is_some() {
                return Some(None);
            }
            let client = Client::new(&format!("http://127.0.0.1:{}", listening_port(process.pid())?));
            client.get(path, &[]).ok().filter(|response| response.status == 200).map(|_| Some(client))
        });
        match ready.flatten() {
            Some(client) => Ok(Agent { process, client, folder }),
            None => bail!("{name} does not answer:\n{}", process.output()),
        }
    }

    /// A client of it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        self.client.base().trim_start_matches("http://")
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The folder of its files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// The Prometheus to test with, and its major version: of [`PROMETHEUS`], else of `PATH`; skips and gives `None` if
/// there is none.
#[track_caller]
pub fn find_prometheus() -> Option<(PathBuf, u32)> {
    let program = match std::env::var_os(PROMETHEUS) {
        Some(path) => PathBuf::from(path),
        None => program("prometheus", "prometheus")?,
    };
    let output = Command::new(&program).arg("--version").output().expect("prometheus --version runs");
    // 2.42 prints it to stdout, other builds to stderr.
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let version = text.split("version ").nth(1).and_then(|rest| rest.split('.').next()?.parse().ok());
    // A build of one's own says its version only with -ldflags "-X github.com/prometheus/common/version.Version=3.14.0".
    let version = version.unwrap_or_else(|| panic!("{} does not say its version: {text}", program.display()));
    Some((program, version))
}

/// Starts a node exporter that also shows a text file of backups.
pub fn start_node_exporter(program: &Path) -> Result<Agent> {
    let folder = folder("node-exporter")?;
    std::fs::write(folder.path().join("backups.prom"), TEXT_FILE)?;
    let mut command = Command::new(program);
    command
        // There is no systemd in a container: it would complain at every scrape.
        .args(["--web.listen-address=127.0.0.1:0", "--no-collector.systemd", "--collector.textfile.directory"])
        .arg(folder.path());
    Agent::start("node-exporter", command, folder, "/metrics")
}

/// How a Prometheus is set up.
#[derive(Debug, Clone, Default)]
pub struct Prometheus {
    /// Where it remote-writes to.
    pub remote_write: Option<String>,
    /// Between two scrapes, such as `1s`.
    pub scrape_interval: String,
    /// Whether it takes remote-write requests.
    pub is_receiver: bool,
}

impl Prometheus {
    /// Starts it without targets.
    pub fn start(&self, program: &Path) -> Result<Agent> {
        let folder = folder("prometheus")?;
        let targets = targets_file(folder.path());
        std::fs::write(&targets, "[]")?;
        let mut configuration = scrape_configuration(&self.scrape_interval, &targets);
        if let Some(url) = &self.remote_write {
            configuration
                .push_str(&format!("remote_write:\n  - url: {url}\n    queue_config: {{batch_send_deadline: 1s}}\n"));
        }
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, configuration)?;
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0");
        if self.is_receiver {
            command.arg("--web.enable-remote-write-receiver");
        }
        Agent::start("prometheus", command, folder, "/-/ready")
    }
}

/// Tells a running Prometheus or vmagent what to scrape: pairs of job and address.
pub fn set_targets(agent: &Agent, targets: &[(&str, &str)]) -> Result<()> {
    let groups: Vec<_> = targets
        .iter()
        .map(|(job, address)| serde_json::json!({"targets": [address], "labels": {"job": job}}))
        .collect();
    // Renamed into place: a half-written file is never read.
    let file = targets_file(agent.folder());
    let new = file.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(&groups)?)?;
    std::fs::rename(new, file)?;
    Ok(())
}

/// Starts a vmagent that sends what it scrapes to every one of `urls`.
pub fn start_vmagent(program: &Path, scrape_interval: &str, urls: &[String]) -> Result<Agent> {
    start_vmagent_by(Command::new(program), scrape_interval, urls)
}

/// The same for a vmagent that `command` ends up as, arguments added: one that sees another world, for example.
pub fn start_vmagent_by(mut command: Command, scrape_interval: &str, urls: &[String]) -> Result<Agent> {
    let folder = folder("vmagent")?;
    let targets = targets_file(folder.path());
    std::fs::write(&targets, "[]")?;
    let file = folder.path().join("scrape.yml");
    std::fs::write(&file, scrape_configuration(scrape_interval, &targets))?;
    command
        .arg("-httpListenAddr=127.0.0.1:0")
        .arg(format!("-promscrape.config={}", file.display()))
        .arg("-promscrape.fileSDCheckInterval=1s")
        // One queue sends in order, which a Prometheus that receives needs.
        .arg("-remoteWrite.queues=1")
        .arg(format!("-remoteWrite.tmpDataPath={}", folder.path().join("queue").display()))
        .args(urls.iter().map(|url| format!("-remoteWrite.url={url}")));
    Agent::start("vmagent", command, folder, "/health")
}

/// The port on 127.0.0.1 that a process listens on, from /proc.
pub fn listening_port(pid: u32) -> Option<u16> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .ok()?
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let is_listening = columns.get(3) == Some(&"0A");
        let port = columns.get(1)?.strip_prefix("0100007F:")?;
        (is_listening && sockets.iter().any(|inode| columns.get(9) == Some(&inode.as_str())))
            .then(|| u16::from_str_radix(port, 16).ok())?
    })
}

fn folder(name: &str) -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix(&format!("bellrock-{name}-")).tempdir()?)
}

fn targets_file(folder: &Path) -> PathBuf {
    folder.join("targets.json")
}

fn scrape_configuration(interval: &str, targets: &Path) -> String {
    format!(
        "global: {{scrape_interval: {interval}, scrape_timeout: {interval}}}\n\
         scrape_configs:\n  \
         - job_name: all\n    \
           file_sd_configs: [{{files: [{}]}}]\n",
        targets.display()
    )
}
