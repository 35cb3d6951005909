//! What is known of backends that are not there for a while.

use super::*;
use crate::engine::failures::Failure;

const DAY: u64 = 24 * 3600;

#[test]
fn a_backend_that_comes_back_is_not_what_was_seen_of_it_before() {
    let mut world = World::new(&two_services());
    world.sees("web/b1", Health::Down);
    let without = two_services().replace("{ name = 'b1', address = '10.0.0.1' }, ", "");
    world.applies(&without);
    world.applies(&two_services());
    world.settles();
    assert!(world.picks("web").contains(&"b1".to_owned()), "nobody checks it, so nobody would ever say that it is up");
}

/// A source may find it a moment after the start.
#[test]
fn what_was_said_long_ago_outlives_a_restart_at_which_the_backend_is_missing() {
    let mut world = World::new(&two_services());
    world.says("web/b1", &Operation::Drain, None);
    let mut kept = world.controller.overrides().clone();
    for _ in 0..2 * 30 {
        world.waits(DAY / 2);
        if world.controller.effects().overrides {
            kept = world.controller.overrides().clone();
        }
    }
    let empty = Shared::new(load("", "test.toml", None, "gw").unwrap(), 1, 7);
    let mut restarted = Controller::new(empty, EPOCH);
    restarted.restore(kept, world.now);
    assert_eq!(restarted.overrides().all().count(), 1);
}

#[test]
fn a_new_backend_does_not_pay_for_the_failures_of_who_had_its_id() {
    let text = |backends: &str| service("web", "192.0.2.1:80", backends) + "[service.passive]\nfailures = 3\n";
    let (old, new) = ("{ name = 'old', address = '10.0.0.1' }", "{ name = 'new', address = '10.0.0.2' }");
    let others = ", { address = '10.0.0.3' }, { address = '10.0.0.4' }";
    let mut world = World::new(&text(&(old.to_owned() + others)));
    let id = world.backend("web/old");
    for _ in 0..9 {
        world.controller.shared().failures.add(id, Failure::Refused);
    }
    world.applies(&text(&others[2..]));
    world.waits(2);
    world.waits(2);
    world.applies(&text(&(new.to_owned() + others)));
    assert_eq!(world.backend("web/new"), id, "nobody has it any more");
    world.waits(1);
    assert!(world.picks("web").contains(&"new".to_owned()));
}
