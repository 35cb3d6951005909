//! What of a batch can leave together, leaves together: a write costs the kernel the same for one packet and for forty.

use std::io::{self, IoSlice};

use super::port::{Batch, MAX_PACKETS, PacketPort, Sent};
use super::tun::Granted;
use crate::wire::Gso;
use crate::wire::gather::{Part, Run};

/// Places for the latest run of a flow; flows that share one end each other's runs.
const SLOTS: usize = 128;
const NONE: u8 = u8::MAX;

/// The packets of a batch that are to leave, in the order in which each flow's came.
///
/// Runs are sent in the order in which they began, and only its latest run does a packet join: so none overtakes another
/// of its flow.
#[derive(Debug)]
pub struct Gather {
    takes: Granted,
    runs: Vec<Queued>,
    /// The run that a flow's next packet may join.
    latest: [u8; SLOTS],
    /// The packet behind each in its run.
    next: [u8; MAX_PACKETS],
    header: Vec<u8>,
}

#[derive(Debug)]
struct Queued {
    /// `None`: a packet that nothing may join.
    run: Option<Run>,
    first: u8,
    last: u8,
}

impl Gather {
    /// For a port that takes these super-packets.
    pub fn new(takes: Granted) -> Self {
        let runs = Vec::with_capacity(MAX_PACKETS);
        Self { takes, runs, latest: [NONE; SLOTS], next: [NONE; MAX_PACKETS], header: Vec::new() }
    }

    /// Notes down that the nth packet of the batch, sealed, is to leave.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a batch has 64 packets")]
    pub fn add(&mut self, batch: &Batch, n: usize, part: Option<Part>) {
        let run = self.runs.len() as u8;
        let Some(part) = part.filter(|_| self.takes != Granted::Nothing) else {
            self.latest.fill(NONE);
            self.runs.push(Queued { run: None, first: n as u8, last: n as u8 });
            return;
        };
        let slot = part.flow.wrapping_mul(0x9e37_79b1) as usize >> 25;
        if let Some(Queued { run: Some(run), first, last }) = self.runs.get_mut(usize::from(self.latest[slot]))
            && run.join(batch.packet(usize::from(*first)), batch.packet(n), &part)
        {
            self.next[usize::from(*last)] = n as u8;
            *last = n as u8;
            return;
        }
        self.latest[slot] = run;
        let joinable = part.kind() != Gso::Udp || self.takes == Granted::TcpAndUdp;
        self.runs.push(Queued { run: joinable.then(|| Run::new(part)), first: n as u8, last: n as u8 });
    }

    /// Sends all; `outcome` is told of each packet: its length, and how it left.
    #[inline]
    pub fn send<P: PacketPort>(
        &mut self,
        batch: &mut Batch,
        port: &mut P,
        mut outcome: impl FnMut(usize, io::Result<Sent>),
    ) {
        let Self { runs, latest, next, header, .. } = self;
        for queued in runs.drain(..) {
            let packets = || each(queued.first, queued.last, next);
            if let (Some(run), true) = (&queued.run, queued.first != queued.last) {
                match send_run(run, &queued, packets(), batch, port, header) {
                    // This kernel does not take it after all.
                    Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                    Err(error) => {
                        packets().for_each(|n| outcome(batch.packet(n).len(), Err(error.kind().into())));
                        continue;
                    }
                    Ok(()) => {
                        packets().for_each(|n| outcome(batch.packet(n).len(), Ok(Sent::Whole)));
                        continue;
                    }
                }
            }
            packets().for_each(|n| outcome(batch.packet(n).len(), port.send(batch.sealed(n))));
        }
        latest.fill(NONE);
    }
}

fn each(first: u8, last: u8, next: &[u8; MAX_PACKETS]) -> impl Iterator<Item = usize> {
    let following = move |n: &u8| (*n != last).then(|| next[usize::from(*n)]);
    std::iter::successors(Some(first), following).map(usize::from)
}

fn send_run<P: PacketPort>(
    run: &Run,
    queued: &Queued,
    packets: impl Iterator<Item = usize>,
    batch: &Batch,
    port: &mut P,
    header: &mut Vec<u8>,
) -> io::Result<()> {
    header.clear();
    let [first, last] = [queued.first, queued.last].map(|n| batch.packet(usize::from(n)));
    run.write_headers(first, last, header);
    let mut pieces = [IoSlice::new(&[]); 1 + MAX_PACKETS];
    pieces[0] = IoSlice::new(header);
    let mut count = 1;
    for n in packets {
        pieces[count] = IoSlice::new(&batch.packet(n)[run.headers()..]);
        count += 1;
    }
    port.send_gathered(&pieces[..count])
}
