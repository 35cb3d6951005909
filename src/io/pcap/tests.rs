use proptest::prelude::*;

use super::*;

const PACKET: &[u8] = &[0x45, 0, 0, 20, 9, 9, 9, 9];

/// What a capture holds: time in microseconds and packet, and how the reading ended.
fn read(file: &[u8]) -> (Vec<(u64, Content<'static>)>, Option<String>) {
    let mut reader = match Reader::new(file) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Some(error.to_string())),
    };
    let mut frames = Vec::new();
    loop {
        match reader.next_frame() {
            Ok(Some(frame)) => {
                let content = match frame.content {
                    Content::Ip(packet) => Content::Ip(packet.to_vec().leak()),
                    Content::Other(number) => Content::Other(number),
                };
                frames.push((frame.at.as_micros(), content));
            }
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error.to_string())),
        }
    }
}

fn bytes(numbers: &[u32], big_endian: bool) -> Vec<u8> {
    numbers.iter().flat_map(|n| if big_endian { n.to_be_bytes() } else { n.to_le_bytes() }).collect()
}

/// A pcap file of two records, at 7.5 s and 8 s.
fn legacy(magic: u32, half: u32, big_endian: bool) -> Vec<u8> {
    let version = if big_endian { 0x0002_0004 } else { 0x0004_0002 };
    let length = u32::try_from(PACKET.len()).unwrap();
    let mut file = bytes(&[magic, version, 0, 0, 65535, 101], big_endian);
    for (seconds, fraction) in [(7, half), (8, 0)] {
        file.extend(bytes(&[seconds, fraction, length, length], big_endian));
        file.extend(PACKET);
    }
    file
}

fn block(kind: u32, body: &[u8], big_endian: bool) -> Vec<u8> {
    let length = u32::try_from(12 + body.len()).unwrap();
    [bytes(&[kind, length], big_endian), body.to_vec(), bytes(&[length], big_endian)].concat()
}

/// A pcapng file: an interface with nanoseconds and an offset of 10 s, one with the default resolution, a packet on
/// each, a simple packet, and a block of a kind that nobody knows.
fn next_generation(big_endian: bool) -> Vec<u8> {
    let half = |n: u16| if big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
    let version = if big_endian { 0x0001_0000 } else { 0x0000_0001 };
    let section = bytes(&[0x1a2b_3c4d, version, u32::MAX, u32::MAX], big_endian);
    let ten = if big_endian { 10_i64.to_be_bytes() } else { 10_i64.to_le_bytes() };
    let plain = [half(101).as_slice(), &half(0), &bytes(&[0], big_endian)].concat();
    let fine = [&plain[..], &half(9), &half(1), &[9, 0, 0, 0], &half(14), &half(8), &ten].concat();
    let packet = |interface, ticks: u64| {
        let length = u32::try_from(PACKET.len()).unwrap();
        let high = u32::try_from(ticks >> 32).unwrap();
        let low = u32::try_from(ticks & 0xffff_ffff).unwrap();
        [bytes(&[interface, high, low, length, length], big_endian), PACKET.to_vec()].concat()
    };
    [
        block(0x0a0d_0d0a, &section, big_endian),
        block(1, &fine, big_endian),
        block(1, &plain, big_endian),
        block(6, &packet(0, 7_500_000_000), big_endian),
        block(0x0bad_cafe, &[1, 2, 3, 4], big_endian),
        block(6, &packet(1, 7_500_000), big_endian),
        block(3, &[bytes(&[8], big_endian), PACKET.to_vec()].concat(), big_endian),
    ]
    .concat()
}

#[test]
fn pcap_is_read_in_both_byte_orders_and_resolutions() {
    let expected = vec![(7_500_000, Content::Ip(PACKET)), (8_000_000, Content::Ip(PACKET))];
    for big_endian in [false, true] {
        for (magic, half) in [(0xa1b2_c3d4, 500_000), (0xa1b2_3c4d, 500_000_000)] {
            assert_eq!(read(&legacy(magic, half, big_endian)), (expected.clone(), None), "{magic:x} {big_endian}");
        }
    }
}

