//! Doubly linked lists through the flows of one worker: a flow is taken out of the middle without a search, and no list
//! ever holds one that is gone.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::table::Table;

/// No flow, where the number of one might stand.
pub(super) const NOWHERE: u32 = u32::MAX;

/// A flow may be in one list of each strand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strand {
    /// A slot of the wheel.
    Wheel,
    /// Queues of what may be evicted, by what it makes room in.
    Table,
    Service,
    Ports,
}

impl Strand {
    pub(super) const COUNT: usize = 4;
}

/// What a flow knows of its neighbours in a list. Written by its owner alone.
#[derive(Debug, Default)]
pub(super) struct Link {
    before: AtomicU32,
    after: AtomicU32,
}

impl Link {
    pub(super) fn after(&self) -> u32 {
        self.after.load(Relaxed)
    }

    pub(super) fn set_after(&self, id: u32) {
        self.after.store(id, Relaxed);
    }
}

/// The ends of a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    first: u32,
    last: u32,
    len: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { first: NOWHERE, last: NOWHERE, len: 0 }
    }
}

impl List {
    /// The flow that has been in it longest.
    pub(super) fn first(&self) -> Option<u32> {
        (self.first != NOWHERE).then_some(self.first)
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Appends a flow that is in no list of this strand.
    pub(super) fn push(&mut self, table: &Table, strand: Strand, id: u32) {
        let link = table.flow(id).link(strand);
        link.before.store(self.last, Relaxed);
        link.set_after(NOWHERE);
        match self.first() {
            None => self.first = id,
            Some(_) => table.flow(self.last).link(strand).set_after(id),
        }
        self.last = id;
        self.len += 1;
    }

    /// Takes out a flow of this list.
    pub(super) fn remove(&mut self, table: &Table, strand: Strand, id: u32) {
        let link = table.flow(id).link(strand);
        let (before, after) = (link.before.load(Relaxed), link.after());
        match before {
            NOWHERE => self.first = after,
            before => table.flow(before).link(strand).set_after(after),
        }
        match after {
            NOWHERE => self.last = before,
            after => table.flow(after).link(strand).before.store(before, Relaxed),
        }
        self.len -= 1;
    }
}
