//! A packet port in memory: for tests of what is above a port, on any machine and without privileges.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_queue::SegQueue;

use super::port::{Batch, PacketPort, Sent};
use super::sys::{self, Waker};
use crate::engine::Instant;
use crate::wire::OFFLOAD_LEN;

/// Receives what is put in at its [`FarEnd`], and sends there. Packets are behind their offload header, as everywhere.
#[derive(Debug)]
pub struct MemoryPort(Arc<Cable>);

/// The network, as it were.
#[derive(Debug)]
pub struct FarEnd(Arc<Cable>);

#[derive(Debug)]
struct Cable {
    to_port: Direction,
    from_port: Direction,
}

#[derive(Debug)]
struct Direction {
    packets: SegQueue<Vec<u8>>,
    arrived: Waker,
}

impl MemoryPort {
    /// A port, and its other end.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new() -> io::Result<(Self, FarEnd)> {
        let cable = Arc::new(Cable { to_port: Direction::new()?, from_port: Direction::new()? });
        Ok((Self(Arc::clone(&cable)), FarEnd(cable)))
    }
}

impl FarEnd {
    /// Puts a packet in.
    pub fn send(&self, packet: Vec<u8>) {
        self.0.to_port.push(packet);
    }

    /// The next packet that the port has sent; waits for it, at most for so long.
    ///
    /// # Errors
    /// `TimedOut`.
    pub fn receive(&self, patience: Duration) -> io::Result<Vec<u8>> {
        let direction = &self.0.from_port;
        let until = sys::now() + patience;
        loop {
            direction.arrived.clear(); // before the look: what comes after it wakes us
            if let Some(packet) = direction.packets.pop() {
                return Ok(packet);
            }
            let left = until.since(sys::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            sys::wait(&[direction.arrived.as_fd()], Some(left))?;
        }
    }
}

impl Direction {
    fn new() -> io::Result<Self> {
        Ok(Self { packets: SegQueue::new(), arrived: Waker::new()? })
    }

    fn push(&self, packet: Vec<u8>) {
        self.packets.push(packet);
        self.arrived.wake();
    }
}

impl PacketPort for MemoryPort {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<Instant> {
        let direction = &self.0.to_port;
        direction.arrived.clear();
        while !batch.is_full() {
            let Some(packet) = direction.packets.pop() else { break };
            batch.push(|buffer| {
                let room = buffer.get_mut(..packet.len()).ok_or(io::ErrorKind::InvalidInput)?;
                room.copy_from_slice(&packet);
                Ok(packet.len())
            })?;
        }
        if !direction.packets.is_empty() {
            direction.arrived.wake();
        }
        Ok(sys::now())
    }

    fn send(&mut self, frame: &mut [u8]) -> io::Result<Sent> {
        self.0.from_port.push(frame.to_vec());
        Ok(Sent::Whole)
    }

    fn send_pieces(&mut self, [headers, payload]: [&[u8]; 2]) -> io::Result<()> {
        self.0.from_port.push([&[0; OFFLOAD_LEN], headers, payload].concat());
        Ok(())
    }

    fn wait(&mut self, waker: &Waker, timeout: Option<Duration>) -> io::Result<()> {
        waker.wait_beside(self.0.to_port.arrived.as_fd(), timeout)
    }
}
