use super::*;
use crate::config::{Plan, ServiceId, load};
use crate::control::Administration;
use crate::engine::scheduler::Request;
use crate::engine::{Engine, NoTrace, Verdict, WorkerId};
use crate::wire::{Address, Endpoint, Family, Offload, Packet, Protocol, build};

mod flows;
mod lasting;

const START: Instant = Instant::from_micros(1_000_000_000);
const EPOCH: Duration = Duration::from_secs(1_800_000_000);

fn service(name: &str, listen: &str, backends: &str) -> String {
    format!(
        "[[service]]\nname = '{name}'\nlisten = '{listen}'\nprotocol = 'udp'\nbalance = 'round-robin'\n\
         source-nat = false\nbackends = [{backends}]\n"
    )
}

fn two_services() -> String {
    let web = "{ name = 'b1', address = '10.0.0.1' }, { name = 'b2', address = '10.0.0.2' }, \
               { name = 'spare', address = '10.0.0.9', backup = true }";
    service("web", "192.0.2.1:80", web) + &service("dns", "192.0.2.2:53", "{ address = '10.0.0.1' }")
}

/// A gateway of one worker, and its controller.
struct World {
    controller: Controller,
    engine: Engine,
    now: Instant,
}

impl World {
    fn new(text: &str) -> Self {
        let shared = Shared::new(load(text, "test.toml", None, "gw").unwrap(), 1, 7);
        let engine = Engine::new(&shared, WorkerId(0), START);
        Self { controller: Controller::new(shared, EPOCH), engine, now: START }
    }

    fn applies(&mut self, text: &str) {
        let snapshot = load(text, "test.toml", Some(&self.controller.snapshot()), "gw").unwrap();
        self.controller.apply(snapshot, self.now);
    }

    /// Time passes, and everybody does what is due.
    fn waits(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.controller.handle_timeout(self.now);
        self.engine.adopt();
        while self.engine.handle_timeout(self.now) {}
        self.controller.handle_timeout(self.now);
    }

    fn settles(&mut self) {
        self.waits(0);
    }

    fn backend(&self, name: &str) -> BackendId {
        self.controller.snapshot().find_backends(name).unwrap()[0]
    }

    fn says(&mut self, name: &str, operation: &Operation, lasting: Option<Duration>) {
        self.controller.operate(self.backend(name), operation, None, lasting, self.now);
        self.settles();
    }

    fn sees(&mut self, name: &str, health: Health) {
        self.controller.observe(self.backend(name), health, Some("connect timeout".into()), self.now);
        self.settles();
    }

