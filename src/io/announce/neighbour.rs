//! Neighbour discovery for Ethernet and IPv6 (RFC 4861, RFC 4862 5.4): frames in, frames out.

use std::net::{IpAddr, Ipv6Addr};

use crate::wire::{Address, Protocol, build, checksum};

use super::filter::{Check, Value};
use super::{Heard, Mac};

/// The ethertype, IPv6's.
pub(super) const ETHERTYPE: u16 = 0x86dd;

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
/// Answer to a question, not an announcement.
const SOLICITED: u8 = 0x40;
/// Replaces what the receiver believed so far.
const OVERRIDE: u8 = 0x20;
/// No router has touched the packet: it comes from this link (RFC 4861 7.1.1).
const HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Passes neighbour solicitations: ICMPv6 straight behind the IPv6 header, with hop limit 255.
pub(super) const CHECKS: [Check; 3] = [
    Check::Equal(Value::Byte(20), 58),
    Check::Equal(Value::Byte(21), HOP_LIMIT as u32),
    Check::Equal(Value::Byte(54), SOLICITATION as u32),
];

/// What a frame means to a station with this hardware address that answers for some addresses.
pub(super) fn hear(frame: &[u8], mac: Mac, ours: impl Fn(IpAddr) -> bool) -> Heard {
    let Some(question) = parse_solicitation(frame) else { return Heard::Nothing };
    if question.reply_to == mac || !ours(question.target.into()) {
        return Heard::Nothing;
    }
    if question.source.is_unspecified() {
        // Somebody wants to take the address (duplicate address detection): tell all (RFC 4861 7.2.4).
        return Heard::Question(advertisement(question.target, mac, 0, multicast_mac(ALL_NODES), ALL_NODES));
    }
    Heard::Question(advertisement(question.target, mac, SOLICITED, question.reply_to, question.source))
}

/// An unsolicited advertisement to all nodes, which overrides what they believed.
pub(super) fn announcement(address: Ipv6Addr, mac: Mac) -> Vec<u8> {
    advertisement(address, mac, 0, multicast_mac(ALL_NODES), ALL_NODES)
}

/// The group that a solicitation for this address is sent to (RFC 4291 2.7.1).
pub(super) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

struct Solicitation {
    source: Ipv6Addr,
    target: Ipv6Addr,
    reply_to: Mac,
}

/// Parses and validates as RFC 4861 7.1.1 has it.
fn parse_solicitation(frame: &[u8]) -> Option<Solicitation> {
    let (ethernet, packet) = frame.split_at_checked(14)?;
    let (header, rest) = packet.split_at_checked(40)?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let message = rest.get(..length).filter(|message| message.len() >= 24)?;
    let address = |bytes: &[u8]| Ipv6Addr::from(<[u8; 16]>::try_from(bytes).expect("sixteen bytes"));
    let (source, destination) = (address(&header[8..24]), address(&header[24..40]));
    let target = address(&message[8..24]);
    let is_ipv6 = ethernet[12..14] == ETHERTYPE.to_be_bytes() && header[0] >> 4 == 6;
    let is_solicitation = header[6] == Protocol::ICMPV6.0 && message[..2] == [SOLICITATION, 0];
    if !is_ipv6 || !is_solicitation || header[7] != HOP_LIMIT || target.is_multicast() || source.is_multicast() {
        return None;
    }
    let pseudo = checksum::pseudo_header(
        Address::v6(source.octets()),
        Address::v6(destination.octets()),
        Protocol::ICMPV6,
        message.len(),
    );
    if checksum::add(pseudo, checksum::sum(message)) != 0xffff {
        return None;
    }
    let named = source_link_layer(&message[24..])?;
    if source.is_unspecified() && (named.is_some() || destination != solicited_node(target)) {
        return None;
    }
    let reply_to = named.unwrap_or(ethernet[6..12].try_into().expect("six bytes"));
    Some(Solicitation { source, target, reply_to })
}

/// The source link-layer address among the options, if there is one; `None` at the outside if the options are malformed.
#[expect(clippy::option_option, reason = "malformed options and a missing option are two things")]
fn source_link_layer(mut options: &[u8]) -> Option<Option<Mac>> {
    let mut found = None;
    while let [kind, length, ..] = *options {
        let (option, rest) = options.split_at_checked(usize::from(length) * 8).filter(|_| length > 0)?;
        if kind == SOURCE_LINK_LAYER && length == 1 {
            found = option[2..].try_into().ok();
        }
        options = rest;
    }
    Some(found)
}

fn advertisement(target: Ipv6Addr, mac: Mac, solicited: u8, to_mac: Mac, to: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, solicited | OVERRIDE, 0, 0, 0];
    message.extend(target.octets());
    message.extend([TARGET_LINK_LAYER, 1]);
    message.extend(mac);
    let mut packet = build::icmp(Address::v6(target.octets()), Address::v6(to.octets()), message);
    packet[7] = HOP_LIMIT;

    let mut frame = Vec::with_capacity(14 + packet.len());
    frame.extend(to_mac);
    frame.extend(mac);
    frame.extend(ETHERTYPE.to_be_bytes());
    frame.extend(packet);
    frame
}

