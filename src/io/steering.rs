//! The program by which the kernel picks a packet's queue, so that it comes to the worker that its flow belongs to.
//!
//! Without one the kernel learns from what is written which queue a flow is on: 4096 flows for three seconds, each
//! written packet hashed, and beyond 4096 under a lock. With one it learns nothing. The program computes what
//! [`steering`] computes; where it cannot (fragments, ICMP, ports behind extension headers, an answer to a client that
//! is its own backend) the packet goes to some worker, which hands it to the owner as ever.
//!
//! eBPF by hand, since it is forty instructions: `LD_ABS` and `LD_IND` read the packet from its IP header on into R0, in
//! the machine's byte order, and end the program with 0 where there is no such byte. They clobber R1 to R5.

use std::fs::File;
use std::io;
use std::net::IpAddr;

use super::netlink::Prefix;
use super::sys;
use super::tun::TunQueue;
use crate::config::{Mode, Snapshot};
use crate::engine::steering::{FIRST, LAST, SHIFTS};
use crate::wire::{Address, Protocol};

/// Source addresses and VIPs that a program compares with, one after the other; with more, learning is cheaper.
const MOST_ADDRESSES: usize = 64;

/// Has the kernel steer the packets of a TUN by the configuration in force.
#[derive(Debug)]
pub(super) struct Steering {
    /// Any of them: a program is the whole TUN's.
    queue: TunQueue,
    workers: u16,
}

impl Steering {
    /// That of a TUN with these queues, all of them attached; `None` if there is nothing to choose from.
    ///
    /// # Errors
    /// No descriptor left.
    pub(super) fn of(queues: &[TunQueue]) -> io::Result<Option<Self>> {
        let [first, _, ..] = queues else { return Ok(None) };
        let workers = u16::try_from(queues.len()).expect("at most 64 workers");
        Ok(Some(Self { queue: first.try_clone()?, workers }))
    }

    /// From now on by this configuration. If it cannot be, as before: whoever gets a packet of another's flow hands it over.
    ///
    /// # Errors
    /// The kernel refuses: `EPERM` without CAP_BPF where unprivileged programs are forbidden, `ENOSYS`.
    /// `ArgumentListTooLong`: too many addresses.
    pub(super) fn follow(&self, snapshot: &Snapshot) -> io::Result<()> {
        let code = program(snapshot, self.workers).ok_or(io::ErrorKind::ArgumentListTooLong)?;
        let program: File = sys::load_socket_filter(&code)?;
        self.queue.steer_by(&program)
    }
}

/// Whether this process may load such a program.
///
/// # Errors
/// As [`Steering::follow`].
pub(super) fn is_possible() -> io::Result<()> {
    let mut code = Assembler::default();
    code.put(MOV, R0, 0, 0);
    code.put(EXIT, 0, 0, 0);
    sys::load_socket_filter(&code.finish()).map(drop)
}

/// The program for this configuration, its instructions as the kernel takes them; `None`: it would be too long.
fn program(snapshot: &Snapshot, workers: u16) -> Option<Vec<u64>> {
    let sources = &snapshot.gateway.source_addresses;
    // Without a service that keeps its clients' addresses, whatever is not for a source address is a client's.
    let keeps = snapshot.services.iter().any(|service| matches!(service.mode, Mode::Nat { source_nat: false }));
    let vips: Vec<Prefix> = if keeps { snapshot.addresses().map(|(prefix, _)| prefix).collect() } else { Vec::new() };
    if sources.len() + vips.len() > MOST_ADDRESSES {
        return None;
    }
    let mut code = Assembler::default();
    code.put(MOV64_REG, CONTEXT, R1, 0);
    code.load(BYTE, 0);
    code.put(MOV_REG, PORTS_AT, R0, 0);
    code.put(RSH, R0, 0, 4);
    code.jump(JEQ, 6, Label::V6);
    code.jump(JNE, 4, Label::Anyone);
    code.v4(sources, &vips, workers);
    code.place(Label::V6);
    code.v6(sources, &vips, workers);
    code.place(Label::Anyone);
    code.put(MOV, R0, 0, 0);
    code.put(EXIT, 0, 0, 0);
    Some(code.finish())
}

const R0: u8 = 0;
const R1: u8 = 1;
const CONTEXT: u8 = 6;
/// Where the ports stand.
const PORTS_AT: u8 = 7;
const HASH: u8 = 8;
const SCRATCH: u8 = 9;

