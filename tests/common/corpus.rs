//! 43,094 packets that nobody of this project made, and what it takes to send them to somebody. Include it with `#[path]`.

use std::path::Path;

use tungate::wire::{Address, Endpoint, Offload, Packet, Translation, checksum};

/// All of them, or `None` where they are not at hand.
pub(crate) fn packets() -> Option<Vec<Vec<u8>>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/pcaps/all-ip-raw.pcap");
    let file = std::fs::read(path).ok()?;
    assert_eq!(file[..4], [0xd4, 0xc3, 0xb2, 0xa1], "a little-endian pcap file");
    let mut packets = Vec::new();
    let mut rest = &file[24..];
    while let Some(header) = rest.first_chunk::<16>() {
        let len = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        packets.push(rest[16..16 + len].to_vec());
        rest = &rest[16 + len..];
    }
    Some(packets)
}

/// Sends the packet from somebody to somebody else of its family. What was wrong with it stays wrong in the same way; its
/// TTL goes down by one.
pub(crate) fn readdress(bytes: &mut [u8], (source, destination): (Endpoint, Endpoint)) {
    if let Ok(mut packet) = Packet::parse(bytes, Offload::default()) {
        let (old_source, old_destination) = packet.addresses();
        let nowhere = (Endpoint::new(old_source, 0), Endpoint::new(old_destination, 0));
        let from = packet.endpoints().unwrap_or(nowhere);
        let to = if packet.endpoints().is_some() {
            (source, destination)
        } else {
            (Endpoint::new(source.address, 0), Endpoint::new(destination.address, 0))
        };
        packet.translate(&Translation::new(from, to));
        return;
    }
    let at = if is_v4(bytes) { 12 } else { 8 };
    let addresses = [octets(&source.address), octets(&destination.address)].concat();
    let Some(place) = bytes.get_mut(at..at + addresses.len()) else { return };
    let change = checksum::delta(place, &addresses);
    place.copy_from_slice(&addresses);
    if is_v4(bytes) {
        let sum = u16::from_be_bytes([bytes[10], bytes[11]]);
        bytes[10..12].copy_from_slice(&checksum::update(sum, change).to_be_bytes());
    }
}

/// What the packet says that it is; nonsense counts as IPv6.
pub(crate) fn is_v4(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| first >> 4 == 4)
}

fn octets(address: &Address) -> Vec<u8> {
    if address.is_v4() { address.v4_octets().to_vec() } else { address.octets().to_vec() }
}

/// Chance that is the same each time (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below this one.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    /// Puts a list into another order.
    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for n in (1..list.len()).rev() {
            list.swap(n, self.below(n + 1));
        }
    }
}
