//! Where a bucket's objects lie: in one place, or in two while they move from the old one to the new one.
//!
//! ```text
//! One(old) ──double──▶ Two ──decide──▶ Two, decided ──flip──▶ One(new)
//!    ▲                  │                   │
//!    └─────give up──────┴──take back────────┘  (only while the note of the move is known not to be there)
//! ```
//! - In `Two` a PUT is done when it is in both places, and reads come from the old one, which has everything.
//! - A new place that fails costs the move, never an ack: the PUT counts by the old place, which is in force alone again.
//! - Once decided, a restart may go on in the new place: a PUT that is not there is not done, whatever the old one says.
//!
//! Pure: it says what counts; `store` and `moving` do it.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// The places of one bucket, by whatever stands for a place. Clones are the same.
pub struct Places<P> {
    state: Arc<Mutex<State<P>>>,
}

impl<P> Clone for Places<P> {
    fn clone(&self) -> Places<P> {
        Places { state: self.state.clone() }
    }
}

struct State<P> {
    phase: Phase<P>,
    /// Changes that began since the phase before began.
    under_way: Arc<watch::Sender<usize>>,
}

#[derive(Clone)]
enum Phase<P> {
    One(P),
    Two(Two<P>),
}

/// Two places, and what is known of the move between them.
#[derive(Clone)]
pub struct Two<P> {
    /// Has everything.
    pub old: P,
    /// Is to have everything.
    pub new: P,
    fate: Arc<Mutex<Fate>>,
}

/// What becomes of a move.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Open,
    /// The old place is in force alone, for this reason.
    GivenUp(String),
    /// The new place is in force, or will be after a restart.
    Decided,
}

/// What a PUT or a delete goes to.
#[derive(Clone)]
pub enum Targets<P> {
    /// This place.
    One(P),
    /// Both of these.
    Two(Two<P>),
}

