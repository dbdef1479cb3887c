//! A machine with a node: a network address, a disk that can lose power, and a process that comes and goes.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::client::Client;
use crate::disk::{Disk, PowerSwitch};
use crate::namespaces::Host;
use crate::node::{Node, Settings};

/// Where clients are taken.
const PORT: u16 = 9009;
/// Where other nodes are.
pub const PEER_PORT: u16 = 9010;

/// Room for the index, its snapshots and the cache of the bucket.
const DISK_MEBIBYTES: u64 = 512;

/// What a process that broke an invariant says.
const PANICKED: [&str; 2] = ["task-panicked", "panicked at"];

/// A machine. Its process ends before its disk does.
#[derive(Debug)]
pub struct Machine {
    /// What the node is called.
    pub name: String,
    /// Where it is.
    pub host: Host,
    node: Option<Node>,
    settings: Settings,
    disk: Disk,
}

impl Machine {
    /// A machine that nothing runs on yet; skips and gives `None` where there can be no disk for it.
    #[track_caller]
    pub fn new(name: &str, host: Host, settings: &Settings) -> Option<Machine> {
        let settings = settings
            .clone()
            .on(&host, PORT)
            .argument(format!("--peer.listen={}:{PEER_PORT}", host.address()))
            .argument(format!("--node.name={name}"));
        Some(Machine { name: name.to_owned(), host, node: None, settings, disk: Disk::new(DISK_MEBIBYTES)? })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}:{PORT}", self.host.address())
    }

    /// A patient client of it.
    pub fn client(&self) -> Client {
        Client::new(&self.url())
    }

    /// The node's data.
    pub fn data(&self) -> PathBuf {
        self.disk.path().join("data")
    }

    /// The node's arguments.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Starts the node on what is on the disk; it listens when this returns.
    pub fn start(&mut self) -> Result<()> {
        let started = match &mut self.node {
            Some(node) => node.spawn_again(),
            None => {
                Node::start_among_on(&self.settings, &self.disk.path().join("data")).map(|node| self.node = Some(node))
            }
        };
        started.with_context(|| self.name.clone())
    }

    /// Waits until the node is ready.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        let name = self.name.clone();
        self.node()?.wait_until_ready().with_context(|| name)
    }

    /// Ends the node without warning.
    pub fn kill(&mut self) -> Result<()> {
        self.node()?.kill()
    }

    /// Ends the node in order.
    pub fn terminate(&mut self) -> Result<()> {
        let status = self.node()?.terminate()?;
        if !status.success() {
            bail!("{} was told to stop and ended with {status}", self.name);
        }
        Ok(())
    }

    /// Sends the node's process a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.node()?.process().signal(signal)
    }

    /// Errors if the process has ended, or said that it panicked.
    pub fn must_live(&mut self) -> Result<()> {
        let name = self.name.clone();
        let process = self.node()?.process();
        if let Some(status) = process.ended() {
            bail!("{name} ended by itself with {status}:\n{}", process.output());
        }
        if process.find_line(|line| PANICKED.iter().any(|word| line.contains(word)).then_some(())).is_some() {
            bail!("{name} panicked:\n{}", process.output());
        }
        Ok(())
    }

    /// Whether the process runs.
    pub fn runs(&mut self) -> bool {
        self.node.as_mut().is_some_and(|node| node.process().ended().is_none())
    }

    /// The latest of what the process has said.
    pub fn output(&mut self) -> String {
        self.node.as_mut().map(|node| node.process().output()).unwrap_or_default()
    }

    /// Empties the disk. The node must have ended.
    pub fn wipe(&self) -> Result<()> {
        std::fs::remove_dir_all(self.data())?;
        std::fs::create_dir(self.data())?;
        Ok(())
    }

    /// Copies a folder of the data elsewhere, or back.
    pub fn copy(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
        let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
        if !status.success() {
            bail!("{} was not copied to {}: {status}", from.display(), to.display());
        }
        Ok(())
    }

    /// Prepares a power cut of the disk.
    pub fn power_switch(&self) -> Result<PowerSwitch> {
        self.disk.power_switch()
    }

    /// Brings the disk back after a power cut; the node must have ended.
    pub fn replug(&mut self) -> Result<()> {
        self.disk.unmount()?;
        self.disk.mount()
    }

    fn node(&mut self) -> Result<&mut Node> {
        self.node.as_mut().with_context(|| format!("{} was never started", self.name))
    }
}
