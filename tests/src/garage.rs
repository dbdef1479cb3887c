//! A real Garage, started from nothing: one node on loopback that syncs what it answers for.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::client::Client;
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

/// How often other ports are tried when somebody was quicker to take one.
const STARTS_MAX: usize = 5;

/// A running Garage with its data; both go when it is dropped.
#[derive(Debug)]
pub struct Garage {
    program: PathBuf,
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
        let mut last = None;
        for _ in 0..STARTS_MAX {
            match Garage::start_once(program) {
                Ok(garage) => return Ok(garage),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("it is started at least once")?)
    }

    fn start_once(program: &Path) -> Result<Garage> {
        let folder = tempfile::Builder::new().prefix("bellrock-garage-").tempdir()?;
        let [rpc, s3, admin] = free_ports()?;
        let at = folder.path().display();
        let config = format!(
            "metadata_dir = \"{at}/meta\"\n\
             data_dir = \"{at}/data\"\n\
             db_engine = \"sqlite\"\n\
             metadata_fsync = true\n\
             data_fsync = true\n\
             replication_factor = 1\n\
             rpc_bind_addr = \"127.0.0.1:{rpc}\"\n\
             rpc_public_addr = \"127.0.0.1:{rpc}\"\n\
             rpc_secret = \"{}\"\n\
             [s3_api]\n\
             s3_region = \"{REGION}\"\n\
             api_bind_addr = \"127.0.0.1:{s3}\"\n\
             [admin]\n\
             api_bind_addr = \"127.0.0.1:{admin}\"\n",
            "0123456789abcdef".repeat(4),
        );
        std::fs::write(folder.path().join("garage.toml"), config)?;
        let mut command = Command::new(program);
        command.arg("-c").arg(folder.path().join("garage.toml")).arg("server").env("RUST_LOG", "garage=info");
        let mut garage = Garage {
            program: program.to_owned(),
            process: Process::start("garage", &mut command)?,
            endpoint: format!("http://127.0.0.1:{s3}"),
            admin: Client::new(&format!("http://127.0.0.1:{admin}")),
            folder,
        };
        // `node id` reads a file; the others ask the server, which has to be there.
        let node = garage.wait_for_answer(&["node", "id", "-q"])?;
        let node = node.trim().split('@').next().unwrap_or_default().to_owned();
        garage.wait_for_answer(&["status"])?;
        garage.run(&["layout", "assign", "-z", "here", "-c", "10G", &node])?;
        garage.run(&["layout", "apply", "--version", "1"])?;
        garage.run(&["key", "import", "--yes", "-n", "bellrock", ACCESS_KEY_ID, SECRET_ACCESS_KEY])?;
        garage.run(&["bucket", "create", BUCKET])?;
        garage.run(&["bucket", "allow", "--read", "--write", BUCKET, "--key", ACCESS_KEY_ID])?;
        // Garage's own word for "this node's partitions are up".
        let healthy = wait_within(DEADLINE, || {
            let answer = garage.admin.get("/health", &[]).ok()?;
            (answer.status == 200).then_some(())
        });
        healthy.context("garage is not healthy")?;
        Ok(garage)
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
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.folder.path().join("garage.toml")).args(arguments);
        let output = command.stdin(Stdio::null()).env("RUST_LOG", "error").output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("garage {arguments:?}: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(text)
    }
}

/// Ports that are free now: Garage cannot be given port 0, as its nodes tell each other where they listen.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut listeners = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        // Held until all are found, so that no two are the same.
        listeners.push(listener);
    }
    Ok(ports)
}
