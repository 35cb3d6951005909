//! Answers, made from what the workers share. Nothing here waits, and only what is asked to changes anything.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::describe::icmp_name;
use super::explain::explain;
use super::filter::FlowFilter;
use super::rows::{BackendRow, ConfigRow, CountRow, DropRow, FlowRow, ServiceRow, SourceRow, WorkerRow};
use super::{Request, Response, Responses, ha, hex, operate};
use crate::config::{self, BackendId, Mode, ServiceId, Snapshot};
use crate::control::ha::Command;
use crate::control::history::Source;
use crate::control::{Admit, Controller};
use crate::engine::conntrack::{Direction, Flow, FlowRef, State as FlowState};
use crate::engine::{DropReason, Instant, Shared};
use crate::wire::{Address, Prefix};

/// Flows in one part of an answer.
const FLOWS_A_PART: usize = 256;

/// What questions are answered from.
pub struct State<'a> {
    /// Who decides what each backend is for new flows.
    pub controller: &'a mut Controller,
    /// Has a flow ended by the worker that owns it.
    pub end_flow: &'a dyn Fn(FlowRef),
    /// Passes an order on to the pair, or says why not.
    pub order_pair: &'a dyn Fn(Command) -> Result<(), String>,
    /// When the daemon started.
    pub started: Instant,
    /// The time.
    pub now: Instant,
    /// Reads the file that the daemon was started with.
    pub read_file: &'a dyn Fn() -> Result<Source, String>,
    /// Says why packets for this address do not come to the gateway, if they do not.
    pub kept: &'a dyn Fn(Address) -> Option<String>,
    /// Says why the machine cannot take a configuration, if it cannot.
    pub admit: Admit<'a>,
}

impl std::fmt::Debug for State<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("now", &self.now).finish_non_exhaustive()
    }
}

/// Answers a question.
pub fn answer(request: Request, state: &mut State<'_>) -> Responses {
    let (shared, snapshot) = (&Arc::clone(state.controller.shared()), state.controller.snapshot());
    let one = |response| -> Responses { Box::new(std::iter::once(response)) };
    match request {
        Request::ShowServices => one(Response::Services(services(state.controller, &snapshot, state.now))),
        Request::ShowBackends { service } => one(backends(state, &snapshot, service.as_deref())),
        Request::ShowFlows(filter) => match Matcher::new(&filter, &snapshot) {
            Ok(matcher) => flows(matcher.find(shared), snapshot, state.now),
            Err(not_found) => one(Response::NotFound(not_found)),
        },
        Request::CountFlows(filter) => one(match Matcher::new(&filter, &snapshot) {
            Ok(matcher) => Response::Count(CountRow { flows: matcher.count(shared) }),
            Err(not_found) => Response::NotFound(not_found),
        }),
        Request::KillFlows(filter) => one(match Matcher::new(&filter, &snapshot) {
            Ok(matcher) => {
                let found = matcher.find(shared);
                let flows = found.len() as u64;
                found.into_iter().for_each(state.end_flow);
                Response::Count(CountRow { flows })
            }
            Err(not_found) => Response::NotFound(not_found),
        }),
        Request::ShowWorkers => one(Response::Workers(workers(state))),
        Request::ShowDrops => one(Response::Drops(drops(shared))),
        Request::ShowSources => one(Response::Sources(sources(state, &snapshot))),
        Request::ShowConfig => one(Response::Config(config(state.controller, &snapshot))),
        Request::ShowHistory => one(operate::history(state.controller)),
        Request::ShowRejected => one(operate::rejected(state.controller)),
        Request::Plan { source } => one(operate::plan(state, source)),
        Request::Reload { confirm_s } => one(operate::reload(state, confirm_s)),
        Request::Confirm => one(operate::confirm(state)),
        Request::Rollback { steps } => one(operate::rollback(state, steps)),
        Request::ShowHa => one(ha::show(state.controller)),
        Request::Ha { order, force } => one(ha::order(state, order, force)),
        Request::Operate(said) => one(operate::operate(state, said)),
        Request::Explain(probe) => one(match hex::decode(&probe.packet) {
            Some(mut packet) => Response::Explained(Box::new(explain(shared, &mut packet, state.kept, state.now))),
            None => Response::Refused("the packet is not written in pairs of hexadecimal digits".to_owned()),
        }),
    }
}

fn config(controller: &Controller, snapshot: &Snapshot) -> ConfigRow {
    let source = controller.history().back(0).map(|applied| applied.source.clone()).unwrap_or_default();
    let (name, generation) = (snapshot.gateway.name.clone(), snapshot.generation);
    ConfigRow { name, generation, file: source.file, text: source.text }
}

