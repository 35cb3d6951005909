//! Two gateways with the same services, the kernel's NAT and tungate's engine: what is sent to one is sent to the other,
//! and what leaves them is compared byte for byte.

use std::collections::{BTreeMap, HashMap};

use tungate::engine::Verdict;
use tungate::engine::conntrack::State;
use tungate::wire::{Address, Endpoint, Offload, Packet, Protocol, checksum};

use crate::decisions::{DECISIONS, Decision};
use crate::difference::{Difference, flags_of};
use crate::history::History;
use crate::kernel::Kernel;
use crate::show::describe;
use crate::support::{World, address, at};

const SYN: u8 = 0x02;

/// The side of the gateway that a packet comes from or leaves to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Clients,
    Backends,
}

/// A packet that leaves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Departure {
    pub(crate) to: Side,
    pub(crate) packet: Vec<u8>,
}

/// A client, the service it asks and the backend behind that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    pub(crate) client: Endpoint,
    pub(crate) vip: Endpoint,
    pub(crate) backend: Endpoint,
    pub(crate) protocol: Protocol,
}

/// One packet for both: they differ where the gateways have chosen different source ports.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) from: Side,
    kernel: Vec<u8>,
    ours: Vec<u8>,
}

impl Arrival {
    /// Bytes of the packet.
    pub(crate) fn len(&self) -> usize {
        self.ours.len()
    }

    /// Changes both of its packets in the same way.
    pub(crate) fn change(&mut self, change: impl Fn(Vec<u8>) -> Vec<u8>) {
        self.kernel = change(std::mem::take(&mut self.kernel));
        self.ours = change(std::mem::take(&mut self.ours));
    }
}

/// How a comparison has ended, if not in a panic.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Met {
    /// Both have sent these many packets, and the same ones.
    Same(usize),
    /// Not the same, and meant so.
    Decided(&'static Decision),
}

/// Both gateways, and what has been met so far.
pub(crate) struct Pair {
    kernel: Kernel,
    world: World,
    pub(crate) source_nat: bool,
    /// As whom the backend sees the client of a flow: by the kernel's choice and by ours.
    sources: HashMap<Flow, [Endpoint; 2]>,
    /// Whose each of these is: two flows never share one (R29).
    holders: HashMap<(usize, Endpoint, Endpoint, Protocol), Flow>,
    histories: HashMap<Flow, History>,
    next_client: u32,
    /// Packets that came, and those that both have sent.
    pub(crate) compared: usize,
    pub(crate) same: usize,
    pub(crate) decided: BTreeMap<&'static str, usize>,
}

impl Pair {
    /// Builds both, or says why the test is skipped.
    pub(crate) fn build(test: &str, source_nat: bool) -> Option<Self> {
        let kernel = Kernel::build(test, source_nat)?;
        let world = World::new(&crate::CONFIG.replace("SOURCE_NAT", &source_nat.to_string()));
        Some(Self {
            kernel,
            world,
            source_nat,
            sources: HashMap::new(),
            holders: HashMap::new(),
            histories: HashMap::new(),
            next_client: 0,
            compared: 0,
            same: 0,
            decided: BTreeMap::new(),
        })
    }

    /// A client that nobody has seen yet, with a port that no other has, and what it asks: `web` is TCP, `dns` UDP.
    pub(crate) fn flow(&mut self, service: &str, is_v6: bool) -> Flow {
        self.next_client += 1;
        let [_, _, high, low] = self.next_client.to_be_bytes();
        let port = 1024 + u16::try_from(self.next_client % 60_000).unwrap();
        let client = if is_v6 {
            Address::v6([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, high, low])
        } else {
            Address::v4([198, 18, high, low])
        };
        let (vip, backend, protocol) = match (service, is_v6) {
            ("web", false) => ("192.0.2.10:80", "10.0.0.1:8080", Protocol::TCP),
            ("web", true) => ("[2001:db8::10]:80", "[fd00::1]:8080", Protocol::TCP),
            ("dns", false) => ("192.0.2.10:53", "10.0.0.1:5353", Protocol::UDP),
            ("dns", true) => ("[2001:db8::10]:53", "[fd00::1]:5353", Protocol::UDP),
            _ => panic!("no service {service}"),
        };
        Flow { client: Endpoint::new(client, port), vip: at(vip), backend: at(backend), protocol }
    }

