//! What a batch leaves as, segmented again, is what it was: every packet byte for byte, each flow's in their order.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use proptest::prelude::*;
use tungate::engine::{DropReason, Instant};
use tungate::io::gather::Gather;
use tungate::io::memory::MemoryPort;
use tungate::io::pcap::{Content, Reader};
use tungate::io::port::{Batch, PacketPort, Sent};
use tungate::io::sys::{self, Waker};
use tungate::io::tun::Granted;
use tungate::wire::build;
use tungate::wire::gather::Part;
use tungate::wire::{Address, Checksum, Gso, OFFLOAD_LEN, Offload, Packet, Protocol, segment};

use crate::common;
use crate::oracle;
use crate::train::{Flow, Twist, twist};
use crate::world::{World, at, ends};

/// Keeps what is sent, each write by itself.
#[derive(Default)]
struct Book {
    writes: Vec<Vec<u8>>,
    /// Gathered writes fail so, if not 0.
    refuses: i32,
}

impl PacketPort for Book {
    fn receive(&mut self, _: &mut Batch) -> io::Result<Instant> {
        Ok(sys::now())
    }

    fn send(&mut self, frame: &mut [u8]) -> io::Result<Sent> {
        self.writes.push(frame.to_vec());
        Ok(Sent::Whole)
    }

    fn send_pieces(&mut self, _: [&[u8]; 2]) -> io::Result<()> {
        unreachable!("nothing here is wrapped")
    }

    fn takes(&self) -> Granted {
        Granted::TcpAndUdp
    }

    fn send_gathered(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        if self.refuses != 0 {
            return Err(io::Error::from_raw_os_error(self.refuses));
        }
        let mut frame: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
        self.send(&mut frame).map(drop)
    }

    fn wait(&mut self, _: &Waker, _: Option<Duration>) -> io::Result<()> {
        Ok(())
    }
}

/// Takes a batch, of which some frames may be malformed, through a gather; how each packet of it fared, in the order of
/// leaving.
fn leave(frames: &[Vec<u8>], takes: Granted, port: &mut Book) -> Vec<Result<Sent, io::ErrorKind>> {
    let (mut batch, mut gather) = (Batch::default(), Gather::new(takes));
    for frame in frames {
        let copied = batch.push(|buffer| {
            buffer[..frame.len()].copy_from_slice(frame);
            Ok(frame.len())
        });
        copied.unwrap();
    }
    for n in 0..batch.len() {
        let mut frame = batch.frame(n);
        let Ok(packet) = frame.packet() else { continue };
        let (len, part, offload) = (packet.bytes().len(), Part::of(&packet), *packet.offload());
        frame.seal(len, &offload);
        batch.shorten(n, len);
        gather.add(&batch, n, part);
    }
    let mut outcomes = Vec::new();
    gather.send(&mut batch, port, |_, outcome| outcomes.push(outcome.map_err(|error| error.kind())));
    outcomes
}

fn writes(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut book = Book::default();
    leave(frames, Granted::TcpAndUdp, &mut book);
    book.writes
}

/// The packets that a frame stands for, checksums complete; none if it is malformed.
fn packets(frame: &[u8]) -> Vec<Vec<u8>> {
    let mut frame = frame.to_vec();
    let (header, bytes) = frame.split_first_chunk_mut::<OFFLOAD_LEN>().unwrap();
    let Ok(mut packet) = Packet::parse(bytes, Offload::parse(header).unwrap()) else { return Vec::new() };
    let mut cut = Vec::new();
    segment::cut(&mut packet, &mut Vec::new(), |headers, payload| cut.push([headers, payload].concat()));
    cut
}

/// Whose order has to stay.
fn flow_of(packet: &[u8]) -> (Protocol, Vec<u8>) {
    let mut bytes = packet.to_vec();
    let packet = Packet::parse(&mut bytes, Offload::default()).unwrap();
    let ends = packet.endpoints().map(|ends| format!("{ends:?}")).unwrap_or(format!("{:?}", packet.addresses()));
    (packet.protocol(), ends.into_bytes())
}

fn by_flow(packets: &[Vec<u8>]) -> HashMap<(Protocol, Vec<u8>), Vec<Vec<u8>>> {
    let mut flows = HashMap::<_, Vec<_>>::new();
    packets.iter().for_each(|packet| flows.entry(flow_of(packet)).or_default().push(packet.clone()));
    flows
}

/// Compares what was given with what left; how many writes it took.
fn same_packets(frames: &[Vec<u8>]) -> usize {
    let writes = writes(frames);
    let given: Vec<_> = frames.iter().flat_map(|frame| packets(frame)).collect();
    let left: Vec<_> = writes.iter().flat_map(|write| packets(write)).collect();
    assert_eq!(left.len(), given.len());
    assert!(by_flow(&left) == by_flow(&given), "a packet has changed, or a flow's order has");
    // What belongs to a flow that we do not see stays where it is.
    let seen = |packet: &Vec<u8>| {
        let mut bytes = packet.clone();
        Part::of(&Packet::parse(&mut bytes, Offload::default()).unwrap()).is_some()
    };
    let mut unseen = given.iter().zip(&left).filter(|(given, left)| !seen(given) || !seen(left));
    assert!(unseen.all(|(given, left)| given == left), "a fragment, or the like, was overtaken");
    writes.len()
}

