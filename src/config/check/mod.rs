//! The rules: from the file as it was written to the [`Snapshot`].
//!
//! First each part for itself ([`gateway`], [`service`]), then what has to hold between them ([`across`]). A rule about
//! what is lacking keeps silent where something unreadable may have been it.

mod across;
mod gateway;
mod service;

use std::ops::Range;

use toml::Spanned;

use self::service::CheckedService;
use super::diagnostic::{Code, Diagnostic};
use super::raw::RawFile;
use super::values::List;
use super::{Address, Backend, Carried, Gateway, Listeners, Report, Service, ServiceId, Snapshot, Timeouts};
use crate::wire::Protocol;

/// Applies every rule. The snapshot is good only if no diagnostic is an error.
pub(super) fn check(raw: RawFile, generation: u64, host_name: &str, out: &mut Vec<Diagnostic>) -> Snapshot {
    let (gateway, places) = gateway::check(raw.gateway, host_name, out);
    let timeouts = gateway::timeouts(&raw.timeouts, out);
    let services = raw.services.map(|service| service::check(service, out));
    across::check(&gateway, &places, &services, out);
    number(generation, gateway, timeouts, services.items, out)
}

/// Where the parts of `[gateway]` stand of which rules between the parts speak.
struct GatewayPlaces {
    mtu: Option<Range<usize>>,
    max_flows: Option<Range<usize>>,
    source_addresses: List<Spanned<Address>>,
}

/// Gives services and backends their numbers.
fn number(
    generation: u64,
    gateway: Gateway,
    timeouts: Timeouts,
    checked: Vec<CheckedService>,
    out: &mut Vec<Diagnostic>,
) -> Snapshot {
    let mut services = Vec::with_capacity(checked.len());
    let mut backends = Vec::new();
    for service in checked {
        let first = backends.len();
        let last = first + service.backends.items.len();
        let (Ok(id), Ok(first), Ok(last)) = (u16::try_from(services.len()), u16::try_from(first), u16::try_from(last))
        else {
            let message = "more than 65,535 services or backends";
            out.push(Diagnostic::new(Code::TooMany, service.header, message).label("from here on"));
            break;
        };
        backends.extend(service.backends.items.into_iter().map(|backend| Backend {
            name: backend.name.into_inner(),
            service: ServiceId(id),
            address: backend.address,
            port: backend.port,
            weight: backend.weight,
            backup: backend.backup,
        }));
        services.push(Service {
            name: service.name.map(Spanned::into_inner).unwrap_or_default(),
            listen: service.listen.items.into_iter().map(Spanned::into_inner).collect(),
            protocol: service.protocol.unwrap_or(Carried::One(Protocol::TCP)),
            mode: service.mode,
            balance: service.balance,
            backends: first..last,
            limits: service.limits,
        });
    }
    let numbered = services
        .iter()
        .zip(0..)
        .flat_map(|(service, id)| service.listen.iter().map(move |listen| (listen, service.protocol, ServiceId(id))));
    let listeners = Listeners::new(numbered);
    Snapshot { generation, gateway, timeouts, services, backends, listeners, warnings: Report::default() }
}
