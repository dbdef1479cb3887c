//! What waits for the group's thread: inputs in their order, messages of other replicas within bounds.
//!
//! A condition variable and not a channel of tokio's: the thread waits for the next tick as well, by its own
//! clock, also while the runtime is shut down around it.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Inputs for one consumer.
pub struct Queue<T> {
    state: Mutex<State<T>>,
    pushed: Condvar,
    bytes_max: usize,
}

struct State<T> {
    inputs: VecDeque<(T, usize)>,
    /// Of those that are bounded.
    bytes: usize,
    is_waiting: bool,
    is_closed: bool,
}

impl<T> Queue<T> {
    /// Holds at most `bytes_max` of what [`Queue::offer`] brings.
    pub fn new(bytes_max: usize) -> Queue<T> {
        let state = State { inputs: VecDeque::new(), bytes: 0, is_waiting: false, is_closed: false };
        Queue { state: Mutex::new(state), pushed: Condvar::new(), bytes_max }
    }

    /// Appends an input that its sender bounds otherwise; `false` when nobody will take it any more.
    pub fn push(&self, input: T) -> bool {
        self.append(input, 0, |_| true)
    }

    /// Appends an input of so many bytes if there is room.
    pub fn offer(&self, input: T, bytes: usize) -> bool {
        self.append(input, bytes, |state| state.bytes + bytes <= self.bytes_max)
    }

    fn append(&self, input: T, bytes: usize, fits: impl FnOnce(&State<T>) -> bool) -> bool {
        let mut state = self.state.lock();
        if state.is_closed || !fits(&state) {
            return false;
        }
        state.bytes += bytes;
        state.inputs.push_back((input, bytes));
        let wakes = state.is_waiting;
        drop(state);
        if wakes {
            self.pushed.notify_one();
        }
        true
    }

    /// Takes what waits, one at least unless time is up or the queue is closed. `take` says with each whether to stop
    /// after it. `false`: closed.
    pub fn wait(&self, timeout: Option<Duration>, mut take: impl FnMut(T) -> bool) -> bool {
        let mut state = self.state.lock();
        if state.inputs.is_empty() && !state.is_closed {
            state.is_waiting = true;
            match timeout {
                // Whether it was time, the caller sees by its clock.
                Some(timeout) => drop(self.pushed.wait_for(&mut state, timeout)),
                None => self.pushed.wait(&mut state),
            }
            state.is_waiting = false;
        }
        while let Some((input, bytes)) = state.inputs.pop_front() {
            state.bytes -= bytes;
            if take(input) {
                break;
            }
        }
        !state.is_closed
    }

    /// Nothing more is taken; what waits is dropped.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        let dropped = std::mem::take(&mut state.inputs);
        drop(state);
        self.pushed.notify_one();
        drop(dropped);
    }
}