proptest! {
    #[test]
    fn whatever_the_batch_the_same_packets_leave(steps in prop::collection::vec((0..Flow::KINDS, twist()), 1..64)) {
        let mut flows: Vec<Flow> = (0..Flow::KINDS).map(Flow::new).collect();
        let frames: Vec<_> = steps.iter().map(|(n, twist)| flows[*n].next(*twist)).collect();
        same_packets(&frames);
    }
}

#[test]
fn the_packets_of_public_captures_leave_as_they_came() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/pcaps/all-ip-raw.pcap");
    let Ok(file) = File::open(file) else {
        let test = "the_packets_of_public_captures_leave_as_they_came";
        return common::skip(test, "no ../shared/pcaps", "copy the public captures that its README names there");
    };
    let mut reader = Reader::new(BufReader::new(file)).unwrap();
    let (mut batch, mut given, mut gathered) = (Vec::<Vec<u8>>::new(), 0, 0);
    loop {
        let frame = reader.next_frame().unwrap();
        let bytes: usize = batch.iter().map(Vec::len).sum();
        if frame.is_none() || batch.len() == 60 || bytes > 150_000 {
            let sound = batch.iter().filter(|frame| !packets(frame).is_empty()).count();
            given += sound;
            gathered += sound - same_packets(&batch);
            batch.clear();
        }
        let Some(frame) = frame else { break };
        if let Content::Ip(packet) = frame.content
            && packet.len() <= 0xffff
        {
            batch.push([&[0; OFFLOAD_LEN], packet].concat());
        }
    }
    println!("{gathered} writes saved with {given} packets");
    assert!(given > 35_000 && gathered > 1000);
}

#[test]
fn a_train_leaves_as_one_and_so_do_trains_that_come_mixed() {
    for kind in 0..Flow::KINDS {
        let mut flow = Flow::new(kind);
        let frames: Vec<_> = (0..40).map(|_| flow.next(Twist::None)).collect();
        assert_eq!(same_packets(&frames), 1, "flow {kind}");
    }
    let mut flows: Vec<Flow> = (0..Flow::KINDS).map(Flow::new).collect();
    let mixed: Vec<_> = (0..60).map(|n| flows[n % Flow::KINDS].next(Twist::None)).collect();
    assert_eq!(same_packets(&mixed), Flow::KINDS);
}

/// Two packets, of which the second differs in this, are not one; a third that follows the second joins that.
#[test]
fn packets_that_differ_in_more_than_a_segment_may_do_not_join() {
    for kind in 0..Flow::KINDS {
        for twist in Twist::ALL {
            let mut flow = Flow::new(kind);
            let frames = [Twist::None, twist, Twist::None].map(|twist| flow.next(twist));
            let writes = same_packets(&frames);
            if twist.keeps_apart(kind) {
                assert!(writes > 1, "{twist:?} in flow {kind}");
            } else {
                assert!(writes < 3, "{twist:?} in flow {kind}: {writes} writes");
            }
        }
    }
}

#[test]
fn a_checksum_that_is_wrong_stays_wrong_and_its_packet_alone() {
    for kind in 0..Flow::KINDS {
        let mut flow = Flow::new(kind);
        let frames = [Twist::None, Twist::None, Twist::WrongChecksum, Twist::None].map(|twist| flow.next(twist));
        let writes = writes(&frames);
        let wrong = &frames[2][OFFLOAD_LEN..];
        assert!(writes.iter().any(|write| write[OFFLOAD_LEN..] == *wrong), "it leaves as it came");
        same_packets(&frames);
    }
}

#[test]
fn no_super_packet_is_longer_or_of_more_datagrams_than_the_kernel_takes() {
    let long = |kind: usize, size| {
        let mut flow = Flow::new(kind).of_size(size);
        writes(&(0..60).map(|_| flow.next(Twist::None)).collect::<Vec<_>>())
    };
    for kind in 0..Flow::KINDS {
        for write in long(kind, 1400) {
            assert!(write.len() <= OFFLOAD_LEN + 0xffff);
        }
        assert_eq!(long(kind, 1400).len(), 2, "flow {kind}");
        assert_eq!(long(kind, 1).len(), 1, "flow {kind}");
        let mut flow = Flow::new(kind).of_size(10);
        let twice: Vec<_> = (0..40).map(|_| flow.next(Twist::Super)).collect();
        assert_eq!(same_packets(&twice), if Flow::is_udp(kind) { 2 } else { 1 }, "flow {kind}: 3 segments each");
    }
}

