//! One queue of the TUN as a packet port.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::time::Duration;

use super::port::{Batch, PacketPort, Sent};
use super::sys::{self, Waker};
use super::tun::{Granted, TunQueue};
use crate::engine::Instant;
use crate::wire::OFFLOAD_LEN;

/// A payload up to this size is cheaper copied than taken from where it lies.
const COPIED: usize = 512;

/// Reads until the queue is empty or the batch full; super-packets pass in place.
#[derive(Debug)]
pub struct TunPort {
    queue: TunQueue,
    granted: Granted,
    /// Where small packets that lie in pieces are put together.
    small: Vec<u8>,
}

impl TunPort {
    /// A port on this queue of a TUN with these offloads.
    pub fn new(queue: TunQueue, granted: Granted) -> Self {
        Self { queue, granted, small: Vec::new() }
    }
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
    fn send(&mut self, frame: &mut [u8]) -> io::Result<Sent> {
        self.queue.write(frame).map(|_| Sent::Whole)
    }

    #[inline]
    fn send_pieces(&mut self, [headers, payload]: [&[u8]; 2]) -> io::Result<()> {
        let Self { queue, small, .. } = self;
        let offload = [0; OFFLOAD_LEN];
        if payload.len() > COPIED {
            return queue.write_vectored(&[&offload, headers, payload].map(IoSlice::new)).map(drop);
        }
        small.clear();
        [&offload, headers, payload].into_iter().for_each(|piece| small.extend_from_slice(piece));
        queue.write(small).map(drop)
    }

    fn takes(&self) -> Granted {
        self.granted
    }

    #[inline]
    fn send_gathered(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        self.queue.write_vectored(pieces).map(drop)
    }

    fn wait(&mut self, waker: &Waker, timeout: Option<Duration>) -> io::Result<()> {
        waker.wait_beside(self.queue.as_fd(), timeout)
    }
}
