//! Source ports of full NAT: which (source address, port) a flow uses towards its backend.
//!
//! A reply is told apart by where it comes from as well as where it goes, so one source port serves one flow to *each*
//! backend: there is a pool for each source address, backend endpoint and protocol, made when its first port is leased
//! and dropped when its last is released. 64,512 flows from one source address to one backend are possible, and as many
//! again to the next.
//!
//! Each worker has its own ports, those with `port % workers == worker`: leasing needs no lock, and the destination
//! port of a reply says whose flow it is ([`Ports::owner`]).
//!
//! A lease lives exactly as long as its flow, which outlives the connection: through TIME-WAIT, and after RST for as
//! long as late packets are expected. So a port that is free here belongs to no connection that the backend still
//! remembers by our doing, and reuse needs no quarantine of its own.

mod free;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Range, RangeInclusive};

use self::free::Free;
use crate::engine::{WorkerId, random};
use crate::wire::{Address, Endpoint, Protocol};

/// Never leased: health checks by a tunnel go out from these ports of a source address, and their answers come back there.
pub const FOR_CHECKS: RangeInclusive<u16> = 768..=1023;

/// The source ports of one worker.
#[derive(Debug)]
pub struct Ports {
    slice: Slice,
    pools: HashMap<PoolKey, Pool, foldhash::fast::RandomState>,
}

/// Every port of the class, on every source address, is leased towards this backend (R31).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no source port is free towards this backend")
    }
}

impl std::error::Error for Exhausted {}

impl Ports {
    /// The ports of worker `worker` of `workers`, all free.
    ///
    /// # Panics
    /// If there is no such worker.
    pub fn new(worker: WorkerId, workers: u16) -> Self {
        assert!(worker.0 < workers, "worker {} of {workers}", worker.0);
        Self { slice: Slice::new(worker.0.into(), workers.into()), pools: HashMap::default() }
    }

    /// The worker that leases this port, and so handles the replies to it.
    pub fn owner(port: u16, workers: u16) -> WorkerId {
        WorkerId(port % workers)
    }

    /// Leases a source endpoint for a flow to `backend`, from one of `sources` (of the backend's family).
    ///
    /// The address is drawn from those that have a port left. The client's own port is kept where it is free and this
    /// worker's; else the port is the first free one from a random place on (RFC 6056 3.3.1), of the client's class:
    /// below 1024 or not (R30). Two flows never hold the same (source, backend, protocol) (R29).
    ///
    /// `random` is 64 uniform bits, or a hash of the flow: the same gives the same lease from the same ports.
    pub fn lease(
        &mut self,
        sources: &[Address],
        backend: Endpoint,
        protocol: Protocol,
        client_port: u16,
        random: u64,
    ) -> Result<Endpoint, Exhausted> {
        let class = Class::of(client_port);
        if self.slice.indices(class).is_empty() {
            return Err(Exhausted);
        }
        let own = self.slice.index(client_port).filter(|_| client_port != 0);
        // The scheduler has picked by the same number: another one, lest each backend see one source address only.
        let random = random::another(!random);
        let (before, from) = sources.split_at(random::index(random, sources.len()));
        for &source in from.iter().chain(before) {
            let pool = self.pools.entry(PoolKey { source, backend, protocol });
            let pool = pool.or_insert_with(|| Pool::new(&self.slice));
            if let Some(index) = pool.take(&self.slice, class, own, random::another(random)) {
                return Ok(Endpoint::new(source, self.slice.port(index)));
            }
        }
        Err(Exhausted)
    }

    /// Leases this very source for a flow that the other gateway of a pair has opened: false if it is taken, or never leased by
    /// this worker.
    pub fn claim(&mut self, source: Endpoint, backend: Endpoint, protocol: Protocol) -> bool {
        let class = Class::of(source.port);
        let indices = self.slice.indices(class);
        let Some(index) = self.slice.index(source.port).filter(|index| indices.contains(index)) else { return false };
        let pool = self.pools.entry(PoolKey { source: source.address, backend, protocol });
        pool.or_insert_with(|| Pool::new(&self.slice)).claim(class, index)
    }

    /// Gives a lease back: once, by the flow that held it.
    pub fn release(&mut self, source: Endpoint, backend: Endpoint, protocol: Protocol) {
        let Entry::Occupied(mut pool) = self.pools.entry(PoolKey { source: source.address, backend, protocol }) else {
            debug_assert!(false, "{source} to {backend}: nothing is leased from this address");
            return;
        };
        let Some(index) = self.slice.index(source.port).filter(|index| !pool.get().free.contains(*index)) else {
            debug_assert!(false, "{source} to {backend}: this port is not leased");
            return;
        };
        pool.get_mut().put(Class::of(source.port), index);
        if pool.get().in_use(&self.slice) == 0 {
            pool.remove();
        }
    }