// Class, operation and source of operand: linux/bpf.h and linux/bpf_common.h.
const WORD: u8 = 0x20; // LD_ABS; LD_IND is 0x20 more
const HALF: u8 = 0x28;
const BYTE: u8 = 0x30;
const INDIRECT: u8 = 0x20;
const MOV: u8 = 0xb4;
const MOV_REG: u8 = 0xbc;
const MOV64_REG: u8 = 0xbf;
const AND: u8 = 0x54;
const LSH: u8 = 0x64;
const RSH: u8 = 0x74;
const MUL: u8 = 0x24;
const MOD: u8 = 0x94;
const XOR: u8 = 0xa4;
const XOR_REG: u8 = 0xac;
const MUL64: u8 = 0x27;
const RSH64: u8 = 0x77;
const JEQ: u8 = 0x16;
const JNE: u8 = 0x56;
const JA: u8 = 0x05;
const EXIT: u8 = 0x95;

/// Where a jump goes: the next place of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    V6,
    /// It does not matter whom, or it cannot be told.
    Anyone,
    /// To a source address: the port says whose.
    Reply,
    /// From a client.
    Request,
    /// With a hash.
    Pick,
    /// The next address to compare with.
    Next,
}

#[derive(Default)]
struct Assembler {
    code: Vec<u64>,
    /// Jumps forward whose target is not placed yet.
    open: Vec<(usize, Label)>,
}

impl Assembler {
    fn v4(&mut self, sources: &[Address], vips: &[Prefix], workers: u16) {
        self.put(AND, PORTS_AT, 0, 15);
        self.put(LSH, PORTS_AT, 0, 2);
        self.load(HALF, 6);
        self.put(AND, R0, 0, 0x3fff); // neither more fragments nor an offset
        self.jump(JNE, 0, Label::Anyone);
        self.only_with_ports(9);
        self.load(WORD, 16);
        for source in sources.iter().filter(|source| source.is_v4()) {
            self.jump(JEQ, u32::from_be_bytes(source.v4_octets()), Label::Reply);
        }
        for prefix in vips {
            let IpAddr::V4(address) = prefix.address() else { continue };
            self.put(MOV_REG, SCRATCH, R0, 0);
            self.put(AND, SCRATCH, 0, mask(prefix.length()));
            self.jump_if(JEQ, SCRATCH, u32::from(address), Label::Request);
        }
        let mapped = [0, 0, 0xffff];
        self.owners(&mapped, [&[12], &[16]], workers);
    }

    fn v6(&mut self, sources: &[Address], vips: &[Prefix], workers: u16) {
        self.put(MOV, PORTS_AT, 0, 40);
        self.only_with_ports(6);
        for source in sources.iter().filter(|source| !source.is_v4()) {
            self.compare(source.octets(), 128, Label::Reply);
        }
        for prefix in vips {
            let IpAddr::V6(address) = prefix.address() else { continue };
            self.compare(&address.octets(), prefix.length(), Label::Request);
        }
        self.owners(&[], [&[8, 12, 16, 20], &[24, 28, 32, 36]], workers);
    }

    /// Goes on with TCP and UDP alone; the protocol stands there.
    fn only_with_ports(&mut self, at: u32) {
        self.load(BYTE, at);
        self.put(MOV_REG, SCRATCH, R0, 0);
        self.jump_if(JEQ, SCRATCH, u32::from(Protocol::TCP.0), Label::Next);
        self.jump_if(JNE, SCRATCH, u32::from(Protocol::UDP.0), Label::Anyone);
        self.place(Label::Next);
    }

    /// Goes there if the destination of an IPv6 packet lies in this prefix.
    fn compare(&mut self, octets: &[u8; 16], length: u8, label: Label) {
        for (n, word) in octets.as_chunks::<4>().0.iter().enumerate() {
            let n = u8::try_from(n).expect("four words");
            let mask = mask(length.saturating_sub(32 * n).min(32));
            if mask == 0 {
                break;
            }
            self.load(WORD, 24 + 4 * u32::from(n));
            self.put(AND, R0, 0, mask);
            self.jump(JNE, u32::from_be_bytes(*word), Label::Next);
        }
        self.jump(JA, 0, label);
        self.place(Label::Next);
    }

