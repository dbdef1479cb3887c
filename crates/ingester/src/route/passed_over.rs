//! Which nodes are passed over for a while because they did not take a part: a machine without I/O.
//!
//! A node that refuses rests for a moment; one that is silent for longer. Silence is told from slowness by a question
//! that costs a node nothing to answer: it is put to a node that has parts and has said nothing for a while, so that
//! one verdict serves all that wait for it, and a slow store is not taken for a dead node. A node that is passed over is
//! asked again, and taken up again when it says that it takes parts: no write has to try.

use std::collections::BTreeMap;
use std::time::Duration;

use model::NodeId;

/// The times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// A node that has parts and says nothing for so long is asked whether it is there.
    pub ask_after: Duration,
    /// How long a node rests that refused, before it is asked whether it takes parts again.
    pub rest_refused: Duration,
    /// The same for one that was silent.
    pub rest_silent: Duration,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input<'a> {
    /// The nodes whose writers are live now; others are forgotten.
    Live(&'a [NodeId]),
    /// A part is on its way to a node.
    Sent(NodeId),
    /// Nobody waits any more for what was sent, however it ended: once for each `Sent`.
    Ended(NodeId),
    /// A node has taken a part.
    Took(NodeId),
    /// A node, sent a part or asked, says that it takes none now.
    Refused(NodeId),
    /// A node can't be reached, or took too long.
    Silent(NodeId),
    /// A node that was asked says that it takes parts.
    Takes(NodeId),
    /// Time passes.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Ask a node whether it takes parts; the answer is `Takes`, `Refused` or `Silent`.
    Ask(NodeId),
    /// A node is passed over from now on.
    PassOver(NodeId),
    /// It is not any more.
    TakeUp(NodeId),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct PassedOver {
    rules: Rules,
    nodes: BTreeMap<NodeId, Known>,
}

/// What is known of a node. One that is not known of is well, and has no parts.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// Parts on their way.
    waiting: u32,
    /// When it last said anything; or when the first of those was sent, if that was later.
    heard: Duration,
    /// It is being asked.
    is_asked: bool,
    rest: Option<Rest>,
}

#[derive(Debug, Clone, Copy)]
struct Rest {
    until: Duration,
    is_silent: bool,
}

impl PassedOver {
    /// Nobody is passed over.
    pub(crate) fn new(rules: Rules) -> PassedOver {
        PassedOver { rules, nodes: BTreeMap::new() }
    }

