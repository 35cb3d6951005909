//! Looking ahead. At a million flows each packet waits for main memory, once for the flow's place in the cache and once
//! for the flow; for the packets of a batch all of that can be on its way at the same time.

use super::Engine;
use super::conntrack::{FLOW_LINES, FlowKey};
use crate::wire;

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
            *place = wire::likely_endpoints(packet).map(|(source, destination, protocol)| {
                let place = self.cache.place(&FlowKey { source, destination, protocol });
                prefetch(self.cache.address_of_set(place));
                place
            });
        }
        for place in places.into_iter().flatten() {
            for flow in self.cache.addresses_of_flows(place) {
                for line in 0..FLOW_LINES {
                    prefetch(flow.wrapping_add(line * 64));
                }
            }
        }
    }
}
