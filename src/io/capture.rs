//! A capture as a packet port: what it holds comes in, what leaves goes to another.

use std::io::{self, Read, Write};
use std::time::Duration;

use super::pcap::{Content, Reader, Writer};
use super::port::{Batch, PacketPort, Sent};
use super::sys::Waker;
use crate::engine::Instant;
use crate::wire::OFFLOAD_LEN;

/// Receives one frame of a capture at a time, and the time with it: that since the first frame. A capture may go back in
/// time; the clock of a port does not.
#[derive(Debug)]
pub struct CapturePort<R, W> {
    reader: Reader<R>,
    writer: Writer<W>,
    /// Time of the first frame, microseconds since 1970.
    start: Option<Instant>,
    now: Instant,
}

impl<R: Read, W: Write> CapturePort<R, W> {
    /// Receives from one capture, and sends to another.
    pub fn new(reader: Reader<R>, writer: Writer<W>) -> Self {
        Self { reader, writer, start: None, now: Instant::ZERO }
    }

    /// How many packets were sent.
    pub fn sent(&self) -> u64 {
        self.writer.written()
    }

    /// Completes the capture of what was sent, and gives its sink back.
    ///
    /// # Errors
    /// When the sink refuses.
    pub fn finish(self) -> io::Result<W> {
        self.writer.finish()
    }
}

impl<R: Read, W: Write> PacketPort for CapturePort<R, W> {
    /// The next frame. One that holds no IP packet comes in empty; of one longer than any packet, the start.
    ///
    /// # Errors
    /// `UnexpectedEof`: that was all. With a [`CaptureError`](super::pcap::CaptureError) inside: it cannot be read on.
    fn receive(&mut self, batch: &mut Batch) -> io::Result<Instant> {
        let frame = self.reader.next_frame().map_err(io::Error::other)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let start = *self.start.get_or_insert(frame.at);
        self.now = self.now.max(Instant::ZERO + frame.at.since(start));
        batch.push(|buffer| {
            let Content::Ip(packet) = frame.content else { return Ok(0) };
            let (header, room) = buffer.split_at_mut(OFFLOAD_LEN);
            let len = packet.len().min(room.len());
            header.fill(0);
            room[..len].copy_from_slice(&packet[..len]);
            Ok(OFFLOAD_LEN + len)
        })?;
        Ok(self.now)
    }

    fn send(&mut self, frame: &mut [u8]) -> io::Result<Sent> {
        let packet = frame.get(OFFLOAD_LEN..).ok_or(io::ErrorKind::InvalidInput)?;
        self.send_pieces([packet, &[]]).map(|()| Sent::Whole)
    }

    /// Writes the packet, stamped with the time of the last frame.
    fn send_pieces(&mut self, pieces: [&[u8]; 2]) -> io::Result<()> {
        let at = self.start.unwrap_or_default() + self.now.since(Instant::ZERO);
        self.writer.packet(at, &pieces.concat()).map(drop)
    }

    /// Returns at once: the next frame is there, whatever the time it came at.
    fn wait(&mut self, _: &Waker, _: Option<Duration>) -> io::Result<()> {
        Ok(())
    }
}
