//! Looking ahead. At a million flows each packet waits for main memory, once for the flow's place in the cache and once
//! for the flow; for the packets of a batch all of that can be on its way at the same time.

use super::Engine;
use crate::wire::Tuple;

/// Packets looked at, at most.
const AHEAD: usize = 64;
/// Fewer are quicker taken as they come.
const WORTHWHILE: usize = 4;

impl Engine {
    /// Brings near what the packets of a batch will need; changes nothing. `prefetch` is the driver's: it hints that the
    /// memory at an address, which need not be valid, will soon be read.
    #[inline]
    pub fn foresee<'a>(&self, packets: impl ExactSizeIterator<Item = &'a [u8]>, prefetch: impl Fn(*const u8)) {
        if packets.len() < WORTHWHILE {
            return;
        }
        let mut places = [None; AHEAD];
        for (place, packet) in places.iter_mut().zip(packets) {
            *place = Tuple::likely(packet).map(|(tuple, protocol)| {
                let place = self.shared.table.place(&tuple, protocol);
                prefetch(self.shared.table.address_of_place(place));
                place
            });
        }
        for place in places.into_iter().flatten() {
            self.shared.table.addresses_of_flow(place).for_each(&prefetch);
        }
    }
}
