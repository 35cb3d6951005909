//! What the standby of a pair learns of the other one: its flows become flows here, as if their packets had passed.
//!
//! A standby decides nothing: what the gateway that serves says is so. It forgets no flow by itself, and counts the time of
//! each from the moment at which it takes over.

use std::fmt;

use super::conntrack::{Direction, FlowKey, FlowRecord, FlowRef, Plan, Way};
use super::journal::{Change, Digest};
use super::nat::Rewrite;
use super::{Engine, Instant, tunnel};
use crate::config::{BackendId, Limits, ServiceId};

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imported {
    /// It is so here, too.
    Done,
    /// All flows have been heard of; what had not is gone.
    Complete,
    /// What the flows of the other side were, and are here.
    Compared {
        /// There.
        theirs: Digest,
        /// Here.
        ours: Digest,
    },
}

/// Why a flow is not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No service listens there, or it has no such backend: the configurations differ.
    Unknown,
    /// It needs a port or a key that another worker's flow has: their numbers of workers differ.
    Conflict,
    /// The table is full.
    Full,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "its service or backend is not configured here",
            Self::Conflict => "it belongs to another worker here",
            Self::Full => "max-flows is reached here",
        })
    }
}

impl std::error::Error for Refused {}

impl Engine {
    /// Does here what was done on the other side by the worker of this number.
    ///
    /// # Errors
    /// [`Refused`]: the flow is not known here.
    pub fn import(&mut self, change: &Change, now: Instant) -> Result<Imported, Refused> {
        match change {
            Change::Begin => {
                let journal = self.journal.as_mut().expect("a peer tells of flows to one of a pair only");
                journal.colour = !journal.colour;
            }
            Change::Upsert(record) => self.take(record, now)?,
            Change::Delete(key) => self.drop_known(key, now),
            Change::End => {
                self.sweep(now);
                return Ok(Imported::Complete);
            }
            Change::Mark(theirs) => return Ok(Imported::Compared { theirs: *theirs, ours: self.digest() }),
        }
        Ok(Imported::Done)
    }

    /// This gateway serves from now on. Nobody was told here when a flow was last used: each has its whole time before it.
    pub fn take_over(&mut self, now: Instant) {
        self.expiry.revive(now);
    }

    fn take(&mut self, record: &FlowRecord, now: Instant) -> Result<(), Refused> {
        if let Some((flow, _)) = self.shared.table.find(&record.original) {
            if flow.owner() != self.worker {
                return Err(Refused::Conflict);
            }
            if flow.key(Direction::Original) == record.original && flow.record().way == record.way {
                self.go_on(&flow, record, now);
                return Ok(());
            }
            self.close(&flow, now);
        }
        let plan = self.plan_for(record).ok_or(Refused::Unknown)?;
        if let Some((flow, _)) = self.shared.table.find(&plan.reply) {
            if flow.owner() != self.worker {
                return Err(Refused::Conflict);
            }
            self.close(&flow, now);
        }
        let flow = self.enter_known(&plan, now)?;
        self.go_on(&flow, record, now);
        Ok(())
    }

    /// The flow stands now where the record says.
    fn go_on(&mut self, flow: &FlowRef, record: &FlowRecord, now: Instant) {
        flow.resume(record, now);
        flow.colour(self.journal.as_ref().is_some_and(|journal| journal.colour));
        self.expiry.arm(&self.shared.table, flow.id(), now, &self.policy.snapshot.timeouts);
        self.prove_client(flow, now);
    }

    /// What a flow of this record is here.
    fn plan_for(&self, record: &FlowRecord) -> Option<Plan> {
        let snapshot = &self.policy.snapshot;
        let original = record.original;
        let service = snapshot.listeners.service(original.destination, original.protocol)?;
        let backend = self.backend_of(service, record)?;
        let plan = Plan {
            original,
            reply: original.invert(),
            rewrites: [Rewrite::Encapsulate { entropy: tunnel::entropy(&original) }, Rewrite::None],
            path: self.policy.path(backend).cloned(),
            service,
            backend,
            owner: self.worker,
            leased: false,
        };
        match record.way {
            Way::Tunnel { .. } => Some(plan),
            Way::Nat { backend, source } => {
                let outgoing = FlowKey { source, destination: backend, protocol: original.protocol };
                let reply = outgoing.invert();
                let rewrites = Rewrite::nat(&original, &outgoing);
                Some(Plan { reply, rewrites, path: None, leased: source != original.source, ..plan })
            }
        }
    }

    fn backend_of(&self, service: ServiceId, record: &FlowRecord) -> Option<BackendId> {
        let port = record.original.destination.port;
        let is = |id: BackendId| match (record.way, self.policy.path(id)) {
            (Way::Nat { backend, .. }, None) => self.policy.snapshot.backend(id).endpoint(port) == backend,
            (Way::Tunnel { to }, Some(path)) => path.tunnel().destination == to,
            _ => false,
        };
        self.policy.snapshot.backends_of(service).map(|(id, _)| id).find(|id| is(*id))
    }

    /// Enters a flow with all that it takes: its port, its place in limits and loads. What a limit allows was asked by who
    /// opened it.
    fn enter_known(&mut self, plan: &Plan, now: Instant) -> Result<FlowRef, Refused> {
        let Plan { service, backend, reply, .. } = plan;
        if plan.leased && !self.ports.claim(reply.destination, reply.source, reply.protocol) {
            return Err(Refused::Conflict);
        }
        if self.shared.table.is_full() {
            self.sweep(now); // What is told once more comes back.
        }
        let flow = self.enter(plan, None, now).map_err(|_| Refused::Full)?;
        let unlimited = self.shared.limits.enter(*service, &Limits::default());
        debug_assert!(unlimited, "no limit is asked");
        if let Some(affinity) = self.policy.affinity(*service) {
            let config = self.policy.snapshot.service(*service).affinity.as_ref().expect("it remembers its clients");
            affinity.adopt(config, plan.original.source.address, *backend, now);
        }
        self.count_opened(&flow);
        if let Some(journal) = &mut self.journal {
            journal.opened(&flow.record());
        }
        Ok(flow)
    }

    fn drop_known(&mut self, key: &FlowKey, now: Instant) {
        if let Some((flow, Direction::Original)) = self.shared.table.find(key)
            && flow.owner() == self.worker
        {
            self.close(&flow, now);
        }
    }

    /// Ends the flows of this worker that were not heard of since [`Change::Begin`].
    fn sweep(&mut self, now: Instant) {
        let colour = self.journal.as_ref().is_some_and(|journal| journal.colour);
        let mut gone = Vec::new();
        self.shared.table.for_each(|flow| {
            if flow.owner() == self.worker && flow.is_coloured() != colour {
                gone.push(flow.hold());
            }
        });
        for flow in gone {
            self.close(&flow, now);
        }
    }
}