fn services(controller: &Controller, snapshot: &Snapshot, now: Instant) -> Vec<ServiceRow> {
    let shared = controller.shared();
    let mut flows: HashMap<ServiceId, u64> = HashMap::new();
    for backend in snapshot.all_backends() {
        *flows.entry(backend.service).or_default() += u64::from(shared.loads.get(backend.id));
    }
    let row = |service: &crate::config::Service| {
        let id = service.id;
        let backends = || snapshot.backends_of(id);
        let sum = |of: fn(&crate::engine::counters::FlowCounters) -> &crate::engine::counters::Counter| {
            shared.counters.sum(|worker| of(worker.service(id)))
        };
        ServiceRow {
            name: service.name.clone(),
            listen: service.listen.iter().map(ToString::to_string).collect(),
            protocol: service.protocol.to_string(),
            mode: mode(service.mode).to_owned(),
            balance: service.balance.name().to_owned(),
            backends_up: backends().filter(|(_, b)| controller.standing(snapshot, b).share() > 0).count() as u64,
            backends_total: backends().count() as u64,
            flows: flows.get(&id).copied().unwrap_or(0),
            packets_in: sum(|c| &c.inbound.packets),
            bytes_in: sum(|c| &c.inbound.bytes),
            packets_out: sum(|c| &c.outbound.packets),
            bytes_out: sum(|c| &c.outbound.bytes),
            flows_opened: sum(|c| &c.opened),
            flows_refused: sum(|c| &c.refused),
            affinity_clients: shared.affinity_clients(id, now),
        }
    };
    snapshot.services.iter().map(row).collect()
}

fn backends(state: &State<'_>, snapshot: &Snapshot, service: Option<&str>) -> Response {
    let (controller, shared) = (&*state.controller, state.controller.shared());
    let policy = shared.policy.load();
    let wanted = match service.map(|name| snapshot.find_service(name)).transpose() {
        Ok(wanted) => wanted,
        Err(not_found) => return Response::NotFound(not_found),
    };
    let row = |backend: &crate::config::Backend| {
        let id = backend.id;
        let standing = controller.standing(snapshot, backend);
        let path = policy.path(id);
        let lost = path.and_then(|path| path.last_loss().map(|(head, at)| (path.tunnel().family(), head, at)));
        let (admin_age, admin_left) = standing.overridden.map(|said| controller.age(said, state.now)).unzip();
        let sum = |of: fn(&crate::engine::counters::FlowCounters) -> &crate::engine::counters::Counter| {
            shared.counters.sum(|worker| of(worker.backend(id)))
        };
        BackendRow {
            service: snapshot.service(backend.service).name.clone(),
            name: backend.name.clone(),
            address: backend.place(),
            weight: standing.weight(),
            weight_configured: standing.configured_weight,
            backup: backend.backup,
            config: standing.presence,
            admin: standing.administration(),
            admin_reason: standing.overridden.and_then(|said| said.reason.clone()),
            admin_age_s: admin_age.map(|age| age.as_secs()),
            admin_left_s: admin_left.flatten().map(|left| left.as_secs()),
            health: standing.health(),
            health_reason: standing.observed.and_then(|seen| seen.reason.clone()),
            health_age_s: standing.observed.map(|seen| state.now.since(seen.since).as_secs()),
            flows: u64::from(shared.loads.get(id)),
            flows_opened: sum(|c| &c.opened),
            packets_in: sum(|c| &c.inbound.packets),
            bytes_in: sum(|c| &c.inbound.bytes),
            packets_out: sum(|c| &c.outbound.packets),
            bytes_out: sum(|c| &c.outbound.bytes),
            unreachable: sum(|c| &c.unreachable),
            last_icmp: lost.map(|(family, [kind, code], _)| icmp_name(family, kind, code)),
            last_icmp_age_s: lost.map(|(.., at)| state.now.since(at).as_secs()),
            path_mtu: path.map(|path| path.mtu(state.now)),
            path_mtu_left_s: path.and_then(|path| path.learned_for(state.now)).map(|left| left.as_secs()),
        }
    };
    let all = snapshot.all_backends();
    Response::Backends(all.filter(|backend| wanted.is_none_or(|id| backend.service == id)).map(row).collect())
}

/// The flows as rows, a part at a time: what is kept meanwhile is a pointer for each.
fn flows(found: Vec<FlowRef>, snapshot: Arc<Snapshot>, now: Instant) -> Responses {
    let mut left = VecDeque::from(found);
    let mut first = true;
    Box::new(std::iter::from_fn(move || {
        if left.is_empty() && !first {
            return None;
        }
        first = false;
        let part = left.drain(..FLOWS_A_PART.min(left.len()));
        Some(Response::Flows(part.map(|flow| flow_row(&flow, &snapshot, now)).collect()))
    }))
}

