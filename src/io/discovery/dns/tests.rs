use std::thread::JoinHandle;

use simple_dns::rdata::{A, RData, SRV};
use simple_dns::{CLASS, Name, Packet, PacketFlag, RCODE, ResourceRecord};

use super::*;

/// A server on the loopback that treats one question in this way, by UDP.
fn server(treat: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let thread = sys::spawn("server", move || {
        let mut bytes = [0; 1500];
        let (len, client) = socket.recv_from(&mut bytes).unwrap();
        for answer in treat(&bytes[..len]) {
            socket.send_to(&answer, client).unwrap();
        }
    });
    (address, thread.unwrap())
}

/// The answer to a question, changed in this way.
fn answer(question: &[u8], change: impl FnOnce(&mut Packet<'_>)) -> Vec<u8> {
    let mut packet = Packet::parse(question).unwrap().into_reply();
    change(&mut packet);
    packet.build_bytes_vec().unwrap()
}

fn name(text: &str) -> Name<'static> {
    Name::new(text).unwrap().into_owned()
}

fn a(owner: &str, ttl: u32, last: u8) -> ResourceRecord<'static> {
    let address = u32::from_be_bytes([10, 0, 0, last]);
    ResourceRecord::new(name(owner), CLASS::IN, ttl, RData::A(A { address }))
}

fn srv(target: &str, priority: u16, weight: u16) -> ResourceRecord<'static> {
    let srv = SRV { priority, weight, port: 8080, target: name(target) };
    ResourceRecord::new(name("_http._tcp.web.test"), CLASS::IN, 30, RData::SRV(srv))
}

fn dns(resolver: SocketAddr, records: Records) -> Dns {
    let asked = if records == Records::Srv { "_http._tcp.web.test" } else { "web.test" };
    Dns::new(DnsName { name: asked.into(), records, port: Some(80), resolver: Some(resolver) }, None)
}

fn names(answer: Option<Answer>) -> Vec<String> {
    answer.unwrap().unwrap().into_iter().map(|found| found.name).collect()
}

