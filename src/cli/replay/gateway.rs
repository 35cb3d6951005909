//! A gateway whose port is a capture and whose clock is the capture's.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::admin::{reason, word};
use crate::config::Snapshot;
use crate::engine::{DropReason, Engine, Instant, Outgoing, Route, Shared, TraceSink, Verdict, WorkerId};
use crate::io::pcap::{Content, Frame, Writer};
use crate::wire::{Offload, Packet, tunnel};

/// One engine, driven by a capture.
pub(super) struct Gateway<'a> {
    engine: Engine,
    snapshot: Arc<Snapshot>,
    out: Writer<&'a mut dyn Write>,
    report: &'a mut dyn Write,
    /// Time of the first frame, microseconds since 1970.
    start: Option<Instant>,
    /// Time since then. A capture may go back in time; the clock of a gateway does not.
    now: Instant,
    buffer: Vec<u8>,
    /// Packets given to the engine.
    given: u64,
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
    /// Which of the engine's packets it is; `None` for a frame that the engine was not given.
    #[serde(skip)]
    given: Option<u64>,
    /// Until when a packet may leave because of it.
    #[serde(skip)]
    open_until: Option<Instant>,
}

impl<'a> Gateway<'a> {
    /// A gateway that has seen nothing; writes the header of the capture of what leaves.
    pub(super) fn new(
        snapshot: Snapshot,
        seed: u64,
        out: &'a mut dyn Write,
        report: &'a mut dyn Write,
    ) -> io::Result<Self> {
        let shared = Shared::new(snapshot, 1, seed);
        let snapshot = Arc::clone(&shared.policy.load().snapshot);
        Ok(Self {
            engine: Engine::new(&shared, WorkerId(0), Instant::ZERO),
            snapshot,
            out: Writer::new(out)?,
            report,
            start: None,
            now: Instant::ZERO,
            buffer: Vec::new(),
            given: 0,
            lines: VecDeque::new(),
            tally: Tally::default(),
        })
    }

    /// Handles the next frame.
    pub(super) fn frame(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        self.advance(frame.at);
        match frame.content {
            Content::Ip(packet) => self.packet(packet)?,
            Content::Other(_) => self.note(Verdict::Drop(DropReason::NotIp), Route::default(), None),
        }
        self.write_lines(self.now)
    }

    /// Writes out what is left.
    pub(super) fn finish(mut self) -> io::Result<Tally> {
        self.write_lines(Instant::MAX)?;
        let sent = self.out.written();
        self.out.finish()?;
        self.report.flush()?;
        Ok(Tally { sent, ..self.tally })
    }

    /// Lets the time of the capture pass, and with it the timers.
    fn advance(&mut self, at: Instant) {
        let start = *self.start.get_or_insert(at);
        let now = Instant::ZERO + at.since(start);
        while let Some(due) = self.engine.poll_timeout().filter(|due| *due <= now) {
            while self.engine.handle_timeout(due) {}
        }
        self.now = self.now.max(now);
    }

    fn packet(&mut self, packet: &[u8]) -> io::Result<()> {
        let at = self.start.unwrap_or_default() + self.now.since(Instant::ZERO);
        self.buffer.clear();
        self.buffer.extend_from_slice(packet);
        self.given += 1;
        let mut route = Seen::default();
        match Packet::parse(&mut self.buffer, Offload::default()) {
            Ok(mut parsed) => {
                let verdict = self.engine.handle(&mut parsed, self.now, &mut route);
                let leaving = if verdict == Verdict::Forward { tunnel::leaving(&mut parsed) } else { Vec::new() };
                let out: Result<Vec<u64>, _> = leaving.iter().map(|packet| self.out.packet(at, packet)).collect();
                self.note(verdict, route.0, Some(self.given));
                self.lines.back_mut().expect("it was just noted").out.extend(out?);
            }
            Err(malformed) => {
                let verdict = self.engine.malformed(malformed, packet, self.now);
                self.note(verdict, route.0, Some(self.given));
            }
        }
        for Outgoing { cause, packet } in self.engine.outbox() {
            let number = self.out.packet(at, &packet)?;
            let line = self.lines.iter_mut().rev().find(|line| line.given == Some(cause));
            line.expect("a line is kept for as long as its packet may cause another").out.push(number);
        }
        Ok(())
    }

    /// Notes what became of a frame.
    fn note(&mut self, verdict: Verdict, route: Route, given: Option<u64>) {
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
            out: Vec::new(),
            given,
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

    /// The report on frames that come at these seconds since 1970.
    fn report(frames: &[(u64, Content<'_>)]) -> Vec<serde_json::Value> {
        let (mut out, mut report) = (Vec::new(), Vec::new());
        let snapshot = config::load(CONFIG, "test.toml", 0, "gw").unwrap();
        let mut gateway = Gateway::new(snapshot, 0, &mut out, &mut report).unwrap();
        for (seconds, content) in frames {
            let at = Instant::from_micros(seconds * 1_000_000);
            gateway.frame(&Frame { at, content: *content }).unwrap();
        }
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
        let lines = report(&[(5, Content::Ip(&second)), (100, Content::Ip(&second)), (101, Content::Other(None))]);
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
