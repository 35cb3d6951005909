//! Traffic for `netns-scripts/bench.sh`: a packet generator, an echo server, and clients that check what comes back.
//!
//! ```text
//! traffic flood INTERFACE MAC SOURCE DESTINATION FLOWS SECONDS BYTES
//!                                                                datagrams of so many bytes, as many as go; MAC is the
//!                                                                next hop's
//! traffic echo PORT                                              sends back what it is sent, by TCP
//! traffic latency DESTINATION SECONDS                            a request of 64 bytes each millisecond
//! traffic intact DESTINATION MEGABYTES                           a stream there and back, every byte compared
//! ```
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a program that takes real time and prints")]

use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use tungate::io::sys;
use tungate::wire::{Endpoint, build};

type Outcome = Result<(), Box<dyn Error>>;

/// What the receiver looks for, over and over: a datagram with anything else in it has not arrived.
const PAYLOAD: &[u8; 18] = b"eighteen bytes now";

fn main() -> Outcome {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["flood", interface, mac, source, destination, flows, seconds, bytes] => {
            let (source, destination) = (endpoint(source)?, endpoint(destination)?);
            let payload = PAYLOAD.iter().copied().cycle().take(bytes.parse()?).collect();
            let flows = Flows { source, destination, count: flows.parse()?, payload };
            flood(interface, mac, &flows, seconds.parse().map(Duration::from_secs)?)
        }
        ["echo", port] => echo(port.parse()?),
        ["latency", destination, seconds] => latency(destination, seconds.parse().map(Duration::from_secs)?),
        ["intact", destination, megabytes] => intact(destination, megabytes.parse()?),
        _ => Err("usage: traffic flood|echo|latency|intact ...".into()),
    }
}

/// Flows that differ in their source port.
struct Flows {
    source: Endpoint,
    destination: Endpoint,
    count: u16,
    payload: Vec<u8>,
}

/// Sends a datagram of each flow in turn, past the sender's own IP stack; prints how many a second.
fn flood(interface: &str, mac: &str, flows: &Flows, time: Duration) -> Outcome {
    let attribute = |name: &str| fs::read_to_string(format!("/sys/class/net/{interface}/{name}"));
    let link = [parse_mac(mac)?, parse_mac(attribute("address")?.trim())?].concat();
    let frame = |n: u16| {
        let source = Endpoint::new(flows.source.address, flows.source.port + n);
        [&link[..], &[0x08, 0x00], &build::udp(source, flows.destination, &flows.payload)].concat()
    };
    let frames: Vec<Vec<u8>> = (0..flows.count).map(frame).collect();
    let hear_nothing = libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0 };
    let mut socket = sys::packet_socket(attribute("ifindex")?.trim().parse()?, 0, &[hear_nothing])?;
    let (begin, mut sent) = (Instant::now(), 0u64);
    let mut each = frames.iter().cycle();
    while begin.elapsed() < time {
        for frame in each.by_ref().take(64) {
            match socket.write(frame) {
                Ok(_) => sent += 1,
                // The interface's queue is full: the packet is not counted as sent.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    println!("{:.0}", sent as f64 / begin.elapsed().as_secs_f64());
    Ok(())
}

fn echo(port: u16) -> Outcome {
    for stream in TcpListener::bind(("0.0.0.0", port))?.incoming() {
        let mut stream = stream?;
        stream.set_nodelay(true)?;
        thread::spawn(move || io::copy(&mut stream.try_clone()?, &mut stream));
    }
    Ok(())
}

/// Prints the median and the 99th percentile of the time to the answer, in microseconds.
fn latency(destination: &str, time: Duration) -> Outcome {
    let mut stream = TcpStream::connect(destination)?;
    stream.set_nodelay(true)?;
    let mut times = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < time || times.len() < 100 {
        let request = [u8::try_from(times.len() % 256)?; 64];
        let mut answer = [0; 64];
        let sent = Instant::now();
        stream.write_all(&request)?;
        stream.read_exact(&mut answer)?;
        times.push(sent.elapsed());
        if answer != request {
            return Err("an answer is not what was sent".into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    times.sort_unstable();
    let at = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1e6;
    println!("{:.1} {:.1}", at(50), at(99));
    Ok(())
}

/// Fails unless every byte comes back, in order.
fn intact(destination: &str, megabytes: usize) -> Outcome {
    let stream = TcpStream::connect(destination)?;
    let (mut writer, mut reader) = (stream.try_clone()?, stream);
    let sender = thread::spawn(move || -> io::Result<()> {
        let mut bytes = Noise::default();
        (0..megabytes).try_for_each(|_| writer.write_all(&bytes.megabyte()))?;
        writer.shutdown(std::net::Shutdown::Write)
    });
    let (mut bytes, mut arrived) = (Noise::default(), vec![0; 1 << 20]);
    for n in 0..megabytes {
        reader.read_exact(&mut arrived)?;
        if arrived != bytes.megabyte() {
            return Err(format!("megabyte {n} is not what was sent").into());
        }
    }
    sender.join().expect("the sender does not panic")?;
    Ok(())
}

/// Bytes that never repeat (SplitMix64), so that what is lost, doubled or out of place shows.
#[derive(Default)]
struct Noise(u64);

impl Noise {
    fn megabyte(&mut self) -> Vec<u8> {
        (0..1 << 17).flat_map(|_| self.next().to_ne_bytes()).collect()
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ mixed >> 27
    }
}

fn endpoint(text: &str) -> Result<Endpoint, Box<dyn Error>> {
    Ok(text.parse::<std::net::SocketAddr>()?.into())
}

fn parse_mac(text: &str) -> Result<Vec<u8>, std::num::ParseIntError> {
    text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect()
}
