//! ARP for Ethernet and IPv4 (RFC 826, RFC 5227): frames in, frames out.

use std::net::{IpAddr, Ipv4Addr};

use super::filter::{Check, Value};
use super::{Claim, Heard, Mac};

/// The ethertype.
pub(super) const ETHERTYPE: u16 = 0x0806;

const REQUEST: u16 = 1;
const REPLY: u16 = 2;
const BROADCAST: Mac = [0xff; 6];
const LENGTH: usize = 42;

/// Passes requests.
pub(super) const CHECKS: [Check; 1] = [Check::Equal(Value::Half(20), REQUEST as u32)];

/// A message, and whom its frame goes to.
struct Message {
    to: Mac,
    operation: u16,
    sender: (Mac, Ipv4Addr),
    target: (Mac, Ipv4Addr),
}

/// What a frame means to a station with this hardware address that answers for some addresses.
pub(super) fn hear(frame: &[u8], mac: Mac, ours: impl Fn(IpAddr) -> bool) -> Heard {
    let Some(request) = parse_request(frame) else { return Heard::Nothing };
    let ((from_mac, from), (_, asked)) = (request.sender, request.target);
    if from_mac == mac || from_mac[0] & 1 == 1 {
        return Heard::Nothing;
    }
    // Whoever sends from an address of ours claims it, in a gratuitous request or in passing (RFC 5227 2.4).
    if ours(from.into()) {
        return Heard::Claim(Claim { address: from.into(), by: from_mac });
    }
    if !ours(asked.into()) {
        return Heard::Nothing;
    }
    // A probe before somebody takes the address (sender 0.0.0.0, RFC 5227 2.1.1) gets the same answer.
    let answer = Message { to: from_mac, operation: REPLY, sender: (mac, asked), target: (from_mac, from) };
    Heard::Question(serialise(&answer))
}

/// A gratuitous request for the address. The request form: Linux ignores the reply form to a broadcast within a second
/// of the last update.
pub(super) fn announcement(address: Ipv4Addr, mac: Mac) -> Vec<u8> {
    serialise(&Message { to: BROADCAST, operation: REQUEST, sender: (mac, address), target: ([0; 6], address) })
}

fn parse_request(frame: &[u8]) -> Option<Message> {
    let (ethernet, message) = frame.get(..LENGTH)?.split_at(14);
    // Ethernet, IPv4, lengths 6 and 4.
    if ethernet[12..14] != ETHERTYPE.to_be_bytes() || message[..6] != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let mac = |at: usize| -> Mac { message[at..at + 6].try_into().expect("six bytes") };
    let ip = |at: usize| Ipv4Addr::new(message[at], message[at + 1], message[at + 2], message[at + 3]);
    let operation = u16::from_be_bytes([message[6], message[7]]);
    let found = Message { to: BROADCAST, operation, sender: (mac(8), ip(14)), target: (mac(18), ip(24)) };
    (operation == REQUEST).then_some(found)
}

fn serialise(message: &Message) -> Vec<u8> {
    let mut frame = Vec::with_capacity(LENGTH);
    frame.extend(message.to);
    frame.extend(message.sender.0);
    frame.extend(ETHERTYPE.to_be_bytes());
    frame.extend([0, 1, 8, 0, 6, 4]);
    frame.extend(message.operation.to_be_bytes());
    for (mac, ip) in [message.sender, message.target] {
        frame.extend(mac);
        frame.extend(ip.octets());
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Mac = [2, 0, 0, 0, 0, 1];
    const CLIENT: Mac = [2, 0, 0, 0, 0, 9];
    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

    fn request(from: (Mac, Ipv4Addr), asked: Ipv4Addr) -> Vec<u8> {
        serialise(&Message { to: BROADCAST, operation: REQUEST, sender: from, target: ([0; 6], asked) })
    }

    fn heard(frame: &[u8]) -> Heard {
        hear(frame, US, |ip| ip == IpAddr::from(VIP))
    }

    #[test]
    fn a_question_for_our_address_is_answered_to_the_asker() {
        let from = (CLIENT, Ipv4Addr::new(192, 0, 2, 99));
        let Heard::Question(answer) = heard(&request(from, VIP)) else { panic!("no answer") };
        let expected = "02 00 00 00 00 09 02 00 00 00 00 01 08 06 00 01 08 00 06 04 00 02 \
                        02 00 00 00 00 01 c0 00 02 0a 02 00 00 00 00 09 c0 00 02 63";
        let hex: Vec<String> = answer.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex.join(" "), expected);
    }

    #[test]
    fn a_probe_is_answered_too() {
        let Heard::Question(answer) = heard(&request((CLIENT, Ipv4Addr::UNSPECIFIED), VIP)) else {
            panic!("no answer")
        };
        assert_eq!(answer[38..42], [0; 4]);
    }

    #[test]
    fn others_addresses_are_others_business() {
        let from = (CLIENT, Ipv4Addr::new(192, 0, 2, 99));
        assert_eq!(heard(&request(from, Ipv4Addr::new(192, 0, 2, 11))), Heard::Nothing);
    }

    #[test]
    fn whoever_speaks_from_our_address_claims_it() {
        let claim = Heard::Claim(Claim { address: VIP.into(), by: CLIENT });
        assert_eq!(heard(&announcement(VIP, CLIENT)), claim);
        assert_eq!(heard(&request((CLIENT, VIP), Ipv4Addr::new(192, 0, 2, 1))), claim);
        assert_eq!(heard(&announcement(VIP, US)), Heard::Nothing, "our own voice");
    }

    #[test]
    fn what_is_no_request_is_passed_over() {
        let good = request((CLIENT, Ipv4Addr::new(192, 0, 2, 99)), VIP);
        for length in 0..good.len() {
            assert_eq!(heard(&good[..length]), Heard::Nothing);
        }
        for (at, value) in [(12, 9), (15, 6), (16, 9), (18, 8), (19, 16), (21, 2), (22, 3)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(heard(&bad), Heard::Nothing, "byte {at} = {value}");
        }
    }
}