/// RFC 2464 7.
fn multicast_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Mac = [2, 0, 0, 0, 0, 1];
    const CLIENT: Mac = [2, 0, 0, 0, 0, 9];
    const VIP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x12, 0x3456);
    const ASKER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);

    fn solicitation(source: Ipv6Addr, destination: Ipv6Addr, options: &[u8]) -> Vec<u8> {
        let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        message.extend(VIP.octets());
        message.extend(options);
        let mut packet = build::icmp(Address::v6(source.octets()), Address::v6(destination.octets()), message);
        packet[7] = HOP_LIMIT;
        let mut frame = multicast_mac(destination).to_vec();
        frame.extend(CLIENT);
        frame.extend(ETHERTYPE.to_be_bytes());
        frame.extend(packet);
        frame
    }

    fn heard(frame: &[u8]) -> Heard {
        hear(frame, US, |ip| ip == IpAddr::from(VIP))
    }

    fn answer(frame: &[u8]) -> Vec<u8> {
        let Heard::Question(answer) = heard(frame) else { panic!("no answer to {frame:02x?}") };
        let packet = &answer[14..];
        let ends: [Address; 2] = [8, 24].map(|at| Address::v6(packet[at..at + 16].try_into().unwrap()));
        let pseudo = checksum::pseudo_header(ends[0], ends[1], Protocol::ICMPV6, packet.len() - 40);
        assert_eq!(checksum::add(pseudo, checksum::sum(&packet[40..])), 0xffff, "checksum");
        assert_eq!((packet[7], packet[40]), (HOP_LIMIT, ADVERTISEMENT));
        answer
    }

    #[test]
    fn a_question_is_answered_to_the_address_it_names() {
        let other = [2, 0, 0, 0, 0, 10];
        let option = [[1, 1].as_slice(), &other].concat();
        let answer = answer(&solicitation(ASKER, solicited_node(VIP), &option));
        assert_eq!(answer[..6], other);
        assert_eq!(answer[6..12], US);
        assert_eq!(answer[14 + 24..14 + 40], ASKER.octets());
        assert_eq!(answer[14 + 44], SOLICITED | OVERRIDE);
        assert_eq!(answer[14 + 48..14 + 64], VIP.octets());
        assert_eq!(answer[14 + 64..], [[2, 1].as_slice(), &US].concat());
    }

    #[test]
    fn a_unicast_probe_without_options_is_answered_to_its_sender() {
        assert_eq!(answer(&solicitation(ASKER, VIP, &[]))[..6], CLIENT);
    }

    #[test]
    fn duplicate_address_detection_is_answered_to_all_nodes() {
        let answer = answer(&solicitation(Ipv6Addr::UNSPECIFIED, solicited_node(VIP), &[]));
        assert_eq!(answer[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(answer[14 + 24..14 + 40], ALL_NODES.octets());
        assert_eq!(answer[14 + 44], OVERRIDE, "not solicited");
    }

    #[test]
    fn an_announcement_tells_all_nodes_to_override() {
        let announced = announcement(VIP, US);
        assert_eq!(announced, answer(&solicitation(Ipv6Addr::UNSPECIFIED, solicited_node(VIP), &[])));
    }

    #[test]
    fn what_rfc_4861_tells_to_discard_is_discarded() {
        let good = solicitation(ASKER, solicited_node(VIP), &[1, 1, 2, 0, 0, 0, 0, 9]);
        answer(&good);
        for length in 0..good.len() {
            assert_eq!(heard(&good[..length]), Heard::Nothing, "cut to {length}");
        }
        for (at, name) in [(12, "ethertype"), (14, "version"), (20, "next header"), (21, "hop limit"), (54, "type")] {
            let mut bad = good.clone();
            bad[at] = 0;
            assert_eq!(heard(&bad), Heard::Nothing, "{name}");
        }
        let mut bad = good.clone();
        bad[56] ^= 1;
        assert_eq!(heard(&bad), Heard::Nothing, "checksum");
        let endless = solicitation(ASKER, solicited_node(VIP), &[1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(heard(&endless), Heard::Nothing, "an option of length zero");
        let nobody = Ipv6Addr::UNSPECIFIED;
        assert_eq!(heard(&solicitation(nobody, VIP, &[])), Heard::Nothing, "a unicast probe from nobody");
        let named = solicitation(nobody, solicited_node(VIP), &[1, 1, 2, 0, 0, 0, 0, 9]);
        assert_eq!(heard(&named), Heard::Nothing, "nobody with an address");
    }

    #[test]
    fn others_addresses_and_our_own_voice_are_passed_over() {
        let question = solicitation(ASKER, solicited_node(VIP), &[]);
        assert_eq!(hear(&question, US, |_| false), Heard::Nothing);
        assert_eq!(hear(&question, CLIENT, |_| true), Heard::Nothing);
    }

    #[test]
    fn the_solicited_node_group_ends_in_the_addresss_last_24_bits() {
        assert_eq!(solicited_node(VIP).to_string(), "ff02::1:ff12:3456");
    }
}