    /// The three ways to name an owner. Where clients keep their addresses, what is not for a VIP is for a client.
    fn owners(&mut self, before: &[u32], [source, destination]: [&[u32]; 2], workers: u16) {
        // The kernel takes no program with instructions that nothing leads to.
        if self.leads_to(Label::Request) {
            self.client(2, before, destination);
            self.jump(JA, 0, Label::Pick);
        }
        self.place(Label::Request);
        self.client(0, before, source);
        self.place(Label::Pick);
        self.put(MUL, HASH, 0, LAST);
        self.put(MOV_REG, SCRATCH, HASH, 0);
        self.put(RSH, SCRATCH, 0, SHIFTS[1]);
        self.put(XOR_REG, HASH, SCRATCH, 0);
        self.put(MUL64, HASH, 0, u32::from(workers));
        self.put(RSH64, HASH, 0, 32);
        self.put(MOV_REG, R0, HASH, 0);
        self.put(EXIT, 0, 0, 0);
        if self.leads_to(Label::Reply) {
            self.place(Label::Reply);
            self.put(HALF + INDIRECT, 0, PORTS_AT, 2);
            self.put(MOD, R0, 0, u32::from(workers));
            self.put(EXIT, 0, 0, 0);
        }
    }

    /// Mixes a client's endpoint: its port, the words that stand in no header, those that do.
    fn client(&mut self, port_at: u32, before: &[u32], words_at: &[u32]) {
        self.put(HALF + INDIRECT, 0, PORTS_AT, port_at);
        self.put(MOV_REG, HASH, R0, 0);
        for word in before {
            self.put(XOR, HASH, 0, *word);
            self.mix();
        }
        for at in words_at {
            self.load(WORD, *at);
            self.put(XOR_REG, HASH, R0, 0);
            self.mix();
        }
    }

    fn mix(&mut self) {
        self.put(MUL, HASH, 0, FIRST);
        self.put(MOV_REG, SCRATCH, HASH, 0);
        self.put(RSH, SCRATCH, 0, SHIFTS[0]);
        self.put(XOR_REG, HASH, SCRATCH, 0);
    }

    fn load(&mut self, size: u8, at: u32) {
        self.put(size, 0, 0, at);
    }

    fn put(&mut self, operation: u8, to: u8, from: u8, immediate: u32) {
        self.code.push(u64::from(operation) | u64::from(from << 4 | to) << 8 | u64::from(immediate) << 32);
    }

    fn jump(&mut self, operation: u8, immediate: u32, label: Label) {
        self.jump_if(operation, R0, immediate, label);
    }

    fn jump_if(&mut self, operation: u8, register: u8, immediate: u32, label: Label) {
        self.open.push((self.code.len(), label));
        self.put(operation, if operation == JA { 0 } else { register }, 0, immediate);
    }

    /// All jumps to this label that are open end here.
    fn place(&mut self, label: Label) {
        let here = self.code.len();
        let code = &mut self.code;
        self.open.retain(|(from, to)| {
            if *to == label {
                let distance = u16::try_from(here - from - 1).expect("a program of 64 addresses is short");
                code[*from] |= u64::from(distance) << 16;
            }
            *to != label
        });
    }

    fn leads_to(&self, label: Label) -> bool {
        self.open.iter().any(|(_, to)| *to == label)
    }

    fn finish(self) -> Vec<u64> {
        assert!(self.open.is_empty(), "jumps to nowhere: {:?}", self.open);
        self.code
    }
}

