//! The datagrams in work: what has arrived of each, and what is held.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::config::Timeouts;
use crate::engine::conntrack::{Direction, FlowKey, FlowRef};
use crate::engine::verdict::DropReason;
use crate::engine::{Instant, Outgoing};
use crate::wire::{Address, Fragment, Packet, Protocol};

/// Datagrams in work at once, a worker.
const MAX_DATAGRAMS: usize = 1024;
/// Bytes held for first fragments to come, a worker: Linux' `ipfrag_high_thresh`.
const MAX_BYTES: usize = 4 << 20;
/// Fragments of one datagram: 64 KiB in pieces of 576 bytes, twice over.
const MAX_FRAGMENTS: usize = 256;

/// What makes fragments one datagram (RFC 791 3.2; RFC 8200 4.5, where the protocol does not count).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::engine) struct DatagramKey {
    pub source: Address,
    pub destination: Address,
    pub id: u32,
    /// IPv4 only.
    protocol: Option<Protocol>,
}

impl DatagramKey {
    pub(in crate::engine) fn of(packet: &Packet<'_>, fragment: Fragment) -> Self {
        let (source, destination) = packet.addresses();
        let protocol = source.is_v4().then(|| packet.protocol());
        Self { source, destination, id: fragment.id, protocol }
    }

    /// How long its fragments are waited for.
    pub(in crate::engine) const fn timeout(&self, timeouts: &Timeouts) -> Duration {
        match self.protocol {
            Some(_) => timeouts.fragment_v4,
            None => timeouts.fragment_v6,
        }
    }
}

/// Where the fragments of a datagram go, once its first has been decided about.
#[derive(Clone, Debug)]
pub(in crate::engine) enum Way {
    /// Where their flow goes, with this identification. What follows in a TCP segment ends so far behind `sequence` as the
    /// datagram is long.
    Flow { flow: FlowRef, direction: Direction, id: u32, sequence: Option<u32> },
    /// Into the tunnel that their first one has gone by, which had no flow and these ends.
    ByHash(FlowKey),
    /// Nowhere: they are a ping to us, and each is answered with its like.
    Echo,
}

/// What to do with a fragment.
#[derive(Debug)]
pub(in crate::engine) enum Admission {
    /// The first one: decide about it, then call [`Fragments::route`] or [`Fragments::kill`].
    First,
    /// Its datagram's way is known.
    Known(Way),
    /// Kept, or a copy of one that was there.
    Absorbed,
    /// Not to be forwarded.
    Refused(DropReason),
}

impl Admission {
    /// For traces.
    pub(in crate::engine) const fn name(&self) -> &'static str {
        match self {
            Self::First => "the first of its datagram",
            Self::Known(_) => "follows its first",
            Self::Absorbed => "held for its first, or a copy",
            Self::Refused(_) => "refused",
        }
    }
}

/// The datagrams that one worker has seen fragments of.
#[derive(Debug, Default)]
pub(in crate::engine) struct Fragments {
    datagrams: HashMap<DatagramKey, Datagram, RandomState>,
    /// Oldest first, IPv4 and IPv6 apart: their timeouts differ. Entries of finished datagrams stay until their time.
    ages: [VecDeque<(Instant, DatagramKey)>; 2],
    held_bytes: usize,
    /// Held fragments that will never be sent, since [`Self::take_forgotten`] was last called.
    forgotten: Vec<(DropReason, usize)>,
}

impl Fragments {
    /// Takes note of a fragment: its number among the packets of this engine, and until when it is waited for others.
    pub(in crate::engine) fn admit(
        &mut self,
        key: &DatagramKey,
        fragment: Fragment,
        packet: &Packet<'_>,
        (number, until): (u64, Instant),
    ) -> Admission {
        if !self.datagrams.contains_key(key) {
            self.make_room(1);
            self.ages[usize::from(!key.source.is_v4())].push_back((until, *key));
        }
        let datagram = self.datagrams.entry(*key).or_insert_with(|| Datagram::new(until));
        match datagram.cover(fragment, packet.piece().len()) {
            Cover::New => {}
            Cover::Duplicate => return Admission::Absorbed,
            Cover::TooMany => return Admission::Refused(DropReason::FragmentLimit),
            Cover::Overlap => {
                // RFC 5722 4, and by analogy for IPv4 (RFC 1858 4.2): nothing more of it, whatever has been sent.
                self.kill(key, DropReason::FragmentOverlap);
                return Admission::Refused(DropReason::FragmentOverlap);
            }
        }
        match &mut datagram.progress {
            Progress::Dead(reason) => Admission::Refused(*reason),
            Progress::Waiting(_) if fragment.offset == 0 => Admission::First,
            Progress::Routed(way) => {
                let way = way.clone();
                self.forget_if_complete(key);
                Admission::Known(way)
            }
            Progress::Waiting(held) => {
                held.push(Outgoing { cause: number, packet: packet.bytes().to_vec() });
                self.held_bytes += packet.bytes().len();
                self.make_room(0);
                Admission::Absorbed
            }
        }
    }

    /// The first fragment has found its way: the others follow. Returns those held until now, in the order they came.
    pub(in crate::engine) fn route(&mut self, key: &DatagramKey, way: Way) -> Vec<Outgoing> {
        let held = self.replace(key, Progress::Routed(way));
        self.forget_if_complete(key);
        held
    }

