//! Machines of a test's own: network namespaces on a bridge, which is in a namespace too. Nothing is seen or heard outside.
//!
//! A packet can be kept from one machine to another in two ways, each of them one-way: a blackhole route, which the sender
//! is told of at once, and a neighbour who is not there, which swallows it.
//!
//! Needs root. The namespaces go when the network is dropped; those of a test that was killed go at the next one.

use std::ffi::OsStr;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::skips::{program, skip};

/// Before the process's id in every name.
const PREFIX: &str = "bellrock-t";

/// The hardware address of nobody: a locally administered one.
const NOBODY: &str = "02:00:00:00:00:de";

/// Tells networks of one process apart.
static NETWORKS: AtomicU32 = AtomicU32::new(0);

/// A bridge and the machines on it.
#[derive(Debug)]
pub struct Network {
    prefix: String,
    hub: Host,
    hosts: u8,
}

/// A machine. Clones are the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    namespace: String,
    address: Ipv4Addr,
}

/// How packets are kept away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// The sender is told that there is no way.
    NoRoute,
    /// They vanish.
    Silent,
}

impl Network {
    /// Makes a bridge with one machine, the hub, for whoever drives the test; skips and gives `None` where that is not possible.
    #[track_caller]
    pub fn new() -> Option<Network> {
        if !rustix::process::geteuid().is_root() {
            skip("network namespaces need root", "run the tests as root: sudo -E cargo test --workspace");
            return None;
        }
        program("ip", "iproute2")?;
        program("nsenter", "util-linux")?;
        match Network::make() {
            Ok(network) => Some(network),
            Err(error) => {
                let install = "run the tests in a container that may make network namespaces (docker run --privileged)";
                skip(&format!("no network namespaces here ({error:#})"), install);
                None
            }
        }
    }

    fn make() -> Result<Network> {
        sweep()?;
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{number}-", std::process::id());
        let hub = Host { namespace: format!("{prefix}hub"), address: Ipv4Addr::new(10, 77, 0, 1) };
        ip(&["netns", "add", &hub.namespace])?;
        let network = Network { prefix, hub, hosts: 0 };
        for line in ["link set lo up", "link add bridge type bridge", "link set bridge up"] {
            network.hub.ip(line)?;
        }
        network.hub.ip(&format!("address add {}/24 dev bridge", network.hub.address))?;
        Ok(network)
    }

    /// The machine of whoever drives the test.
    pub fn hub(&self) -> &Host {
        &self.hub
    }

    /// Adds a machine.
    pub fn host(&mut self, name: &str) -> Result<Host> {
        self.hosts += 1;
        let address = Ipv4Addr::new(10, 77, 0, 10 + self.hosts);
        let host = Host { namespace: format!("{}{name}", self.prefix), address };
        ip(&["netns", "add", &host.namespace])?;
        let (link, namespace) = (format!("port{}", self.hosts), &host.namespace);
        self.hub.ip(&format!("link add {link} type veth peer name eth0 netns {namespace}"))?;
        self.hub.ip(&format!("link set {link} master bridge up"))?;
        for line in
            ["link set lo up".to_owned(), "link set eth0 up".to_owned(), format!("address add {address}/24 dev eth0")]
        {
            host.ip(&line)?;
        }
        Ok(host)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = remove(|name| name.starts_with(&self.prefix)) {
            eprintln!("network namespaces {}* stay: {error:#}", self.prefix);
        }
    }
}

impl Host {
    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A program that is to run on it; the process is the program's.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.file().display())).arg("--").arg(program);
        command
    }

    /// Calls `act` on a thread that is on this machine, and so are the threads and processes that it starts.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T> {
        let namespace = File::open(self.file()).with_context(|| self.namespace.clone())?;
        std::thread::scope(|scope| {
            let acting = scope.spawn(move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(act())
            });
            acting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Keeps what this machine sends from another.
    pub fn block(&self, to: &Host, block: Block) -> Result<()> {
        match block {
            Block::NoRoute => self.ip(&format!("route replace blackhole {}/32", to.address)),
            Block::Silent => self.ip(&format!("neigh replace {} lladdr {NOBODY} dev eth0 nud permanent", to.address)),
        }
    }

    /// Lets it through again.
    pub fn unblock(&self, to: &Host, block: Block) -> Result<()> {
        match block {
            Block::NoRoute => self.ip(&format!("route delete blackhole {}/32", to.address)),
            Block::Silent => self.ip(&format!("neigh delete {} dev eth0", to.address)),
        }
    }

    fn file(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.namespace)
    }

    fn ip(&self, line: &str) -> Result<()> {
        let words: Vec<&str> = ["-n", &self.namespace].into_iter().chain(line.split(' ')).collect();
        ip(&words)
    }
}

fn ip(words: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(words).output().context("start ip")?;
    if !output.status.success() {
        bail!("ip {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Removes what tests left that were killed.
fn sweep() -> Result<()> {
    remove(|name| {
        let Some(rest) = name.strip_prefix(PREFIX) else { return false };
        let process = rest.split('-').next().unwrap_or_default();
        process.parse::<u32>().is_ok() && !PathBuf::from("/proc").join(process).exists()
    })
}

fn remove(is_meant: impl Fn(&str) -> bool) -> Result<()> {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_meant(&name)
            && let Err(error) = ip(&["netns", "delete", &name])
            && entry.path().exists()
        {
            // (Else another test's sweep was quicker.)
            return Err(error);
        }
    }
    Ok(())
}
