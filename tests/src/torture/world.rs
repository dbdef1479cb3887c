//! Machines on a network, a store, a nameserver, and the crowd that writes and reads; and what it means that all is well.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::client::Client;
use crate::cluster::SECRET;
use crate::dns::{Dns, Records};
use crate::garage::Garage;
use crate::known::{Verdict, Window};
use crate::namespaces::Network;
use crate::node::Settings;
use crate::random::Random;
use crate::torture::below::{Below, Under};
use crate::torture::findings::Findings;
use crate::torture::machine::{Machine, PEER_PORT};
use crate::torture::reading::Reading;
use crate::torture::writing::Writing;
use crate::wait::wait_within;

/// The name whose addresses are the nodes'.
pub const NODES: &str = "nodes.bellrock.test";

/// All must be well again so long after a fault is over.
const WELL_WITHIN: Duration = Duration::from_secs(60);

/// The same over three Garages, which need more than a minute to see that one of them is silent.
const WELL_OVER_GARAGES_WITHIN: Duration = Duration::from_secs(150);

/// Requests that one question of a check is about.
const REQUESTS_ASKED: usize = 400;

/// Everything there is. Dropped in this order: the crowd, the nodes, what they need, the network.
pub struct World {
    /// What chance decides.
    pub random: Random,
    /// What was found to be wrong.
    pub findings: Arc<Findings>,
    /// Who writes.
    pub writing: Arc<Writing>,
    /// Who reads.
    pub reading: Arc<Reading>,
    crowd: Crowd,
    /// The machines with nodes.
    pub machines: Vec<Machine>,
    /// The store.
    pub below: Below,
    /// The nameserver that knows the nodes.
    pub dns: Dns,
    /// What connects them.
    pub network: Network,
    /// For each sender: the first request that [`World::check_recent`] has not seen yet.
    checked: Vec<usize>,
}

/// Threads that end when they are told so.
struct Crowd {
    writing: Arc<Writing>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn end(&mut self) {
        self.writing.end();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                self.writing.findings().add("a sender or a reader panicked".to_owned());
            }
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.end();
    }
}

impl World {
    /// Makes a world with a store and `count` machines on which nothing runs yet. Called on the network's hub.
    ///
    /// Skips and gives `None` where there can be none.
    pub fn new(
        mut network: Network,
        below: Under,
        settings: &Settings,
        count: usize,
        seed: u64,
    ) -> Option<Result<World>> {
        let nameserver = crate::dns::find()?;
        let garage = if below == Under::S3 { None } else { Some(Garage::program()?) };
        let made = (|| {
            let below = match garage {
                None => Below::one_server(&mut network)?,
                Some(program) => Below::garages(&mut network, &program)?,
            };
            let dns = Dns::start_on(nameserver, network.hub().address().into(), Records::new())?;
            let hosts = (0..count).map(|number| network.host(&format!("n{number}"))).collect::<Result<Vec<_>>>()?;
            Ok((below, dns, hosts))
        })();
        let (below, dns, hosts) = match made {
            Ok(made) => made,
            Err(error) => return Some(Err(error)),
        };
        let settings = settings
            .clone()
            .argument(format!("--join=dns+{NODES}:{PEER_PORT}"))
            .argument(format!("--join.nameserver={}", dns.address()))
            .variable("BELLROCK_PEER_SECRET", SECRET);
        let mut machines = Vec::new();
        for (number, host) in hosts.into_iter().enumerate() {
            machines.push(Machine::new(&format!("n{number}"), host, &below.apply(number, settings.clone()))?);
        }
        let findings = Arc::new(Findings::default());
        let writing = Arc::new(Writing::new(seed, vec![], findings.clone()));
        let reading = Arc::new(Reading::new(writing.clone(), findings.clone()));
        let checked = vec![0; writing.known.shape.senders];
        let (crowd, random) = (Crowd { writing: writing.clone(), threads: vec![] }, Random::new(seed));
        Some(Ok(World { random, findings, writing, reading, crowd, machines, below, dns, network, checked }))
    }

    /// Starts every node, as a new cluster, and the crowd once it is whole.
    pub fn begin(&mut self) -> Result<()> {
        self.dns.set(self.records())?;
        for machine in &mut self.machines {
            machine.start()?;
        }
        self.wait_until_well()?;
        self.gather_crowd();
        Ok(())
    }

