//! A real Garage, started from nothing: one node on loopback, or several on machines of a test's own, that sync what they
//! answer for.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::client::Client;
use crate::loopback::own_addresses;
use crate::namespaces::Host;
use crate::process::Process;
use crate::skips;
use crate::wait::{DEADLINE, wait_within};

/// The access key id that is imported.
pub const ACCESS_KEY_ID: &str = "GK0123456789abcdef01234567";

/// The secret that goes with it; a test greps everything for it.
pub const SECRET_ACCESS_KEY: &str = "5ec0e1a4b7d2936f5ec0e1a4b7d2936f5ec0e1a4b7d2936f5ec0e1a4b7d2936f";

/// The bucket that is there at the start.
pub const BUCKET: &str = "metrics";

/// What requests are signed for.
pub const REGION: &str = "garage";

/// Where `.ci/run` installs it, below the cache folder.
const CACHED: &str = "bellrock-ci/tools-garage/bin/garage";

/// For the others, for S3 and for the administrator, on a machine of its own.
const PORTS: [u16; 3] = [3901, 3900, 3903];

/// A running Garage with its data; both go when it is dropped.
#[derive(Debug)]
pub struct Garage {
    program: PathBuf,
    host: Option<Host>,
    process: Process,
    endpoint: String,
    admin: Client,
    folder: TempDir,
}