    /// Something from the clients' side.
    pub(crate) fn by_client(&self, packet: Vec<u8>) -> Arrival {
        Arrival { from: Side::Clients, kernel: packet.clone(), ours: packet }
    }

    /// Something from the backends' side about this flow, made for whom each gateway shows the backend as its client.
    pub(crate) fn by_backend(&self, flow: &Flow, make: impl Fn(Endpoint) -> Vec<u8>) -> Arrival {
        let [kernel, ours] = self.sources(flow);
        Arrival { from: Side::Backends, kernel: make(kernel), ours: make(ours) }
    }

    /// The client of a flow as the backend sees it, by the kernel's choice and by ours; where no packet has shown that yet, as it will most likely be.
    pub(crate) fn sources(&self, flow: &Flow) -> [Endpoint; 2] {
        let likely = match (self.source_nat, flow.client.address.is_v4()) {
            (false, _) => flow.client,
            (true, true) => Endpoint::new(address("10.99.0.10"), flow.client.port),
            (true, false) => Endpoint::new(address("fd00:99::10"), flow.client.port),
        };
        self.sources.get(flow).copied().unwrap_or([likely, likely])
    }

    /// One packet of the client's.
    pub(crate) fn client_sends(&mut self, flow: &Flow, packet: Vec<u8>) -> Met {
        let arrival = self.by_client(packet);
        self.receives(flow, vec![arrival])
    }

    /// One packet of the backend's, or of somebody on its side.
    pub(crate) fn backend_sends(&mut self, flow: &Flow, make: impl Fn(Endpoint) -> Vec<u8>) -> Met {
        let arrival = self.by_backend(flow, make);
        self.receives(flow, vec![arrival])
    }

    /// Some packets, one after the other, about one flow. What leaves is compared when all have come: fragments leave the
    /// kernel together.
    pub(crate) fn receives(&mut self, flow: &Flow, arrivals: Vec<Arrival>) -> Met {
        let (mut kernel, mut ours, mut sent, mut is_beyond) = (Vec::new(), Vec::new(), Vec::new(), false);
        let first = self.state(flow);
        for arrival in arrivals {
            self.compared += 1;
            kernel.extend(self.kernel.receives(arrival.from, &arrival.kernel));
            let before = self.state(flow);
            let outcome = self.world.receives(arrival.ours.clone());
            if outcome.verdict == Verdict::Reply {
                self.world.wait_for(std::time::Duration::from_millis(100)); // 10 errors a second (R10)
            }
            let forwarded = outcome.sent.is_some();
            ours.extend(outcome.sent.into_iter().chain(outcome.own).map(departure));
            let after = self.state(flow);
            let history = self.histories.entry(*flow).or_default();
            is_beyond |= history.note(arrival.from, &arrival.ours, (before, after), forwarded);
            sent.push((arrival.from, arrival.ours, outcome.verdict));
        }
        let earlier = self.histories[flow].earlier.clone();
        let begins = |packet: &Vec<u8>| flags_of(packet).is_some_and(|flags| flags & SYN != 0);
        self.note_sources(flow, &kernel, &ours, sent.iter().any(|(_, packet, _)| begins(packet)));
        let [theirs, chosen] = self.sources(flow);
        for departure in kernel.iter_mut().filter(|departure| departure.to == Side::Backends && theirs != chosen) {
            replace_source_port(&mut departure.packet, theirs, chosen);
        }
        self.compare(Difference { sent, state: first, is_beyond, earlier, kernel, ours })
    }

