use std::collections::{HashMap, HashSet};

use super::*;
use crate::config::{Snapshot, load};
use crate::engine::Instant;

fn snapshot(services: &str) -> Snapshot {
    let text = format!("[gateway]\nsource-addresses = ['10.99.0.10']\n{services}");
    load(&text, "tungate.toml", None, "gw").unwrap_or_else(|report| panic!("{report}"))
}

/// A service with so many backends and these lines.
fn service(name: &str, port: u16, backends: u16, health: &str) -> String {
    let backend = |n: u16| format!("{{ address = '10.0.{}.{}:80' }}", n / 250, n % 250 + 1);
    let backends = (0..backends).map(backend).collect::<Vec<_>>().join(", ");
    format!(
        "[[service]]\nname = '{name}'\nlisten = '192.0.2.1:{port}'\nbackends = [{backends}]\n[service.health]\n{health}\n"
    )
}

fn at(millis: u64) -> Instant {
    Instant::from_micros(1_000_000 + millis * 1000)
}

/// The world around [`Checks`]: every question is answered after 5 ms, as the closure says.
struct World {
    checks: Checks,
    /// When each question was asked, ms.
    asked: HashMap<Arc<Query>, Vec<u64>>,
    changes: Vec<(u64, u16, Option<bool>)>,
}

impl World {
    fn new(snapshot: &Snapshot) -> Self {
        let mut checks = Checks::new(7, Arc::default());
        checks.adopt(snapshot, at(0));
        Self { checks, asked: HashMap::new(), changes: Vec::new() }
    }

    /// Lives from one millisecond to another.
    fn live(&mut self, from: u64, to: u64, answer: impl Fn(&Query, u64) -> Outcome) {
        let mut pending = Vec::new();
        for now in from..to {
            while let Some(question) = self.checks.poll(at(now)) {
                self.asked.entry(Arc::clone(&question.what)).or_default().push(now);
                pending.push((now + 5, question));
            }
            for (_, question) in pending.extract_if(.., |(then, _)| *then == now) {
                let outcome = answer(&question.what, now);
                let answer = Answer { outcome, took: Duration::from_millis(5) };
                self.checks.answered(question.id, &answer, at(now));
            }
            self.changes.extend(self.checks.changes().map(|change| (now, change.backend.0, change.up)));
        }
    }
}

fn bad() -> Outcome {
    Outcome::Bad(Reason::ConnectTimeout)
}

#[test]
fn the_first_answer_decides_and_then_it_takes_rise_and_fall() {
    let mut world = World::new(&snapshot(&service("web", 80, 1, "interval = '1s'\nrise = 2\nfall = 3")));
    assert_eq!(world.checks.verdict(BackendId(0)), Verdict::Unknown);
    world.live(0, 500, |_, _| Outcome::Good);
    assert_eq!(world.changes, [(5, 0, Some(true))]);
    world.live(500, 3_600, |_, _| bad());
    assert_eq!(world.checks.verdict(BackendId(0)), Verdict::Down { good: 0 }, "three bad answers");
    assert_eq!(world.changes.len(), 2);
    world.live(3_600, 6_200, |_, _| Outcome::Good);
    assert_eq!(world.checks.verdict(BackendId(0)), Verdict::Up { bad: 0 }, "two good ones");
    assert_eq!(world.changes.iter().map(|change| change.2).collect::<Vec<_>>(), [Some(true), Some(false), Some(true)]);
}

#[test]
fn a_backend_that_answers_now_and_then_does_not_flap() {
    let mut world = World::new(&snapshot(&service("web", 80, 1, "interval = '100ms'\ntimeout = '100ms'\nfall = 3")));
    // Two bad ones, then a good one, and so on.
    let count = std::cell::Cell::new(0);
    let answer = |_: &Query, _| {
        count.set(count.get() + 1);
        if count.get() % 3 == 1 { Outcome::Good } else { bad() }
    };
    world.live(0, 20_000, answer);
    assert!(count.get() > 100);
    assert_eq!(world.changes, [(5, 0, Some(true))], "up, and nothing else");
}

