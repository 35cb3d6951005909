//! A gateway whose port is a capture and whose clock is the capture's.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::admin::{reason, word};
use crate::config::Snapshot;
use crate::engine::{DropReason, Engine, Instant, Route, Shared, TraceSink, Verdict, WorkerId};
use crate::io::pcap::{Content, Frame, Writer};
use crate::wire::{Offload, Packet};

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
struct Line<'a> {
    n: u64,
    at: f64,
    verdict: &'static str,
    reason: Option<&'static str>,
    service: Option<&'a str>,
    backend: Option<&'a str>,
    out: &'a [u64],
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
            tally: Tally::default(),
        })
    }

    /// Handles the next frame.
    pub(super) fn frame(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        self.advance(frame.at);
        let mut route = Seen::default();
        let (verdict, sent) = match frame.content {
            Content::Ip(packet) => self.packet(packet, &mut route)?,
            Content::Other(_) => (Verdict::Drop(DropReason::NotIp), Vec::new()),
        };
        self.tally.count(verdict, self.now);
        let line = Line {
            n: self.tally.packets,
            at: self.now.since(Instant::ZERO).as_secs_f64(),
            verdict: word(verdict),
            reason: reason(verdict),
            service: route.0.service.map(|id| self.snapshot.service(id).name.as_str()),
            backend: route.0.backend.map(|id| self.snapshot.backend(id).name.as_str()),
            out: &sent,
        };
        serde_json::to_writer(&mut self.report, &line)?;
        writeln!(self.report)
    }

    /// Writes out what is buffered.
    pub(super) fn finish(self) -> io::Result<Tally> {
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

    /// The verdict, and the numbers of the packets that left.
    fn packet(&mut self, packet: &[u8], route: &mut Seen) -> io::Result<(Verdict, Vec<u64>)> {
        let at = self.start.unwrap_or_default() + self.now.since(Instant::ZERO);
        self.buffer.clear();
        self.buffer.extend_from_slice(packet);
        let mut sent = Vec::new();
        let verdict = match Packet::parse(&mut self.buffer, Offload::default()) {
            Ok(mut parsed) => {
                let verdict = self.engine.handle(&mut parsed, self.now, route);
                if verdict == Verdict::Forward {
                    sent.push(self.out.packet(at, parsed.bytes())?);
                }
                verdict
            }
            Err(malformed) => self.engine.malformed(malformed, packet.len()),
        };
        for own in self.engine.outbox() {
            sent.push(self.out.packet(at, &own)?);
        }
        Ok((verdict, sent))
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
