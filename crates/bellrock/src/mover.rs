//! Moves this node's bucket when it is asked to (`control`): the driver of [`bucket::Move`].
//!
//! Only a node that is alone, on the directory in its own data folder: others would go on in the old place. Whoever asked
//! may go away; whoever asks for the same again is told how far it is.

use std::sync::Arc;
use std::time::Duration;

use bucket::{Bucket, Location, Move, MoveError, MoveProgress, Step};
use runtime::{Clock, Random, Shutdown, Stage, StopReason, Tasks};
use tokio::sync::watch;

use crate::index_log;
use crate::late::Late;
use crate::logging::chain;
use crate::member::Member;

/// Between two attempts at the last word of a move that has happened.
const FINISH_AGAIN: Duration = Duration::from_secs(2);

/// Moves this node's bucket. Clones are the same.
#[derive(Clone)]
pub struct Mover {
    shared: Arc<Shared>,
}

struct Shared {
    /// Set if it is the directory of this node's own.
    bucket: Late<Bucket>,
    member: Late<Member>,
    clock: Arc<dyn Clock>,
    random: Random,
    tasks: Tasks,
    state: watch::Sender<State>,
    /// Held while a move is begun.
    beginning: tokio::sync::Mutex<()>,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nobody has asked.
    Idle,
    /// Under way.
    Moving {
        /// Where to.
        to: String,
        /// How far.
        progress: MoveProgress,
    },
    /// It has happened.
    Moved {
        /// Where to.
        location: Location,
    },
    /// It was given up.
    Failed(String),
}

impl State {
    /// For people.
    pub fn text(&self) -> String {
        match self {
            State::Idle => "the bucket is where it was".to_owned(),
            State::Moving { to, progress } => {
                let MoveProgress { step, objects, objects_total, bytes, bytes_total } = progress;
                match step {
                    Step::Look | Step::Check | Step::Mark => format!("trying {to}"),
                    Step::Double => "waiting for writes under way; from here on each goes to both places".to_owned(),
                    Step::Copy => format!(
                        "copied and compared {objects} of {objects_total} objects, {:.1} of {:.1} MB",
                        *bytes as f64 / 1e6,
                        *bytes_total as f64 / 1e6
                    ),
                    Step::Decide | Step::Finish | Step::Done => format!("changing over to {to}"),
                }
            }
            State::Moved { location } => {
                format!("the bucket has moved to {location}; from the next start on give {}", location.settings())
            }
            State::Failed(why) => why.clone(),
        }
    }
}

impl Mover {
    /// Of a node that is starting.
    pub fn new(member: Late<Member>, clock: Arc<dyn Clock>, random: Random, tasks: Tasks) -> Mover {
        let state = watch::Sender::new(State::Idle);
        let beginning = tokio::sync::Mutex::new(());
        Mover { shared: Arc::new(Shared { bucket: Late::default(), member, clock, random, tasks, state, beginning }) }
    }

    /// Sets what can be moved: the directory of this node's own.
    pub fn set_bucket(&self, bucket: Bucket) {
        self.shared.bucket.set(bucket);
    }

    /// Where the bucket lies, if it has moved.
    pub fn moved_to(&self) -> Option<Location> {
        match &*self.shared.state.borrow() {
            State::Moved { location } => Some(location.clone()),
            _ => None,
        }
    }

    /// What an operator should know of.
    pub fn notice(&self) -> Option<String> {
        match &*self.shared.state.borrow() {
            State::Idle | State::Failed(_) => None,
            moving @ State::Moving { to, .. } => Some(format!("the bucket is moving to {to}: {}", moving.text())),
            moved @ State::Moved { .. } => Some(format!("{} (bucket-moved)", moved.text())),
        }
    }

