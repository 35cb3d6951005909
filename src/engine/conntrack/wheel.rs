//! A timing wheel (Varghese and Lauck 1987): which flows are to be looked at in which tick.

use super::list::{List, Strand};
use super::table::Table;
use crate::engine::Instant;

/// Length of a tick: flows outlive their timeout by at most this.
const TICK_MICROS: u64 = 1 << 17;
const SLOTS: usize = 512;

/// The wheel of one worker. A flow lies at most one turn ahead: one whose deadline is further away is placed again
/// when it comes round.
#[derive(Debug)]
pub(super) struct Wheel {
    slots: Box<[List]>,
    /// The tick whose slot is being emptied: everything before it has fired.
    current: u64,
    entries: usize,
}

impl Wheel {
    /// Empty, starting now.
    pub(super) fn new(now: Instant) -> Self {
        Self { slots: vec![List::default(); SLOTS].into(), current: tick(now), entries: 0 }
    }

    /// Puts a flow where it will be looked at by its deadline; takes it from where it was.
    pub(super) fn place(&mut self, table: &Table, id: u32, deadline: Instant, now: Instant) {
        self.remove(table, id);
        if self.entries == 0 {
            self.current = self.current.max(tick(now)); // an empty wheel may have stood still for years
        }
        // One tick later than the deadline's own: at the start of that tick the deadline has not passed.
        let when = (tick(deadline) + 1).clamp(self.current + 1, self.current + SLOTS as u64 - 1);
        let slot = slot(when);
        self.slots[usize::from(slot)].push(table, Strand::Wheel, id);
        table.flow(id).set_slot(Some(slot));
        self.entries += 1;
    }

    /// Takes a flow out, if it is in.
    pub(super) fn remove(&mut self, table: &Table, id: u32) {
        let Some(slot) = table.flow(id).slot() else { return };
        table.flow(id).set_slot(None);
        self.slots[usize::from(slot)].remove(table, Strand::Wheel, id);
        self.entries -= 1;
    }

    /// A flow that is to be looked at. It stays in its place until it is put elsewhere or taken out.
    pub(super) fn due(&mut self, now: Instant) -> Option<u32> {
        let now = tick(now);
        // Nothing lies further ahead than one turn: after a longer pause all of it is due, and one turn finds it.
        self.current = self.current.max((now + 1).saturating_sub(SLOTS as u64));
        while self.current <= now {
            if let Some(id) = self.slots[usize::from(slot(self.current))].first() {
                return Some(id);
            }
            // An empty wheel need not be turned slot by slot.
            self.current = if self.entries == 0 { now + 1 } else { self.current + 1 };
        }
        None
    }

    /// When there will be one, unless more are placed.
    pub(super) fn poll(&self) -> Option<Instant> {
        if self.entries == 0 {
            return None;
        }
        let turn = self.current..self.current + SLOTS as u64;
        let next = turn.into_iter().find(|tick| self.slots[usize::from(slot(*tick))].first().is_some());
        next.map(|tick| Instant::from_micros(tick * TICK_MICROS))
    }
}

const fn tick(now: Instant) -> u64 {
    now.as_micros() / TICK_MICROS
}

#[expect(clippy::cast_possible_truncation, reason = "taken modulo the number of slots")]
const fn slot(tick: u64) -> u16 {
    (tick % SLOTS as u64) as u16
}
