//! Link headers: from a captured frame to the IP packet in it. Numbers are LINKTYPE_ values
//! (<https://www.tcpdump.org/linktypes.html>).

use super::{CaptureError, Content};

const NULL: u16 = 0;
const ETHERNET: u16 = 1;
const RAW_OPENBSD: u16 = 14;
const RAW_OTHER: u16 = 12;
const RAW: u16 = 101;
const LOOP: u16 = 108;
const LINUX_SLL: u16 = 113;
const IPV4: u16 = 228;
const IPV6: u16 = 229;
const LINUX_SLL2: u16 = 276;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
const ETHERTYPE_QINQ_OLD: u16 = 0x9100;

/// Takes the link header off.
pub(super) fn strip(link: u16, frame: &[u8]) -> Result<Content<'_>, CaptureError> {
    Ok(match link {
        RAW | RAW_OTHER | RAW_OPENBSD | IPV4 | IPV6 => Content::Ip(frame),
        ETHERNET => tagged(frame, 12, 14),
        LINUX_SLL => tagged(frame, 14, 16),
        LINUX_SLL2 => tagged(frame, 0, 20),
        NULL | LOOP => family(frame),
        other => return Err(CaptureError::LinkType(other)),
    })
}

/// A frame whose ethertype stands at `ethertype`, and whose payload (after any VLAN tags) at `payload`.
fn tagged(frame: &[u8], mut ethertype: usize, mut payload: usize) -> Content<'_> {
    loop {
        let Some(bytes) = frame.get(ethertype..ethertype + 2) else { return Content::Other(None) };
        match u16::from_be_bytes([bytes[0], bytes[1]]) {
            ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => return Content::Ip(frame.get(payload..).unwrap_or_default()),
            // A tag is two bytes of priority and VLAN, then the next ethertype; each turn moves on, so this ends.
            ETHERTYPE_VLAN | ETHERTYPE_QINQ | ETHERTYPE_QINQ_OLD => {
                ethertype = payload + 2;
                payload += 4;
            }
            other => return Content::Other(Some(other)),
        }
    }
}

/// A frame that begins with an address family: in the capturing host's byte order (NULL) or the network's (LOOP).
fn family(frame: &[u8]) -> Content<'_> {
    let Some((family, packet)) = frame.split_first_chunk::<4>() else { return Content::Other(None) };
    let number = u32::from_be_bytes(*family).min(u32::from_le_bytes(*family));
    match number {
        // AF_INET is 2 everywhere; AF_INET6 is 10 on Linux, 24, 28 or 30 on the BSDs and macOS.
        2 | 10 | 24 | 28 | 30 => Content::Ip(packet),
        other => Content::Other(u16::try_from(other).ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: &[u8] = &[0x45, 1, 2, 3];

    fn frame(header: &[u8]) -> Vec<u8> {
        [header, PACKET].concat()
    }

    fn ethernet(after_addresses: &[u8]) -> Vec<u8> {
        frame(&[&[0xaa; 12], after_addresses].concat())
    }

    #[test]
    fn raw_frames_are_the_packet() {
        for link in [12, 14, 101, 228, 229] {
            assert_eq!(strip(link, PACKET).unwrap(), Content::Ip(PACKET));
            assert_eq!(strip(link, &[]).unwrap(), Content::Ip(&[]));
        }
    }

    #[test]
    fn ethernet_loses_its_header_and_any_number_of_vlan_tags() {
        assert_eq!(strip(1, &ethernet(&[0x08, 0x00])).unwrap(), Content::Ip(PACKET));
        assert_eq!(strip(1, &ethernet(&[0x86, 0xdd])).unwrap(), Content::Ip(PACKET));
        assert_eq!(strip(1, &ethernet(&[0x81, 0x00, 0, 7, 0x08, 0x00])).unwrap(), Content::Ip(PACKET));
        let two_tags = [0x88, 0xa8, 0, 1, 0x81, 0x00, 0, 2, 0x86, 0xdd];
        assert_eq!(strip(1, &ethernet(&two_tags)).unwrap(), Content::Ip(PACKET));
    }

    #[test]
    fn what_is_not_ip_is_said_to_be_so() {
        assert_eq!(strip(1, &ethernet(&[0x08, 0x06])).unwrap(), Content::Other(Some(0x0806)));
        assert_eq!(strip(1, &[0xaa; 13]).unwrap(), Content::Other(None));
        assert_eq!(strip(1, &[[0xaa; 12].as_slice(), &[0x81, 0x00, 0]].concat()).unwrap(), Content::Other(None));
        assert_eq!(strip(0, &frame(&[7, 0, 0, 0])).unwrap(), Content::Other(Some(7)));
        assert_eq!(strip(0, &[2, 0]).unwrap(), Content::Other(None));
    }

    #[test]
    fn cooked_captures_lose_sixteen_or_twenty_bytes() {
        let sll = [&[0; 14], [0x08, 0x00].as_slice()].concat();
        assert_eq!(strip(113, &frame(&sll)).unwrap(), Content::Ip(PACKET));
        let sll2 = [[0x86, 0xdd].as_slice(), &[0; 18]].concat();
        assert_eq!(strip(276, &frame(&sll2)).unwrap(), Content::Ip(PACKET));
    }

    #[test]
    fn loopback_families_are_read_in_either_byte_order() {
        for (link, header) in [(0, [2, 0, 0, 0]), (0, [0, 0, 0, 2]), (108, [0, 0, 0, 24]), (0, [30, 0, 0, 0])] {
            assert_eq!(strip(link, &frame(&header)).unwrap(), Content::Ip(PACKET));
        }
    }

    #[test]
    fn another_link_type_is_an_error_that_names_it() {
        let error = strip(105, PACKET).unwrap_err().to_string();
        assert!(error.contains("link type 105"), "{error}");
    }
}