    /// The first fragment was refused, or the datagram is malicious: none of the others is forwarded.
    pub(in crate::engine) fn kill(&mut self, key: &DatagramKey, reason: DropReason) {
        let held = self.replace(key, Progress::Dead(reason)).len();
        if held > 0 {
            self.forgotten.push((reason, held));
        }
    }

    /// Gives up datagrams whose time is over.
    pub(in crate::engine) fn expire(&mut self, now: Instant) {
        for family in 0..self.ages.len() {
            while let Some((until, key)) = self.ages[family].pop_front_if(|(until, _)| *until <= now) {
                self.give_up(&key, until);
            }
        }
    }

    /// When [`Self::expire`] has something to do next.
    pub(in crate::engine) fn poll(&self) -> Option<Instant> {
        self.ages.iter().filter_map(VecDeque::front).map(|(until, _)| *until).min()
    }

    /// How many held fragments have been given up since the last call, and why.
    pub(in crate::engine) fn take_forgotten(&mut self) -> Vec<(DropReason, usize)> {
        std::mem::take(&mut self.forgotten)
    }

    /// Gives up the oldest datagrams until so many more fit. Finished ones cost nothing but their place in the queue.
    fn make_room(&mut self, more: usize) {
        while self.datagrams.len() + more > MAX_DATAGRAMS
            || self.held_bytes > MAX_BYTES
            || self.ages_len() >= 4 * MAX_DATAGRAMS
        {
            let oldest = self.ages.iter_mut().min_by_key(|ages| ages.front().map_or(Instant::MAX, |(until, _)| *until));
            let Some((until, key)) = oldest.and_then(VecDeque::pop_front) else { return };
            self.give_up(&key, until);
        }
    }

    fn ages_len(&self) -> usize {
        self.ages.iter().map(VecDeque::len).sum()
    }

    /// Forgets this datagram, unless a newer one has its key.
    fn give_up(&mut self, key: &DatagramKey, until: Instant) {
        if self.datagrams.get(key).is_some_and(|datagram| datagram.until == until) {
            self.kill(key, DropReason::FragmentTimeout);
            self.datagrams.remove(key);
        }
    }

    fn forget_if_complete(&mut self, key: &DatagramKey) {
        if self.datagrams.get(key).is_some_and(Datagram::is_complete) {
            self.datagrams.remove(key);
        }
    }

    /// Changes a datagram's progress; the fragments that were held.
    fn replace(&mut self, key: &DatagramKey, progress: Progress) -> Vec<Outgoing> {
        let Some(datagram) = self.datagrams.get_mut(key) else { return Vec::new() };
        let Progress::Waiting(held) = std::mem::replace(&mut datagram.progress, progress) else { return Vec::new() };
        self.held_bytes -= held.iter().map(|one| one.packet.len()).sum::<usize>();
        held
    }
}

#[derive(Debug)]
struct Datagram {
    /// When it is given up; also tells it from an earlier one of the same key.
    until: Instant,
    /// What has arrived: first byte and the one behind the last, sorted, apart from each other.
    spans: Vec<(u32, u32)>,
    /// Its length, known from the last fragment.
    len: Option<u32>,
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    /// The first has not come; these have.
    Waiting(Vec<Outgoing>),
    Routed(Way),
    /// Its fragments overlap, or its first was refused.
    Dead(DropReason),
}

enum Cover {
    New,
    Duplicate,
    Overlap,
    TooMany,
}

impl Datagram {
    fn new(until: Instant) -> Self {
        Self { until, spans: Vec::new(), len: None, progress: Progress::Waiting(Vec::new()) }
    }

    /// Notes what a fragment covers.
    fn cover(&mut self, fragment: Fragment, payload: usize) -> Cover {
        let start = u32::from(fragment.offset);
        let end = start + u32::try_from(payload).expect("the payload of an IP packet");
        let at = self.spans.partition_point(|(from, _)| *from < start);
        if self.spans.get(at) == Some(&(start, end)) {
            return Cover::Duplicate; // R77: an exact copy is harmless
        }
        let before = at.checked_sub(1).is_some_and(|n| self.spans[n].1 > start);
        let after = self.spans.get(at).is_some_and(|(from, _)| *from < end);
        // Nothing lies behind the last fragment, and there is one last.
        let beyond = match (self.len, fragment.more) {
            (Some(len), true) => end > len,
            (Some(len), false) => end != len,
            (None, true) => false,
            (None, false) => self.spans.last().is_some_and(|(_, to)| *to > end),
        };
        if before || after || beyond {
            return Cover::Overlap;
        }
        if self.spans.len() == MAX_FRAGMENTS {
            return Cover::TooMany;
        }
        if !fragment.more {
            self.len = Some(end);
        }
        self.spans.insert(at, (start, end));
        Cover::New
    }

    fn is_complete(&self) -> bool {
        let gapless = self.spans.windows(2).all(|pair| pair[0].1 == pair[1].0);
        self.spans.first().is_some_and(|(from, _)| *from == 0) && gapless && self.len == self.spans.last().map(|s| s.1)
    }
}
