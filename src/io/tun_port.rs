//! One queue of the TUN as a packet port.

use std::io;

use super::port::{Batch, PacketPort};
use super::sys;
use super::tun::TunQueue;
use crate::engine::Instant;
use crate::wire::tunnel::{self, Scratch};
use crate::wire::{Gso, OFFLOAD_LEN, Offload, Packet, segment};

/// A payload up to this size is cheaper copied than taken from where it lies.
const COPIED: usize = 512;

/// Reads until the queue is empty or the batch full; super-packets pass in place.
#[derive(Debug)]
pub struct TunPort {
    queue: TunQueue,
    /// Where the headers of segments are put together, should the kernel refuse a super-packet.
    segment: Vec<u8>,
    /// The same for packets in tunnels, and where small ones are put together whole.
    wrapping: Scratch,
    small: Vec<u8>,
    told: bool,
}

impl TunPort {
    /// A port on this queue.
    pub fn new(queue: TunQueue) -> Self {
        Self { queue, segment: Vec::new(), wrapping: Scratch::default(), small: Vec::new(), told: false }
    }

    /// The queue, to wait on.
    pub fn queue(&self) -> &TunQueue {
        &self.queue
    }

    /// Some kernels refuse super-packets that others take (6.1.103 and 6.6.44 did, for UDP): cut it ourselves.
    fn send_segments(&mut self, frame: &mut [u8], offload: Offload) -> io::Result<()> {
        if !self.told {
            log::warn!("the kernel refuses a super-packet ({:?}): segments are cut in user space", offload.gso);
            self.told = true;
        }
        let refused = |_| io::Error::from(io::ErrorKind::InvalidData);
        let mut packet = Packet::parse(&mut frame[OFFLOAD_LEN..], offload).map_err(refused)?;
        let mut outcome = Ok(());
        let queue = &self.queue;
        let header = [0; OFFLOAD_LEN];
        segment::cut(&mut packet, &mut self.segment, |head, payload| {
            if outcome.is_ok() {
                outcome = queue.write_vectored(&[&header, head, payload].map(io::IoSlice::new)).map(drop);
            }
        });
        outcome
    }
}

/// Writes one packet that needs nothing of the kernel.
#[inline]
fn write_pieces(queue: &TunQueue, [headers, payload]: [&[u8]; 2], small: &mut Vec<u8>) -> io::Result<()> {
    let offload = [0; OFFLOAD_LEN];
    if payload.len() > COPIED {
        return queue.write_vectored(&[&offload, headers, payload].map(io::IoSlice::new)).map(drop);
    }
    small.clear();
    [&offload, headers, payload].into_iter().for_each(|piece| small.extend_from_slice(piece));
    queue.write(small).map(drop)
}

impl PacketPort for TunPort {
    #[inline]
    fn receive(&mut self, batch: &mut Batch) -> io::Result<Instant> {
        while !batch.is_full() {
            match batch.push(|buffer| self.queue.read(buffer)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(sys::now())
    }

    #[inline]
    fn send(&mut self, frame: &mut [u8]) -> io::Result<()> {
        let Err(error) = self.queue.write(frame) else { return Ok(()) };
        let offload = frame.first_chunk().and_then(|header| Offload::parse(header).ok()).unwrap_or_default();
        if error.raw_os_error() == Some(libc::EINVAL) && offload.gso != Gso::None {
            return self.send_segments(frame, offload);
        }
        Err(error)
    }

    #[inline]
    fn send_wrapped(&mut self, packet: &mut Packet<'_>) -> io::Result<(u64, u64)> {
        let Self { queue, wrapping, small, .. } = self;
        let mut outcome = Ok((0, 0));
        tunnel::emit(packet, wrapping, |headers, payload| {
            let Ok((packets, bytes)) = outcome else { return };
            let len = (headers.len() + payload.len()) as u64;
            outcome = write_pieces(queue, [headers, payload], small).map(|()| (packets + 1, bytes + len));
        });
        outcome
    }
}
