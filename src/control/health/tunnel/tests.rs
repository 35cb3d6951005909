//! A backend by hand at the other end of the tunnel.

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::socket::tcp as smol_tcp;
use smoltcp::wire::{HardwareAddress, IpCidr};

use super::web::{Link, smol};
use super::*;
use crate::config::{Check, HttpCheck, UdpCheck};
use crate::wire::build::Tcp;
use crate::wire::icmp::Error;
use crate::wire::tunnel::Encapsulation;
use crate::wire::{Address, TcpFlags};

const VIP: Address = Address::v4([192, 0, 2, 10]);
const BACKEND: Address = Address::v4([10, 0, 0, 1]);
const SOURCE: Address = Address::v4([10, 99, 0, 10]);
const TUNNEL: Tunnel = Tunnel { encapsulation: Encapsulation::Gre, source: SOURCE, destination: BACKEND };

fn at(millis: u64) -> Instant {
    Instant::from_micros(1_000_000 + millis * 1000)
}

/// The gateway's end, asked this.
fn asked(check: Check) -> Tunnels {
    let query = Query {
        endpoint: Endpoint::new(VIP, if check.needs_port() { 80 } else { 0 }),
        check,
        way: Way::Tunnel { tunnel: TUNNEL, source: SOURCE },
        timeout: Duration::from_secs(1),
        interval: Duration::from_secs(2),
    };
    let mut tunnels = Tunnels::new(1500, 7);
    tunnels.begin(&Question { id: QuestionId { target: 0, round: 1 }, what: Arc::new(query) }, at(0));
    tunnels
}

/// The outer packets that leave, and what was inside: which has to come by the tunnel.
fn wrapped(tunnels: &mut Tunnels) -> Vec<(Vec<u8>, Vec<u8>)> {
    let packets: Vec<_> = tunnels.outgoing().collect();
    packets
        .into_iter()
        .map(|outer| {
            let mut bytes = outer.clone();
            let packet = Packet::parse(&mut bytes, Offload::default()).unwrap();
            assert_eq!(packet.addresses(), (SOURCE, BACKEND));
            let protocol = packet.protocol();
            let mut payload = packet.transport().to_vec();
            let inner = tunnel::open(TUNNEL.encapsulation, protocol, &mut payload).unwrap().to_vec();
            (outer, inner)
        })
        .collect()
}

fn only_answer(tunnels: &mut Tunnels) -> Outcome {
    let [(_, answer)] = <[_; 1]>::try_from(tunnels.answers()).unwrap();
    assert!(tunnels.poll_timeout().is_none(), "nothing is left to do");
    answer.outcome
}

fn fault(fault: TunnelFault) -> Outcome {
    Outcome::Bad(Reason::Tunnel(fault))
}

/// Lives to the end of the question's time.
fn wait(tunnels: &mut Tunnels) {
    while let Some(then) = tunnels.poll_timeout() {
        tunnels.handle_timeout(then);
    }
}

#[test]
fn a_syn_ack_is_good_and_its_connection_is_ended() {
    let mut tunnels = asked(Check::Tcp);
    let (_, mut syn) = wrapped(&mut tunnels).remove(0);
    let syn = Packet::parse(&mut syn, Offload::default()).unwrap();
    let (from, to) = syn.endpoints().unwrap();
    assert_eq!((from.address, to), (SOURCE, Endpoint::new(VIP, 80)));
    assert!(FOR_CHECKS.contains(&from.port));
    let segment = syn.tcp().unwrap();
    let answer = |ack| build::tcp(to, from, &Tcp { seq: 9, ack, flags: TcpFlags(0x12), ..Tcp::default() });
    tunnels.hear(answer(segment.seq), at(1));
    assert_eq!(tunnels.answers(), [], "an answer to something else");
    tunnels.hear(answer(segment.seq + 1), at(1));
    assert_eq!(only_answer(&mut tunnels), Outcome::Good);
    let (_, mut reset) = wrapped(&mut tunnels).remove(0);
    let reset = Packet::parse(&mut reset, Offload::default()).unwrap();
    assert_eq!(reset.tcp().map(|segment| (segment.seq, segment.flags)), Some((segment.seq + 1, TcpFlags::RST)));
}