impl Garage {
    /// The program, on `PATH` or in the cache folder; skips and gives `None` if it is in neither.
    #[track_caller]
    pub fn program() -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&path).map(|dir| dir.join("garage")).find(|file| file.is_file());
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
        let cached = cache.map(|cache| cache.join(CACHED)).filter(|file| file.is_file());
        let found = on_path.or(cached);
        if found.is_none() {
            skips::skip(
                "no `garage` in PATH or the cache",
                "cargo install garage --locked --debug --root ~/.cache/bellrock-ci/tools-garage",
            );
        }
        found
    }

    /// Starts it, gives its one node the whole layout, and makes the key and the bucket.
    pub fn start(program: &Path) -> Result<Garage> {
        let mut garage = Garage::spawn(program, None, &own_addresses(3)?, 1)?;
        let node = garage.id()?;
        garage.run(&["layout", "assign", "-z", "here", "-c", "10G", &node])?;
        garage.make_bucket()?;
        Ok(garage)
    }

    /// Starts one on each of these machines, each a zone of its own, and makes them one store of which each has everything.
    pub fn start_together(program: &Path, hosts: &[Host]) -> Result<Vec<Garage>> {
        let mut garages = Vec::new();
        for host in hosts {
            let addresses = PORTS.map(|port| SocketAddr::from((host.address(), port)));
            garages.push(Garage::spawn(program, Some(host.clone()), &addresses, hosts.len())?);
        }
        let ids = garages.iter_mut().map(Garage::id).collect::<Result<Vec<String>>>()?;
        for (host, id) in hosts.iter().zip(&ids).skip(1) {
            garages[0].run(&["node", "connect", &format!("{id}@{}:{}", host.address(), PORTS[0])])?;
        }
        for (number, id) in ids.iter().enumerate() {
            let zone = format!("zone{number}");
            // It knows the others a moment after they are connected.
            garages[0].wait_for_answer(&["layout", "assign", "-z", &zone, "-c", "10G", id])?;
        }
        garages[0].make_bucket()?;
        for garage in &garages {
            garage.wait_until_healthy()?;
        }
        Ok(garages)
    }

    /// `addresses`: for the others, for S3 and for the administrator; it cannot be given port 0, as its nodes tell each other
    /// where they listen.
    fn spawn(program: &Path, host: Option<Host>, addresses: &[SocketAddr], replication: usize) -> Result<Garage> {
        let folder = tempfile::Builder::new().prefix("bellrock-garage-").tempdir()?;
        let [rpc, s3, admin] = addresses else { bail!("Garage listens on three ports, not on {addresses:?}") };
        let at = folder.path().display();
        let config = format!(
            "metadata_dir = \"{at}/meta\"\n\
             data_dir = \"{at}/data\"\n\
             db_engine = \"sqlite\"\n\
             metadata_fsync = true\n\
             data_fsync = true\n\
             replication_factor = {replication}\n\
             rpc_bind_addr = \"{rpc}\"\n\
             rpc_public_addr = \"{rpc}\"\n\
             rpc_secret = \"{}\"\n\
             [s3_api]\n\
             s3_region = \"{REGION}\"\n\
             api_bind_addr = \"{s3}\"\n\
             [admin]\n\
             api_bind_addr = \"{admin}\"\n",
            "0123456789abcdef".repeat(4),
        );
        std::fs::write(folder.path().join("garage.toml"), config)?;
        let mut command = command(program, host.as_ref(), folder.path());
        let process = Process::start("garage", command.arg("server").env("RUST_LOG", "garage=info"))?;
        Ok(Garage {
            program: program.to_owned(),
            host,
            process,
            endpoint: format!("http://{s3}"),
            admin: Client::new(&format!("http://{admin}")),
            folder,
        })
    }

    /// Starts it again on its data, after it has ended.
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = command(&self.program, self.host.as_ref(), self.folder.path());
        self.process = Process::start("garage", command.arg("server").env("RUST_LOG", "garage=info"))?;
        Ok(())
    }

    /// Its id, waited for.
    fn id(&mut self) -> Result<String> {
        // `node id` reads a file; the others ask the server, which has to be there.
        let node = self.wait_for_answer(&["node", "id", "-q"])?;
        self.wait_for_answer(&["status"])?;
        Ok(node.trim().split('@').next().unwrap_or_default().to_owned())
    }

    /// Puts the layout in force, and makes the key and the bucket.
    fn make_bucket(&mut self) -> Result<()> {
        self.run(&["layout", "apply", "--version", "1"])?;
        self.wait_until_healthy()?;
        self.run(&["key", "import", "--yes", "-n", "bellrock", ACCESS_KEY_ID, SECRET_ACCESS_KEY])?;
        self.run(&["bucket", "create", BUCKET])?;
        self.run(&["bucket", "allow", "--read", "--write", BUCKET, "--key", ACCESS_KEY_ID])?;
        Ok(())
    }

    /// Waits for its own word that its partitions are up.
    pub fn wait_until_healthy(&self) -> Result<()> {
        let healthy = wait_within(DEADLINE, || {
            let answer = self.admin.get("/health", &[]).ok()?;
            (answer.status == 200).then_some(())
        });
        healthy.context("garage is not healthy")
    }

    /// Its URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// How many requests of one of S3's operations it has counted, such as `ListObjectsV2`.
    pub fn count(&self, operation: &str) -> Result<u64> {
        let page = self.admin.get("/metrics", &[])?.text();
        if !page.contains("api_s3_request_counter") {
            bail!("garage counts no requests:\n{page}");
        }
        let label = format!("api_endpoint=\"{operation}\"");
        let lines = page.lines().filter(|line| line.starts_with("api_s3_request_counter") && line.contains(&label));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64)
    }

    fn wait_for_answer(&mut self, arguments: &[&str]) -> Result<String> {
        let answer = wait_within(DEADLINE, || match self.run(arguments) {
            Ok(text) => Some(Ok(text)),
            Err(error) => self.process.ended().map(|status| Err(error.context(format!("garage ended with {status}")))),
        });
        match answer {
            Some(answer) => answer,
            None => bail!("garage does not answer to {arguments:?}:\n{}", self.process.output()),
        }
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = command(&self.program, self.host.as_ref(), self.folder.path());
        let output = command.args(arguments).stdin(Stdio::null()).env("RUST_LOG", "error").output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("garage {arguments:?}: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(text)
    }
}

/// The program where it is to run, with its configuration.
fn command(program: &Path, host: Option<&Host>, folder: &Path) -> Command {
    let mut command = host.map_or_else(|| Command::new(program), |host| host.command(program));
    command.arg("-c").arg(folder.join("garage.toml"));
    command
}
