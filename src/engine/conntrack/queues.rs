//! Who makes room when there is none left: the flows that may be evicted, in the order in which they stand to lose.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use foldhash::fast::RandomState;

use super::flow::{Class, Flow};
use super::key::Direction;
use super::list::{List, Strand};
use super::state::Lifecycle;
use super::table::Table;
use crate::config::ServiceId;
use crate::engine::counters::Shortage;
use crate::wire::{Endpoint, Protocol};

/// Flows spared in one search: bounds it.
const SPARED: usize = 64;

/// What room is wanted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The flow table.
    Table,
    /// A service's `max-flows`.
    Service(ServiceId),
    /// The source ports towards a backend.
    Ports {
        /// Where the flow goes.
        backend: Endpoint,
        /// Its protocol.
        protocol: Protocol,
        /// Whether its port is below 1024: these are lent apart (R30).
        system: bool,
    },
}

impl Scope {
    /// The ports that a flow of a client with this port may be lent.
    pub const fn ports(backend: Endpoint, protocol: Protocol, client_port: u16) -> Self {
        Self::Ports { backend, protocol, system: client_port < 1024 }
    }

    /// What is short when there is no room.
    pub const fn shortage(&self) -> Shortage {
        match self {
            Self::Table => Shortage::Table,
            Self::Service(_) => Shortage::Service,
            Self::Ports { .. } => Shortage::Ports,
        }
    }

    /// All in which this flow takes room, each with the strand of its queues.
    fn of(flow: &Flow) -> [Option<(Self, Strand)>; 3] {
        let reply = flow.key(Direction::Reply);
        let ports = Self::ports(reply.source, reply.protocol, reply.destination.port);
        [
            Some((Self::Table, Strand::Table)),
            Some((Self::Service(flow.service()), Strand::Service)),
            flow.is_leased().then_some((ports, Strand::Ports)),
        ]
    }
}

impl Hash for Scope {
    /// Few wide writes instead of one for each field.
    fn hash<H: Hasher>(&self, state: &mut H) {
        match *self {
            Self::Table => {}
            Self::Service(service) => state.write_u16(service.0),
            Self::Ports { backend, protocol, system } => {
                state.write_u128(u128::from_ne_bytes(*backend.address.octets()));
                state.write_u32(u32::from(backend.port) << 9 | u32::from(protocol.0) << 1 | u32::from(system));
            }
        }
    }
}

impl Class {
    fn of(flow: &Flow) -> Option<Self> {
        match flow.state().lifecycle() {
            Lifecycle::HalfOpen => Some(Self::HalfOpen),
            Lifecycle::Closing => Some(Self::Closing),
            Lifecycle::Established => None,
        }
    }
}

/// The queues of one worker: two for each scope, of half-open flows and of those that are over, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// Of [`Scope::Table`], which every flow takes room in.
    table: [List; 2],
    /// Of [`Scope::Service`], by its id.
    services: Vec<[List; 2]>,
    /// Of [`Scope::Ports`], as long as a flow stands there.
    ports: HashMap<Scope, [List; 2], RandomState>,
}

impl Queues {
    /// Puts a flow at the end of the queues of its class; takes it from where it stood.
    pub(super) fn place(&mut self, table: &Table, id: u32) {
        self.remove(table, id);
        let flow = table.flow(id);
        let Some(class) = Class::of(flow) else { return };
        flow.set_queued(Some(class));
        for (scope, strand) in Scope::of(flow).into_iter().flatten() {
            let queues = match scope {
                Scope::Table => &mut self.table,
                Scope::Service(service) => self.of_service(service),
                Scope::Ports { .. } => self.ports.entry(scope).or_default(),
            };
            queues[class as usize].push(table, strand, id);
        }
    }

    /// Takes a flow out, if it is in.
    pub(super) fn remove(&mut self, table: &Table, id: u32) {
        let flow = table.flow(id);
        let Some((class, _)) = flow.queued() else { return };
        flow.set_queued(None);
        for (scope, strand) in Scope::of(flow).into_iter().flatten() {
            let queues = match scope {
                Scope::Table => &mut self.table,
                Scope::Service(service) => self.of_service(service),
                Scope::Ports { .. } => self.ports.get_mut(&scope).expect("what is queued has queues"),
            };
            queues[class as usize].remove(table, strand, id);
            if strand == Strand::Ports && queues.iter().all(|queue| queue.len() == 0) {
                self.ports.remove(&scope);
            }
        }
    }

    fn of_service(&mut self, service: ServiceId) -> &mut [List; 2] {
        let place = usize::from(service.0);
        if place >= self.services.len() {
            self.services.resize(place + 1, <[List; 2]>::default());
        }
        &mut self.services[place]
    }

    /// Who makes room in the scope: of its half-open flows the oldest; if more are over than are half-open, of those.
    ///
    /// A flood of first packets thus takes room from itself: the more of it there is, the sooner a flow of it goes.
    /// But where most flows are over, as at a busy service, it is they that go, and not clients in mid-handshake.
    ///
    /// Oldest is by when it took its state, not by when it would be forgotten: else the class with the shortest timeout
    /// would pay for all. Of UDP, whose flows may be half-open all their life, what was seen since is spared once; each
    /// sparing costs a packet.
    pub(super) fn victim(&mut self, table: &Table, scope: &Scope) -> Option<u32> {
        let [half_open, closing] = self.of(scope)?;
        let class = if closing.len() > half_open.len() { Class::Closing } else { Class::HalfOpen };
        for _ in 0..SPARED {
            let id = self.first(scope, class)?;
            if !table.flow(id).is_spared() {
                return Some(id);
            }
            self.place(table, id);
        }
        self.first(scope, class).filter(|id| !table.flow(*id).has_moved())
    }

    fn first(&self, scope: &Scope, class: Class) -> Option<u32> {
        self.of(scope)?[class as usize].first()
    }

    fn of(&self, scope: &Scope) -> Option<&[List; 2]> {
        match scope {
            Scope::Table => Some(&self.table),
            Scope::Service(service) => self.services.get(usize::from(service.0)),
            Scope::Ports { .. } => self.ports.get(scope),
        }
    }
}

impl Flow {
    fn is_spared(&self) -> bool {
        let seen = self.queued().map(|(_, seen)| seen);
        self.has_moved() || (self.protocol() == Protocol::UDP && seen != Some(self.last_seen()))
    }

    /// Whether it stands in the wrong queue: a worker that has only a fragment of the flow may have moved its state.
    fn has_moved(&self) -> bool {
        self.queued().map(|(class, _)| class) != Class::of(self)
    }
}
