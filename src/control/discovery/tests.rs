use std::path::PathBuf;

use super::*;
use crate::config;

/// A source, and a clock in seconds.
struct World {
    source: Source,
    now: u64,
}

impl World {
    fn new(backends: &str) -> Self {
        let config = Discovery { source: config::Source::File(PathBuf::from("/tmp/web.toml")), interval: None };
        let mut world = Self { source: Source::new(config), now: 1_000 };
        world.says(backends);
        world
    }

    /// One letter or digit a backend; answers whether the pool is another now.
    fn says(&mut self, backends: &str) -> bool {
        let list: Vec<_> = backends.bytes().map(|n| format!("{{ address = '10.0.0.{n}:80' }}")).collect();
        let list = config::read_backends(&format!("backends = [{}]", list.join(", ")), false).unwrap();
        self.source.hear(Ok(list), Instant::from_micros(self.now * 1_000_000), self.now)
    }

    fn fails(&mut self) -> bool {
        self.source.hear(Err("connection refused".to_owned()), Instant::from_micros(self.now * 1_000_000), self.now)
    }

    fn after(&mut self, seconds: u64) -> &mut Self {
        self.now += seconds;
        self
    }

    /// The pool as one would have said it.
    fn pool(&self) -> String {
        self.source.found.iter().map(|one| char::from(*one.address.octets().last().unwrap())).collect()
    }
}

#[test]
fn a_source_that_fails_for_ever_leaves_the_pool_and_is_stale() {
    let mut world = World::new("abc");
    assert_eq!((world.pool().as_str(), world.source.state()), ("abc", State::Fresh));
    for _ in 0..1_000 {
        assert!(!world.after(60).fails());
    }
    assert_eq!((world.pool().as_str(), world.source.state()), ("abc", State::Stale));
    assert_eq!(world.source.problem(), Some("connection refused"));
    assert!(world.after(1).says("abd"));
    assert_eq!((world.pool().as_str(), world.source.state(), world.source.problem()), ("abd", State::Fresh, None));
}

#[test]
fn a_source_that_never_answered_has_failed() {
    let mut world = World::new("a");
    world.source = Source::new(world.source.config.clone());
    assert_eq!(world.source.state(), State::Failed);
    assert!(!world.fails());
    assert_eq!((world.source.state(), world.source.backends()), (State::Failed, 0));
}

#[test]
fn half_of_a_pool_may_go_at_once() {
    let mut world = World::new("abcd");
    assert!(world.says("abxyz"));
    assert_eq!(world.pool(), "abxyz");
}

#[test]
fn more_than_half_go_when_it_is_said_again_after_a_while() {
    let mut world = World::new("abcd");
    assert!(world.says("axyz"));
    assert_eq!(world.pool(), "abcdxyz", "what is new is there at once, and what is gone as well");
    for _ in 0..4 {
        assert!(!world.after(1).says("axyz"));
    }
    assert!(world.after(1).says("axyz"));
    assert_eq!(world.pool(), "axyz");
}

#[test]
fn two_empty_answers_empty_a_pool_and_one_does_not() {
    let mut world = World::new("abc");
    assert!(!world.says(""));
    assert!(!world.after(4).says(""));
    assert!(!world.after(1).says("abc"), "it was a hiccup");
    assert!(!world.after(1).says(""), "and this is another one");
    assert_eq!(world.pool(), "abc");
    assert!(world.after(5).says(""));
    assert_eq!((world.pool().as_str(), world.source.state()), ("", State::Fresh));
    assert!(world.after(1).says("z"));
}

#[test]
fn a_failure_between_two_empty_answers_makes_them_single_ones() {
    let mut world = World::new("abc");
    for _ in 0..100 {
        assert!(!world.after(5).says(""));
        assert!(!world.after(5).fails());
    }
    assert_eq!(world.pool(), "abc");
}

#[test]
fn the_only_backend_is_replaced_by_another_without_a_gap() {
    let mut world = World::new("a");
    assert!(world.says("b"));
    assert_eq!(world.pool(), "ab");
    assert!(world.after(5).says("b"));
    assert_eq!(world.pool(), "b");
}

#[test]
fn another_weight_or_name_is_no_other_backend() {
    let mut world = World::new("a");
    let list =
        config::read_backends("backends = [{ address = '10.0.0.97:80', name = 'x', weight = 7 }]", false).unwrap();
    assert!(world.source.hear(Ok(list), Instant::from_micros(world.now * 1_000_000), world.now));
    assert_eq!((world.pool().as_str(), world.source.found[0].weight), ("a", 7));
}

#[test]
fn another_source_begins_with_what_there_is() {
    let load = |lines: &str| {
        let text =
            format!("[[service]]\nname = 's'\nlisten = '192.0.2.1:80'\nsource-nat = false\nbackends = []\n{lines}");
        config::load(&text, "test.toml", None, "gw").unwrap_or_else(|report| panic!("{report}"))
    };
    let file = |name| load(&format!("[service.discovery]\nsource = 'file'\npath = '/tmp/{name}'\n"));
    let (first, second, id) = (file("a.toml"), file("b.toml"), ServiceId(0));
    let mut sources = Sources::default();
    assert!(sources.follow(&first) && !sources.follow(&first));
    let (now, found) = (Instant::from_micros(1), config::read_backends("backends = [{ address = '10.0.0.1' }]", false));
    let asked = |snapshot: &Snapshot| snapshot.services[0].discovery.clone().unwrap();
    assert!(sources.hear(id, &asked(&first), found, now, 1));
    assert!(sources.follow(&second));
    assert_eq!((sources.found(id).len(), sources.0[&id].state()), (1, State::Stale));
    assert!(!sources.hear(id, &asked(&first), Ok(Vec::new()), now, 1), "a late answer");
    assert!(sources.follow(&load("")));
    assert_eq!(sources.found(id).len(), 0);
}
