//! A gateway whose port is a capture and whose clock is the capture's.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::admin::{reason, word};
use crate::config::Snapshot;
use crate::engine::{DropReason, Engine, Instant, Outgoing, Route, Shared, TraceSink, Verdict, WorkerId};
use crate::io::capture::CapturePort;
use crate::io::port::{Batch, PacketPort};
use crate::wire::tunnel;

/// One engine, driven by a capture. A worker's loop would not do: the report wants to know of each packet what became of
/// it and which packets left because of it, and a flow to end when its time is over, not when a worker gets round to it.
pub(super) struct Gateway<'a, R> {
    engine: Engine,
    snapshot: Arc<Snapshot>,
    port: CapturePort<R, &'a mut dyn Write>,
    batch: Batch,
    report: &'a mut dyn Write,
    /// Time since the first frame.
    now: Instant,
    /// Lines that are not written yet: one that may get another packet, and all behind it.
    lines: VecDeque<Line>,
    tally: Tally,
}

/// What became of the packets.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Frames of the capture.
    pub(super) packets: u64,
    /// From the first to the last.
    pub(super) span: Duration,
    /// Packets that left.
    pub(super) sent: u64,
    /// Packets dropped, by reason.
    pub(super) drops: BTreeMap<DropReason, u64>,
    forwarded: u64,
    replied: u64,
    consumed: u64,
}

/// A line of the report.
#[derive(Serialize)]
struct Line {
    n: u64,
    at: f64,
    verdict: &'static str,
    reason: Option<&'static str>,
    service: Option<String>,
    backend: Option<String>,
    out: Vec<u64>,
    /// Until when a packet may leave because of it.
    #[serde(skip)]
    open_until: Option<Instant>,
}

impl<'a, R: Read> Gateway<'a, R> {
    /// A gateway that has seen nothing.
    pub(super) fn new(
        snapshot: Snapshot,
        seed: u64,
        port: CapturePort<R, &'a mut dyn Write>,
        report: &'a mut dyn Write,
    ) -> Self {
        let shared = Shared::new(snapshot, 1, seed);
        let snapshot = Arc::clone(&shared.policy.load().snapshot);
        Self {
            engine: Engine::new(&shared, WorkerId(0), Instant::ZERO),
            snapshot,
            port,
            batch: Batch::default(),
            report,
            now: Instant::ZERO,
            lines: VecDeque::new(),
            tally: Tally::default(),
        }
    }

