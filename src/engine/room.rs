//! Room for a new flow, and who makes it where there is none left (R39).
//!
//! What may be evicted are flows that are half-open or over ([`Scope`]), never one in use. A worker evicts flows of its
//! own only.

use super::Engine;
use super::conntrack::Scope;
use super::verdict::DropReason;

/// Flows that are evicted for one new flow at most.
const MOST_EVICTED: u32 = 8;

impl Engine {
    /// Makes sure that the table has room for one more flow.
    pub(super) fn make_room(&mut self) -> Result<(), DropReason> {
        let table = &self.shared.table;
        if !table.is_full() {
            return Ok(());
        }
        let (held, room) = (self.expiry.flows(), table.capacity());
        self.evict_for(&Scope::Table, held, room)
    }

    /// Evicts for a new flow in a room that all workers share, of which this one holds so much.
    ///
    /// A worker that holds more than its share leaves some of what it frees to the others: who can aim his flood at one
    /// worker shall not take the room of those that have nothing to evict. So a room that is full has places free again
    /// as often as the flood comes.
    fn evict_for(&mut self, scope: &Scope, held: u32, room: u32) -> Result<(), DropReason> {
        let beyond = held.saturating_sub(room / u32::from(self.shared.workers));
        let evicted = (0..beyond.clamp(1, MOST_EVICTED)).take_while(|_| self.evict(scope)).count();
        if evicted == 0 { Err(scope.shortage().reason()) } else { Ok(()) }
    }

    /// Ends a flow that may be evicted, if there is one.
    pub(super) fn evict(&mut self, scope: &Scope) -> bool {
        let Some(victim) = self.expiry.victim(scope) else { return false };
        self.close(&victim);
        self.counters().evicted(scope.shortage()).add(1);
        true
    }
}