    /// Starts the senders and the readers.
    pub fn gather_crowd(&mut self) {
        let all: Vec<usize> = (0..self.machines.len()).collect();
        self.gather_crowd_at(&all);
    }

    /// Starts the senders and the readers, who use these nodes.
    pub fn gather_crowd_at(&mut self, numbers: &[usize]) {
        self.send_crowd_to(numbers);
        self.begin_gaps();
        self.crowd.threads.extend(self.writing.start());
        self.crowd.threads.extend(self.reading.start(self.machines.len()));
    }

    /// Tells the senders and the readers to use these nodes.
    pub fn send_crowd_to(&self, numbers: &[usize]) {
        self.writing.set_nodes(numbers.iter().map(|number| self.machines[*number].url()).collect());
    }

    /// Begins to measure gaps anew.
    pub fn begin_gaps(&self) {
        for gap in [&self.writing.gap, &self.reading.gap, &self.reading.fresh_gap] {
            gap.begin();
        }
    }

    /// Ends the senders and the readers.
    pub fn dismiss_crowd(&mut self) {
        self.crowd.end();
    }

    /// What the nameserver should know of all machines.
    pub fn records(&self) -> Records {
        let add = |records: Records, machine: &Machine| records.address(NODES, &machine.host.address().to_string());
        self.machines.iter().fold(Records::new(), add)
    }

    /// A machine by chance.
    pub fn any(&mut self) -> usize {
        self.random.below(self.machines.len() as u64) as usize
    }

