//! Where packets come from and go to: one small trait, and the memory that a batch of them lies in.

use std::io::{self, IoSlice};
use std::time::Duration;

use super::sys::Waker;
use super::tun::Granted;
use crate::engine::Instant;
use crate::wire::{Malformed, OFFLOAD_LEN, Offload, Packet};

/// Most packets of a batch: a bound on how old the time is that they are handled with.
pub const MAX_PACKETS: usize = 64;
/// Most bytes of a batch, so that it stays in the second-level cache.
const MAX_BYTES: usize = 256 << 10;
/// What a read must offer, or the kernel cuts the packet short without notice: header and the longest packet, IPv6's.
const MAX_FRAME: usize = OFFLOAD_LEN + 40 + 0xffff;

/// A source and sink of IP packets behind their offload header: the TUN, a capture, memory. Ports nest: one may be made
/// of another, as [`super::segmenting::Segmenting`] is.
pub trait PacketPort {
    /// Takes in what is there, up to a batch, without waiting; the time to handle it with.
    ///
    /// # Errors
    /// The port is gone or broken. That nothing is there is no error: the batch stays empty.
    fn receive(&mut self, batch: &mut Batch) -> io::Result<Instant>;

    /// Sends one packet, offload header in front.
    ///
    /// # Errors
    /// This packet could not be sent; the port may be used further.
    fn send(&mut self, frame: &mut [u8]) -> io::Result<Sent>;

    /// Sends one packet that lies in two pieces, the second of which may be empty, and that has no offload.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    fn send_pieces(&mut self, pieces: [&[u8]; 2]) -> io::Result<()>;

    /// Which super-packets it takes that are not of the kernel's making.
    fn takes(&self) -> Granted {
        Granted::Nothing
    }

    /// Sends one packet that lies in pieces, its offload header in front.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    fn send_gathered(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        let mut frame: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        self.send(&mut frame).map(drop)
    }

    /// Waits until there is something to receive, the waker is woken (of which it takes note), or the time (`None` =
    /// for ever) is over.
    ///
    /// # Errors
    /// The port cannot be waited for.
    fn wait(&mut self, waker: &Waker, timeout: Option<Duration>) -> io::Result<()>;
}

/// How a packet left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// As it was.
    Whole,
    /// As the packets that it stands for.
    Segmented,
}

/// Received packets, one behind the other in one arena.
#[derive(Debug)]
pub struct Batch {
    arena: Box<[u8]>,
    frames: Vec<(usize, usize)>,
    end: usize,
}

impl Default for Batch {
    fn default() -> Self {
        let arena = vec![0; MAX_BYTES + MAX_FRAME].into();
        Self { arena, frames: Vec::with_capacity(MAX_PACKETS), end: 0 }
    }
}

impl Batch {
    /// Forgets all packets.
    pub fn clear(&mut self) {
        self.frames.clear();
        self.end = 0;
    }

    /// Number of packets.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether no more packet may be added.
    pub fn is_full(&self) -> bool {
        self.frames.len() == MAX_PACKETS || self.end >= MAX_BYTES
    }

    /// Adds the packet that `read` puts into the buffer it is given; it says how many bytes that were, offload header
    /// included. The buffer has room for the longest of packets.
    #[inline]
    pub fn push(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
        let len = read(&mut self.arena[self.end..self.end + MAX_FRAME])?;
        self.frames.push((self.end, len));
        self.end += len.next_multiple_of(64); // the next packet begins on a cache line of its own
        Ok(())
    }

    /// The packets as they came, without their offload headers.
    #[inline]
    pub fn packets(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.frames.iter().map(|(start, len)| self.arena[*start..start + len].get(OFFLOAD_LEN..).unwrap_or_default())
    }

    /// The nth packet, without its offload header.
    #[inline]
    pub fn packet(&self, n: usize) -> &[u8] {
        let (start, len) = self.frames[n];
        self.arena[start..start + len].get(OFFLOAD_LEN..).unwrap_or_default()
    }

    /// The nth packet, as [`Frame::seal`] has left it.
    #[inline]
    pub fn sealed(&mut self, n: usize) -> &mut [u8] {
        let (start, len) = self.frames[n];
        &mut self.arena[start..start + len]
    }

    /// Cuts the nth packet to this length, the offload header not counted.
    #[inline]
    pub fn shorten(&mut self, n: usize, len: usize) {
        let frame = &mut self.frames[n].1;
        *frame = (OFFLOAD_LEN + len).min(*frame);
    }

    /// The nth packet, to be parsed.
    #[inline]
    pub fn frame(&mut self, n: usize) -> Frame<'_> {
        let (start, len) = self.frames[n];
        Frame(&mut self.arena[start..start + len])
    }
}

/// A packet behind its offload header, as it came.
#[derive(Debug)]
pub struct Frame<'a>(&'a mut [u8]);

impl<'a> Frame<'a> {
    /// From bytes of which the first ten are the offload header.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self(bytes)
    }

    /// Parses it.
    ///
    /// # Errors
    /// What is wrong with it. An empty frame is [`Malformed::NotIp`]; a header of fewer than ten bytes, or of an unknown
    /// kind, is [`Malformed::Offload`].
    #[inline(always)]
    pub fn packet(&mut self) -> Result<Packet<'_>, Malformed> {
        let none = if self.0.is_empty() { Malformed::NotIp } else { Malformed::Offload };
        let (header, bytes) = self.0.split_first_chunk_mut::<OFFLOAD_LEN>().ok_or(none)?;
        let offload = Offload::parse(header).map_err(|_| Malformed::Offload)?;
        Packet::parse(bytes, offload)
    }

    /// Bytes of the packet, without the offload header.
    pub fn bytes(&self) -> &[u8] {
        self.0.get(OFFLOAD_LEN..).unwrap_or_default()
    }

    /// The packet as it came, offload header included.
    pub fn as_received(&self) -> &[u8] {
        self.0
    }

    /// The packet as it is to leave: of this length, with this header.
    #[inline]
    pub fn seal(&mut self, len: usize, offload: &Offload) -> &mut [u8] {
        let header = self.0.first_chunk_mut().expect("it was parsed, so its header is there");
        offload.write(header);
        &mut self.0[..OFFLOAD_LEN + len]
    }
}