#[test]
fn a_backend_that_is_down_for_another_reason_now_says_so() {
    let mut world = World::new(&snapshot(&service("web", 80, 1, "interval = '1s'")));
    world.live(0, 500, |_, _| bad());
    let question = (500..2_500).find_map(|now| world.checks.poll(at(now))).unwrap();
    let answer = Answer { outcome: Outcome::Bad(Reason::Refused), took: Duration::ZERO };
    world.checks.answered(question.id, &answer, at(2_500));
    let changes: Vec<_> = world.checks.changes().collect();
    assert_eq!(changes, [Change { backend: BackendId(0), up: Some(false), reason: Some(Reason::Refused) }]);
}

#[test]
fn a_question_that_could_not_be_asked_says_nothing_of_the_backend() {
    let mut world = World::new(&snapshot(&service("web", 80, 1, "interval = '100ms'\ntimeout = '100ms'\nfall = 1")));
    world.live(0, 50, |_, _| Outcome::Good);
    world.live(50, 2_000, |_, _| Outcome::NotAsked("too many open files".into()));
    assert_eq!(world.checks.verdict(BackendId(0)), Verdict::Up { bad: 0 });
    assert!(world.checks.record.tally().not_asked > 10);
}

#[test]
fn intervals_keep_to_their_length_and_do_not_march_in_step() {
    let mut world = World::new(&snapshot(&service("web", 80, 100, "interval = '1s'")));
    world.live(0, 60_000, |_, _| Outcome::Good);
    for times in world.asked.values() {
        let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| (899..=1_101).contains(gap)), "{gaps:?}");
        let mean = gaps.iter().sum::<u64>() / gaps.len() as u64;
        assert!((950..=1_050).contains(&mean), "{mean}");
    }
    let late: Vec<u64> = world.asked.values().map(|times| times[50] % 1_000).collect();
    let busiest = (0..10).map(|tenth| late.iter().filter(|at| **at / 100 == tenth).count()).max().unwrap();
    assert!(busiest < 40, "{busiest} of 100 backends are asked in one tenth of a second");
}

#[test]
fn a_start_asks_few_at_once_and_a_small_pool_without_delay() {
    let mut world = World::new(&snapshot(&service("web", 80, 5_000, "interval = '2s'")));
    world.live(0, 2_001, |_, _| Outcome::Good);
    let mut busy: HashMap<u64, usize> = HashMap::new();
    for times in world.asked.values() {
        *busy.entry(times[0]).or_default() += 1;
    }
    assert_eq!(world.asked.len(), 5_000, "all within the first interval");
    assert!(busy.values().all(|count| *count <= 4), "{:?}", busy.values().max());

    let mut world = World::new(&snapshot(&service("web", 80, 10, "interval = '60s'")));
    world.live(0, 20, |_, _| Outcome::Good);
    assert_eq!(world.changes.len(), 10, "nobody waits for the interval to be over");
}

#[test]
fn services_share_the_checks_of_a_backend_that_they_check_alike() {
    let alike = service("a", 80, 3, "rise = 1") + &service("b", 81, 3, "fall = 1");
    let mut world = World::new(&snapshot(&(alike + &service("c", 82, 3, "check = 'icmp'"))));
    assert_eq!(world.checks.questions(), 6, "three for a and b, three for c");
    world.live(0, 1_000, |_, _| Outcome::Good);
    assert!(world.asked.values().all(|times| times.len() == 1));
    assert_eq!(world.changes.len(), 9, "but all backends hear of it");
    // One bad answer: enough for b, not for a.
    world.live(1_000, 2_500, |query, _| if query.check == Check::Tcp { bad() } else { Outcome::Good });
    let down: HashSet<u16> = world.changes.iter().filter(|change| change.2 == Some(false)).map(|c| c.1).collect();
    assert_eq!(down, HashSet::from([3, 4, 5]));
}