    /// Where tungate thinks the connection to stand.
    fn state(&self, flow: &Flow) -> Option<State> {
        self.world.flow(flow.client, flow.vip, flow.protocol).map(|flow| flow.state())
    }

    /// Notes as whom the backend sees the client, which only a SYN may change.
    fn note_sources(&mut self, flow: &Flow, kernel: &[Departure], ours: &[Departure], begins: bool) {
        let source = |departures: &[Departure]| {
            let mut towards = departures.iter().filter(|departure| departure.to == Side::Backends);
            towards.find_map(|departure| {
                let mut bytes = departure.packet.clone();
                let packet = Packet::parse(&mut bytes, Offload::default()).ok()?;
                let (source, destination) = packet.endpoints()?;
                (packet.protocol() == flow.protocol && destination == flow.backend).then_some(source)
            })
        };
        let (Some(kernel), Some(ours)) = (source(kernel), source(ours)) else { return };
        let earlier = self.sources.insert(*flow, [kernel, ours]);
        assert!(begins || earlier.is_none_or(|earlier| earlier == [kernel, ours]), "{flow:?} was {earlier:?} before");
        for (gateway, source) in [kernel, ours].into_iter().enumerate() {
            let holder = self.holders.insert((gateway, source, flow.backend, flow.protocol), *flow);
            assert!(holder.is_none_or(|holder| holder == *flow), "R29: {source} is {holder:?}'s and {flow:?}'s");
        }
    }

    fn compare(&mut self, mut difference: Difference) -> Met {
        difference.kernel.sort();
        difference.ours.sort();
        if difference.kernel == difference.ours {
            self.same += difference.ours.len();
            return Met::Same(difference.ours.len());
        }
        let decision = DECISIONS.iter().find(|decision| (decision.covers)(&difference));
        let decision = decision.unwrap_or_else(|| panic!("nobody has decided this:\n{}", describe(&difference)));
        *self.decided.entry(decision.what).or_default() += 1;
        Met::Decided(decision)
    }
}

impl Met {
    /// Both have sent this many packets, the same ones.
    #[track_caller]
    pub(crate) fn same(self, packets: usize) {
        let Self::Same(sent) = self else { panic!("{self:?} instead of {packets} packets") };
        assert_eq!(sent, packets);
    }

    /// Tungate differs, by this decision.
    #[track_caller]
    pub(crate) fn decided(self, what: &str) {
        let Self::Decided(decision) = self else { panic!("{self:?} instead of: {what}") };
        assert_eq!(decision.what, what);
    }
}

/// The engine knows no interfaces: the kernel's routes say where its packets go.
fn departure(packet: Vec<u8>) -> Departure {
    let backends: &[u8] = if packet[0] >> 4 == 4 { &[10, 0, 0] } else { &[0xfd, 0, 0, 0, 0, 0, 0, 0] };
    let destination = if packet[0] >> 4 == 4 { &packet[16..20] } else { &packet[24..40] };
    let to = if destination.starts_with(backends) { Side::Backends } else { Side::Clients };
    Departure { to, packet }
}

/// In a TCP or UDP packet from `from`.
fn replace_source_port(bytes: &mut [u8], from: Endpoint, to: Endpoint) {
    let Ok(packet) = Packet::parse(bytes, Offload::default()) else { return };
    let at = usize::from(packet.header().payload);
    let is_udp = packet.protocol() == Protocol::UDP;
    let field = at + if is_udp { 6 } else { 16 };
    if packet.endpoints().is_none_or(|(source, _)| source != from) {
        return;
    }
    bytes[at..at + 2].copy_from_slice(&to.port.to_be_bytes());
    let sum = u16::from_be_bytes([bytes[field], bytes[field + 1]]);
    if is_udp && sum == 0 {
        return;
    }
    let sum = checksum::update(sum, checksum::word_delta(from.port, to.port));
    let sum = if is_udp && sum == 0 { 0xffff } else { sum };
    bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}
