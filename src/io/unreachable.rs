//! Backends whose tunnels lead nowhere: their machines or routers say so by ICMP, and nobody else would hear it.

use std::collections::HashMap;
use std::time::Duration;

use crate::admin::icmp_name;
use crate::config::{Backend, BackendId, Mode};
use crate::engine::{Instant, Shared};

/// How often the counters are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long nothing more is said of a backend that something was said of.
const SILENCE: Duration = Duration::from_secs(60);

/// What has been said of which backend.
#[derive(Debug, Default)]
pub(super) struct Unreachable {
    looked: Option<Instant>,
    told: HashMap<BackendId, Told>,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    errors: u64,
}

impl Unreachable {
    /// Tells the log of backends that errors have come about, if it is time to look again.
    pub(super) fn look(&mut self, shared: &Shared, now: Instant) {
        if self.looked.is_some_and(|looked| now.since(looked) < INTERVAL) {
            return;
        }
        self.looked = Some(now);
        let policy = shared.policy.load();
        let snapshot = &policy.snapshot;
        for backend in snapshot.services.iter().flat_map(|service| &service.backends).map(|id| snapshot.backend(*id)) {
            let Mode::Dsr { encapsulation } = snapshot.service(backend.service).mode else { continue };
            let errors = shared.counters.sum(|worker| &worker.backend(backend.id).unreachable);
            if let Some(new) = self.news(backend.id, errors, now) {
                let service = &snapshot.service(backend.service).name;
                let path = policy.path(backend.id);
                let last = path.and_then(|path| path.last_loss().map(|(head, _)| (path.tunnel().family(), head)));
                let last = last.map_or_else(String::new, |(family, [kind, code])| icmp_name(family, kind, code));
                log::warn!("{}", complaint(service, backend, encapsulation.name(), (new, &last)));
            }
        }
    }

    /// How many errors are to be told of.
    fn news(&mut self, backend: BackendId, errors: u64, now: Instant) -> Option<u64> {
        let told = self.told.get(&backend);
        let new = errors - told.map_or(0, |told| told.errors.min(errors));
        if new == 0 || told.is_some_and(|told| now.since(told.at) < SILENCE) {
            return None;
        }
        self.told.insert(backend, Told { at: now, errors });
        Some(new)
    }
}

fn complaint(service: &str, backend: &Backend, encapsulation: &str, (errors, last): (u64, &str)) -> String {
    format!(
        "backend {service}/{} ({}) does not take {encapsulation}: {errors} packet(s) came back by ICMP ({last}); on \
         it: tungate decap -c FILE, and tungate doctor -c FILE says what else is missing; here: tcpdump -ni any icmp",
        backend.name, backend.address
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_named_once_a_minute_with_what_came_meanwhile() {
        let mut unreachable = Unreachable::default();
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let (one, other) = (BackendId(0), BackendId(1));
        assert_eq!(unreachable.news(one, 0, at(0)), None);
        assert_eq!(unreachable.news(one, 3, at(1)), Some(3));
        assert_eq!(unreachable.news(one, 9, at(2)), None);
        assert_eq!(unreachable.news(other, 1, at(2)), Some(1), "another backend is not concerned");
        assert_eq!(unreachable.news(one, 9, at(61)), Some(6));
        assert_eq!(unreachable.news(one, 9, at(200)), None, "all is well again");
    }
}
