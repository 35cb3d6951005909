//! What Prometheus reads: one list of metrics, which makes them and their chapter of the manual.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::control::{Controller, Health};
use crate::engine::counters::{Counter, FlowCounters, Shortage, WorkerCounters};
use crate::engine::{DropReason, Shared};

/// A value for each label, and the number.
type Series = Vec<(Vec<String>, f64)>;

/// One metric: all its series are there from the start, at 0.
#[derive(Clone, Copy)]
pub struct Metric {
    /// Its name without `tungate_`, and of a counter without `_total`.
    name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// Whether it only grows.
    is_counter: bool,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Its series: a value for each label, and the number.
    series: fn(&Controller) -> Series,
}

impl Metric {
    /// The name as it is read.
    pub fn full_name(&self) -> String {
        format!("tungate_{}{}", self.name, if self.is_counter { "_total" } else { "" })
    }
}

impl fmt::Debug for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    series: fn(&Controller) -> Series,
) -> Metric {
    Metric { name, help, is_counter: true, labels, series }
}

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    series: fn(&Controller) -> Series,
) -> Metric {
    Metric { name, help, is_counter: false, labels, series }
}

/// All metrics.
pub const METRICS: &[Metric] = &[
    counter("packets", &["worker", "direction"], "Packets received (in) and sent (out)", |controller| {
        workers(controller, |worker| [&worker.received.packets, &worker.sent.packets])
    }),
    counter("bytes", &["worker", "direction"], "Bytes of these packets", |controller| {
        workers(controller, |worker| [&worker.received.bytes, &worker.sent.bytes])
    }),
    counter("packets_dropped", &["reason"], "Packets that did not leave, each under one reason", |controller| {
        let of = |reason: &DropReason| sum(controller.shared(), |worker| worker.drops(*reason));
        DropReason::ALL.iter().map(|reason| (vec![reason.name().to_owned()], of(reason))).collect()
    }),
    counter(
        "service_packets",
        &["service", "direction"],
        "Packets from clients (in) and to them (out)",
        |controller| services(controller, |flows| [&flows.inbound.packets, &flows.outbound.packets]),
    ),
    counter("service_bytes", &["service", "direction"], "Bytes of these packets", |controller| {
        services(controller, |flows| [&flows.inbound.bytes, &flows.outbound.bytes])
    }),
    counter("service_flows_opened", &["service"], "Flows opened", |controller| {
        of_services(controller, |flows| &flows.opened)
    }),
    counter(
        "service_flows_refused",
        &["service"],
        "Flows refused: limits, no backend, no port, no room",
        |controller| of_services(controller, |flows| &flows.refused),
    ),
    gauge("service_flows", &["service"], "Flows now, those of removed backends included", |controller| {
        let snapshot = controller.snapshot();
        let flows = |id| {
            let backends = snapshot.all_backends().filter(|backend| backend.service == id);
            backends.map(|backend| f64::from(controller.shared().loads.get(backend.id))).sum()
        };
        snapshot.services.iter().map(|service| (vec![service.name.clone()], flows(service.id))).collect()
    }),
    gauge("backend_flows", &["service", "backend"], "Flows now", |controller| {
        let snapshot = controller.snapshot();
        let of = |backend: &crate::config::Backend| {
            let labels = vec![snapshot.service(backend.service).name.clone(), backend.name.clone()];
            (labels, f64::from(controller.shared().loads.get(backend.id)))
        };
        snapshot.backends.iter().map(of).collect()
    }),
    gauge("backend_up", &["service", "backend"], "1, or 0 if health checks say that it is down", |controller| {
        let snapshot = controller.snapshot();
        let of = |backend: &crate::config::Backend| {
            let labels = vec![snapshot.service(backend.service).name.clone(), backend.name.clone()];
            let is_down = controller.standing(&snapshot, backend).health() == Health::Down;
            (labels, if is_down { 0.0 } else { 1.0 })
        };
        snapshot.backends.iter().map(of).collect()
    }),
    gauge("flow_table_entries", &[], "Flows in the table", |controller| {
        vec![(vec![], f64::from(controller.shared().table.len()))]
    }),
    gauge("flow_table_capacity", &[], "Flows that the table has room for: max-flows", |controller| {
        vec![(vec![], f64::from(controller.shared().table.capacity()))]
    }),
    counter("flow_evictions", &["reason"], "Half-open and ended flows that made way for new ones", |controller| {
        let of = |shortage| sum(controller.shared(), |worker| worker.evicted(shortage));
        Shortage::ALL.map(|shortage| (vec![shortage.reason().name().to_owned()], of(shortage))).into()
    }),
    counter("worker_busy_seconds", &["worker"], "Time that a worker did not spend waiting", |controller| {
        let busy = |worker: &WorkerCounters| precise(worker.busy_micros.get()) / 1e6;
        let all = controller.shared().counters.workers().enumerate();
        all.map(|(id, worker)| (vec![id.to_string()], busy(worker))).collect()
    }),
    gauge("config_last_reload_successful", &[], "0 if the last configuration was refused", |controller| {
        vec![(vec![], if controller.rejected().is_some() { 0.0 } else { 1.0 })]
    }),
    gauge("config_generation", &[], "Grows by one with every applied configuration", |controller| {
        vec![(vec![], precise(controller.snapshot().generation))]
    }),
    gauge("build_info", &["version"], "1", |_| vec![(vec![env!("CARGO_PKG_VERSION").to_owned()], 1.0)]),
];

