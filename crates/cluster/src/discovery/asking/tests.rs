use super::*;

const NODES: &str = "dns+nodes:1";

/// A machine, its sources, and the time.
struct Scene {
    asking: Asking,
    now: Now,
}

impl Scene {
    fn new(sources: &[&str]) -> Scene {
        let sources = sources.iter().map(|source| source.parse().unwrap()).collect();
        let now = Now { boottime: Duration::from_secs(100), ms: 1_000_000 };
        Scene { asking: Asking::new(sources, Random::from_seed(1)), now }
    }

    fn advance(&mut self, by: Duration) {
        self.now.boottime += by;
        self.now.ms += by.as_millis() as i64;
    }

    fn tick(&mut self) -> Vec<Output> {
        self.asking.step(self.now, Input::Tick)
    }

    /// Waits until a source is to be asked; says how long that was.
    fn ask(&mut self) -> Duration {
        let wait = self.asking.next_at().unwrap().saturating_sub(self.now.boottime);
        self.advance(wait);
        assert_eq!(self.tick(), [Output::Ask(0)]);
        wait
    }

    fn answer(&mut self, source: usize, addresses: &[&str], error: Option<&str>) -> Vec<Output> {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let answer = Answer { addresses, error: error.map(str::to_string) };
        self.asking.step(self.now, Input::Answered { source, answer })
    }

    fn addresses(&self) -> Vec<String> {
        self.asking.snapshot().addresses.iter().map(ToString::to_string).collect()
    }

    fn source(&self) -> &SourceState {
        &self.asking.snapshot().sources[0]
    }
}

#[test]
fn addresses_are_known_at_once_and_never_asked_for() {
    let mut scene = Scene::new(&["10.0.0.1:1", "[fd00::1]:2"]);
    assert_eq!(scene.addresses(), ["10.0.0.1:1", "[fd00::1]:2"]);
    assert_eq!((scene.tick(), scene.asking.next_at()), (vec![], None));
    assert!(scene.asking.snapshot().is_asked());
    assert!(Scene::new(&[]).asking.snapshot().is_asked());
}

#[test]
fn every_name_is_asked_at_once_and_not_again_before_it_has_answered() {
    let mut scene = Scene::new(&[NODES, "10.0.0.1:1", "dnssrv+peers"]);
    assert_eq!(scene.tick(), [Output::Ask(0), Output::Ask(2)]);
    scene.advance(Duration::from_secs(3600));
    assert_eq!(scene.tick(), []);
    assert_eq!(scene.answer(0, &["10.0.0.2:1"], None), [Output::Changed]);
    assert!(!scene.asking.snapshot().is_asked());
    assert_eq!(scene.answer(2, &["10.0.0.2:1"], None), []);
    assert!(scene.asking.snapshot().is_asked());
    assert_eq!(scene.addresses(), ["10.0.0.1:1", "10.0.0.2:1"]);
}

#[test]
fn the_unknown_is_asked_often_and_the_stable_seldom() {
    let mut scene = Scene::new(&[NODES]);
    let check = |wait: Duration, of: Duration| {
        assert!((of * 3 / 4..=of * 5 / 4).contains(&wait), "{wait:?} is not about {of:?}");
    };
    assert_eq!(scene.ask(), Duration::ZERO);
    for _ in 0..5 {
        scene.answer(0, &[], Some("fails"));
        check(scene.ask(), UNKNOWN_INTERVAL);
    }
    for expected_s in [3, 6, 12, 15, 15] {
        scene.answer(0, &["10.0.0.1:1"], None);
        check(scene.ask(), Duration::from_secs(expected_s));
    }
    scene.answer(0, &["10.0.0.2:1"], None);
    check(scene.ask(), UNSTABLE_INTERVAL);
    scene.answer(0, &[], Some("fails"));
    check(scene.ask(), UNSTABLE_INTERVAL);
}

#[test]
fn nodes_that_start_together_do_not_ask_together() {
    let waits: BTreeSet<Duration> = (0..10)
        .map(|seed| {
            let mut scene = Scene::new(&[NODES]);
            scene.asking.random = Random::from_seed(seed);
            scene.ask();
            scene.answer(0, &["10.0.0.1:1"], None);
            scene.ask()
        })
        .collect();
    assert_eq!(waits.len(), 10);
}