    /// Names of the backends that six flows of the service would go to, sorted.
    fn picks(&self, service: &str) -> Vec<String> {
        let snapshot = self.controller.snapshot();
        let policy = self.controller.shared().policy.load();
        let id = snapshot.find_service(service).unwrap();
        let Some(scheduler) = policy.scheduler(id, Family::V4) else { return vec!["closed".into()] };
        let picked = (0..6).filter_map(|_| {
            let (client, listen) = (at([198, 51, 100, 7], 4_000), at([192, 0, 2, 1], 80));
            let loads = &self.controller.shared().loads;
            scheduler.pick(&Request { client, listen, protocol: Protocol::UDP, random: 0, loads })
        });
        let mut names: Vec<_> = picked.map(|id| snapshot.backend(id).name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// A client's datagram to the service.
    fn receives(&mut self, port: u16, vip: Endpoint) -> Verdict {
        let mut bytes = build::udp(at([198, 51, 100, 7], port), vip, b"question");
        let mut packet = Packet::parse(&mut bytes, Offload::default()).unwrap();
        self.engine.handle(&mut packet, self.now, &mut NoTrace)
    }
}

fn at(address: [u8; 4], port: u16) -> Endpoint {
    Endpoint::new(Address::v4(address), port)
}

#[test]
fn an_operator_and_a_check_take_a_backend_out_and_neither_takes_back_the_others_word() {
    let mut world = World::new(&two_services());
    assert_eq!(world.picks("web"), ["b1", "b2"]);
    world.says("web/b1", &Operation::Drain, None);
    world.sees("web/b1", Health::Down);
    assert_eq!(world.picks("web"), ["b2"]);
    world.says("web/b1", &Operation::Enable, None);
    assert_eq!(world.picks("web"), ["b2"], "it is still down");
    world.says("web/b1", &Operation::Drain, None);
    world.sees("web/b1", Health::Up);
    assert_eq!(world.picks("web"), ["b2"], "it is still drained");
    world.says("web/b1", &Operation::Enable, None);
    assert_eq!(world.picks("web"), ["b1", "b2"]);
    assert_eq!(world.picks("dns"), ["10.0.0.1"], "the same address under another service is another backend");
}

#[test]
fn a_first_answer_makes_another_policy_only_if_it_is_a_bad_one() {
    let mut world = World::new(&two_services());
    world.settles();
    let policy = |world: &World| world.controller.shared().policy.load_full();
    let before = policy(&world);
    world.sees("web/b1", Health::Up);
    assert!(Arc::ptr_eq(&before, &policy(&world)), "whose first answers are good changes nothing");
    world.sees("web/b2", Health::Down);
    assert!(!Arc::ptr_eq(&before, &policy(&world)));
    assert_eq!(world.picks("web"), ["b1"]);
}

#[test]
fn backups_serve_while_nobody_else_does() {
    let mut world = World::new(&two_services());
    world.sees("web/b1", Health::Down);
    world.says("web/b2", &Operation::Disable, None);
    assert_eq!(world.picks("web"), ["spare"]);
    world.says("spare", &Operation::Weight(Some(0)), None);
    assert_eq!(world.picks("web"), [""; 0]);
    world.sees("web/b1", Health::Up);
    assert_eq!(world.picks("web"), ["b1"]);
}

#[test]
fn what_is_said_for_a_time_ends_by_itself() {
    let mut world = World::new(&two_services());
    world.says("web/b1", &Operation::Drain, Some(Duration::from_secs(600)));
    assert_eq!(world.controller.poll_timeout(), Some(world.now + Duration::from_secs(600)));
    world.waits(599);
    assert_eq!(world.picks("web"), ["b2"]);
    world.controller.effects();
    world.waits(1);
    assert_eq!(world.picks("web"), ["b1", "b2"]);
    let effects = world.controller.effects();
    assert!(effects.overrides && effects.policy && !effects.addresses, "{effects:?}");
    assert_eq!(world.controller.poll_timeout(), None);
}

#[test]
fn what_was_said_and_seen_outlives_a_reload_and_what_was_said_a_restart() {
    let mut world = World::new(&two_services());
    world.says("web/b1", &Operation::Drain, None);
    world.sees("web/b2", Health::Down);
    world.applies(&two_services().replace("'b1'", "'renamed'"));
    assert_eq!(world.picks("web"), ["spare"]);

    let kept = Overrides::from_text(&world.controller.overrides().to_text()).unwrap();
    let mut world = World::new(&two_services());
    world.controller.restore(kept, world.now);
    world.settles();
    assert_eq!(world.picks("web"), ["b2"]);
    let snapshot = world.controller.snapshot();
    let b1 = world.controller.standing(&snapshot, snapshot.backend(world.backend("web/b1")));
    assert_eq!((b1.administration(), b1.health(), b1.share()), (Administration::Drain, Health::Unknown, 0));
}

#[test]
fn a_removed_backend_keeps_its_flow_and_then_gives_its_id_away_with_counters_at_zero() {
    let mut world = World::new(&two_services());
    let vip = at([192, 0, 2, 2], 53);
    assert_eq!(world.receives(4_000, vip), Verdict::Forward);
    let old = world.backend("dns/10.0.0.1");
    let without = service("web", "192.0.2.1:80", "{ name = 'b1', address = '10.0.0.1' }");
    world.applies(&without);
    world.waits(60);
    world.waits(10);
    assert!(world.controller.effects().addresses);
    let snapshot = world.controller.snapshot();
    assert_eq!(world.receives(4_000, vip), Verdict::Forward, "it goes on");
    assert_ne!(world.receives(4_001, vip), Verdict::Forward, "and no other begins");
    let retired: Vec<_> = snapshot.retired.backends.iter().map(|backend| backend.id).collect();
    assert_eq!((retired, snapshot.retired.services.len()), (vec![old], 1));
    assert_eq!(snapshot.retired.addresses[0].to_string(), "192.0.2.2/32");

    world.waits(300);
    world.waits(60);
    assert!(world.controller.snapshot().retired.is_empty() && world.controller.effects().addresses);
    world.applies(&(without + &service("new", "192.0.2.3:53", "{ address = '10.0.0.7' }")));
    world.settles();
    let counters = |world: &World, id| world.controller.shared().counters.sum(|worker| &worker.backend(id).opened);
    assert_eq!(counters(&world, old), 0);
    for port in 0..4 {
        assert_eq!(world.receives(5_000 + port, at([192, 0, 2, 3], 53)), Verdict::Forward);
    }
    let new = world.backend("new/10.0.0.7");
    assert_eq!(counters(&world, new), 4);
    assert!(new.0 <= old.0, "an id is used again");
}

#[test]
fn no_id_is_free_while_a_worker_may_still_begin_a_flow_with_it() {
    let mut world = World::new(&two_services());
    world.applies(&service("web", "192.0.2.1:80", "{ name = 'b1', address = '10.0.0.1' }"));
    for _ in 0..5 {
        world.now = world.now + Duration::from_secs(10);
        world.controller.handle_timeout(world.now); // The worker sleeps.
    }
    assert_eq!(world.receives(4_000, at([192, 0, 2, 2], 53)), Verdict::Forward, "by the policy it has");
    assert_eq!(world.controller.snapshot().retired.services.len(), 1);
    world.waits(0);
    world.waits(10);
    assert_eq!(world.controller.snapshot().retired.backends.len(), 1, "the one with the flow");
}

#[test]
fn a_service_that_has_not_changed_keeps_its_turn() {
    let mut world = World::new(&two_services());
    let turn = |world: &World| {
        let policy = world.controller.shared().policy.load();
        let scheduler = policy.scheduler(ServiceId(0), Family::V4).unwrap();
        let (client, listen) = (at([198, 51, 100, 7], 4_000), at([192, 0, 2, 1], 80));
        let loads = &world.controller.shared().loads;
        scheduler.pick(&Request { client, listen, protocol: Protocol::UDP, random: 0, loads }).unwrap().0
    };
    assert_eq!(turn(&world), 0);
    world.says("dns/10.0.0.1", &Operation::Drain, None);
    assert_eq!(turn(&world), 1);
    world.says("web/b1", &Operation::Weight(Some(2)), None);
    assert_eq!(turn(&world), 0, "of a changed one it begins anew");
}

#[test]
fn nothing_reopens_a_gateway_that_is_about_to_stop() {
    let mut world = World::new(&two_services());
    world.controller.close();
    world.settles();
    assert_eq!(world.picks("web"), ["closed"]);
    world.says("web/b1", &Operation::Drain, None);
    world.applies(&two_services());
    assert_eq!(world.picks("web"), ["closed"]);
}

impl World {
    fn reloads(&mut self, text: &str, confirm: Option<Duration>) -> Result<Outlook, String> {
        let source = Source { file: "test.toml".into(), text: text.into() };
        let outlook = self.controller.reload(source, Cause::Reload, confirm, &|_| Ok(()), self.now);
        self.settles();
        outlook
    }

    fn with_history(text: &str) -> Self {
        let mut world = Self::new(text);
        let source = Source { file: "test.toml".into(), text: text.into() };
        world.controller.begin(source, "gw", History::default(), START);
        world
    }
}

#[test]
fn a_configuration_that_cannot_be_used_changes_nothing() {
    let mut world = World::with_history(&two_services());
    let generation = world.controller.snapshot().generation;
    let report = world.reloads(&two_services().replace("listen", "lisen"), None).unwrap_err();
    assert!(report.contains("lisen"), "{report}");
    assert_eq!((world.controller.snapshot().generation, world.picks("web").len()), (generation, 2));
    assert_eq!(world.controller.rejected().map(|rejected| &rejected.report), Some(&report));
    assert_eq!(world.controller.history().iter().count(), 1);
    let source = Source { file: "test.toml".into(), text: two_services() };
    let refused = world.controller.reload(source, Cause::Reload, None, &|_| Err("no".into()), world.now);
    assert_eq!(refused.unwrap_err(), "no");
    world.reloads(&two_services(), None).unwrap();
    assert_eq!(world.controller.rejected(), None);
}

#[test]
fn what_is_not_confirmed_in_time_is_taken_back() {
    let other = two_services().replace("10.0.0.2", "10.0.0.8").replace("'b2'", "'b8'");
    let mut world = World::with_history(&two_services());
    world.reloads(&other, Some(Duration::from_secs(60))).unwrap();
    world.waits(59);
    assert_eq!(world.picks("web"), ["b1", "b8"]);
    // Another try does not move the way back.
    world.reloads(&other.replace("b8", "b9"), Some(Duration::from_secs(60))).unwrap();
    world.waits(60);
    assert_eq!(world.picks("web"), ["b1", "b2"]);
    assert_eq!(world.controller.history().back(0).unwrap().cause, Cause::Unconfirmed);

    world.reloads(&other, Some(Duration::from_secs(60))).unwrap();
    assert!(world.controller.confirm());
    world.waits(120);
    assert_eq!(world.picks("web"), ["b1", "b8"]);
    assert!(!world.controller.confirm());
}

#[test]
fn a_rollback_goes_back_and_can_be_taken_back() {
    let other = two_services().replace("'b2'", "'b8'");
    let mut world = World::with_history(&two_services());
    world.reloads(&other, None).unwrap();
    for expected in [["b1", "b2"], ["b1", "b8"]] {
        world.controller.rollback(1, &|_| Ok(()), world.now).unwrap();
        world.settles();
        assert_eq!(world.picks("web"), expected);
    }
    assert!(world.controller.rollback(7, &|_| Ok(()), world.now).unwrap_err().contains("3 are kept"));
}

#[test]
fn the_plan_counts_flows_and_is_what_is_applied() {
    let mut world = World::with_history(&two_services());
    assert_eq!(world.receives(4_000, at([192, 0, 2, 2], 53)), Verdict::Forward);
    assert_eq!(world.receives(4_000, at([192, 0, 2, 1], 80)), Verdict::Forward);
    let without_dns = two_services().split("[[service]]\nname = 'dns'").next().unwrap().to_owned();
    let source = Source { file: "test.toml".into(), text: without_dns.clone() };
    let planned = world.controller.plan(&source, &|_| Ok(())).unwrap();
    assert_eq!((planned.kept, planned.drained), (1, 1));
    assert_eq!(world.reloads(&without_dns, None).unwrap().plan, planned.plan);
    assert_eq!(world.controller.plan(&source, &|_| Ok(())).unwrap().plan, Plan::default());
}
