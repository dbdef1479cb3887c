//! Fence: when a silent node's writers are fenced and who adopts them, as a state machine. The leader's warden.
//!
//! Every node renews its session with the leader. The leader alone judges time, and only to propose: a fence is an entry, so
//! a wrong judgement costs its writer a new registration and never a sample (PROTOCOL.md). That keeps the rules
//! here about patience alone:
//!
//! - A node is given up when it has not renewed for [`FenceRules::session_max`], and never before the leader has been one
//!   for that long: a new leader has heard of nobody yet. A leader that itself stood still gives everyone a full term too.
//! - A fenced writer is granted to a node with a session, spread by rendezvous hash, at most a few a node at once. When the
//!   adopter loses its session, or seems stuck, another grant supersedes it; each further grant is given more time,
//!   so that adoptions which are merely slow end.
//!
//! No clock, no I/O, no task: [`Fence::step`] is given the time, what happened and the applied index.

use std::collections::BTreeMap;
use std::time::Duration;

use index::{Index, Stage};
use model::{NodeId, WriterId};

/// What the machine goes by.
#[derive(Debug, Clone, Copy)]
pub struct FenceRules {
    /// A node that has not renewed its session for this long is given up.
    pub session_max: Duration,
    /// Up to this much is added, differently for each node, so that a hiccup of the leader fences nobody in herds.
    pub jitter_max: Duration,
    /// When the machine was not stepped for this long, its own process stood still and can't judge others.
    pub stall_max: Duration,
    /// Adoptions that one node may have at once.
    pub adoptions_per_node_max: usize,
    /// After this time without an end an adoption is granted to another node; doubled with each grant.
    pub patience: Duration,
    /// An entry whose outcome is not known is proposed again after this time.
    pub retry_after: Duration,
}

impl Default for FenceRules {
    fn default() -> FenceRules {
        FenceRules {
            session_max: Duration::from_secs(3),
            jitter_max: Duration::from_millis(300),
            stall_max: Duration::from_secs(1),
            adoptions_per_node_max: 2,
            patience: Duration::from_secs(60),
            retry_after: Duration::from_secs(2),
        }
    }
}

/// Doublings of [`FenceRules::patience`]: an hour at a minute to begin with.
const PATIENCE_DOUBLINGS_MAX: u32 = 6;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// This replica leads in this term, or does not lead.
    Leads(Option<u64>),
    /// A node renewed its session.
    Renewed {
        /// Which.
        node: NodeId,
        /// When, by the clock that `now` is of.
        at: Duration,
    },
    /// The entry proposed for this writer was applied or refused; the index says which.
    Decided {
        /// Whose.
        writer: WriterId,
    },
    /// Time passed.
    Tick,
}

/// An entry to propose, once: it is proposed again by the machine if it has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Fence.
    Fence {
        /// Whom.
        writer: WriterId,
    },
    /// GrantAdopt.
    GrantAdopt {
        /// Whose segments.
        writer: WriterId,
        /// To whom.
        node: NodeId,
        /// The number that the grant makes.
        number: u64,
    },
}

/// A lead over the group: from when, and what was heard since.
#[derive(Debug)]
struct Reign {
    term: u64,
    since: Duration,
    renewed: BTreeMap<NodeId, Duration>,
    /// When each fenced writer's newest grant was first seen.
    grants: BTreeMap<WriterId, (u64, Duration)>,
    /// Entries whose outcome is not known: until when it is waited for, and who would adopt.
    proposed: BTreeMap<WriterId, (Duration, Option<NodeId>)>,
}

/// The machine of one replica; see the module.
#[derive(Debug)]
pub struct Fence {
    rules: FenceRules,
    reign: Option<Reign>,
    last_step: Option<Duration>,
}

impl Fence {
    /// The machine of a replica that does not lead.
    pub fn new(rules: FenceRules) -> Fence {
        Fence { rules, reign: None, last_step: None }
    }

    /// Takes in what happened and returns what to propose. `now` is CLOCK_BOOTTIME; `index` is what is applied here.
    pub fn step(&mut self, now: Duration, input: Input, index: &Index) -> Vec<Output> {
        let stood_still = self.last_step.is_some_and(|last| now.saturating_sub(last) > self.rules.stall_max);
        self.last_step = Some(now);
        if stood_still && let Some(reign) = &mut self.reign {
            reign.since = now;
        }
        match input {
            Input::Leads(term) => self.leads(now, term),
            Input::Renewed { node, at } => {
                if let Some(reign) = &mut self.reign {
                    let renewed = reign.renewed.entry(node).or_default();
                    *renewed = at.max(*renewed);
                }
            }
            Input::Decided { writer } => {
                if let Some(reign) = &mut self.reign {
                    reign.proposed.remove(&writer);
                }
            }
            Input::Tick => {}
        }
        let Some(reign) = &mut self.reign else { return Vec::new() };
        reign.forget(now, index);
        let mut outputs = Vec::new();
        for (id, writer) in index.writers() {
            if reign.proposed.contains_key(&id) {
                continue;
            }
            let output = match writer.stage {
                Stage::Live if reign.is_given_up(now, writer.node, &self.rules) => Output::Fence { writer: id },
                Stage::Live => continue,
                Stage::Fenced => match reign.adopter(now, id, writer, index, &self.rules) {
                    Some(node) => Output::GrantAdopt { writer: id, node, number: writer.lease + 1 },
                    None => continue,
                },
            };
            let adopter = match output {
                Output::GrantAdopt { node, .. } => Some(node),
                Output::Fence { .. } => None,
            };
            reign.proposed.insert(id, (now + self.rules.retry_after, adopter));
            outputs.push(output);
        }
        outputs
    }

