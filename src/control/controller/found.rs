//! Backends that are found: on the same path as a reload.

use super::Controller;
use std::time::Duration;

use crate::config::{Discovery, ServiceId, Snapshot};
use crate::control::discovery::{Answer, Kept, Sources};
use crate::engine::Instant;

/// What was found is kept so long after it has changed: many sources that change at once are written once.
const KEEP_CHANGED: Duration = Duration::from_secs(2);
/// And so long after it was confirmed, so that it does not seem older than it is.
const KEEP_CONFIRMED: Duration = Duration::from_secs(3600);

impl Controller {
    /// What sources have said.
    pub const fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Takes the answer of a service's source to what was asked; other backends come into force at once. Those that are
    /// gone are retired: their flows go on.
    pub fn hear(&mut self, service: ServiceId, asked: &Discovery, answer: Answer, now: Instant) {
        let (is_good, time) = (answer.is_ok(), self.time(now));
        let is_new = self.sources.hear(service, asked, answer, now, time);
        if is_new {
            let snapshot = self.snapshot();
            self.apply((*snapshot).clone(), now);
        }
        if is_good {
            let at = now + if is_new { KEEP_CHANGED } else { KEEP_CONFIRMED };
            self.next_keeping = Some(self.next_keeping.map_or(at, |known| known.min(at)));
        }
    }

    /// What was found before a restart, for the sources that have not answered yet.
    pub fn restore_found(&mut self, kept: Kept, now: Instant) {
        let snapshot = self.snapshot();
        if self.sources.restore(kept, &snapshot, self.time(now)) {
            self.apply((*snapshot).clone(), now);
        }
    }

    /// A configuration with the backends that were found for it.
    pub(super) fn complete(&self, snapshot: Snapshot) -> (Snapshot, Vec<(ServiceId, String)>) {
        if self.sources.all().next().is_none() {
            return (snapshot, Vec::new());
        }
        snapshot.with_found(|service| self.sources.found(service))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::config::{load, read_backends};
    use crate::control::overrides::Operation;
    use crate::engine::Shared;

    const START: Instant = Instant::from_micros(1_000_000_000);

    fn text(path: &str, backends: &str) -> String {
        format!(
            "[[service]]\nname = 'web'\nlisten = '192.0.2.1:80'\nsource-nat = false\nbackends = [{backends}]\n\
             [service.discovery]\nsource = 'file'\npath = '{path}'\n"
        )
    }

    fn gateway(text: &str) -> Controller {
        Controller::new(Shared::new(load(text, "test.toml", None, "gw").unwrap(), 1, 7), Duration::ZERO)
    }

    fn hears(controller: &mut Controller, addresses: &[&str]) {
        let list: Vec<_> = addresses.iter().map(|address| format!("{{ address = '{address}' }}")).collect();
        let answer = read_backends(&format!("backends = [{}]", list.join(", ")), false);
        let (service, asked) = controller.sources().wanted().map(|(id, asked)| (id, asked.clone())).next().unwrap();
        controller.hear(service, &asked, answer, START);
    }

    fn reloads(controller: &mut Controller, text: &str) {
        controller.apply(load(text, "test.toml", Some(&controller.snapshot()), "gw").unwrap(), START);
    }

    /// Id and name of each backend that may have new flows.
    fn pool(controller: &Controller) -> Vec<(u16, String)> {
        let snapshot = controller.snapshot();
        let takes = |id| controller.standing(&snapshot, snapshot.backend(id)).share() > 0;
        let pool = snapshot.backends.iter().filter(|backend| takes(backend.id));
        pool.map(|backend| (backend.id.0, backend.name.clone())).collect()
    }

    #[test]
    fn found_backends_outlive_reloads_with_their_ids_and_their_overrides() {
        let mut controller = gateway(&text("/tmp/a.toml", ""));
        assert!(controller.effects().sources, "there is one to be asked");
        hears(&mut controller, &["10.0.0.1", "10.0.0.2"]);
        let drained = controller.snapshot().find_backends("10.0.0.2").unwrap()[0];
        controller.operate(drained, &Operation::Drain, None, None, START);
        let before = pool(&controller);
        assert_eq!(before, [(0, "10.0.0.1".to_owned())]);

        reloads(&mut controller, &text("/tmp/a.toml", ""));
        assert_eq!(pool(&controller), before);
        assert!(!controller.effects().sources, "it is asked as before");
        reloads(&mut controller, &text("/tmp/b.toml", "{ address = '10.0.0.9' }"));
        assert_eq!(pool(&controller), [(2, "10.0.0.9".to_owned()), (0, "10.0.0.1".to_owned())]);
        assert!(controller.effects().sources);

        let other = text("/tmp/b.toml", "")
            .replace("[service.discovery]", "")
            .replace("source = 'file'\npath = '/tmp/b.toml'\n", "");
        reloads(&mut controller, &other);
        assert!(pool(&controller).is_empty(), "who is not asked any more has nothing to say");
    }

    #[test]
    fn what_was_found_is_kept_soon_and_taken_up_by_the_next_process() {
        let mut controller = gateway(&text("/tmp/a.toml", ""));
        hears(&mut controller, &["10.0.0.1", "10.0.0.2"]);
        let is_kept = |controller: &mut Controller, seconds| {
            controller.handle_timeout(START + Duration::from_secs(seconds));
            controller.effects().found
        };
        assert_eq!([0, 1, 2, 3].map(|seconds| is_kept(&mut controller, seconds)), [false, false, true, false]);
        hears(&mut controller, &["10.0.0.1", "10.0.0.2"]);
        assert!(!is_kept(&mut controller, 60) && is_kept(&mut controller, 3600), "it is as good as new");
        let kept = controller.sources().to_keep(&controller.snapshot());
        let mut next = gateway(&text("/tmp/a.toml", ""));
        next.restore_found(kept, START);
        assert_eq!(pool(&next), pool(&controller));
    }

    #[test]
    fn what_is_gone_is_retired_and_what_cannot_be_a_backend_is_told() {
        let mut controller = gateway(&text("/tmp/a.toml", ""));
        hears(&mut controller, &["10.0.0.1", "10.0.0.2", "192.0.2.1:8080"]);
        assert_eq!(pool(&controller).len(), 2);
        let (_, source) = controller.sources().all().next().unwrap();
        assert!(source.problem().unwrap().contains("192.0.2.1:8080: it is a VIP"), "{:?}", source.problem());
        let policy = Arc::clone(&controller.shared().policy.load());
        hears(&mut controller, &["10.0.0.1", "10.0.0.2", "192.0.2.1:8080"]);
        assert!(Arc::ptr_eq(&policy, &controller.shared().policy.load()), "the same again changes nothing");
        hears(&mut controller, &["10.0.0.1", "10.0.0.3", "192.0.2.1:8080"]);
        let snapshot = controller.snapshot();
        let retired: Vec<_> = snapshot.retired.backends.iter().map(|backend| backend.name.as_str()).collect();
        assert_eq!(retired, ["10.0.0.2"]);
    }
}