    /// Handles what comes next; false if nothing does.
    pub(super) fn step(&mut self) -> io::Result<bool> {
        self.batch.clear();
        match self.port.receive(&mut self.batch) {
            Ok(now) => self.advance(now),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
        for n in 0..self.batch.len() {
            self.packet(n)?;
        }
        self.write_lines(self.now)?;
        Ok(true)
    }

    /// Writes out what is left.
    pub(super) fn finish(mut self) -> io::Result<Tally> {
        self.write_lines(Instant::MAX)?;
        let sent = self.port.sent();
        self.port.finish()?;
        self.report.flush()?;
        Ok(Tally { sent, ..self.tally })
    }

    /// Lets the time of the capture pass, and with it the timers.
    fn advance(&mut self, now: Instant) {
        while let Some(due) = self.engine.poll_timeout().filter(|due| *due <= now) {
            while self.engine.handle_timeout(due) {}
        }
        self.now = now;
    }

    /// Takes the nth packet of the batch through the engine.
    fn packet(&mut self, n: usize) -> io::Result<()> {
        let mut route = Seen::default();
        let mut frame = self.batch.frame(n);
        let (verdict, leaving) = match frame.packet() {
            Ok(mut packet) => {
                let verdict = self.engine.handle(&mut packet, self.now, &mut route);
                (verdict, if verdict == Verdict::Forward { tunnel::leaving(&mut packet) } else { Vec::new() })
            }
            Err(malformed) => (self.engine.malformed(malformed, frame.bytes(), self.now), Vec::new()),
        };
        let out: Result<_, _> = leaving.iter().map(|packet| send(&mut self.port, packet)).collect();
        self.note(verdict, route.0, out?);
        for Outgoing { cause, packet } in self.engine.outbox() {
            let number = send(&mut self.port, &packet)?;
            let line = self.lines.iter_mut().rev().find(|line| line.n == cause);
            line.expect("a line is kept for as long as its packet may cause another").out.push(number);
        }
        Ok(())
    }

    /// Notes what became of a packet.
    fn note(&mut self, verdict: Verdict, route: Route, out: Vec<u64>) {
        self.tally.count(verdict, self.now);
        let timeouts = &self.snapshot.timeouts;
        let held = timeouts.fragment_v4.max(timeouts.fragment_v6);
        self.lines.push_back(Line {
            n: self.tally.packets,
            at: self.now.since(Instant::ZERO).as_secs_f64(),
            verdict: word(verdict),
            reason: reason(verdict),
            service: route.service.map(|id| self.snapshot.service(id).name.clone()),
            backend: route.backend.map(|id| self.snapshot.backend(id).name.clone()),
            out,
            open_until: (verdict == Verdict::Consume).then(|| self.now + held),
        });
    }

    /// Writes the lines to which nothing can be added any more.
    fn write_lines(&mut self, now: Instant) -> io::Result<()> {
        let over = |line: &mut Line| line.open_until.is_none_or(|until| until < now || !line.out.is_empty());
        while let Some(line) = self.lines.pop_front_if(over) {
            serde_json::to_writer(&mut self.report, &line)?;
            writeln!(self.report)?;
        }
        Ok(())
    }
}

/// Sends a packet; its number in the capture of what leaves, from 1.
fn send<R: Read, W: Write>(port: &mut CapturePort<R, W>, packet: &[u8]) -> io::Result<u64> {
    port.send_pieces([packet, &[]])?;
    Ok(port.sent())
}

impl Tally {
    fn count(&mut self, verdict: Verdict, now: Instant) {
        self.packets += 1;
        self.span = now.since(Instant::ZERO);
        match verdict {
            Verdict::Forward => self.forwarded += 1,
            Verdict::Reply => self.replied += 1,
            Verdict::Consume => self.consumed += 1,
            Verdict::Handoff(worker) => unreachable!("the only worker hands a packet over to {worker:?}"),
            Verdict::Drop(reason) => *self.drops.entry(reason).or_default() += 1,
        }
    }

    /// Packets by verdict, those that do not occur included.
    pub(super) fn verdicts(&self) -> [(&'static str, u64); 4] {
        let dropped = self.drops.values().sum();
        [("forward", self.forwarded), ("reply", self.replied), ("consume", self.consumed), ("drop", dropped)]
    }
}

/// Keeps where a packet went, and nothing else of its way.
#[derive(Default)]
struct Seen(Route);

impl TraceSink for Seen {
    const ENABLED: bool = false;

