//! Doubly linked lists through the entries of a slab: an entry is taken out of the middle without a search, and no list
//! ever holds one that is gone.

use std::sync::Arc;

use slab::Slab;

use super::flow::Flow;
use super::queues::Queued;

/// No entry, where the number of one might stand.
pub(super) const NOWHERE: u32 = u32::MAX;

/// What a worker keeps of one of its flows.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) flow: Arc<Flow>,
    /// The wheel's slot in which it lies.
    pub(super) slot: Option<u16>,
    /// The queues in which it stands, if it may be evicted.
    pub(super) queued: Option<Queued>,
    links: [Link; Strand::COUNT],
}

/// All flows of a worker.
pub(super) type Entries = Slab<Entry>;

impl Entry {
    pub(super) fn new(flow: Arc<Flow>) -> Self {
        Self { flow, slot: None, queued: None, links: [Link::default(); Strand::COUNT] }
    }
}

/// An entry may be in one list of each strand.
#[derive(Clone, Copy, Debug)]
pub(super) enum Strand {
    /// A slot of the wheel.
    Wheel,
    /// Queues of what may be evicted, by what it makes room in.
    Table,
    Service,
    Ports,
}

impl Strand {
    const COUNT: usize = 4;
}

#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self { before: NOWHERE, after: NOWHERE }
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
    /// The entry that has been in it longest.
    pub(super) fn first(&self) -> Option<u32> {
        (self.first != NOWHERE).then_some(self.first)
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Appends an entry that is in no list of this strand.
    pub(super) fn push(&mut self, entries: &mut Entries, strand: Strand, at: u32) {
        *link(entries, strand, at) = Link { before: self.last, after: NOWHERE };
        match self.first() {
            None => self.first = at,
            Some(_) => link(entries, strand, self.last).after = at,
        }
        self.last = at;
        self.len += 1;
    }

    /// Takes out an entry of this list.
    pub(super) fn remove(&mut self, entries: &mut Entries, strand: Strand, at: u32) {
        let Link { before, after } = std::mem::take(link(entries, strand, at));
        match before {
            NOWHERE => self.first = after,
            before => link(entries, strand, before).after = after,
        }
        match after {
            NOWHERE => self.last = before,
            after => link(entries, strand, after).before = before,
        }
        self.len -= 1;
    }
}

fn link(entries: &mut Entries, strand: Strand, at: u32) -> &mut Link {
    &mut entries[at as usize].links[strand as usize]
}
