//! Who makes room when there is none left: the flows that may be evicted, in the order in which they stand to lose.

use std::collections::HashMap;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    others: HashMap<Scope, [List; 2], RandomState>,
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
                Scope::Service(_) | Scope::Ports { .. } => self.others.entry(scope).or_default(),
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
            if scope == Scope::Table {
                self.table[class as usize].remove(table, strand, id);
                continue;
            }
            let queues = self.others.get_mut(&scope).expect("what is queued has queues");
            queues[class as usize].remove(table, strand, id);
            if queues.iter().all(|queue| queue.len() == 0) {
                self.others.remove(&scope);
            }
        }
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
        if *scope == Scope::Table { Some(&self.table) } else { self.others.get(scope) }
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
