//! Writing captures.

use std::io::{self, Write};

use crate::engine::Instant;

/// Writes a pcap file of LINKTYPE_RAW with microsecond timestamps. The same packets make the same file on every
/// machine: little-endian, no name, no clock.
#[derive(Debug)]
pub struct Writer<W> {
    sink: W,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the file header.
    ///
    /// # Errors
    /// When the sink refuses.
    pub fn new(mut sink: W) -> io::Result<Self> {
        let mut header = Vec::with_capacity(24);
        header.extend(0xa1b2_c3d4_u32.to_le_bytes());
        header.extend([2, 0, 4, 0]);
        header.extend([0; 8]);
        header.extend(262_144_u32.to_le_bytes());
        header.extend(101_u32.to_le_bytes());
        sink.write_all(&header)?;
        Ok(Self { sink, written: 0 })
    }

    /// Writes a packet that leaves at `at` (microseconds since 1970); its number in the file, from 1.
    ///
    /// # Errors
    /// When the sink refuses.
    pub fn packet(&mut self, at: Instant, packet: &[u8]) -> io::Result<u64> {
        let length = u32::try_from(packet.len()).map_err(io::Error::other)?;
        // Seconds are unsigned here and wrap in 2106, as in every pcap file.
        let seconds = (at.as_micros() / 1_000_000) & 0xffff_ffff;
        for field in [seconds, at.as_micros() % 1_000_000, u64::from(length), u64::from(length)] {
            self.sink.write_all(&field.to_le_bytes()[..4])?;
        }
        self.sink.write_all(packet)?;
        self.written += 1;
        Ok(self.written)
    }

    /// How many packets were written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Pushes out what is buffered and gives the sink back.
    ///
    /// # Errors
    /// When the sink refuses.
    pub fn finish(mut self) -> io::Result<W> {
        self.sink.flush()?;
        Ok(self.sink)
    }
}
