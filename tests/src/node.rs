//! A real `bellrock`, started as its users start it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Instant;

use anyhow::{Result, bail};
use tempfile::TempDir;

use crate::client::Client;
use crate::namespaces::Host;
use crate::process::Process;
use crate::wait::{DEADLINE, wait_within};

/// How a node is started.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program.
    pub program: PathBuf,
    /// Its arguments beside `serve`, `--listen` and `--data`.
    pub arguments: Vec<String>,
    /// Its environment beside the test's own.
    pub environment: Vec<(String, String)>,
    /// Where it takes clients: loopback, on a port that the system chooses, unless it has a network of its own.
    pub listen: String,
    /// The machine that it runs on; `None`: the test's own.
    pub host: Option<Host>,
}

/// A node with its data; both go when it is dropped.
#[derive(Debug)]
pub struct Node {
    settings: Settings,
    data: Data,
    process: Process,
    client: Client,
}

#[derive(Debug)]
enum Data {
    Temporary(TempDir),
    Given(PathBuf),
}

impl Settings {
    /// The program with its defaults.
    pub fn new(program: impl Into<PathBuf>) -> Settings {
        let listen = "127.0.0.1:0".to_owned();
        Settings { program: program.into(), arguments: vec![], environment: vec![], listen, host: None }
    }

    /// Runs it on another machine, where it takes clients on this port.
    pub fn on(mut self, host: &Host, port: u16) -> Settings {
        self.listen = format!("{}:{port}", host.address());
        self.host = Some(host.clone());
        self
    }

    /// Adds an argument.
    pub fn argument(mut self, argument: impl Into<String>) -> Settings {
        self.arguments.push(argument.into());
        self
    }

    /// Adds a variable to the environment.
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Settings {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Starts the process, without waiting for anything.
    pub fn spawn(&self, data: &Path) -> Result<Process> {
        let mut command = self.command("serve", data);
        command.arg("--listen").arg(&self.listen);
        Process::start("bellrock", &mut command)
    }

    /// The program with one of its commands, `--data` and all arguments but `--listen`.
    pub fn command(&self, command: &str, data: &Path) -> Command {
        let name = command;
        let mut command = match &self.host {
            Some(host) => host.command(&self.program),
            None => Command::new(&self.program),
        };
        command.args([name, "--data"]).arg(data).args(&self.arguments);
        // A developer's own settings must not reach the tests' nodes.
        let is_theirs = |name: &str| ["BELLROCK_", "AWS_", "GOOGLE_", "AZURE_"].iter().any(|own| name.starts_with(own));
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_theirs(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().cloned());
        command
    }
}

impl Node {
    /// Starts a node on an empty folder and waits until it is ready.
    pub fn start(settings: &Settings) -> Result<Node> {
        let folder = tempfile::Builder::new().prefix("bellrock-test-").tempdir()?;
        Node::start_with(settings, Data::Temporary(folder))
    }

    /// Starts a node on a folder of the caller's, which stays.
    pub fn start_on(settings: &Settings, data: &Path) -> Result<Node> {
        Node::start_with(settings, Data::Given(data.to_owned()))
    }

    /// Starts a node on an empty folder; it listens when this returns, and waits for others before it is ready.
    pub fn start_among(settings: &Settings) -> Result<Node> {
        Node::listen_with(settings, Data::Temporary(tempfile::Builder::new().prefix("bellrock-test-").tempdir()?))
    }

    /// The same on a folder of the caller's, which stays.
    pub fn start_among_on(settings: &Settings, data: &Path) -> Result<Node> {
        Node::listen_with(settings, Data::Given(data.to_owned()))
    }

    fn listen_with(settings: &Settings, data: Data) -> Result<Node> {
        let mut process = settings.spawn(data.path())?;
        let client = Client::new(&format!("http://{}", address(&mut process)?));
        Ok(Node { settings: settings.clone(), data, process, client })
    }

    /// Starts a node on a folder that is the node's from here on, and waits until it is ready.
    pub fn start_in(settings: &Settings, data: TempDir) -> Result<Node> {
        Node::start_with(settings, Data::Temporary(data))
    }

    fn start_with(settings: &Settings, data: Data) -> Result<Node> {
        let mut process = settings.spawn(data.path())?;
        let client = wait_until_ready(&mut process)?;
        Ok(Node { settings: settings.clone(), data, process, client })
    }

    /// A client of the node, for the tenant that is used when none is named.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The folder of its data.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// How it was started.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Ends it without warning. [`Node::start_again`] brings it back.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Stops it in order, which makes it cut its head.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.process.terminate()
    }

    /// Starts it on the same data, on another port, and waits until it is ready. It must have ended before.
    pub fn start_again(&mut self) -> Result<()> {
        self.spawn_again()?;
        self.wait_until_ready()
    }

    /// Starts it on the same data without waiting; [`Node::wait_until_ready`] or [`Node::kill`] come next.
    pub fn spawn_again(&mut self) -> Result<()> {
        if self.process.ended().is_none() {
            bail!("the node (pid {}) still runs", self.process.pid());
        }
        self.process = self.settings.spawn(self.data.path())?;
        Ok(())
    }

    /// Waits until the process is ready, and points the client at where it listens.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        self.client = wait_until_ready(&mut self.process)?;
        Ok(())
    }
}

impl Data {
    fn path(&self) -> &Path {
        match self {
            Data::Temporary(folder) => folder.path(),
            Data::Given(path) => path,
        }
    }
}

/// Waits for the address in the output, then for `/-/ready`; fails with the output if the process ends before.
fn wait_until_ready(process: &mut Process) -> Result<Client> {
    let started = Instant::now();
    let address = address(process)?;
    let client = Client::new(&format!("http://{address}"));
    let ready = wait_within(DEADLINE.saturating_sub(started.elapsed()), || {
        if let Some(status) = process.ended() {
            return Some(Err(status));
        }
        client.get("/-/ready", &[]).ok().filter(|response| response.status == 200).map(Ok)
    });
    match ready {
        Some(Ok(_)) => Ok(client),
        Some(Err(status)) => bail!("the node ended with {status}:\n{}", process.output()),
        None => {
            let last = client.get("/-/ready", &[]).map(|r| r.text()).unwrap_or_else(|e| e.to_string());
            bail!("the node was not ready within {DEADLINE:?}: {last}\n{}", process.output())
        }
    }
}

/// The address that a node prints once it listens, waited for.
pub fn address(process: &mut Process) -> Result<String> {
    let printed = wait_within(DEADLINE, || {
        process.find_line(printed_address).map(Some).or_else(|| process.ended().map(|_| None))
    });
    let Some(Some(address)) = printed else {
        bail!("the node printed no address:\n{}", process.output());
    };
    Ok(address)
}

/// `127.0.0.1:PORT` of the `http://127.0.0.1:PORT` in the line that says where it listens, with a port that is bound.
/// Other lines may name other servers.
fn printed_address(line: &str) -> Option<String> {
    let line = &line[line.find("listens on")?..];
    let after = &line[line.find("http://")? + "http://".len()..];
    let address = after.split(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').next()?;
    let address: SocketAddr = address.parse().ok()?;
    (address.port() != 0).then(|| address.to_string())
}
