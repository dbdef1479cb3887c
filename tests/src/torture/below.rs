//! The store below the nodes: one server, or three of them.

use std::path::Path;

use anyhow::{Result, bail};

use crate::garage::Garage;
use crate::namespaces::{Host, Network};
use crate::node::Settings;
use crate::s3::S3Server;
use crate::store::{Store, apply_garage};

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Under {
    /// `s3s-fs`, in this process, on a machine of its own.
    S3,
    /// Three real Garages, on three machines, of which each has everything.
    Garages,
}

/// The store.
pub enum Below {
    /// One server for all nodes.
    S3 {
        /// The server.
        store: Store,
        /// Where it is.
        host: Host,
    },
    /// Each node has a Garage of its own.
    Garages {
        /// The servers.
        garages: Vec<Garage>,
        /// Where they are.
        hosts: Vec<Host>,
    },
}

impl Below {
    /// A server of this process on a machine of its own.
    pub fn one_server(network: &mut Network) -> Result<Below> {
        let host = network.host("store")?;
        let server = host.run(|| S3Server::start_on(host.address()))??;
        Ok(Below::S3 { store: Store::S3(Box::new(server)), host })
    }

    /// Three Garages on three machines.
    pub fn garages(network: &mut Network, program: &Path) -> Result<Below> {
        let hosts = (0..3).map(|number| network.host(&format!("g{number}"))).collect::<Result<Vec<_>>>()?;
        Ok(Below::Garages { garages: Garage::start_together(program, &hosts)?, hosts })
    }

    /// What the node of this number needs to be told to use it.
    pub fn apply(&self, number: usize, settings: Settings) -> Settings {
        match self {
            Below::S3 { store, .. } => store.apply(settings),
            Below::Garages { garages, .. } => apply_garage(settings, &garages[number % garages.len()], "torture"),
        }
    }

    /// The S3 server of this process.
    pub fn s3(&self) -> Result<&S3Server> {
        match self {
            Below::S3 { store: Store::S3(server), .. } => Ok(server),
            _ => bail!("the store is no S3 server of this process"),
        }
    }

    /// The machine of the store that the node of this number uses.
    pub fn host(&self, number: usize) -> Host {
        match self {
            Below::S3 { host, .. } => host.clone(),
            Below::Garages { hosts, .. } => hosts[number % hosts.len()].clone(),
        }
    }
}
