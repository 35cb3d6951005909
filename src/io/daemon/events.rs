//! What has happened to backends: told to the log, and done to their flows.

use super::Daemon;
use crate::config::{BackendId, OnDown};
use crate::control::health::{Event, EventKind};
use crate::wire::Protocol;

impl Daemon {
    /// Tells what has happened to a backend, and does to its flows what the configuration says.
    pub(super) fn follow(&self, Event { backend: id, kind }: &Event) {
        let snapshot = self.controller.snapshot();
        if !snapshot.has_backend(*id) {
            return;
        }
        let backend = snapshot.backend(*id);
        let service = snapshot.service(backend.service);
        let (service_name, name) = (service.name.as_str(), backend.name.as_str());
        match kind {
            EventKind::Up => log::info!(service = service_name, backend = name; "backend is up"),
            EventKind::Readmitted => log::info!(service = service_name, backend = name; "backend gets flows again"),
            EventKind::Down(why) => {
                log::warn!(service = service_name, backend = name, reason = why.as_str(); "backend is down")
            }
            EventKind::StillDown(why) => {
                log::info!(service = service_name, backend = name, reason = why.as_str(); "backend is still down");
            }
            EventKind::Ejected(why) => {
                log::warn!(service = service_name, backend = name, reason = why.as_str(); "backend is ejected");
            }
        }
        if matches!(kind, EventKind::Down(_)) {
            self.cut_flows(*id, service.health.on_down);
        }
    }

    /// Ends a backend's flows: those without connections, which then go elsewhere, and the others if they are to be.
    fn cut_flows(&self, backend: BackendId, on_down: OnDown) {
        let mut flows = Vec::new();
        self.shared().table.for_each(|flow| {
            let is_tcp = flow.protocol() == Protocol::TCP;
            if flow.backend() == backend && (!is_tcp || on_down == OnDown::Reset) {
                flows.push(flow.hold());
            }
        });
        for flow in flows {
            self.mailboxes[usize::from(flow.owner().0)].cut_flow(flow);
        }
    }
}