#[test]
fn pcapng_is_read_in_both_byte_orders_with_each_interfaces_clock() {
    for big_endian in [false, true] {
        let (frames, error) = read(&next_generation(big_endian));
        let times: Vec<u64> = frames.iter().map(|(at, _)| *at).collect();
        assert_eq!((times, error), (vec![17_500_000, 7_500_000, 7_500_000], None), "big endian: {big_endian}");
        assert!(frames.iter().all(|(_, content)| *content == Content::Ip(PACKET)));
    }
}

#[test]
fn a_written_file_reads_back() {
    let mut writer = Writer::new(Vec::new()).unwrap();
    assert_eq!(writer.packet(Instant::from_micros(1_000_001), PACKET).unwrap(), 1);
    assert_eq!(writer.packet(Instant::from_micros(2_000_000), &[]).unwrap(), 2);
    let file = writer.finish().unwrap();
    let expected = vec![(1_000_001, Content::Ip(PACKET)), (2_000_000, Content::Ip(&[]))];
    assert_eq!(read(&file), (expected, None));
}

#[test]
fn a_cut_file_yields_what_is_whole_and_says_where_it_ends() {
    let file = legacy(0xa1b2_c3d4, 0, false);
    let (frames, error) = read(&file[..file.len() - 1]);
    assert_eq!(frames.len(), 1);
    assert!(error.unwrap().contains("the record that begins at byte 48"));

    let file = next_generation(false);
    let (frames, error) = read(&file[..file.len() - 1]);
    assert_eq!(frames.len(), 2);
    assert!(error.unwrap().starts_with("is cut"));
}

#[test]
fn what_is_no_capture_is_refused_with_advice() {
    for (file, advice) in [
        (&b""[..], "empty"),
        (b"\x0a\x0d", "neither pcap nor pcapng"),
        (b"\x1f\x8b\x08 and so on", "gunzip"),
        (b"snoop\0\0\0", "editcap -F pcap"),
        (b"[gateway]\nname = 'a file that is something else'", "neither pcap nor pcapng"),
    ] {
        let (frames, error) = read(file);
        assert!(frames.is_empty());
        assert!(error.as_ref().unwrap().contains(advice), "{error:?}");
    }
}

#[test]
fn a_length_that_cannot_be_is_not_believed() {
    let mut file = legacy(0xa1b2_c3d4, 0, false);
    file[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(read(&file).1.unwrap().contains("a packet's length makes no sense"));

    let mut file = next_generation(false);
    file[4..8].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
    assert!(read(&file).1.unwrap().contains("a block's length makes no sense"));
}

proptest! {
    #[test]
    fn no_mutation_of_a_capture_is_read_with_a_panic(
        which in 0..4_usize,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut file = match which {
            0 => legacy(0xa1b2_c3d4, 0, false),
            1 => legacy(0xa1b2_3c4d, 0, true),
            2 => next_generation(false),
            _ => next_generation(true),
        };
        for (at, value) in edits {
            let at = at.index(file.len());
            file[at] = value;
        }
        file.truncate(keep.index(file.len()) + 1);
        let (frames, _) = read(&file);
        prop_assert!(frames.len() <= 4, "more packets than bytes");
    }

    #[test]
    fn nothing_that_begins_like_a_capture_is_read_with_a_panic(start in 0..5_usize, rest in proptest::collection::vec(any::<u8>(), 0..400)) {
        let magic: &[u8] = match start {
            0 => &[0xd4, 0xc3, 0xb2, 0xa1],
            1 => &[0xa1, 0xb2, 0xc3, 0xd4],
            2 => &[0x34, 0xcd, 0xb2, 0xa1],
            3 => &[0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a],
            _ => &[],
        };
        read(&[magic, &rest].concat());
    }
}