    fn stage(&mut self, _: &'static str, _: impl FnOnce() -> String) {}

    fn route(&mut self, route: Route) {
        self.0 = route;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::io::pcap::{Reader, Writer};
    use crate::wire::build;
    use std::net::SocketAddr;

    const CONFIG: &str = r#"
[gateway]
source-addresses = ["10.99.0.10"]

[[service]]
name = "dns"
listen = "192.0.2.10:53"
protocol = "udp"
backends = [{ name = "b1", address = "10.0.0.1" }]
"#;

    /// What comes by Ethernet.
    #[derive(Clone, Copy)]
    enum Content<'a> {
        Ip(&'a [u8]),
        Arp,
    }

    /// A block of a pcapng file. The format has room for every time, unlike pcap, whose seconds end in 2106.
    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let padded = body.len().next_multiple_of(4);
        let length = u32::try_from(12 + padded).unwrap().to_le_bytes();
        [&kind.to_le_bytes(), &length, body, &[0; 3][..padded - body.len()], &length].concat()
    }

    fn capture(frames: &[(u64, Content<'_>)]) -> Vec<u8> {
        let section = [&0x1a2b_3c4d_u32.to_le_bytes(), &[1, 0, 0, 0][..], &[0xff; 8]].concat();
        let ethernet = [1, 0, 0, 0, 0, 0, 0, 0];
        let mut capture = [block(0x0a0d_0d0a, &section), block(1, &ethernet)].concat();
        for (seconds, content) in frames {
            let (ethertype, packet) = match content {
                Content::Ip(packet) => ([8, 0], *packet),
                Content::Arp => ([8, 6], &[0; 28][..]),
            };
            let micros = (seconds * 1_000_000).to_le_bytes();
            let length = u32::try_from(14 + packet.len()).unwrap().to_le_bytes();
            let head = [&[0; 4], &micros[4..], &micros[..4], &length, &length, &[0; 12], &ethertype].concat();
            capture.extend(block(6, &[&head, packet].concat()));
        }
        capture
    }

    /// The report on frames that come at these seconds since 1970.
    fn report(frames: &[(u64, Content<'_>)]) -> Vec<serde_json::Value> {
        let capture = capture(frames);
        let (mut out, mut report) = (Vec::new(), Vec::new());
        let snapshot = config::load(CONFIG, "test.toml", None, "gw").unwrap();
        let out: &mut dyn Write = &mut out;
        let port = CapturePort::new(Reader::new(&capture[..]).unwrap(), Writer::new(out).unwrap());
        let mut gateway = Gateway::new(snapshot, 0, port, &mut report);
        while gateway.step().unwrap() {}
        gateway.finish().unwrap();
        let lines = std::str::from_utf8(&report).unwrap().lines();
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn query() -> Vec<u8> {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap().into();
        build::udp(at("198.51.100.7:40000"), at("192.0.2.10:53"), &[7; 24])
    }

    /// The query in two fragments of 16 bytes.
    fn fragments() -> [Vec<u8>; 2] {
        let whole = query();
        let (header, payload) = whole.split_at(20);
        [(0_u8, 0x20_u8), (2, 0)].map(|(offset, more)| {
            let start = usize::from(offset) * 8;
            let mut packet = [header, &payload[start..start + 16]].concat();
            packet[3] = 36;
            packet[4..8].copy_from_slice(&[0, 9, more, offset]);
            packet[10..12].fill(0);
            let sum = !crate::wire::checksum::sum(&packet[..20]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            packet
        })
    }

    #[test]
    fn a_fragment_that_was_held_is_listed_with_itself() {
        let [first, second] = fragments();
        let other = query();
        let frames = [(5, Content::Ip(&second)), (6, Content::Ip(&other)), (7, Content::Ip(&first))];
        let lines = report(&frames);
        let told: Vec<_> =
            lines.iter().map(|line| (line["verdict"].as_str().unwrap(), line["out"].to_string())).collect();
        let expected = [("consume", "[3]"), ("forward", "[1]"), ("forward", "[2]")];
        assert_eq!(told, expected.map(|(verdict, out)| (verdict, out.to_owned())));
    }

    #[test]
    fn a_fragment_whose_first_never_comes_is_listed_with_nothing() {
        let [_, second] = fragments();
        let lines = report(&[(5, Content::Ip(&second)), (100, Content::Ip(&second)), (101, Content::Arp)]);
        assert!(lines[..2].iter().all(|line| line["verdict"] == "consume" && line["out"] == serde_json::json!([])));
        assert_eq!(lines[2]["reason"], "not-ip");
    }

    #[test]
    fn a_clock_that_goes_back_stands_still() {
        let query = query();
        let lines = report(&[(5, Content::Ip(&query)), (7, Content::Ip(&query)), (4, Content::Ip(&query))]);
        let times: Vec<_> = lines.iter().map(|line| line["at"].as_f64().unwrap()).collect();
        assert_eq!(times, [0.0, 2.0, 2.0]);
    }

    /// Looked at tick by tick, four hundred years would take hours.
    #[test]
    fn a_capture_may_have_a_pause_of_any_length() {
        const YEARS: u64 = 400 * 365 * 86_400;
        let at = |text: &str| text.parse::<SocketAddr>().unwrap().into();
        let (query, answer) = (query(), build::udp(at("10.0.0.1:53"), at("10.99.0.10:40000"), b"answer"));
        let (query, answer) = (Content::Ip(&query), Content::Ip(&answer));
        let lines = report(&[(5, query), (YEARS, answer), (YEARS, query), (YEARS + 100, answer), (2 * YEARS, answer)]);
        let told: Vec<_> = lines.iter().map(|line| line["verdict"].as_str().unwrap()).collect();
        assert_eq!(told, ["forward", "drop", "forward", "forward", "drop"]);
    }
}