#[test]
fn addresses_come_with_their_time_to_live() {
    let (address, thread) = server(|question| {
        vec![answer(question, |packet| packet.answers.extend([a("web.test", 60, 2), a("web.test", 20, 1)]))]
    });
    let mut dns = dns(address, Records::A);
    assert_eq!(names(dns.ask(Instant::ZERO, &Leave::never())), ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!(dns.patience(), Duration::from_secs(20), "the shorter one");
    thread.join().unwrap();
}

#[test]
fn garbage_and_the_answers_of_others_are_passed_over() {
    let (address, thread) = server(|question| {
        let other_id = answer(question, |packet| {
            packet.set_id(packet.id() ^ 1);
            packet.answers.push(a("web.test", 60, 66));
        });
        let other_question = answer(question, |packet| {
            packet.questions[0].qname = name("evil.test");
            packet.answers.push(a("web.test", 60, 66));
        });
        let true_one = answer(question, |packet| packet.answers.push(a("web.test", 60, 1)));
        vec![
            Vec::new(),
            vec![0xff; 700],
            question.to_vec(),
            other_id,
            other_question,
            true_one[..20].to_vec(),
            true_one,
        ]
    });
    assert_eq!(names(dns(address, Records::A).ask(Instant::ZERO, &Leave::never())), ["10.0.0.1:80"]);
    thread.join().unwrap();
}

#[test]
fn garbage_alone_a_refusal_and_silence_are_failures_and_no_empty_answers() {
    for code in [RCODE::NameError, RCODE::ServerFailure, RCODE::Refused] {
        let (address, thread) = server(move |question| vec![answer(question, |packet| *packet.rcode_mut() = code)]);
        let why = dns(address, Records::A).ask(Instant::ZERO, &Leave::never()).unwrap().unwrap_err();
        assert!(why.contains("the server says"), "{why}");
        thread.join().unwrap();
    }
    let (address, thread) = server(|_| vec![vec![7; 100]]);
    let mut dns = dns(address, Records::A);
    assert!(dns.ask(Instant::ZERO, &Leave::never()).unwrap().is_err());
    assert_eq!(dns.patience(), RETRY);
    thread.join().unwrap();
    assert!(dns.ask(Instant::ZERO, &Leave::never()).unwrap().is_err(), "nobody is there any more");
}

#[test]
fn an_empty_answer_is_one() {
    let (address, thread) = server(|question| vec![answer(question, |_| {})]);
    let mut dns = dns(address, Records::A);
    assert_eq!(dns.ask(Instant::ZERO, &Leave::never()), Some(Ok(Vec::new())));
    assert_eq!(dns.patience(), CONFIRM_AFTER);
    thread.join().unwrap();
}

#[test]
fn servers_have_the_weights_ports_and_ranks_of_their_records() {
    let (address, thread) = server(|question| {
        vec![answer(question, |packet| {
            packet.answers.extend([
                srv("b1.test", 10, 0),
                srv("b2.test", 10, 60),
                srv("b3.test", 20, 5),
                srv("b3.test", 20, 5),
                srv("_no_name_of_ours.test", 20, 5),
            ]);
            packet.additional_records.extend([
                a("B1.test", 9, 1),
                a("b2.test", 9, 2),
                a("b2.test", 9, 4),
                a("b3.test", 9, 3),
                a("_no_name_of_ours.test", 9, 5),
            ]);
        })]
    });
    let found = dns(address, Records::Srv).ask(Instant::ZERO, &Leave::never()).unwrap().unwrap();
    let seen: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.port, one.weight, one.backup)).collect();
    let at = Some(8080);
    assert_eq!(
        seen,
        [
            ("b1.test", at, 1, false),
            ("10.0.0.2:8080", at, 60, false),
            ("b3.test", at, 5, true),
            ("10.0.0.4:8080", at, 60, false),
            ("10.0.0.5:8080", at, 5, true),
        ]
    );
    thread.join().unwrap();
}

#[test]
fn what_does_not_fit_a_datagram_is_asked_by_tcp() {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(address).unwrap();
    let thread = sys::spawn("server", move || {
        let mut bytes = [0; 1500];
        let (len, client) = socket.recv_from(&mut bytes).unwrap();
        let cut = answer(&bytes[..len], |packet| packet.set_flags(PacketFlag::TRUNCATION));
        socket.send_to(&cut, client).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut question = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut question).unwrap();
        let whole = answer(&question, |packet| packet.answers.extend((1..=200).map(|n| a("web.test", 5, n))));
        stream.write_all(&[&u16::try_from(whole.len()).unwrap().to_be_bytes()[..], &whole].concat()).unwrap();
    });
    assert_eq!(names(dns(address, Records::A).ask(Instant::ZERO, &Leave::never())).len(), 200);
    thread.unwrap().join().unwrap();
}

#[test]
fn resolv_conf_names_the_resolvers() {
    let text = "# a comment\nsearch example.org\nnameserver 10.0.0.53\n nameserver  fd00::53 \nnameserver nonsense\n";
    let found: Vec<_> = resolvers(text).map(|server| server.to_string()).collect();
    assert_eq!(found, ["10.0.0.53:53", "[fd00::53]:53"]);
}

#[test]
fn no_bytes_make_the_reader_panic() {
    let question = question(7, "web.test", Kind::A).unwrap();
    let whole = answer(&question, |packet| packet.answers.extend([a("web.test", 5, 1), a("web.test", 5, 2)]));
    for at in 0..whole.len() {
        for value in [0, 1, 0x3f, 0xc0, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            let _ = read(&bytes, 7, "web.test", Kind::A);
            let _ = read(&bytes[..at], 7, "web.test", Kind::A);
        }
    }
}
