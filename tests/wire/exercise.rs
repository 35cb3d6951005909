//! Everything that may be done with a packet.

use tungate::wire::{Address, Endpoint, Family, Offload, Packet, Problem, Translation, icmp, segment};

/// Everything the engine may do with a packet. Returns whether it passed the door.
pub(crate) fn exercise(bytes: &[u8], offload: Offload) -> bool {
    if let Some(problem) = Problem::find(bytes) {
        let mut answer = problem.answer();
        assert!(answer.len() <= 1280 && Packet::parse(&mut answer, Offload::default()).is_ok());
    }
    let mut copy = bytes.to_vec();
    let Ok(mut packet) = Packet::parse(&mut copy, offload) else { return false };
    let ends = read(&packet);
    if let Ok(quote) = icmp::quote(&packet) {
        let mut copy = packet.bytes().to_vec();
        let mut error = Packet::parse(&mut copy, *packet.offload()).expect("what passed the door passes it again");
        icmp::translate_error(&mut error, &quote, (ends.0.address, ends.1.address), ends);
    }
    packet.translate(&Translation::new(packet.endpoints().unwrap_or(ends), ends));
    packet.set_fragment_id(0x1234_5678);
    let (mut pieces, len) = (0, packet.bytes().len());
    segment::cut(&mut packet, &mut Vec::new(), |head, payload| {
        assert!(head.len() + payload.len() <= len);
        pieces += head.len() + payload.len();
    });
    assert!(pieces >= len, "nothing is lost in cutting");
    true
}

/// Every read of a packet, and every answer to it. Returns ends of its family.
fn read(packet: &Packet<'_>) -> (Endpoint, Endpoint) {
    let (source, _) = packet.addresses();
    let _ = (packet.ttl(), packet.endpoints(), packet.transport(), packet.fragment(), packet.transport_checksum_ok());
    if let Some(segment) = packet.tcp() {
        assert!(segment.options().count() <= 40);
        assert!(segment.seq_len() as usize <= packet.transport().len());
    }
    if icmp::kind(packet) == Some(icmp::Kind::EchoRequest) {
        let reply = icmp::echo_reply(packet);
        assert!(reply.is_none_or(|reply| reply.len() <= packet.bytes().len()));
    }
    if let Some(error) = icmp::error(packet, icmp::Error::TooBig(1400), source) {
        assert!(error.len() <= 1280);
    }
    let address = match packet.family() {
        Family::V4 => Address::v4([10, 0, 0, 1]),
        Family::V6 => Address::v6([0xfd; 16]),
    };
    (Endpoint::new(address, 1), Endpoint::new(address, 2))
}