#[test]
fn what_is_known_outlives_a_reload_and_who_is_not_asked_any_more_is_unknown() {
    let mut world = World::new(&snapshot(&service("web", 80, 3, "")));
    world.live(0, 1_000, |_, _| bad());
    let more = snapshot(&service("web", 80, 4, "rise = 5"));
    world.checks.adopt(&more, at(1_000));
    assert_eq!(world.checks.verdict(BackendId(0)), Verdict::Down { good: 0 });
    assert_eq!(world.checks.verdict(BackendId(3)), Verdict::Unknown);
    world.asked.clear();
    world.live(1_000, 1_100, |_, _| Outcome::Good);
    assert_eq!(world.asked.len(), 1, "only the new one is asked at once");

    world.changes.clear();
    world.checks.adopt(&snapshot(&service("web", 80, 3, "check = 'none'")), at(1_100));
    world.live(1_100, 9_000, |_, _| panic!("nobody is to be asked"));
    assert_eq!(world.changes.len(), 3);
    assert!(world.changes.iter().all(|change| change.2.is_none()), "{:?}", world.changes);
}

/// A reload sends nothing to backends that are known to be down.
#[test]
fn another_question_changes_nothing_before_its_first_answer_and_that_decides() {
    for line in ["interval = '3s'", "timeout = '500ms'", "check = 'http'", "port = 81"] {
        let mut world = World::new(&snapshot(&service("web", 80, 2, "fall = 3")));
        let of_second = |query: &Query| query.endpoint.address == crate::wire::Address::v4([10, 0, 0, 2]);
        world.live(0, 1_000, |query, _| if of_second(query) { Outcome::Good } else { bad() });
        world.changes.clear();
        let now = || [0, 1].map(BackendId);
        let is_up = |world: &World| now().map(|backend| world.checks.verdict(backend).is_up());
        world.checks.adopt(&snapshot(&service("web", 80, 2, &format!("fall = 3\n{line}"))), at(1_000));
        assert_eq!(is_up(&world), [Some(false), Some(true)], "{line}");
        world.live(1_000, 1_100, |query, _| if of_second(query) { Outcome::Good } else { bad() });
        assert!(world.changes.is_empty(), "{line}: {:?}", world.changes);

        let is_asked_otherwise = !line.starts_with(['i', 't']);
        world.checks.adopt(&snapshot(&service("web", 80, 2, "fall = 3")), at(1_100));
        world.live(1_100, 1_200, |query, _| if of_second(query) { bad() } else { Outcome::Good });
        assert_eq!(is_up(&world) == [Some(true), Some(false)], is_asked_otherwise, "{line}: one answer decides");
    }
}

#[test]
fn who_is_asked_what_others_are_asked_already_does_not_wait_for_the_next_time() {
    let first = service("a", 80, 2, "interval = '1h'");
    let mut world = World::new(&snapshot(&first));
    let of_second = |query: &Query| query.endpoint.address == crate::wire::Address::v4([10, 0, 0, 2]);
    world.live(0, 1_000, |query, _| if of_second(query) { Outcome::Good } else { bad() });
    world.checks.adopt(&snapshot(&(first + &service("b", 81, 2, "interval = '1h'"))), at(1_000));
    world.changes.clear();
    world.live(1_000, 1_010, |_, _| panic!("they were asked"));
    assert_eq!(world.changes, [(1_000, 2, Some(false)), (1_000, 3, Some(true))]);
}

#[test]
fn an_answer_that_comes_after_a_reload_is_about_what_was_asked() {
    let mut checks = Checks::new(7, Arc::default());
    checks.adopt(&snapshot(&service("web", 80, 1, "")), at(0));
    let question = checks.poll(at(0)).unwrap();
    checks.adopt(&snapshot(&service("web", 80, 1, "check = 'icmp'")), at(1));
    let other = checks.poll(at(1)).unwrap();
    assert_ne!(question.id, other.id);
    let answer = Answer { outcome: bad(), took: Duration::ZERO };
    checks.answered(question.id, &answer, at(2));
    assert_eq!(checks.verdict(BackendId(0)), Verdict::Unknown);
    checks.answered(other.id, &answer, at(2));
    checks.answered(other.id, &answer, at(2));
    assert_eq!(checks.record.tally().bad, 1, "an answer counts once");
}