    /// Leases held towards each backend endpoint and protocol: one item for each source address in use there, so the
    /// sum over a backend is what the metric shows.
    pub fn in_use(&self) -> impl Iterator<Item = (Endpoint, Protocol, u32)> {
        self.pools.iter().map(|(key, pool)| (key.backend, key.protocol, pool.in_use(&self.slice)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PoolKey {
    source: Address,
    backend: Endpoint,
    protocol: Protocol,
}

impl Hash for PoolKey {
    /// Few wide writes instead of one for each field.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_ne_bytes(*self.source.octets()));
        state.write_u128(u128::from_ne_bytes(*self.backend.address.octets()));
        state.write_u32(u32::from(self.backend.port) << 8 | u32::from(self.protocol.0));
    }
}

/// What R30 keeps: whether a port is one that only the system may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// 1 to 767; those to 1023 are [`FOR_CHECKS`]. Port 0 counts as one of these (an ICMP identifier may be 0), but is never leased.
    System,
    /// 1024 to 65535.
    User,
}

impl Class {
    fn of(port: u16) -> Self {
        if port < 1024 { Self::System } else { Self::User }
    }
}

/// One worker's ports, numbered without gaps: index i is port `i * workers + worker`. Pools deal in indices, so that
/// no search ever meets another worker's port, and the pools of n workers are together as large as that of one.
#[derive(Debug)]
struct Slice {
    worker: u32,
    workers: u32,
    /// Index of the first port from 1 on: port 0 is never leased.
    system: u32,
    /// Index of the first port that is kept for checks.
    for_checks: u32,
    /// Index of the first port from 1024 on.
    user: u32,
    end: u32,
}

impl Slice {
    fn new(worker: u32, workers: u32) -> Self {
        let first_from = |port: u32| port.saturating_sub(worker).div_ceil(workers);
        let for_checks = first_from(u32::from(*FOR_CHECKS.start()));
        Self { worker, workers, system: first_from(1), for_checks, user: first_from(1_024), end: first_from(65_536) }
    }

    fn indices(&self, class: Class) -> Range<u32> {
        match class {
            Class::System => self.system..self.for_checks,
            Class::User => self.user..self.end,
        }
    }

    /// The index of a port, if it is this worker's.
    fn index(&self, port: u16) -> Option<u32> {
        let port = u32::from(port);
        (port % self.workers == self.worker).then_some(port / self.workers)
    }

    fn port(&self, index: u32) -> u16 {
        u16::try_from(index * self.workers + self.worker).expect("every index is that of a port")
    }
}

/// The ports from one source address to one backend.
#[derive(Debug)]
struct Pool {
    free: Free,
    system_left: u32,
    user_left: u32,
}

impl Pool {
    fn new(slice: &Slice) -> Self {
        let (system_left, user_left) = (slice.for_checks - slice.system, slice.end - slice.user);
        Self { free: Free::all(slice.end), system_left, user_left }
    }

    fn left(&mut self, class: Class) -> &mut u32 {
        match class {
            Class::System => &mut self.system_left,
            Class::User => &mut self.user_left,
        }
    }

    fn in_use(&self, slice: &Slice) -> u32 {
        slice.end - slice.user + slice.for_checks - slice.system - self.system_left - self.user_left
    }

    /// Takes `own` if it is free, else the first free index from a random one of the class on, going round.
    fn take(&mut self, slice: &Slice, class: Class, own: Option<u32>, random: u64) -> Option<u32> {
        if *self.left(class) == 0 {
            return None;
        }
        let Range { start, end } = slice.indices(class);
        let own = own.filter(|own| (start..end).contains(own) && self.free.contains(*own));
        let index = own.unwrap_or_else(|| {
            let from = start + random::below_u32(random, end - start);
            let further = self.free.first_from(from).filter(|index| *index < end);
            further.or_else(|| self.free.first_from(start)).expect("the count says that one of the class is free")
        });
        self.free.remove(index);
        *self.left(class) -= 1;
        Some(index)
    }

    fn claim(&mut self, class: Class, index: u32) -> bool {
        let is_free = self.free.contains(index);
        if is_free {
            self.free.remove(index);
            *self.left(class) -= 1;
        }
        is_free
    }

    fn put(&mut self, class: Class, index: u32) {
        self.free.insert(index);
        *self.left(class) += 1;
    }
}

#[cfg(test)]
mod tests;