/// The upper `length` bits.
fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::WorkerId;
    use crate::engine::nat::ports::Ports;
    use crate::engine::steering::owner;
    use crate::wire::{Endpoint, build};

    const WORKERS: u16 = 3;
    const FULL: &str = "[gateway]\nsource-addresses = ['10.99.0.10', '10.99.0.11', 'fd00:99::10']\n[[service]]\nname = 'web'\n\
                        listen = ['192.0.2.10:80', '[2001:db8::10]:80']\nbackends = [{ address = '10.0.0.1' }, { address = 'fd00::1' }]\n";

    fn snapshot(text: &str) -> Snapshot {
        crate::config::load(text, "test.toml", None, "gw").unwrap()
    }

    /// What a machine does with the program: the few operations that there are.
    #[expect(clippy::cast_possible_truncation, reason = "operations of 32 bits take the lower half of a register")]
    fn run(code: &[u64], packet: &[u8]) -> u16 {
        let (mut r, mut at) = ([0u64; 10], 0);
        loop {
            let [operation, registers, low, high, a, b, c, d] = code[at].to_le_bytes();
            let (to, from) = (usize::from(registers & 15), usize::from(registers >> 4));
            let (immediate, jump) = (u32::from_le_bytes([a, b, c, d]), usize::from(u16::from_le_bytes([low, high])));
            let (x, y) = (r[to] as u32, r[from] as u32);
            let load = |at: u32, len: usize| {
                let bytes = packet.get(at as usize..at as usize + len)?;
                Some(bytes.iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte)))
            };
            at += 1;
            let loaded = match operation {
                WORD => Some(load(immediate, 4)),
                HALF => Some(load(immediate, 2)),
                BYTE => Some(load(immediate, 1)),
                0x48 => Some(load(immediate + y, 2)),
                _ => None,
            };
            match loaded {
                Some(Some(word)) => r[0] = word,
                Some(None) => return 0,
                None => {}
            }
            let taken = match operation {
                JEQ => x == immediate,
                JNE => x != immediate,
                JA => true,
                EXIT => return r[0] as u16,
                _ => false,
            };
            at += if taken { jump } else { 0 };
            r[to] = match operation {
                MOV => immediate.into(),
                MOV_REG => y.into(),
                MOV64_REG => r[from],
                AND => (x & immediate).into(),
                LSH => (x << immediate).into(),
                RSH => (x >> immediate).into(),
                MUL => x.wrapping_mul(immediate).into(),
                MOD => (x % immediate).into(),
                XOR => (x ^ immediate).into(),
                XOR_REG => (x ^ y).into(),
                MUL64 => r[to] * u64::from(immediate),
                RSH64 => r[to] >> immediate,
                _ => r[to],
            };
        }
    }

    fn endpoint(text: &str) -> Endpoint {
        text.parse::<std::net::SocketAddr>().unwrap().into()
    }

    #[track_caller]
    fn assert_steered(text: &str, source: &str, destination: &str, to: WorkerId) {
        let code = program(&snapshot(text), WORKERS).unwrap();
        for packet in [
            build::udp(endpoint(source), endpoint(destination), b"hello"),
            build::tcp(endpoint(source), endpoint(destination), &build::Tcp::default()),
        ] {
            assert_eq!(WorkerId(run(&code, &packet)), to, "{source} -> {destination}");
        }
    }

    #[test]
    fn requests_go_where_the_engine_says_their_clients_belong() {
        for port in 1..500 {
            for (client, vip) in [
                (format!("198.51.100.7:{port}"), "192.0.2.10:80"),
                (format!("[2001:db8:1::7]:{port}"), "[2001:db8::10]:80"),
            ] {
                assert_steered(FULL, &client, vip, owner(endpoint(&client), WORKERS));
            }
        }
    }

    #[test]
    fn answers_go_to_whom_their_port_belongs() {
        for port in 1024..1100u16 {
            for source in ["10.99.0.10", "10.99.0.11", "[fd00:99::10]"] {
                let backend = if source.starts_with('[') { "[fd00::1]:80" } else { "10.0.0.1:80" };
                assert_steered(FULL, backend, &format!("{source}:{port}"), Ports::owner(port, WORKERS));
            }
        }
    }

    #[test]
    fn answers_to_clients_that_keep_their_addresses_go_by_those() {
        let keep = FULL
            .replace("name = 'web'", "name = 'web'\nsource-nat = false")
            .replace("192.0.2.10:80", "192.0.2.0/28:80");
        for port in 1..500 {
            for (client, vip, backend) in [
                (format!("198.51.100.7:{port}"), "192.0.2.10:80", "10.0.0.1:80"),
                (format!("[2001:db8:1::7]:{port}"), "[2001:db8::10]:80", "[fd00::1]:80"),
            ] {
                let whose = owner(endpoint(&client), WORKERS);
                assert_steered(&keep, &client, vip, whose);
                assert_steered(&keep, backend, &client, whose);
            }
        }
    }

    #[test]
    fn ports_are_found_behind_options_and_not_looked_for_in_fragments() {
        let code = program(&snapshot(FULL), WORKERS).unwrap();
        let client = (1..).map(|n| endpoint(&format!("198.51.100.7:{n}"))).find(|c| owner(*c, WORKERS).0 == 2).unwrap();
        let plain = build::udp(client, endpoint("192.0.2.10:80"), b"hello");
        let mut options = [&plain[..20], &[1; 4], &plain[20..]].concat();
        options[0] = 0x46;
        assert_eq!(run(&code, &options), 2);
        let mut fragment = plain.clone();
        fragment[6] |= 0x20;
        assert_eq!(run(&code, &fragment), 0);
        for len in 0..22 {
            assert_eq!(run(&code, &plain[..len]), 0);
        }
    }

    #[test]
    fn with_too_many_addresses_there_is_no_program() {
        let many: Vec<String> = (0..65).map(|n| format!("'10.99.1.{n}'")).collect();
        let text = FULL.replace("'10.99.0.10'", &many.join(", "));
        assert_eq!(program(&snapshot(&text), WORKERS), None);
    }
}