    fn leads(&mut self, now: Duration, term: Option<u64>) {
        if self.reign.as_ref().map(|reign| reign.term) == term {
            return;
        }
        self.reign = term.map(|term| Reign {
            term,
            since: now,
            renewed: BTreeMap::new(),
            grants: BTreeMap::new(),
            proposed: BTreeMap::new(),
        });
    }
}

impl Reign {
    /// Forgets what the index or the time has overtaken.
    fn forget(&mut self, now: Duration, index: &Index) {
        self.proposed.retain(|id, (until, _)| now < *until && index.writer(*id).is_some());
        self.grants.retain(|id, _| index.writer(*id).is_some());
        for (id, writer) in index.writers().filter(|(_, writer)| writer.adopter.is_some()) {
            let seen = self.grants.entry(id).or_insert((writer.lease, now));
            if seen.0 != writer.lease {
                *seen = (writer.lease, now);
            }
        }
    }

    /// Whether a node was silent for so long that its writers are fenced.
    fn is_given_up(&self, now: Duration, node: NodeId, rules: &FenceRules) -> bool {
        let heard = self.renewed.get(&node).copied().unwrap_or_default().max(self.since);
        now >= heard + rules.session_max + jitter(node, rules.jitter_max)
    }

    /// Whether a node was heard of lately: only such a one is given work.
    fn has_session(&self, now: Duration, node: NodeId, rules: &FenceRules) -> bool {
        self.renewed.get(&node).is_some_and(|at| now < *at + rules.session_max)
    }

    /// Who is to adopt a fenced writer, if it is not in good hands.
    fn adopter(
        &self,
        now: Duration,
        id: WriterId,
        writer: &index::Writer,
        index: &Index,
        rules: &FenceRules,
    ) -> Option<NodeId> {
        let mut stuck = None;
        if let Some(adopter) = writer.adopter {
            let since = self.grants.get(&id).map_or(now, |(_, since)| *since);
            let doublings = u32::try_from(writer.lease.saturating_sub(1)).unwrap_or(u32::MAX);
            let patience = rules.patience * (1 << doublings.min(PATIENCE_DOUBLINGS_MAX));
            if !self.is_given_up(now, adopter, rules) {
                if now < since + patience {
                    return None;
                }
                stuck = Some(adopter);
            }
        }
        let free = |node: &NodeId| {
            self.has_session(now, *node, rules)
                && Some(*node) != stuck
                && self.adoptions(*node, index) < rules.adoptions_per_node_max
        };
        self.renewed.keys().copied().filter(free).max_by_key(|node| rendezvous(id, *node))
    }

    /// Adoptions that a node has, or is about to be granted.
    fn adoptions(&self, node: NodeId, index: &Index) -> usize {
        let granted = index.writers().filter(|(id, writer)| {
            writer.stage == Stage::Fenced && writer.adopter == Some(node) && !self.proposed.contains_key(id)
        });
        let proposed = self.proposed.values().filter(|(_, adopter)| *adopter == Some(node));
        granted.count() + proposed.count()
    }
}

fn jitter(node: NodeId, max: Duration) -> Duration {
    max.mul_f64((mix(node.0) >> 11) as f64 / (1_u64 << 53) as f64)
}

/// The weight of a node for a writer: every replica finds the same order, and writers spread over nodes.
fn rendezvous(writer: WriterId, node: NodeId) -> u64 {
    mix(mix(mix(writer.0.incarnation) ^ writer.0.position) ^ node.0)
}

