//! The warden: drives [`Fence`] on whichever replica leads.
//!
//! It proposes each entry once; what becomes of it, it reads in the applied index, and the machine proposes it again
//! if it has to.

use std::sync::Arc;
use std::time::Duration;

use index::{Command, Entry};
use model::{NodeId, WriterId};
use runtime::{Clock, Stage, Tasks};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::IndexGroup;
use crate::fence::{Fence, FenceRules, Input, Output};
use crate::writer::chain;

/// How often sessions are looked at.
const TICK: Duration = Duration::from_millis(250);

/// Who leads, and who has renewed a session with this replica: the cluster's part.
pub trait Sessions: Send + Sync {
    /// The term in which this replica leads; `None` if it does not.
    fn leading_term(&self) -> Option<u64>;

    /// Nodes that renewed with this replica, each with the boottime of its last renewal here.
    fn renewals(&self) -> Vec<(NodeId, Duration)>;
}

/// The sessions of a node that is alone: it leads, and renews with itself.
pub struct AloneSessions {
    /// This node.
    pub node: NodeId,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl Sessions for AloneSessions {
    fn leading_term(&self) -> Option<u64> {
        Some(1)
    }

    fn renewals(&self) -> Vec<(NodeId, Duration)> {
        vec![(self.node, self.clock.boottime())]
    }
}

/// What the warden is built from.
pub struct WardenParts {
    /// The index.
    pub group: IndexGroup,
    /// Who leads, who is alive.
    pub sessions: Arc<dyn Sessions>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// It lives here, and ends in the flushing stage.
    pub tasks: Tasks,
}

/// Starts the warden of this replica: while it leads, silent nodes' writers are fenced and granted to others.
pub fn start_warden(rules: FenceRules, parts: WardenParts) {
    let tasks = parts.tasks.clone();
    tasks.spawn("ingester.fence", Stage::Flushing, run(rules, parts));
}

async fn run(rules: FenceRules, parts: WardenParts) {
    let shutdown = parts.tasks.shutdown().clone();
    let (decided, mut inbox) = mpsc::unbounded_channel();
    let mut fence = Fence::new(rules);
    loop {
        let input = tokio::select! {
            () = shutdown.reached(Stage::Flushing) => return,
            writer = inbox.recv() => writer.map_or(Input::Tick, |writer| Input::Decided { writer }),
            () = parts.clock.sleep(TICK) => Input::Tick,
        };
        let now = parts.clock.boottime();
        let mut inputs = vec![Input::Leads(parts.sessions.leading_term())];
        inputs.extend(parts.sessions.renewals().into_iter().map(|(node, at)| Input::Renewed { node, at }));
        inputs.push(input);
        // Step by step, but one look at the index: a machine that was told all at once proposes the same.
        let outputs: Vec<Output> = parts.group.read(|index| {
            let steps = inputs.into_iter().flat_map(|input| fence.step(now, input, index));
            steps.collect()
        });
        for output in outputs {
            propose(&parts.group, output, decided.clone());
        }
    }
}

fn propose(group: &IndexGroup, output: Output, decided: mpsc::UnboundedSender<WriterId>) {
    let (writer, command) = match output {
        Output::Fence { writer } => (writer, Command::Fence { writer }),
        Output::GrantAdopt { writer, node, number } => (writer, Command::GrantAdopt { writer, node, number }),
    };
    let (group, what) = (group.clone(), command.name());
    let entry = Entry { incarnation: group.read(|index| index.incarnation()), command };
    runtime::spawn(async move {
        match group.propose(entry).await {
            Ok(Ok(_)) => match output {
                Output::Fence { .. } => info!(%writer, "writer of a silent node fenced"),
                Output::GrantAdopt { node, number, .. } => {
                    info!(%writer, node = node.0, lease = number, "adoption granted");
                }
            },
            // Overtaken by another entry: the index says by which.
            Ok(Err(_)) => {}
            Err(error) => {
                warn!(%writer, error = chain(&error), entry = what, "entry not committed");
                return;
            }
        }
        // An error means that the process stops.
        decided.send(writer).ok();
    });
}