#[test]
fn a_failure_keeps_the_last_good_answer_and_says_since_when() {
    let mut scene = Scene::new(&[NODES]);
    scene.ask();
    assert_eq!(scene.answer(0, &["10.0.0.1:1", "10.0.0.2:1"], None), [Output::Changed]);
    let success_ms = scene.now.ms;
    scene.ask();
    assert_eq!(scene.answer(0, &[], Some("does not resolve")), [Output::Failed(0)]);
    let since_ms = scene.now.ms;
    scene.ask();
    assert_eq!(scene.answer(0, &[], Some("is silent")), []);
    assert_eq!(scene.addresses().len(), 2);
    let failure = Failure { error: "is silent".to_string(), since_ms, asked: 2 };
    assert_eq!((scene.source().last_success_ms, scene.source().failure.as_ref()), (Some(success_ms), Some(&failure)));
    assert_eq!(
        scene.asking.snapshot().complaints(since_ms + 7_500),
        ["join dns+nodes:1 is silent: asked 2 times in 7 s, the 2 addresses known are used (join-unresolved)"]
    );
    scene.ask();
    assert_eq!(scene.answer(0, &["10.0.0.1:1"], None), [Output::Recovered(0), Output::Changed]);
    assert_eq!((scene.addresses().len(), scene.source().failure.as_ref()), (1, None));
    assert_eq!(scene.asking.snapshot().complaints(scene.now.ms), [""; 0]);
}

#[test]
fn an_answer_without_addresses_is_a_failure() {
    let mut scene = Scene::new(&[NODES]);
    scene.ask();
    assert_eq!(scene.answer(0, &[], None), [Output::Failed(0)]);
    assert!(scene.source().complaint(scene.now.ms).unwrap().contains("has no addresses"));
    scene.ask();
    scene.answer(0, &["10.0.0.1:1"], None);
    scene.ask();
    assert_eq!(scene.answer(0, &[], None), [Output::Failed(0)]);
    assert_eq!(scene.addresses(), ["10.0.0.1:1"]);
}

#[test]
fn half_an_answer_adds_and_takes_nothing_away() {
    let mut scene = Scene::new(&[NODES]);
    scene.ask();
    scene.answer(0, &["10.0.0.1:1", "[fd00::1]:1"], None);
    scene.ask();
    let outputs = scene.answer(0, &["10.0.0.2:1"], Some("cannot be asked for AAAA records"));
    assert_eq!(outputs, [Output::Failed(0), Output::Changed]);
    assert_eq!(scene.addresses(), ["10.0.0.1:1", "10.0.0.2:1", "[fd00::1]:1"]);
    scene.ask();
    assert_eq!(scene.answer(0, &["10.0.0.2:1"], None), [Output::Recovered(0), Output::Changed]);
    assert_eq!(scene.addresses(), ["10.0.0.2:1"]);
}

#[test]
fn a_source_is_bounded() {
    let mut scene = Scene::new(&[NODES]);
    let many = |from: usize| -> Vec<String> { (from..from + 1000).map(|i| format!("[fd00::{i:x}]:1")).collect() };
    for from in [1, 5000] {
        scene.ask();
        let addresses = many(from);
        scene.answer(0, &addresses.iter().map(String::as_str).collect::<Vec<_>>(), None);
        assert_eq!(scene.addresses().len(), ADDRESSES_MAX);
        let complaint = scene.source().complaint(scene.now.ms).unwrap();
        assert!(complaint.contains("has 1000 addresses, of which 256 are used"), "{complaint}");
    }
}

#[test]
fn a_wall_clock_that_jumps_back_spoils_nothing() {
    let mut scene = Scene::new(&[NODES]);
    scene.ask();
    scene.answer(0, &[], Some("fails"));
    scene.now.ms = 0;
    scene.ask();
    scene.answer(0, &[], Some("fails"));
    assert!(scene.source().complaint(0).unwrap().contains("asked 2 times in 0 s"));
}