#[test]
fn a_port_that_takes_no_super_packets_or_no_datagrams_in_them_gets_none() {
    for kind in 0..Flow::KINDS {
        for (takes, one) in [(Granted::Nothing, false), (Granted::Tcp, !Flow::is_udp(kind)), (Granted::TcpAndUdp, true)]
        {
            let (mut flow, mut book) = (Flow::new(kind), Book::default());
            let frames: Vec<_> = (0..5).map(|_| flow.next(Twist::None)).collect();
            leave(&frames, takes, &mut book);
            assert_eq!(book.writes.len(), if one { 1 } else { 5 }, "flow {kind}, {takes:?}");
        }
    }
}

#[test]
fn what_is_refused_whole_leaves_piece_by_piece_unless_it_is_refused_for_another_reason() {
    let mut flow = Flow::new(0);
    let frames: Vec<_> = (0..5).map(|_| flow.next(Twist::None)).collect();
    let mut book = Book { refuses: libc::EINVAL, ..Book::default() };
    assert_eq!(leave(&frames, Granted::TcpAndUdp, &mut book), vec![Ok(Sent::Whole); 5]);
    let packets = |frames: &[Vec<u8>]| frames.iter().map(|frame| frame[OFFLOAD_LEN..].to_vec()).collect::<Vec<_>>();
    assert_eq!(packets(&book.writes), packets(&frames));
    let mut book = Book { refuses: libc::ENOBUFS, ..Book::default() };
    let lost = io::Error::from_raw_os_error(libc::ENOBUFS).kind();
    assert_eq!(leave(&frames, Granted::TcpAndUdp, &mut book), vec![Err(lost); 5]);
    assert!(book.writes.is_empty());
}

/// A memory port that takes super-packets, and holds back what comes until it is told to let it in.
struct Held(MemoryPort, Arc<AtomicBool>);

impl PacketPort for Held {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<Instant> {
        if self.1.load(Relaxed) {
            return Ok(sys::now());
        }
        self.0.receive(batch)
    }

    fn send(&mut self, frame: &mut [u8]) -> io::Result<Sent> {
        self.0.send(frame)
    }

    fn send_pieces(&mut self, pieces: [&[u8]; 2]) -> io::Result<()> {
        self.0.send_pieces(pieces)
    }

    fn takes(&self) -> Granted {
        Granted::TcpAndUdp
    }

    fn wait(&mut self, waker: &Waker, timeout: Option<Duration>) -> io::Result<()> {
        self.0.wait(waker, timeout)
    }
}

#[test]
fn a_worker_translates_and_counts_each_datagram_of_what_leaves_as_one() {
    let held = Arc::new(AtomicBool::new(false));
    let world = World::over(1, 1, |port| Held(port, Arc::clone(&held)));
    let (client, vip) = (at("198.51.100.7:4000"), at("192.0.2.10:53"));
    world.gives(0, &build::udp(client, vip, b"a first one opens the flow"));
    let (source, backend) = ends(&world.gets(0));
    held.store(true, Relaxed);
    for n in 0u8..10 {
        let mut datagram = build::udp(client, vip, &[n; 100]);
        datagram[4..6].copy_from_slice(&(0xfffb_u16.wrapping_add(n.into())).to_be_bytes());
        oracle::fix_ipv4(&mut datagram);
        world.gives(0, &datagram);
    }
    held.store(false, Relaxed);
    let write = world.gets_frame(0);
    assert_eq!(Offload::parse(write.first_chunk().unwrap()).unwrap().gso, Gso::Udp);
    for (n, datagram) in (0u8..).zip(packets(&write)) {
        assert_eq!(ends(&datagram), (source, backend));
        assert_eq!(datagram[28..], [n; 100]);
    }
    let shared = world.stop(11);
    let counters = shared.counters.workers().next().unwrap();
    assert_eq!([&counters.forwarded, &counters.sent.packets, &counters.segmented].map(|c| c.get()), [11, 11, 0]);
    assert_eq!(counters.sent.bytes.get(), counters.received.bytes.get());
    assert_eq!(counters.drops(DropReason::SendFailed).get(), 0);
}

#[test]
fn what_leaves_as_one_is_a_super_packet_to_the_kernel() {
    let mut flow = Flow::new(0);
    let write = writes(&(0..5).map(|_| flow.next(Twist::None)).collect::<Vec<_>>()).remove(0);
    let offload = Offload::parse(write.first_chunk().unwrap()).unwrap();
    let checksum = Checksum::Partial { start: 20, offset: 16 };
    let expected = Offload { checksum, gso: Gso::TcpV4 { ecn: false }, segment_size: 100, header_len: 52 };
    assert_eq!(offload, expected);
    let addresses = Address::v4([198, 51, 100, 7]);
    assert_eq!(Packet::parse(&mut write[OFFLOAD_LEN..].to_vec(), offload).unwrap().addresses().0, addresses);
}
