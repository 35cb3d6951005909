//! What has happened to backends: told to the log, and done to their flows.

use std::collections::HashMap;

use super::Daemon;
use crate::config::{BackendId, OnDown};
use crate::control::health::{Event, EventKind};
use crate::engine::conntrack::State;
use crate::wire::Protocol;

impl Daemon {
    /// Tells what has happened to backends, and does to their flows what the configuration says.
    pub(super) fn follow(&self, events: &[Event]) {
        let snapshot = self.controller.snapshot();
        let mut left = HashMap::new();
        for Event { backend, kind } in events.iter().filter(|event| snapshot.has_backend(event.backend)) {
            let service = snapshot.service(snapshot.backend(*backend).service);
            tell(&service.name, &snapshot.backend(*backend).name, kind);
            match kind {
                EventKind::Down(_) => drop(left.insert(*backend, service.health.on_down)),
                // Its checks are good: what is open may well go on.
                EventKind::Ejected(_) => drop(left.entry(*backend).or_insert(OnDown::Keep)),
                EventKind::Up | EventKind::StillDown(_) | EventKind::Readmitted => {}
            }
        }
        left.retain(|backend, _| !self.shared().loads.is_idle(*backend));
        if !left.is_empty() {
            self.cut_flows(&left);
        }
    }

    /// Cuts the flows of all these in one look at the table: a network that is gone takes thousands of backends with it.
    fn cut_flows(&self, left: &HashMap<BackendId, OnDown>) {
        let mut flows = Vec::new();
        self.shared().table.for_each(|flow| {
            let Some(on_down) = left.get(&flow.backend()) else { return };
            let may_stay = flow.protocol() == Protocol::TCP && flow.state() != State::SynSent;
            if !may_stay || *on_down == OnDown::Reset {
                flows.push((flow.hold(), *on_down));
            }
        });
        for (flow, on_down) in flows {
            self.mailboxes[usize::from(flow.owner().0)].cut_flow(flow, on_down);
        }
    }
}

fn tell(service: &str, backend: &str, kind: &EventKind) {
    match kind {
        EventKind::Up => log::info!(service, backend; "backend is up"),
        EventKind::Readmitted => log::info!(service, backend; "backend gets flows again"),
        EventKind::Down(why) => log::warn!(service, backend, reason = why.as_str(); "backend is down"),
        EventKind::StillDown(why) => log::info!(service, backend, reason = why.as_str(); "backend is still down"),
        EventKind::Ejected(why) => log::warn!(service, backend, reason = why.as_str(); "backend is ejected"),
    }
}