    /// Whether a node is passed over.
    pub(crate) fn contains(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|known| known.rest.is_some())
    }

    /// Whether it is because it was silent: what was sent to it is not waited for.
    pub(crate) fn is_silent(&self, node: NodeId) -> bool {
        self.nodes.get(&node).and_then(|known| known.rest).is_some_and(|rest| rest.is_silent)
    }

    /// How many are passed over.
    pub(crate) fn len(&self) -> usize {
        self.nodes.values().filter(|known| known.rest.is_some()).count()
    }

    /// Takes an input at a time by boottime. Only `Live` and `Tick` bring questions out.
    pub(crate) fn step(&mut self, now: Duration, input: Input<'_>) -> Vec<Output> {
        let mut outputs = Vec::new();
        match input {
            Input::Live(live) => self.nodes.retain(|node, known| known.waiting > 0 || live.contains(node)),
            Input::Tick => {}
            Input::Sent(node) => {
                let known = self.nodes.entry(node).or_default();
                if known.waiting == 0 {
                    known.heard = known.heard.max(now);
                }
                known.waiting += 1;
            }
            Input::Ended(node) => {
                if let Some(known) = self.nodes.get_mut(&node) {
                    known.waiting = known.waiting.saturating_sub(1);
                }
            }
            Input::Took(node) => self.nodes.entry(node).or_default().heard = now,
            Input::Takes(node) => {
                let known = self.nodes.entry(node).or_default();
                known.is_asked = false;
                known.heard = now;
                if known.rest.take_if(|rest| rest.until <= now).is_some() {
                    outputs.push(Output::TakeUp(node));
                }
            }
            Input::Refused(node) => self.rest(now, node, false, &mut outputs),
            Input::Silent(node) => self.rest(now, node, true, &mut outputs),
        }
        if matches!(input, Input::Live(_) | Input::Tick) {
            self.ask_who_is_due(now, &mut outputs);
        }
        outputs
    }

    fn ask_who_is_due(&mut self, now: Duration, outputs: &mut Vec<Output>) {
        let ask_after = self.rules.ask_after;
        for (&node, known) in &mut self.nodes {
            let is_due = match known.rest {
                Some(rest) => rest.until <= now,
                None => known.waiting > 0 && known.heard + ask_after <= now,
            };
            if is_due && !known.is_asked {
                known.is_asked = true;
                outputs.push(Output::Ask(node));
            }
        }
    }

    fn rest(&mut self, now: Duration, node: NodeId, is_silent: bool, outputs: &mut Vec<Output>) {
        let known = self.nodes.entry(node).or_default();
        known.is_asked = false;
        let until = now + if is_silent { self.rules.rest_silent } else { self.rules.rest_refused };
        match &mut known.rest {
            Some(rest) => *rest = Rest { until: rest.until.max(until), is_silent },
            None => {
                known.rest = Some(Rest { until, is_silent });
                outputs.push(Output::PassOver(node));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Input::*;
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn machine() -> PassedOver {
        PassedOver::new(Rules { ask_after: ms(400), rest_refused: ms(1000), rest_silent: ms(2000) })
    }

    #[track_caller]
    fn check(machine: &mut PassedOver, at: u64, input: Input<'_>, expected: &[Output]) {
        assert_eq!(machine.step(ms(at), input), expected, "{input:?} at {at} ms");
    }

    #[test]
    fn a_node_that_answers_in_time_is_left_alone() {
        let mut m = machine();
        check(&mut m, 0, Sent(A), &[]);
        check(&mut m, 399, Tick, &[]);
        check(&mut m, 399, Took(A), &[]);
        check(&mut m, 399, Ended(A), &[]);
        check(&mut m, 9_000, Tick, &[]);
        assert!(!m.contains(A) && m.len() == 0);
    }

    #[test]
    fn a_slow_node_is_asked_and_waited_for() {
        let mut m = machine();
        check(&mut m, 0, Sent(A), &[]);
        check(&mut m, 300, Sent(A), &[]);
        check(&mut m, 400, Tick, &[Output::Ask(A)]);
        check(&mut m, 900, Tick, &[]);
        check(&mut m, 901, Takes(A), &[]);
        check(&mut m, 1300, Tick, &[]);
        check(&mut m, 1301, Tick, &[Output::Ask(A)]);
        assert!(!m.contains(A));
    }

    #[test]
    fn a_silent_node_is_passed_over_until_it_says_that_it_takes_parts() {
        let mut m = machine();
        check(&mut m, 0, Sent(A), &[]);
        check(&mut m, 400, Tick, &[Output::Ask(A)]);
        check(&mut m, 1000, Silent(A), &[Output::PassOver(A)]);
        assert!(m.contains(A) && m.is_silent(A) && !m.contains(B) && m.len() == 1);
        check(&mut m, 1001, Ended(A), &[]);
        check(&mut m, 2999, Live(&[A, B]), &[]);
        check(&mut m, 3000, Live(&[A, B]), &[Output::Ask(A)]);
        check(&mut m, 3500, Silent(A), &[]);
        check(&mut m, 5499, Tick, &[]);
        check(&mut m, 5500, Tick, &[Output::Ask(A)]);
        check(&mut m, 5501, Takes(A), &[Output::TakeUp(A)]);
        assert!(!m.contains(A) && m.len() == 0);
    }

    #[test]
    fn what_a_node_that_refuses_has_taken_before_is_waited_for() {
        let mut m = machine();
        check(&mut m, 0, Sent(A), &[]);
        check(&mut m, 100, Refused(A), &[Output::PassOver(A)]);
        assert!(m.contains(A) && !m.is_silent(A));
        check(&mut m, 150, Silent(A), &[]);
        assert!(m.is_silent(A), "silence is the heavier word");
        check(&mut m, 1100, Tick, &[]);
        check(&mut m, 2150, Tick, &[Output::Ask(A)]);
    }

    #[test]
    fn an_answer_from_before_does_not_end_a_rest() {
        let mut m = machine();
        check(&mut m, 0, Sent(A), &[]);
        check(&mut m, 400, Tick, &[Output::Ask(A)]);
        check(&mut m, 500, Silent(A), &[Output::PassOver(A)]);
        check(&mut m, 501, Takes(A), &[]);
        assert!(m.contains(A));
    }

    #[test]
    fn a_node_without_a_live_writer_is_forgotten() {
        let mut m = machine();
        check(&mut m, 0, Silent(A), &[Output::PassOver(A)]);
        check(&mut m, 1, Live(&[B]), &[]);
        assert!(!m.contains(A));
        check(&mut m, 9_000, Tick, &[]);
    }

    proptest! {
        /// Nobody is passed over for ever: whoever is, is asked, and taken up when it says yes.
        #[test]
        fn who_takes_parts_is_taken_up(inputs: Vec<(u8, u16)>) {
            let (mut m, mut now) = (machine(), Duration::ZERO);
            for (kind, after) in inputs {
                now += ms(u64::from(after));
                let input = [Sent(A), Ended(A), Took(A), Refused(A), Silent(A), Takes(A), Tick][usize::from(kind % 7)];
                m.step(now, input);
            }
            let is_asked = m.nodes.get(&A).is_some_and(|known| known.is_asked);
            if is_asked {
                m.step(now, Takes(A));
            }
            if m.contains(A) {
                now += ms(2000);
                prop_assert_eq!(m.step(now, Tick), [Output::Ask(A)]);
                prop_assert_eq!(m.step(now, Takes(A)), [Output::TakeUp(A)]);
            }
            prop_assert!(!m.contains(A));
        }
    }
}