#[test]
fn a_reset_says_that_the_vip_is_there() {
    let mut tunnels = asked(Check::Tcp);
    let (_, mut syn) = wrapped(&mut tunnels).remove(0);
    let syn = Packet::parse(&mut syn, Offload::default()).unwrap();
    let ((from, to), ack) = (syn.endpoints().unwrap(), syn.tcp().unwrap().seq + 1);
    tunnels.hear(build::tcp(to, from, &Tcp { ack, flags: TcpFlags(0x14), ..Tcp::default() }), at(1));
    assert_eq!(only_answer(&mut tunnels), fault(TunnelFault::Refused));
}

#[test]
fn silence_is_told_by_what_the_backend_itself_says() {
    for (alive, expected) in [(true, TunnelFault::NoAnswerButAlive), (false, TunnelFault::NoAnswer)] {
        let mut tunnels = asked(Check::Tcp);
        assert_eq!(tunnels.outgoing().count(), 1);
        tunnels.handle_timeout(at(499));
        assert_eq!(tunnels.outgoing().count(), 0);
        tunnels.handle_timeout(at(500));
        let packets: Vec<_> = tunnels.outgoing().collect();
        let [ping, _] = &packets[..] else { panic!("a ping and the SYN again") };
        let mut ping = ping.clone();
        let ping = Packet::parse(&mut ping, Offload::default()).unwrap();
        assert_eq!((ping.addresses(), icmp::kind(&ping)), ((SOURCE, BACKEND), Some(icmp::Kind::EchoRequest)));
        if alive {
            tunnels.hear(icmp::echo_reply(&ping).unwrap(), at(501));
        }
        wait(&mut tunnels);
        assert_eq!(only_answer(&mut tunnels), fault(expected));
    }
}

#[test]
fn an_error_about_the_tunnel_decides_only_if_it_quotes_what_was_asked() {
    let error = |quote: &[u8]| icmp::error_quoting(quote, Error::PortUnreachable, BACKEND, SOURCE);
    let mut tunnels = asked(Check::Tcp);
    let (outer, _) = wrapped(&mut tunnels).remove(0);
    let mut forged = outer.clone();
    *forged.last_mut().unwrap() ^= 1; // a checksum: the quote need not have it right
    let at_seq = outer.len() - 20 + 4;
    forged[at_seq] ^= 1;
    tunnels.hear(error(&forged), at(1));
    assert_eq!(tunnels.answers(), []);
    tunnels.hear(error(&outer), at(2));
    assert_eq!(only_answer(&mut tunnels), fault(TunnelFault::NotDecapsulated));

    let mut tunnels = asked(Check::Icmp);
    let (outer, _) = wrapped(&mut tunnels).remove(0);
    tunnels.hear(error(&outer), at(2));
    assert_eq!(only_answer(&mut tunnels), fault(TunnelFault::NotDecapsulated));

    // One about a client's packet decides nothing, but it explains the silence.
    let mut tunnels = asked(Check::Tcp);
    drop(wrapped(&mut tunnels));
    tunnels.hear(error(&forged), at(1));
    wait(&mut tunnels);
    assert_eq!(only_answer(&mut tunnels), fault(TunnelFault::NotDecapsulated));
}