/// SplitMix64's finisher.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use index::{Command, Entry};
    use model::Revision;

    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);

    /// A leader, with the index that its outputs are applied to.
    struct World {
        fence: Fence,
        index: Index,
        now: Duration,
    }

    impl World {
        fn new(nodes: &[NodeId]) -> World {
            let mut index = Index::new(7, 1);
            for (i, node) in nodes.iter().enumerate() {
                let command = Command::Register { node: *node, nonce: i as u64 };
                index.apply(i as u64 + 1, &Entry { incarnation: 1, command }).unwrap();
            }
            let mut world = World { fence: Fence::new(FenceRules::default()), index, now: Duration::from_secs(100) };
            assert_eq!(world.step(Input::Leads(Some(1))), []);
            world
        }

        fn step(&mut self, input: Input) -> Vec<Output> {
            self.fence.step(self.now, input, &self.index)
        }

        /// Lets time pass in ticks while these nodes renew, and applies what is proposed. Returns it with its time.
        fn pass(&mut self, ms: u64, renewing: &[NodeId]) -> Vec<(u64, Output)> {
            let (mut all, start) = (Vec::new(), self.now);
            while self.now < start + Duration::from_millis(ms) {
                self.now += Duration::from_millis(100);
                for node in renewing {
                    let outputs = self.step(Input::Renewed { node: *node, at: self.now });
                    self.apply(outputs, start, &mut all);
                }
                let outputs = self.step(Input::Tick);
                self.apply(outputs, start, &mut all);
            }
            all
        }

        fn apply(&mut self, outputs: Vec<Output>, start: Duration, all: &mut Vec<(u64, Output)>) {
            for output in outputs {
                let (writer, command) = match output {
                    Output::Fence { writer } => (writer, Command::Fence { writer }),
                    Output::GrantAdopt { writer, node, number } => {
                        (writer, Command::GrantAdopt { writer, node, number })
                    }
                };
                let position = self.index.revision().position + 1;
                self.index.apply(position, &Entry { incarnation: 1, command }).unwrap();
                all.push(((self.now - start).as_millis() as u64, output));
                let next = self.step(Input::Decided { writer });
                self.apply(next, start, all);
            }
        }
    }

    fn writer(position: u64) -> WriterId {
        WriterId(Revision { incarnation: 1, position })
    }

    #[test]
    fn a_silent_node_is_fenced_and_adopted_and_no_other() {
        let mut world = World::new(&[A, B]);
        assert_eq!(world.pass(10_000, &[A, B]), []);
        let done = world.pass(10_000, &[A]);
        assert_eq!(done.len(), 2, "{done:?}");
        assert_eq!(done[0].1, Output::Fence { writer: writer(2) });
        assert!((2900..=3400).contains(&done[0].0), "{done:?}");
        assert_eq!(done[1].1, Output::GrantAdopt { writer: writer(2), node: A, number: 1 });
    }

    #[test]
    fn a_new_leader_and_one_that_stood_still_give_everyone_a_full_term() {
        let mut world = World::new(&[A]);
        assert_eq!(world.pass(2_900, &[]), []);
        world.step(Input::Leads(None));
        assert_eq!(world.pass(9_000, &[]), []);
        world.step(Input::Leads(Some(3)));
        assert_eq!(world.pass(2_900, &[]), []);
        world.now += Duration::from_secs(60);
        assert_eq!(world.pass(2_900, &[]), [], "stopped for a minute");
        assert_eq!(world.pass(1_000, &[]).len(), 1);
    }

    #[test]
    fn nobody_gets_more_than_a_few_and_everyone_gets_some() {
        let mut world = World::new(&[C; 9]);
        world.pass(5_000, &[A, B]);
        let count = |world: &World, node| world.index.writers().filter(|(_, w)| w.adopter == Some(node)).count();
        assert_eq!((count(&world, A), count(&world, B)), (2, 2));
    }

    #[test]
    fn a_lost_or_stuck_adopter_is_superseded_and_each_next_one_gets_more_time() {
        let mut world = World::new(&[C]);
        world.pass(4_000, &[A, B]);
        let first = world.index.writer(writer(1)).unwrap().adopter.unwrap();
        let other = if first == A { B } else { A };
        let done = world.pass(5_000, &[other]);
        let second = Output::GrantAdopt { writer: writer(1), node: other, number: 2 };
        assert!(matches!(done[..], [(2900..=3500, output)] if output == second), "{done:?}");
        assert_eq!(world.pass(115_000, &[A, B]), [], "two minutes for the second");
        let third = Output::GrantAdopt { writer: writer(1), node: first, number: 3 };
        assert_eq!(world.pass(5_000, &[A, B])[0].1, third);
        assert_eq!(world.pass(300_000, &[first]).len(), 0, "nobody else is there");
    }

    #[test]
    fn an_entry_of_unknown_outcome_is_proposed_again_but_not_at_once() {
        let mut world = World::new(&[C]);
        for _ in 0..40 {
            world.now += Duration::from_millis(100);
            if !world.step(Input::Tick).is_empty() {
                break;
            }
        }
        let mut silent = Duration::ZERO;
        while world.step(Input::Tick).is_empty() {
            world.now += Duration::from_millis(100);
            silent += Duration::from_millis(100);
        }
        assert_eq!(silent, FenceRules::default().retry_after);
    }
}