/// A change that is under way; ends when dropped.
pub struct UnderWay(Arc<watch::Sender<usize>>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Waits for the changes that began before.
pub struct Earlier(Arc<watch::Sender<usize>>);

impl Earlier {
    /// Returns when all of them have ended.
    pub async fn ended(self) {
        // An error means that the sender is gone, which is held here.
        let _unreachable = self.0.subscribe().wait_for(|count| *count == 0).await.is_err();
    }
}

impl<P: Clone> Places<P> {
    /// One place.
    pub fn one(place: P) -> Places<P> {
        Places { state: Arc::new(Mutex::new(State { phase: Phase::One(place), under_way: Arc::default() })) }
    }

    /// The place that has everything.
    pub fn whole(&self) -> P {
        match &self.state.lock().phase {
            Phase::One(place) => place.clone(),
            Phase::Two(two) => two.old.clone(),
        }
    }

    /// Begins a change: it goes to these.
    pub fn change(&self) -> (Targets<P>, UnderWay) {
        let state = self.state.lock();
        let targets = match &state.phase {
            Phase::One(place) => Targets::One(place.clone()),
            Phase::Two(two) => Targets::Two(two.clone()),
        };
        state.under_way.send_modify(|count| *count += 1);
        (targets, UnderWay(state.under_way.clone()))
    }

    /// From here on changes go to `new` as well; `None` if there are two places already. What began before went to the
    /// old place alone: it has to end before that is listed.
    pub fn double(&self, new: P) -> Option<(Two<P>, Earlier)> {
        let mut state = self.state.lock();
        let Phase::One(old) = &state.phase else { return None };
        let two = Two { old: old.clone(), new, fate: Arc::new(Mutex::new(Fate::Open)) };
        state.phase = Phase::Two(two.clone());
        Some((two, Earlier(std::mem::take(&mut state.under_way))))
    }

    /// The new place fails. `true`: the old one is in force alone, and what is in it is stored. `false`: it is too late for
    /// that, and what is not in the new one is not stored.
    pub fn give_up(&self, two: &Two<P>, reason: &str) -> bool {
        let mut state = self.state.lock();
        let mut fate = two.fate.lock();
        match &*fate {
            Fate::Decided => false,
            Fate::GivenUp(_) => true,
            Fate::Open => {
                *fate = Fate::GivenUp(reason.to_owned());
                state.phase = Phase::One(two.old.clone());
                true
            }
        }
    }

    /// From here on the move can't be given up. Errors: it was, for this reason.
    pub fn decide(&self, two: &Two<P>) -> Result<(), String> {
        let _state = self.state.lock();
        let mut fate = two.fate.lock();
        if let Fate::GivenUp(reason) = &*fate {
            return Err(reason.clone());
        }
        *fate = Fate::Decided;
        Ok(())
    }

    /// The note of the move is known not to be there: the old place is in force alone.
    pub fn take_back(&self, two: &Two<P>, reason: &str) {
        let mut state = self.state.lock();
        *two.fate.lock() = Fate::GivenUp(reason.to_owned());
        state.phase = Phase::One(two.old.clone());
    }

    /// The new place is in force alone. Panics unless that was decided.
    pub fn flip(&self, two: &Two<P>) {
        let mut state = self.state.lock();
        assert_eq!(*two.fate.lock(), Fate::Decided, "a move is decided before it happens");
        state.phase = Phase::One(two.new.clone());
    }
}

impl<P> Two<P> {
    /// Why the move was given up, if it was.
    pub fn given_up(&self) -> Option<String> {
        match &*self.fate.lock() {
            Fate::GivenUp(reason) => Some(reason.clone()),
            _ => None,
        }
    }

    /// Whether the move can't be given up any more.
    pub fn is_decided(&self) -> bool {
        *self.fate.lock() == Fate::Decided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(places: &Places<&'static str>) -> Vec<&'static str> {
        match places.change().0 {
            Targets::One(place) => vec![place],
            Targets::Two(two) => vec![two.old, two.new],
        }
    }

    #[test]
    fn a_move_goes_through_its_phases() {
        let places = Places::one("old");
        assert_eq!((targets(&places), places.whole()), (vec!["old"], "old"));
        let (two, _) = places.double("new").unwrap();
        assert!(places.double("third").is_none());
        assert_eq!((targets(&places), places.whole()), (vec!["old", "new"], "old"));
        assert_eq!(places.decide(&two), Ok(()));
        assert_eq!((targets(&places), places.whole()), (vec!["old", "new"], "old"));
        assert!(!places.give_up(&two, "late"), "what is not in the new place is not stored");
        places.flip(&two);
        assert_eq!((targets(&places), places.whole()), (vec!["new"], "new"));
        assert!(!places.give_up(&two, "later still"));
        assert_eq!(places.whole(), "new");
    }

    #[test]
    fn a_move_that_was_given_up_stays_so_and_another_is_another() {
        let places = Places::one("old");
        let (first, _) = places.double("new").unwrap();
        assert!(places.give_up(&first, "gone"));
        assert_eq!((targets(&places), first.given_up()), (vec!["old"], Some("gone".to_owned())));
        assert_eq!(places.decide(&first), Err("gone".to_owned()));
        let (second, _) = places.double("other").unwrap();
        // A PUT of the first move that fails only now concerns the second in nothing.
        assert!(places.give_up(&first, "again"));
        assert_eq!((targets(&places), second.given_up()), (vec!["old", "other"], None));
        places.decide(&second).unwrap();
        places.take_back(&second, "no space");
        assert_eq!((targets(&places), places.whole()), (vec!["old"], "old"));
        assert!(places.give_up(&second, "too"), "the old place counts");
    }

    #[tokio::test]
    async fn what_began_before_is_waited_for_and_nothing_else() {
        let places = Places::one("old");
        let (_, before) = places.change();
        let (_, earlier) = places.double("new").unwrap();
        let (_, _after) = places.change();
        let waiting = earlier.ended();
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(before);
        waiting.await;
    }
}