fn flow_row(flow: &Flow, snapshot: &Snapshot, now: Instant) -> FlowRow {
    let original = flow.key(Direction::Original);
    let count = |of: fn(&crate::engine::counters::Traffic) -> &crate::engine::counters::Counter| {
        [of(&flow.traffic[0]).get(), of(&flow.traffic[1]).get()]
    };
    FlowRow {
        protocol: original.protocol.to_string(),
        client: original.source.to_string(),
        listen: original.destination.to_string(),
        service: snapshot.service(flow.service()).name.clone(),
        backend: snapshot.backend(flow.backend()).name.clone(),
        source: flow.is_leased().then(|| flow.key(Direction::Reply).destination.to_string()),
        state: flow.state().name().to_owned(),
        age_s: flow.age(now).as_secs(),
        idle_s: flow.idle(now).as_secs(),
        packets: count(|traffic| &traffic.packets),
        bytes: count(|traffic| &traffic.bytes),
        one_way: flow.is_tunnelled(),
        synced: false,
    }
}

fn workers(state: &State<'_>) -> Vec<WorkerRow> {
    let elapsed = state.now.since(state.started).as_secs_f64();
    let row = |(worker, counters): (u16, &crate::engine::counters::WorkerCounters)| {
        let busy = std::time::Duration::from_micros(counters.busy_micros.get()).as_secs_f64();
        WorkerRow {
            worker,
            packets_in: counters.received.packets.get(),
            packets_out: counters.sent.packets.get(),
            bytes_in: counters.received.bytes.get(),
            bytes_out: counters.sent.bytes.get(),
            batches: counters.batches.get(),
            busy_ratio: if elapsed > 0.0 { (busy / elapsed).min(1.0) } else { 0.0 },
            handed_over: counters.handed_over.get(),
            forwarded: counters.forwarded.get(),
            replied: counters.replied.get(),
            consumed: counters.consumed.get(),
            segmented: counters.segmented.get(),
        }
    };
    (0..).zip(state.controller.shared().counters.workers()).map(row).collect()
}

fn drops(shared: &Shared) -> Vec<DropRow> {
    let row = |reason: &DropReason| DropRow {
        reason: reason.name().to_owned(),
        packets: shared.counters.sum(|worker| worker.drops(*reason)),
        meaning: reason.meaning().to_owned(),
    };
    DropReason::ALL.iter().map(row).collect()
}

fn sources(state: &State<'_>, snapshot: &Snapshot) -> Vec<SourceRow> {
    let row = |(service, source): (ServiceId, &crate::control::discovery::Source)| SourceRow {
        name: source.config().source.to_string(),
        service: snapshot.service(service).name.clone(),
        state: source.state().name().to_owned(),
        age_s: source.good_at().map(|at| state.controller.time(state.now).saturating_sub(at)),
        backends: source.backends() as u64,
        last_error: source.problem().map(str::to_owned),
    };
    state.controller.sources().all().map(row).collect()
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Nat { .. } => "nat",
        Mode::Dsr { .. } => "dsr",
    }
}

/// A filter whose names are known to exist.
struct Matcher {
    service: Option<ServiceId>,
    backends: Option<Vec<BackendId>>,
    client: Option<Prefix>,
    state: Option<FlowState>,
}

impl Matcher {
    fn new(filter: &FlowFilter, snapshot: &Snapshot) -> Result<Self, String> {
        Ok(Self {
            service: filter.service.as_deref().map(|name| snapshot.find_service(name)).transpose()?,
            backends: filter.backend.as_deref().map(|name| snapshot.find_backends(name)).transpose()?,
            client: filter.client,
            state: filter.state.as_deref().map(find_state).transpose()?,
        })
    }

    fn fits(&self, flow: &Flow) -> bool {
        self.service.is_none_or(|id| flow.service() == id)
            && self.backends.as_ref().is_none_or(|ids| ids.contains(&flow.backend()))
            && self.client.is_none_or(|prefix| prefix.contains(flow.key(Direction::Original).source.address.ip()))
            && self.state.is_none_or(|state| flow.state() == state)
    }

    fn find(&self, shared: &Shared) -> Vec<FlowRef> {
        let mut found = Vec::new();
        shared.table.for_each(|flow| {
            if self.fits(flow) {
                found.push(flow.hold());
            }
        });
        found
    }

    fn count(&self, shared: &Shared) -> u64 {
        let mut count = 0;
        shared.table.for_each(|flow| count += u64::from(self.fits(flow)));
        count
    }
}

fn find_state(name: &str) -> Result<FlowState, String> {
    FlowState::ALL.into_iter().find(|state| state.name() == name).ok_or_else(|| {
        format!(
            "no flow is ever in state `{name}`; there {}",
            config::enumerate(FlowState::ALL.iter().map(|s| s.name()))
        )
    })
}