#[test]
fn a_ping_and_a_datagram_are_answered_from_the_vip() {
    let mut tunnels = asked(Check::Icmp);
    let (_, mut ping) = wrapped(&mut tunnels).remove(0);
    let ping = Packet::parse(&mut ping, Offload::default()).unwrap();
    tunnels.hear(icmp::echo_reply(&ping).unwrap(), at(1));
    assert_eq!(only_answer(&mut tunnels), Outcome::Good);

    let check = || Check::Udp(UdpCheck { send: "ping".into(), expect: Some("pong".into()) });
    for (said, expected) in [("a pong", Outcome::Good), ("no", Outcome::Bad(Reason::Unexpected))] {
        let mut tunnels = asked(check());
        let (_, mut datagram) = wrapped(&mut tunnels).remove(0);
        let datagram = Packet::parse(&mut datagram, Offload::default()).unwrap();
        let (from, to) = datagram.endpoints().unwrap();
        assert_eq!(&datagram.transport()[8..], b"ping");
        tunnels.hear(build::udp(to, from, said.as_bytes()), at(1));
        assert_eq!(only_answer(&mut tunnels), expected);
    }
    let mut tunnels = asked(check());
    let (_, datagram) = wrapped(&mut tunnels).remove(0);
    tunnels.hear(icmp::error_quoting(&datagram, Error::PortUnreachable, VIP, SOURCE), at(1));
    assert_eq!(only_answer(&mut tunnels), Outcome::Bad(Reason::PortUnreachable));
}

/// What a server at the VIP that says this to everybody makes of a check.
fn served(page: &[u8], check: HttpCheck) -> Outcome {
    let mut tunnels = asked(Check::Http(check));
    let mut link = Link::default();
    let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut link, smol(at(0)));
    interface.update_ip_addrs(|addresses| addresses.push(IpCidr::new(VIP.ip().into(), 0)).unwrap());
    let buffer = || smol_tcp::SocketBuffer::new(vec![0; 4096]);
    let mut server = smol_tcp::Socket::new(buffer(), buffer());
    server.listen(80).unwrap();
    let mut sockets = SocketSet::new(Vec::new());
    let server = sockets.add(server);
    for now in (0..900).map(at) {
        tunnels.handle_timeout(now);
        link.incoming.extend(wrapped(&mut tunnels).into_iter().map(|(_, inner)| inner));
        interface.poll(smol(now), &mut link, &mut sockets);
        let socket = sockets.get_mut::<smol_tcp::Socket<'_>>(server);
        if socket.can_recv() {
            let asked = socket.recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap();
            assert!(asked.starts_with(b"GET / HTTP/1.0\r\nHost: 192.0.2.10:80\r\n"));
            socket.send_slice(page).unwrap();
            socket.close();
        }
        interface.poll(smol(now), &mut link, &mut sockets);
        for packet in std::mem::take(&mut link.outgoing) {
            tunnels.hear(packet, now);
        }
        if let Some((_, answer)) = tunnels.answers().pop() {
            return answer.outcome;
        }
    }
    panic!("no answer within the time of the check");
}

#[test]
fn a_page_is_read_through_the_tunnel() {
    let check = |body: Option<&str>| HttpCheck {
        path: "/".into(),
        host: None,
        status: 200..=299,
        body: body.map(str::to_owned),
    };
    assert_eq!(served(b"HTTP/1.1 200 OK\r\n\r\nall is well", check(Some("well"))), Outcome::Good);
    assert_eq!(served(b"HTTP/1.1 503 Busy\r\n\r\n", check(None)), Outcome::Bad(Reason::Status(503)));
    assert_eq!(served(b"HTTP/1.1 200 OK\r\n\r\nno", check(Some("well"))), Outcome::Bad(Reason::BodyLacks));
}

#[test]
fn no_two_questions_have_the_same_port_and_none_is_lost_when_there_are_too_many() {
    let mut tunnels = asked(Check::Tcp);
    let what = Arc::clone(&tunnels.asked.values().next().unwrap().query);
    for round in 2..=257 {
        tunnels.begin(&Question { id: QuestionId { target: 0, round }, what: Arc::clone(&what) }, at(0));
    }
    assert_eq!(tunnels.asked.len(), 256);
    let [(id, Answer { outcome: Outcome::NotAsked(_), .. })] = &tunnels.answers()[..] else { panic!() };
    assert_eq!(id.round, 257);
}
