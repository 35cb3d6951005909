//! The list of metrics: what is not here is neither served nor explained.

use super::pair;
use super::series::{of_backends, of_services, of_sources, precise, services, sum, workers};
use super::{Metric, counter, gauge};
use crate::config::{Backend, Mode, Service, Snapshot};
use crate::control::discovery::State;
use crate::control::health::Tally;
use crate::control::overrides::Override;
use crate::control::{Administration, Health};
use crate::engine::DropReason;
use crate::engine::counters::{Shortage, WorkerCounters};

/// All metrics.
pub const METRICS: &[Metric] = &[
    counter("packets", &["worker", "direction"], "Packets received (in) and sent (out)", |controller, _| {
        workers(controller, |worker| [&worker.received.packets, &worker.sent.packets])
    }),
    counter("bytes", &["worker", "direction"], "Bytes of these packets", |controller, _| {
        workers(controller, |worker| [&worker.received.bytes, &worker.sent.bytes])
    }),
    counter("packets_dropped", &["reason"], "Packets that did not leave, each under one reason", |controller, _| {
        let of = |reason: &DropReason| sum(controller.shared(), |worker| worker.drops(*reason));
        DropReason::ALL.iter().map(|reason| (vec![reason.name().to_owned()], of(reason))).collect()
    }),
    counter(
        "service_packets",
        &["service", "direction"],
        "Packets from clients (in) and to them (out)",
        |controller, _| services(controller, |flows| [&flows.inbound.packets, &flows.outbound.packets]),
    ),
    counter("service_bytes", &["service", "direction"], "Bytes of these packets", |controller, _| {
        services(controller, |flows| [&flows.inbound.bytes, &flows.outbound.bytes])
    }),
    counter("service_flows_opened", &["service"], "Flows opened", |controller, _| {
        of_services(controller, |flows| &flows.opened)
    }),
    counter(
        "service_flows_refused",
        &["service"],
        "Flows refused: limits, no backend, no port, no room",
        |controller, _| of_services(controller, |flows| &flows.refused),
    ),
    gauge("service_flows", &["service"], "Flows now, those of removed backends included", |controller, _| {
        let snapshot = controller.snapshot();
        let flows = |id| {
            let backends = snapshot.all_backends().filter(|backend| backend.service == id);
            backends.map(|backend| f64::from(controller.shared().loads.get(backend.id))).sum()
        };
        snapshot.services.iter().map(|service| (vec![service.name.clone()], flows(service.id))).collect()
    }),
    gauge("backend_flows", &["service", "backend"], "Flows now", |controller, _| {
        of_backends(controller, |_, backend| f64::from(controller.shared().loads.get(backend.id)))
    }),
    gauge("backend_up", &["service", "backend"], "1, or 0 if health checks say that it is down", |controller, _| {
        of_backends(controller, |snapshot, backend| {
            let is_down = controller.standing(snapshot, backend).health() == Health::Down;
            if is_down { 0.0 } else { 1.0 }
        })
    }),
    counter(
        "backend_checks",
        &["result"],
        "Answers to health checks, and questions that could not be asked",
        |controller, _| {
            let Tally { good, bad, not_asked } = controller.checks().tally();
            [("good", good), ("bad", bad), ("not-asked", not_asked)]
                .map(|(result, count)| (vec![result.to_owned()], precise(count)))
                .into()
        },
    ),
    gauge(
        "backend_check_duration_seconds",
        &["service", "backend"],
        "How long the last health check took, or lasted without an answer; 0 before the first",
        |controller, _| {
            of_backends(controller, |_, backend| controller.checks().took(backend.id).unwrap_or_default().as_secs_f64())
        },
    ),
    gauge(
        "backend_health",
        &["service", "backend", "state"],
        "1 for what is seen of it: up, down, or unknown; 0 for the others",
        |controller, _| {
            let states = |snapshot: &Snapshot, backend: &Backend| {
                let seen = controller.standing(snapshot, backend).health();
                Health::ALL.map(|state| (state.name(), f64::from(u8::from(state == seen))))
            };
            of_backends(controller, states)
                .into_iter()
                .flat_map(|(labels, states)| {
                    states.map(|(state, is)| ([&labels[..], &[state.to_owned()]].concat(), is))
                })
                .collect()
        },
    ),
    gauge("overrides", &["state"], "Backends of which an operator has said something", |controller, _| {
        let count =
            |is: fn(&Override) -> bool| precise(controller.overrides().all().filter(|said| is(said)).count() as u64);
        let drained = count(|said| said.administration == Administration::Drain);
        let disabled = count(|said| said.administration == Administration::Disabled);
        let weighed = count(|said| said.weight.is_some());
        [("drain", drained), ("disabled", disabled), ("weight", weighed)]
            .map(|(state, count)| (vec![state.to_owned()], count))
            .into()
    }),
    gauge(
        "source_stale",
        &["service", "source"],
        "1 if the last answer of a source of backends was a failure, or there was none",
        |controller, _| of_sources(controller, |source| f64::from(u8::from(source.state() != State::Fresh))),
    ),
    gauge(
        "source_last_success_timestamp_seconds",
        &["service", "source"],
        "When a source had a good answer last, in seconds since 1970; 0: never",
        |controller, _| of_sources(controller, |source| source.good_at().map_or(0.0, precise)),
    ),
    gauge("source_backends", &["service", "source"], "Backends that a source has given", |controller, _| {
        of_sources(controller, |source| precise(source.backends() as u64))
    }),
    gauge("affinity_clients", &["service"], "Clients whose flows stay at their backend", |controller, now| {
        let snapshot = controller.snapshot();
        let clients = |service: &Service| precise(controller.shared().affinity_clients(service.id, now));
        snapshot.services.iter().map(|service| (vec![service.name.clone()], clients(service))).collect()
    }),
    gauge(
        "nat_ports_in_use",
        &["service", "backend"],
        "Source ports that flows to a backend hold; 0 without source-nat",
        |controller, _| {
            of_backends(controller, |snapshot, backend| {
                let holds = matches!(snapshot.service(backend.service).mode, Mode::Nat { source_nat: true });
                if holds { f64::from(controller.shared().loads.get(backend.id)) } else { 0.0 }
            })
        },
    ),
    counter(
        "nat_port_exhausted",
        &["service", "backend"],
        "Flows refused because every source port towards the backend belonged to a flow in use",
        |controller, _| {
            of_backends(controller, |_, backend| sum(controller.shared(), |worker| &worker.backend(backend.id).refused))
        },
    ),
    gauge("flow_table_entries", &[], "Flows in the table", |controller, _| {
        vec![(vec![], f64::from(controller.shared().table.len()))]
    }),
    gauge("flow_table_capacity", &[], "Flows that the table has room for: max-flows", |controller, _| {
        vec![(vec![], f64::from(controller.shared().table.capacity()))]
    }),
    counter("flow_evictions", &["reason"], "Half-open and ended flows that made way for new ones", |controller, _| {
        let of = |shortage| sum(controller.shared(), |worker| worker.evicted(shortage));
        Shortage::ALL.map(|shortage| (vec![shortage.reason().name().to_owned()], of(shortage))).into()
    }),
    counter("worker_busy_seconds", &["worker"], "Time that a worker did not spend waiting", |controller, _| {
        let busy = |worker: &WorkerCounters| precise(worker.busy_micros.get()) / 1e6;
        let all = controller.shared().counters.workers().enumerate();
        all.map(|(id, worker)| (vec![id.to_string()], busy(worker))).collect()
    }),
    gauge("config_last_reload_successful", &[], "0 if the last configuration was refused", |controller, _| {
        vec![(vec![], if controller.rejected().is_some() { 0.0 } else { 1.0 })]
    }),
    gauge("config_generation", &[], "Grows by one with every applied configuration", |controller, _| {
        vec![(vec![], precise(controller.snapshot().generation))]
    }),
    counter("config_rejected", &[], "Configurations that were refused", |controller, _| {
        vec![(vec![], precise(controller.rejections()))]
    }),
    gauge("config_unconfirmed", &[], "1 while a configuration waits to be confirmed", |controller, _| {
        vec![(vec![], f64::from(u8::from(controller.unconfirmed_until().is_some())))]
    }),
    gauge("ha_role", &["role"], "1 for the role of this gateway in its pair", |controller, _| pair::role(controller)),
    gauge("ha_state", &["state"], "1 for the state by which that is so; all 0 without a pair", |controller, _| {
        pair::state(controller)
    }),
    gauge("ha_epoch", &[], "Grows with each change of the active gateway", |controller, _| {
        pair::number(controller, |report| precise(report.status.epoch.to_bits()))
    }),
    gauge("ha_ready", &[], "1 if the passive gateway could take over without loss", |controller, _| {
        pair::number(controller, |report| f64::from(u8::from(report.status.unready.is_none())))
    }),
    gauge("ha_peer_last_seen_seconds", &[], "Time since the peer was heard", |controller, _| {
        pair::number(controller, pair::last_seen)
    }),
    gauge("ha_unsynced_flows", &[], "Flows that would be lost if this gateway failed now", |controller, _| {
        pair::number(controller, |report| f64::from(report.status.sync.progress.unshared))
    }),
    gauge(
        "ha_oldest_unsynced_seconds",
        &[],
        "Age of the oldest change that the peer has not confirmed",
        |controller, _| pair::number(controller, |report| report.oldest_unsynced.as_secs_f64()),
    ),
    counter("ha_transitions", &["reason"], "Changes of state, by why they were made", |controller, _| {
        pair::transitions(controller)
    }),
    counter(
        "ha_datagrams_refused",
        &["reason"],
        "Datagrams on the heartbeat paths that were refused",
        |controller, _| pair::refused(controller),
    ),
    gauge("build_info", &["version"], "1", |_, _| vec![(vec![env!("CARGO_PKG_VERSION").to_owned()], 1.0)]),
];
