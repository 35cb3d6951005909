//! A packet port in memory, for benches and tests.

use std::collections::VecDeque;
use std::io;

use super::port::{Batch, PacketPort};
use crate::engine::Instant;
use crate::wire::{OFFLOAD_LEN, Packet, tunnel};

/// Gives out what was put in, keeps what was sent. Frames carry their offload header in front.
#[derive(Debug, Default)]
pub struct MemoryPort {
    /// To be received, in order.
    pub input: VecDeque<Vec<u8>>,
    /// What was sent, in order.
    pub output: Vec<Vec<u8>>,
    /// The time that packets are received at.
    pub now: Instant,
}

impl PacketPort for MemoryPort {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<Instant> {
        while !batch.is_full() {
            let Some(frame) = self.input.pop_front() else { break };
            batch.push(|buffer| {
                let room = buffer.get_mut(..frame.len()).ok_or(io::ErrorKind::InvalidInput)?;
                room.copy_from_slice(&frame);
                Ok(frame.len())
            })?;
        }
        Ok(self.now)
    }

    fn send(&mut self, frame: &mut [u8]) -> io::Result<()> {
        self.output.push(frame.to_vec());
        Ok(())
    }

    fn send_wrapped(&mut self, packet: &mut Packet<'_>) -> io::Result<(u64, u64)> {
        let packets = tunnel::leaving(packet);
        let sent = (packets.len() as u64, packets.iter().map(|packet| packet.len() as u64).sum());
        self.output.extend(packets.into_iter().map(|packet| [&[0; OFFLOAD_LEN][..], &packet].concat()));
        Ok(sent)
    }
}
