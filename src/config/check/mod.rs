//! The rules: from the file as it was written to the [`Snapshot`].
//!
//! First each part for itself ([`gateway`], [`service`]), then what has to hold between them ([`across`]). A rule about
//! what is lacking keeps silent where something unreadable may have been it.

mod across;
mod discovery;
mod gateway;
mod ha;
mod health;
mod service;

use std::ops::Range;

use toml::Spanned;

use self::service::CheckedService;
use super::diagnostic::{Code, Diagnostic};
use super::identity::{Ids, Places, Retired};
use super::raw::RawFile;
use super::values::List;
use super::{Address, Backend, Carried, Gateway, Listeners, Report, Service, Snapshot, Timeouts, addresses};
use crate::wire::Protocol;

/// Applies every rule. The snapshot is good only if no diagnostic is an error.
pub(super) fn check(raw: RawFile, previous: Option<&Snapshot>, host_name: &str, out: &mut Vec<Diagnostic>) -> Snapshot {
    let (gateway, places) = gateway::check(raw.gateway, host_name, out);
    let timeouts = gateway::timeouts(&raw.timeouts, out);
    let services = raw.services.map(|service| service::check(service, out));
    across::check(&gateway, &places, &services, out);
    let ha = ha::check(raw.ha, &gateway, out);
    Snapshot { ha, ..number(previous, gateway, timeouts, services.items, out) }
}

/// Where the parts of `[gateway]` stand of which rules between the parts speak.
struct GatewayPlaces {
    mtu: Option<Range<usize>>,
    max_flows: Option<Range<usize>>,
    source_addresses: List<Spanned<Address>>,
}

/// Gives services and backends their ids.
fn number(
    previous: Option<&Snapshot>,
    gateway: Gateway,
    timeouts: Timeouts,
    checked: Vec<CheckedService>,
    out: &mut Vec<Diagnostic>,
) -> Snapshot {
    let mut ids = Ids::after(previous);
    let (mut services, mut backends) = (Vec::with_capacity(checked.len()), Vec::new());
    for service in checked {
        let header = service.header.clone();
        let Some(service) = with_ids(service, &mut ids, &mut backends) else {
            let message = "more than 65,535 services or backends";
            out.push(Diagnostic::new(Code::TooMany, header, message).label("from here on"));
            break;
        };
        services.push(service);
    }
    let listeners = Listeners::new(
        services.iter().flat_map(|service| service.listen.iter().map(|listen| (listen, service.protocol, service.id))),
    );
    let own = addresses(&gateway, &services).map(|(prefix, _)| prefix).collect();
    let retired = previous.map(|previous| Retired::between(previous, &services, &backends, &own)).unwrap_or_default();
    let places = Places::new(&services, &backends, &retired);
    let generation = previous.map_or(0, |previous| previous.generation) + 1;
    let warnings = Report::default();
    let ha = None;
    Snapshot { generation, gateway, timeouts, ha, services, backends, retired, places, listeners, warnings }
}

/// `None` if there is no id for it, or for a backend of its.
fn with_ids(checked: CheckedService, ids: &mut Ids<'_>, backends: &mut Vec<Backend>) -> Option<Service> {
    let name = checked.name.map(Spanned::into_inner).unwrap_or_default();
    let protocol = checked.protocol.unwrap_or(Carried::One(Protocol::TCP));
    let id = ids.service(&name, protocol, checked.mode)?;
    let first = backends.len();
    for backend in checked.backends.items {
        backends.push(Backend {
            id: ids.backend(id, backend.name.get_ref(), backend.address, backend.port)?,
            name: backend.name.into_inner(),
            service: id,
            address: backend.address,
            port: backend.port,
            weight: backend.weight,
            backup: backend.backup,
            discovered: false,
        });
    }
    Some(Service {
        id,
        name,
        listen: checked.listen.items.into_iter().map(Spanned::into_inner).collect(),
        protocol,
        mode: checked.mode,
        balance: checked.balance,
        backends: backends[first..].iter().map(|backend| backend.id).collect(),
        limits: checked.limits,
        affinity: checked.affinity,
        discovery: checked.discovery,
        health: checked.health,
        passive: checked.passive,
    })
}
