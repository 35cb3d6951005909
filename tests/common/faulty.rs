//! A port wrapper that refuses packets as a kernel would.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tungate::engine::Instant;
use tungate::io::port::{Batch, PacketPort, Sent};
use tungate::io::sys::Waker;
use tungate::wire::{Gso, Offload};

/// What is refused, from now on: error numbers, 0 for none.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Every packet, but for those spared.
    pub(crate) all: AtomicI32,
    /// How many packets pass before that.
    pub(crate) spared: AtomicU64,
    /// Super-packets.
    pub(crate) super_packets: AtomicI32,
    /// How many were refused.
    pub(crate) refused: AtomicU64,
}

/// The port below, with faults.
#[derive(Debug)]
pub(crate) struct Faulty<P> {
    port: P,
    faults: Arc<Faults>,
}

impl Faults {
    fn meet_all(&self) -> io::Result<()> {
        match self.spared.load(Relaxed) {
            0 => self.meet(&self.all),
            left => {
                self.spared.store(left - 1, Relaxed);
                Ok(())
            }
        }
    }

    fn meet(&self, fault: &AtomicI32) -> io::Result<()> {
        match fault.load(Relaxed) {
            0 => Ok(()),
            error => {
                self.refused.fetch_add(1, Relaxed);
                Err(io::Error::from_raw_os_error(error))
            }
        }
    }
}

impl<P> Faulty<P> {
    pub(crate) fn new(port: P, faults: &Arc<Faults>) -> Self {
        Self { port, faults: Arc::clone(faults) }
    }
}

impl<P: PacketPort> PacketPort for Faulty<P> {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<Instant> {
        self.port.receive(batch)
    }

    fn send(&mut self, frame: &mut [u8]) -> io::Result<Sent> {
        let offload = Offload::parse(frame.first_chunk().unwrap()).unwrap();
        if offload.gso != Gso::None {
            self.faults.meet(&self.faults.super_packets)?;
        }
        self.faults.meet_all()?;
        self.port.send(frame)
    }

    fn send_pieces(&mut self, pieces: [&[u8]; 2]) -> io::Result<()> {
        self.faults.meet_all()?;
        self.port.send_pieces(pieces)
    }

    fn wait(&mut self, waker: &Waker, timeout: Option<Duration>) -> io::Result<()> {
        self.port.wait(waker, timeout)
    }
}
