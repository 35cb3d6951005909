//! What Prometheus reads: one list of metrics, which makes them and their chapter of the manual.

mod list;
mod pair;
mod series;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::control::Controller;
use crate::engine::Instant;

pub use list::METRICS;

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
    series: fn(&Controller, Instant) -> Series,
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
    series: fn(&Controller, Instant) -> Series,
) -> Metric {
    Metric { name, help, is_counter: true, labels, series }
}

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    series: fn(&Controller, Instant) -> Series,
) -> Metric {
    Metric { name, help, is_counter: false, labels, series }
}

/// All metrics in the OpenMetrics text format.
pub fn metrics(controller: &Controller, now: Instant) -> String {
    let mut registry = Registry::with_prefix("tungate");
    registry.register_collector(Box::new(Reading(METRICS.iter().map(|m| (*m, (m.series)(controller, now))).collect())));
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::load;
    use crate::engine::Shared;

    #[test]
    fn all_series_are_there_from_the_start() {
        let text = "[[service]]\nname = 'web'\nlisten = '192.0.2.1:80'\nsource-nat = false\n\
                    backends = [{ name = 'b1', address = '10.0.0.1' }]\n\
                    [service.discovery]\nsource = 'file'\npath = '/tmp/web.toml'\n";
        let shared = Shared::new(load(text, "test.toml", None, "gw").unwrap(), 2, 7);
        let mut controller = Controller::new(shared, Duration::ZERO);
        let page = metrics(&controller, Instant::ZERO);
        let line = |wanted: &str| assert!(page.lines().any(|line| line == wanted), "{wanted}\n{page}");
        line("# TYPE tungate_packets counter");
        line("tungate_packets_total{worker=\"1\",direction=\"out\"} 0.0");
        line("tungate_packets_dropped_total{reason=\"no-service\"} 0.0");
        line("tungate_service_bytes_total{service=\"web\",direction=\"in\"} 0.0");
        line("tungate_backend_up{service=\"web\",backend=\"b1\"} 1.0");
        line("tungate_flow_table_capacity 1000000.0");
        line("tungate_backend_checks_total{result=\"bad\"} 0.0");
        line("tungate_backend_check_duration_seconds{service=\"web\",backend=\"b1\"} 0.0");
        line("tungate_backend_health{service=\"web\",backend=\"b1\",state=\"unknown\"} 1.0");
        line("tungate_source_stale{service=\"web\",source=\"file /tmp/web.toml\"} 1.0");
        line("tungate_source_last_success_timestamp_seconds{service=\"web\",source=\"file /tmp/web.toml\"} 0.0");
        line("tungate_affinity_clients{service=\"web\"} 0.0");
        line("tungate_nat_ports_in_use{service=\"web\",backend=\"b1\"} 0.0");
        line("tungate_overrides{state=\"drain\"} 0.0");
        line("tungate_config_rejected_total 0.0");
        line("# EOF");
        for metric in METRICS {
            assert!(page.contains(&metric.full_name()), "{}", metric.full_name());
        }
        assert!(healthy(&controller, "web").is_ok() && ready(&controller).is_ok());
        controller.close();
        controller.handle_timeout(Instant::ZERO);
        assert!(healthy(&controller, "web").is_err() && ready(&controller).is_err());
    }
}
