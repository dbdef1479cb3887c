//! A real nameserver, Debian's `dnsmasq`, on a loopback port of its own, whose records a test changes.
//!
//! Its configuration is read at its start alone (SIGHUP would only read hosts files again, and no SRV records), so a
//! change of records starts it again on the same port: within it the nameserver is away, as it is in life.

use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use tempfile::TempDir;

use crate::loopback::own_address;
use crate::process::Process;
use crate::skips::program;
use crate::wait::{DEADLINE, wait_within};

/// The one domain that it answers for. Nothing is asked elsewhere.
pub const DOMAIN: &str = "bellrock.test";

/// How often another port is tried when a test beside this one was quicker.
const PORTS_TRIED: usize = 10;

/// A nameserver.
#[derive(Debug)]
pub struct Dns {
    program: PathBuf,
    folder: TempDir,
    address: SocketAddr,
    records: Records,
    process: Option<Process>,
}

/// What a nameserver knows.
#[derive(Debug, Clone, Default)]
pub struct Records {
    lines: String,
}

impl Records {
    /// None: every name is unknown.
    pub fn new() -> Records {
        Records::default()
    }

    /// Adds an A or AAAA record: `nodes.bellrock.test` has `10.0.0.1`.
    #[must_use]
    pub fn address(mut self, name: &str, address: &str) -> Records {
        // `writeln!` to a string does not fail.
        let _ = writeln!(self.lines, "host-record={name},{address},0");
        self
    }

    /// Adds a SRV record: `_peer._tcp.bellrock.test` has `node1.bellrock.test` on port 9010.
    #[must_use]
    pub fn service(mut self, name: &str, target: &str, port: u16) -> Records {
        let _ = writeln!(self.lines, "srv-host={name},{target},{port}");
        self
    }

    /// Adds a name that stands for another one (CNAME), which has an address here.
    #[must_use]
    pub fn alias(mut self, name: &str, of: &str) -> Records {
        let _ = writeln!(self.lines, "cname={name},{of}");
        self
    }

    /// Adds a name that exists and has none of the records that are asked for.
    #[must_use]
    pub fn text(mut self, name: &str, text: &str) -> Records {
        let _ = writeln!(self.lines, "txt-record={name},{text}");
        self
    }
}

/// The path of `dnsmasq`; skips and gives `None` if it is not installed.
#[track_caller]
pub fn find() -> Option<PathBuf> {
    // Debian puts it where only root's PATH leads.
    let found = ["/usr/sbin/dnsmasq", "/sbin/dnsmasq"].map(PathBuf::from).into_iter().find(|path| path.is_file());
    found.or_else(|| program("dnsmasq", "dnsmasq-base"))
}

impl Dns {
    /// Starts a nameserver on an address of its own.
    pub fn start(program: PathBuf, records: Records) -> Result<Dns> {
        Dns::start_on(program, own_address().into(), records)
    }

    /// Starts a nameserver on this loopback address.
    pub fn start_on(program: PathBuf, address: std::net::IpAddr, records: Records) -> Result<Dns> {
        let folder = tempfile::Builder::new().prefix("bellrock-dns-").tempdir()?;
        let mut dns = Dns { program, folder, address: SocketAddr::new(address, 0), records, process: None };
        for _ in 0..PORTS_TRIED {
            // Free for UDP and probably for TCP. dnsmasq takes no port 0; one that is taken meanwhile ends it at once.
            dns.address = UdpSocket::bind(SocketAddr::new(address, 0))?.local_addr()?;
            if dns.spawn().is_ok() {
                return Ok(dns);
            }
        }
        dns.spawn()?;
        Ok(dns)
    }

    /// Where it is asked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what it knows.
    pub fn set(&mut self, records: Records) -> Result<()> {
        self.stop()?;
        self.records = records;
        self.spawn()
    }

    /// Ends it; [`Dns::start_again`] brings it back.
    pub fn stop(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Starts it on the same port, with the same records.
    pub fn start_again(&mut self) -> Result<()> {
        self.stop()?;
        self.spawn()
    }

    fn spawn(&mut self) -> Result<()> {
        let file = self.folder.path().join("dnsmasq.conf");
        let (ip, port) = (self.address.ip(), self.address.port());
        std::fs::write(
            &file,
            format!(
                "port={port}\nlisten-address={ip}\nbind-interfaces\nno-resolv\nno-hosts\nno-daemon\nlog-queries\n\
                 local=/{DOMAIN}/\ncache-size=0\n{}",
                self.records.lines
            ),
        )?;
        let mut command = Command::new(&self.program);
        command.arg(format!("--conf-file={}", file.display())).arg("--user=").arg("--group=").arg("--pid-file");
        let mut process = Process::start("dnsmasq", &mut command)?;
        // It says so once its sockets are bound.
        let started = wait_within(DEADLINE.min(Duration::from_secs(30)), || {
            let line = process.find_line(|line| line.contains("started, version").then_some(()));
            line.map(|()| true).or_else(|| process.ended().map(|_| false))
        });
        if started != Some(true) {
            bail!("dnsmasq did not start on {}:\n{}", self.address, process.output());
        }
        self.process = Some(process);
        Ok(())
    }

    /// Its log: every question and answer.
    pub fn output(&self) -> String {
        self.process.as_ref().map(Process::output).unwrap_or_default()
    }
}