    /// A time by chance, in milliseconds.
    pub fn span(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.random.below(to - from))
    }

    /// Lets this much time pass; errors as soon as anything is found to be wrong.
    pub fn hold(&self, span: Duration) -> Result<()> {
        match wait_within(span, || self.findings.none().err()) {
            Some(found) => Err(found),
            None => Ok(()),
        }
    }

    /// Waits for a condition; errors as soon as anything is found to be wrong, or when it does not come.
    pub fn wait<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut condition: impl FnMut(&mut World) -> Option<T>,
    ) -> Result<T> {
        let waited = wait_within(within, || match self.findings.none() {
            Err(found) => Some(Err(found)),
            Ok(()) => condition(self).map(Ok),
        });
        waited.unwrap_or_else(|| bail!("{what}: not within {within:?}\n{}", self.describe()))
    }

    fn well_within(&self) -> Duration {
        match self.below {
            Below::S3 { .. } => WELL_WITHIN,
            Below::Garages { .. } => WELL_OVER_GARAGES_WITHIN,
        }
    }

    /// Waits until so many more requests were acked.
    pub fn wait_for_acks(&mut self, requests: u64) -> Result<()> {
        let samples = self.writing.acked_samples() + requests * self.writing.known.shape.samples_per_request();
        self.wait("writes are acked", self.well_within(), |world| {
            (world.writing.acked_samples() >= samples).then_some(())
        })
    }

    /// The machine whose node leads the index, and its term; waited for.
    pub fn leader(&mut self) -> Result<(usize, u64)> {
        self.wait("a node leads the index", WELL_WITHIN, |world| {
            let leads = |machine: &Machine| {
                let client = Client::with_timeout(&machine.url(), Duration::from_secs(2));
                let leads = client.metric("bellrock_consensus_is_leader").ok().flatten();
                (leads == Some(1.0)).then(|| client.metric("bellrock_consensus_term").ok().flatten()).flatten()
            };
            let terms = world.machines.iter().enumerate().filter_map(|(number, m)| Some((number, leads(m)? as u64)));
            terms.max_by_key(|(_, term)| *term)
        })
    }

    /// The cluster that the bucket says it is of, as its file has it; `None`: none yet.
    pub fn cluster_file(&self) -> Result<Option<String>> {
        let file = self.below.s3()?.objects().join("below/here/cluster.json");
        match std::fs::read_to_string(&file) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| file.display().to_string()),
        }
    }

    /// Waits until every node is ready and votes, errors if that takes too long, or if anything was found to be wrong.
    pub fn wait_until_well(&mut self) -> Result<()> {
        let all: Vec<usize> = (0..self.machines.len()).collect();
        self.wait_until_these_are_well(&all)
    }

    /// The same of these machines, which are all that run.
    pub fn wait_until_these_are_well(&mut self, numbers: &[usize]) -> Result<()> {
        self.wait_until_voters(numbers, ::cluster::voters_wanted(numbers.len()))
    }

    /// The same, while so many vote.
    pub fn wait_until_voters(&mut self, numbers: &[usize], voters: usize) -> Result<()> {
        let voters = voters as f64;
        self.wait("all nodes are ready and vote", self.well_within(), |world| {
            let is_well = |number: &usize| {
                let client = Client::with_timeout(&world.machines[*number].url(), Duration::from_secs(5));
                client.get("/-/ready", &[]).is_ok_and(|ready| ready.status == 200)
                    && client.metric("bellrock_consensus_voters").is_ok_and(|count| count == Some(voters))
            };
            numbers.iter().all(is_well).then_some(())
        })?;
        for number in numbers {
            self.machines[*number].must_live()?;
        }
        Ok(())
    }

    /// Reads back what was sent since the last check, from a node by chance.
    pub fn check_recent(&mut self) -> Result<()> {
        let number = self.any();
        for sender in 0..self.checked.len() {
            let from = self.checked[sender];
            self.checked[sender] = self.check(number, sender, from)?;
        }
        Ok(())
    }

    /// Reads back everything, from each node, and looks that there is nothing else.
    pub fn check_everything(&mut self) -> Result<()> {
        let all: Vec<usize> = (0..self.machines.len()).collect();
        self.check_everything_at(&all)
    }

    /// The same from these nodes.
    pub fn check_everything_at(&mut self, numbers: &[usize]) -> Result<()> {
        for number in numbers.iter().copied() {
            for sender in 0..self.checked.len() {
                self.check(number, sender, 0)?;
            }
            let client = self.machines[number].client();
            let names = client.data("/api/v1/label/__name__/values", &[])?;
            if names != serde_json::json!(["crash"]) {
                bail!("{}: only `crash` was sent, and there is {names}", self.machines[number].name);
            }
        }
        Ok(())
    }

    /// Reads back a sender's requests from one on, from one node; gives the number of those that were acked before.
    fn check(&mut self, number: usize, sender: usize, from: usize) -> Result<usize> {
        let upto = self.writing.acked_requests(sender);
        let known = self.writing.known;
        let (name, client) = (self.machines[number].name.clone(), self.machines[number].client());
        for first in (from..upto).step_by(REQUESTS_ASKED) {
            let window = Window { sender, requests: first..upto.min(first + REQUESTS_ASKED) };
            // A leader that seems to change for a moment is no fault; an answer of its time is no proof.
            let answer = self.wait(&format!("{name} answers {window:?}"), self.well_within(), |_| {
                let answer = known.ask(&client, &window).ok()?.ok()?;
                answer.warnings.is_empty().then_some(answer)
            })?;
            let mut verdict = Verdict::default();
            let sent = self.writing.sent_requests(sender);
            known.judge(&window, &answer, |request| request < upto, sent, &mut verdict)?;
            if !verdict.is_clean() {
                bail!("{name}, asked for {window:?}, when all was well: {verdict:?}");
            }
        }
        Ok(upto)
    }

    /// Writes what every process has said last into files of a folder.
    pub fn write_logs(&mut self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        for machine in &mut self.machines {
            std::fs::write(folder.join(format!("{}.log", machine.name)), machine.output())?;
        }
        if let Below::Garages { garages, .. } = &mut self.below {
            for (number, garage) in garages.iter_mut().enumerate() {
                std::fs::write(folder.join(format!("g{number}.log")), garage.process().output())?;
            }
        }
        Ok(())
    }

    /// How every node does, in words.
    pub fn describe(&mut self) -> String {
        let mut text = String::new();
        for machine in &mut self.machines {
            let client = Client::with_timeout(&machine.url(), Duration::from_secs(2));
            let ready = client.get("/-/ready", &[]);
            let ready =
                ready.map_or_else(|error| format!("{error:#}"), |ready| format!("{} {}", ready.status, ready.text()));
            text += &format!("{}: {ready}\n", machine.name);
        }
        text
    }
}