/// All metrics in the OpenMetrics text format.
pub fn metrics(controller: &Controller) -> String {
    let mut registry = Registry::with_prefix("tungate");
    registry.register_collector(Box::new(Reading(METRICS.iter().map(|m| (*m, (m.series)(controller))).collect())));
    let mut text = String::new();
    text::encode(&mut text, &registry).expect("a string takes everything");
    text
}

/// Whether the gateway takes new flows.
///
/// # Errors
/// Why not.
pub fn ready(controller: &Controller) -> Result<(), String> {
    if controller.shared().policy.load().is_closed() { Err("draining: no new flows".to_owned()) } else { Ok(()) }
}

/// Whether new flows of the service would find a backend.
///
/// # Errors
/// Why not.
pub fn healthy(controller: &Controller, service: &str) -> Result<(), String> {
    let snapshot = controller.snapshot();
    let id = snapshot.find_service(service)?;
    let takes = |(_, backend): (_, &crate::config::Backend)| controller.standing(&snapshot, backend).share() > 0;
    if snapshot.backends_of(id).any(takes) { ready(controller) } else { Err("no backend takes new flows".to_owned()) }
}

/// All series as they were at one moment.
#[derive(Debug)]
struct Reading(Vec<(Metric, Series)>);

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (metric, series) in &self.0 {
            let kind = if metric.is_counter { MetricType::Counter } else { MetricType::Gauge };
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            for (values, number) in series {
                let labels: Vec<_> = metric.labels.iter().copied().zip(values.iter().map(String::as_str)).collect();
                let one = family.encode_family(&labels)?;
                if metric.is_counter {
                    ConstCounter::new(*number).encode(one)?;
                } else {
                    ConstGauge::new(*number).encode(one)?;
                }
            }
        }
        Ok(())
    }
}

fn workers(controller: &Controller, of: fn(&WorkerCounters) -> [&Counter; 2]) -> Series {
    let both = |(id, worker): (usize, _)| {
        let [inbound, outbound] = of(worker).map(|counter| precise(counter.get()));
        [("in", inbound), ("out", outbound)].map(|(way, number)| (vec![id.to_string(), way.to_owned()], number))
    };
    controller.shared().counters.workers().enumerate().flat_map(both).collect()
}

fn services(controller: &Controller, of: fn(&FlowCounters) -> [&Counter; 2]) -> Series {
    let snapshot = controller.snapshot();
    let both = |service: &crate::config::Service| {
        let number = |n: usize| sum(controller.shared(), |worker| of(worker.service(service.id))[n]);
        [("in", 0), ("out", 1)].map(|(way, n)| (vec![service.name.clone(), way.to_owned()], number(n)))
    };
    snapshot.services.iter().flat_map(both).collect()
}

fn of_services(controller: &Controller, of: fn(&FlowCounters) -> &Counter) -> Series {
    let snapshot = controller.snapshot();
    let one = |service: &crate::config::Service| {
        (vec![service.name.clone()], sum(controller.shared(), |worker| of(worker.service(service.id))))
    };
    snapshot.services.iter().map(one).collect()
}

fn sum(shared: &Shared, of: impl Fn(&WorkerCounters) -> &Counter) -> f64 {
    precise(shared.counters.sum(of))
}

/// Prometheus has numbers of 53 bits: more than any counter reaches in a century.
#[expect(clippy::cast_precision_loss, reason = "as said")]
const fn precise(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::load;

    #[test]
    fn all_series_are_there_from_the_start() {
        let text = "[[service]]\nname = 'web'\nlisten = '192.0.2.1:80'\nsource-nat = false\n\
                    backends = [{ name = 'b1', address = '10.0.0.1' }]";
        let shared = Shared::new(load(text, "test.toml", None, "gw").unwrap(), 2, 7);
        let mut controller = Controller::new(shared, Duration::ZERO);
        let page = metrics(&controller);
        let line = |wanted: &str| assert!(page.lines().any(|line| line == wanted), "{wanted}\n{page}");
        line("# TYPE tungate_packets counter");
        line("tungate_packets_total{worker=\"1\",direction=\"out\"} 0.0");
        line("tungate_packets_dropped_total{reason=\"no-service\"} 0.0");
        line("tungate_service_bytes_total{service=\"web\",direction=\"in\"} 0.0");
        line("tungate_backend_up{service=\"web\",backend=\"b1\"} 1.0");
        line("tungate_flow_table_capacity 1000000.0");
        line("# EOF");
        for metric in METRICS {
            assert!(page.contains(&metric.full_name()), "{}", metric.full_name());
        }
        assert!(healthy(&controller, "web").is_ok() && ready(&controller).is_ok());
        controller.close();
        controller.handle_timeout(crate::engine::Instant::ZERO);
        assert!(healthy(&controller, "web").is_err() && ready(&controller).is_err());
    }
}
