//! The numbers behind the metrics.

use super::Series;
use crate::config::{Backend, Service, ServiceId, Snapshot};
use crate::control::Controller;
use crate::control::discovery::Source;
use crate::engine::Shared;
use crate::engine::counters::{Counter, FlowCounters, WorkerCounters};

pub(super) fn workers(controller: &Controller, of: fn(&WorkerCounters) -> [&Counter; 2]) -> Series {
    let both = |(id, worker): (usize, _)| {
        let [inbound, outbound] = of(worker).map(|counter| precise(counter.get()));
        [("in", inbound), ("out", outbound)].map(|(way, number)| (vec![id.to_string(), way.to_owned()], number))
    };
    controller.shared().counters.workers().enumerate().flat_map(both).collect()
}

pub(super) fn services(controller: &Controller, of: fn(&FlowCounters) -> [&Counter; 2]) -> Series {
    let snapshot = controller.snapshot();
    let both = |service: &Service| {
        let number = |n: usize| sum(controller.shared(), |worker| of(worker.service(service.id))[n]);
        [("in", 0), ("out", 1)].map(|(way, n)| (vec![service.name.clone(), way.to_owned()], number(n)))
    };
    snapshot.services.iter().flat_map(both).collect()
}

pub(super) fn of_services(controller: &Controller, of: fn(&FlowCounters) -> &Counter) -> Series {
    let snapshot = controller.snapshot();
    let one = |service: &Service| {
        (vec![service.name.clone()], sum(controller.shared(), |worker| of(worker.service(service.id))))
    };
    snapshot.services.iter().map(one).collect()
}

pub(super) fn sum(shared: &Shared, of: impl Fn(&WorkerCounters) -> &Counter) -> f64 {
    precise(shared.counters.sum(of))
}

/// Prometheus has numbers of 53 bits: more than any counter reaches in a century.
#[expect(clippy::cast_precision_loss, reason = "as said")]
pub(super) const fn precise(number: u64) -> f64 {
    number as f64
}

/// Of each backend.
pub(super) fn of_backends<T>(controller: &Controller, of: impl Fn(&Snapshot, &Backend) -> T) -> Vec<(Vec<String>, T)> {
    let snapshot = controller.snapshot();
    let one = |backend: &Backend| {
        (vec![snapshot.service(backend.service).name.clone(), backend.name.clone()], of(&snapshot, backend))
    };
    snapshot.backends.iter().map(one).collect()
}

/// Of each source of backends.
pub(super) fn of_sources(controller: &Controller, of: impl Fn(&Source) -> f64) -> Series {
    let snapshot = controller.snapshot();
    let one = |(service, source): (ServiceId, &Source)| {
        (vec![snapshot.service(service).name.clone(), source.config().source.to_string()], of(source))
    };
    controller.sources().all().map(one).collect()
}