    /// Begins, or follows what was begun. Errors in words: what stands against it.
    pub async fn begin(&self, location: Location) -> Result<watch::Receiver<State>, String> {
        let _beginning = self.shared.beginning.lock().await;
        match &*self.shared.state.borrow() {
            State::Moving { to, .. } if *to == location.to_string() => return Ok(self.shared.state.subscribe()),
            State::Moving { to, .. } => return Err(format!("the bucket is moving to {to} now")),
            moved @ State::Moved { .. } => return Err(moved.text()),
            State::Idle | State::Failed(_) => {}
        }
        let (Some(member), Some(bucket)) = (self.shared.member.get(), self.shared.bucket.get()) else {
            return Err(
                "the bucket of this node is not the directory in its data folder, or the node is starting: only \
                        that directory can be moved (bucket-not-movable)"
                    .to_owned(),
            );
        };
        if !member.is_alone() {
            return Err(not_alone());
        }
        let cluster = index_log::cluster_of(&member.group());
        let begun = Move::new(bucket, location, cluster, &self.shared.random).await;
        let mut moving = begun.map_err(|error| chain(&error))?;
        let state = |progress| State::Moving { to: moving.target().to_owned(), progress };
        self.shared.state.send_replace(state(*moving.progress().borrow()));
        let followed = self.shared.state.subscribe();
        let (this, member) = (self.clone(), member.clone());
        self.shared.tasks.spawn("bucket.move", Stage::Draining, async move {
            tracing::info!(bucket = moving.target(), "moving the bucket");
            let state = match this.run(&mut moving, &member).await {
                Ok(()) => {
                    let location = moving.location().clone();
                    let (bucket, settings) = (moving.target(), location.settings());
                    tracing::warn!(bucket, settings, id = "bucket-moved", "bucket moved: change the settings");
                    State::Moved { location }
                }
                Err(why) => {
                    tracing::error!(error = why, id = "bucket-move-given-up", "bucket not moved");
                    State::Failed(why)
                }
            };
            this.shared.state.send_replace(state);
        });
        Ok(followed)
    }

    async fn run(&self, moving: &mut Move, member: &Member) -> Result<(), String> {
        let shutdown = self.shared.tasks.shutdown().clone();
        let mut progress = moving.progress();
        let to = moving.target().to_owned();
        loop {
            let next = progress.borrow_and_update().step;
            match next {
                Step::Done => return Ok(()),
                Step::Decide if !member.is_alone() => {
                    let why = not_alone();
                    moving.give_up(&why);
                    return Err(why);
                }
                _ => {}
            }
            let done = {
                let step = moving.step();
                tokio::pin!(step);
                loop {
                    tokio::select! {
                        done = &mut step => break done,
                        () = shutdown.reached(Stage::Draining) => return Err(stopping()),
                        _ = progress.changed() => {
                            let progress = *progress.borrow_and_update();
                            self.shared.state.send_replace(State::Moving { to: to.clone(), progress });
                        }
                    }
                }
            };
            match done {
                Ok(_) => {}
                Err(error @ MoveError::Unfinished { .. }) => {
                    tracing::warn!(error = chain(&error), "the last word of the move is said again");
                    self.pause(&shutdown).await;
                }
                Err(error @ MoveError::Unknown { .. }) => {
                    let why = chain(&error);
                    shutdown.begin(StopReason::Failed(why.clone()));
                    return Err(why);
                }
                Err(error) => return Err(chain(&error)),
            }
        }
    }

    async fn pause(&self, shutdown: &Shutdown) {
        tokio::select! {
            () = self.shared.clock.sleep(FINISH_AGAIN) => {}
            () = shutdown.reached(Stage::Draining) => {}
        }
    }
}

fn not_alone() -> String {
    "this node is not the only one of its cluster, and the others would go on in the old place: only a single node's \
     bucket can be moved (bucket-not-movable)"
        .to_owned()
}

fn stopping() -> String {
    "the process stops; if its next start goes on in the old place, the move can be asked for again and continues \
     (bucket-move-given-up)"
        .to_owned()
}
