//! Against real sockets on the loopback.

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::sync::mpsc;

use super::*;
use crate::config::load;

/// What is first said of the only backend of a service with these lines, at this port of the loopback, and why.
fn first_word(port: u16, protocol: &str, health: &str) -> (Option<bool>, Option<String>) {
    let text = format!(
        "[[service]]\nname = 's'\nprotocol = '{protocol}'\nsource-nat = false\nlisten = '192.0.2.1:80'\n\
         backends = [{{ address = '10.255.0.1:{port}' }}]\n[service.health]\ninterval = '200ms'\ntimeout = '200ms'\n{health}"
    );
    let mut snapshot = load(&text, "tungate.toml", None, "gw").unwrap_or_else(|report| panic!("{report}"));
    // No configuration may name the loopback; a test has nothing else.
    snapshot.backends[0].address = std::net::IpAddr::from([127, 0, 0, 1]).into();
    let prober = Prober::start(Shared::new(snapshot, 1, 7), Arc::new([]), Arc::default()).unwrap();
    assert!(sys::wait(&[prober.as_fd()], Some(Duration::from_secs(20))).unwrap().contains(0), "nothing is said");
    let change = prober.changes().remove(0);
    (change.up, change.reason.map(|reason| reason.to_string()))
}

fn down(why: &str) -> (Option<bool>, Option<String>) {
    (Some(false), Some(why.to_owned()))
}

const UP: (Option<bool>, Option<String>) = (Some(true), None);

/// A server that says this to everybody, whatever they ask; `None`: it is silent.
fn server(answer: Option<&'static str>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    sys::spawn("server", move || {
        let mut silent = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            match answer {
                Some(answer) => {
                    let _ = stream.read(&mut [0; 1024]);
                    let _ = stream.write_all(answer.as_bytes());
                }
                None => silent.push(stream),
            }
        }
    })
    .unwrap();
    port
}

#[test]
fn tcp_and_http_tell_what_is_wrong() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(first_word(free, "tcp", ""), down("connection refused"));
    let web = server(Some("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(first_word(web, "tcp", ""), UP);
    assert_eq!(first_word(web, "tcp", "check = 'http'"), down("HTTP 503"));
    assert_eq!(first_word(web, "tcp", "check = 'http'\nexpect = 503"), UP);
    assert_eq!(
        first_word(web, "tcp", "check = 'http'\nexpect = 503\nbody = 'ok'"),
        down("the page lacks what is expected")
    );
    assert_eq!(first_word(server(Some("SSH-2.0-x\r\n")), "tcp", "check = 'http'"), down("the answer is not HTTP"));
    assert_eq!(first_word(server(None), "tcp", "check = 'http'"), down("no answer"));
}

#[test]
fn udp_tells_a_dead_port_from_a_silent_one() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    assert_eq!(first_word(port, "udp", "check = 'udp'"), UP, "silence is all that was to be expected");
    assert_eq!(first_word(port, "udp", "check = 'udp'\nexpect = 'pong'"), down("no answer"));
    let (told, asked) = mpsc::channel();
    sys::spawn("echo", move || {
        let mut buffer = [0; 64];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            let _ = told.send(buffer[..count].to_vec());
            let _ = socket.send_to(b"a pong", from);
        }
    })
    .unwrap();
    assert_eq!(first_word(port, "udp", "check = 'udp'\nsend = 'ping'\nexpect = 'pong'"), UP);
    assert!(asked.try_iter().any(|datagram| datagram == b"ping"));
    assert_eq!(first_word(port, "udp", "check = 'udp'\nexpect = 'other'"), down("the answer lacks what is expected"));
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(first_word(free, "udp", "check = 'udp'"), down("port unreachable"));
}

#[test]
fn the_loopback_answers_a_ping() {
    if let Err(error) = sys::ping_socket(true) {
        println!("SKIPPED the_loopback_answers_a_ping: {error}; run as root");
        return;
    }
    assert_eq!(first_word(1, "tcp", "check = 'icmp'"), UP);
}
