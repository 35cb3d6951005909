//! Which worker a flow belongs to. One worker handles all packets of a flow, so its state needs no lock and its packets
//! keep their order; a packet that arrives elsewhere is handed over.

use super::WorkerId;
use crate::wire::{Address, Endpoint};

/// The owner of flows from this client, among `workers`: a multiply-xorshift over the words of its endpoint. It must
/// mix well in its high bits, and be simple enough for a steering program in the kernel; it needs no secret, since all
/// that an attacker can reach by it is one worker.
pub fn owner(client: Endpoint, workers: u16) -> WorkerId {
    pick(mix(u32::from(client.port), client.address), workers)
}

/// The worker that looks after the fragments of a datagram, of which only the first has ports.
pub fn owner_of_datagram(source: Address, destination: Address, id: u32, workers: u16) -> WorkerId {
    pick(mix(mix(id, source), destination), workers)
}

/// What [`owner`] multiplies by, for each word and at the end, and how far it then shifts: a steering program does the same.
pub const FIRST: u32 = 0x9e37_79b1;
/// See [`FIRST`].
pub const LAST: u32 = 0x85eb_ca77;
/// See [`FIRST`].
pub const SHIFTS: [u32; 2] = [15, 13];

fn mix(mut hash: u32, address: Address) -> u32 {
    for word in address.octets().as_chunks::<4>().0 {
        hash = (hash ^ u32::from_be_bytes(*word)).wrapping_mul(FIRST);
        hash ^= hash >> SHIFTS[0];
    }
    hash
}

#[expect(clippy::cast_possible_truncation, reason = "the product's high half is below `workers`")]
fn pick(mut hash: u32, workers: u16) -> WorkerId {
    hash = hash.wrapping_mul(LAST);
    hash ^= hash >> SHIFTS[1];
    WorkerId(((u64::from(hash) * u64::from(workers)) >> 32) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequential_ports_and_addresses_spread_evenly() {
        for workers in [2u16, 3, 4, 8] {
            let mut counts = vec![0u32; usize::from(workers)];
            for n in 0..20_000u32 {
                let [a, b, ..] = (n / 100).to_be_bytes();
                let port = u16::try_from(32_768 + n % 100 * 2).unwrap();
                let client = Endpoint::new(Address::v4([10, a, b, u8::try_from(n / 100 % 256).unwrap()]), port);
                counts[usize::from(owner(client, workers).0)] += 1;
            }
            let expected = f64::from(20_000u32) / f64::from(workers);
            let chi: f64 = counts.iter().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum();
            // 0.1 % quantile of chi-square with 7 degrees of freedom is 24.3; fewer workers have less.
            assert!(chi < 24.3, "{workers} workers: {counts:?}");
        }
    }
}
