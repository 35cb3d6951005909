//! A port that gets rid of every super-packet, even where the kernel refuses it.

use std::io::{self, IoSlice};
use std::time::Duration;

use super::port::{Batch, PacketPort, Sent};
use super::sys::Waker;
use super::tun::Granted;
use crate::engine::Instant;
use crate::wire::{Gso, OFFLOAD_LEN, Offload, Packet, segment};

/// Sends a super-packet that the port below refuses with `EINVAL` as the packets that it stands for, checksums complete.
///
/// Some kernels refuse super-packets that others take (6.1.103 and 6.6.44 did, for UDP). The next one is tried whole
/// again: the refusal may be about one protocol or one packet, and costs next to nothing beside the packets sent instead.
/// Other errors are not about the super-packet, and its pieces would fare no better.
#[derive(Debug)]
pub struct Segmenting<P> {
    port: P,
    /// Where the headers of segments are put together.
    segment: Vec<u8>,
    told: bool,
}

impl<P: PacketPort> Segmenting<P> {
    /// On top of this port.
    pub fn new(port: P) -> Self {
        Self { port, segment: Vec::new(), told: false }
    }

    /// All segments, or those before the first that is refused.
    #[cold]
    fn send_segments(&mut self, frame: &mut [u8], offload: Offload) -> io::Result<Sent> {
        if !self.told {
            log::warn!("the kernel refuses a super-packet ({:?}): segments are cut in user space", offload.gso);
            self.told = true;
        }
        let malformed = |_| io::Error::from(io::ErrorKind::InvalidData);
        let mut packet = Packet::parse(&mut frame[OFFLOAD_LEN..], offload).map_err(malformed)?;
        let Self { port, segment, .. } = self;
        let mut outcome = Ok(());
        segment::cut(&mut packet, segment, |headers, payload| {
            if outcome.is_ok() {
                outcome = port.send_pieces([headers, payload]);
            }
        });
        outcome.map(|()| Sent::Segmented)
    }
}

impl<P: PacketPort> PacketPort for Segmenting<P> {
    #[inline]
    fn receive(&mut self, batch: &mut Batch) -> io::Result<Instant> {
        self.port.receive(batch)
    }

    #[inline]
    fn send(&mut self, frame: &mut [u8]) -> io::Result<Sent> {
        let error = match self.port.send(frame) {
            Ok(sent) => return Ok(sent),
            Err(error) => error,
        };
        let offload = frame.first_chunk().and_then(|header| Offload::parse(header).ok()).unwrap_or_default();
        if error.raw_os_error() == Some(libc::EINVAL) && offload.gso != Gso::None {
            return self.send_segments(frame, offload);
        }
        Err(error)
    }

    #[inline]
    fn send_pieces(&mut self, pieces: [&[u8]; 2]) -> io::Result<()> {
        self.port.send_pieces(pieces)
    }

    fn takes(&self) -> Granted {
        self.port.takes()
    }

    #[inline]
    fn send_gathered(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        self.port.send_gathered(pieces)
    }

    fn wait(&mut self, waker: &Waker, timeout: Option<Duration>) -> io::Result<()> {
        self.port.wait(waker, timeout)
    }
}
