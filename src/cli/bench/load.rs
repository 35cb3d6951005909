//! The loads of `bench tun`: plain sockets, and a packet socket where a socket's own cost would be most of it.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::io::netlink::Netlink;
use crate::io::sys;
use crate::wire::{Endpoint, build};

/// What the TCP server is asked first: to take in what comes, or to send it back.
const SINK: &[u8; 1] = b"s";
const ECHO: &[u8; 1] = b"e";
/// Bytes of a request, and of its answer.
const REQUEST: usize = 64;
/// Payload of the small datagrams.
const SMALL: &[u8; 18] = b"eighteen bytes now";
/// A connection that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// The backend: a TCP server, and a UDP port that nobody reads, where the kernel counts what arrives.
#[derive(Debug)]
pub(super) struct Backend {
    /// Bytes that the TCP server has taken in.
    taken: Arc<AtomicU64>,
    _datagrams: UdpSocket,
}

impl Backend {
    /// Starts it in the calling thread's namespace, at both ports.
    pub(super) fn start(tcp: SocketAddr, udp: SocketAddr) -> io::Result<Self> {
        let (listener, taken) = (TcpListener::bind(tcp)?, Arc::new(AtomicU64::new(0)));
        let counter = Arc::clone(&taken);
        sys::spawn("bench-server", move || {
            for stream in listener.incoming().flatten() {
                let taken = Arc::clone(&counter);
                // What becomes of a connection, its client notices.
                let _ = sys::spawn("bench-stream", move || serve(stream, &taken));
            }
        })?;
        Ok(Self { taken, _datagrams: UdpSocket::bind(udp)? })
    }

    /// Bytes that came by [`Stream`]s so far.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }
}

fn serve(mut stream: TcpStream, taken: &AtomicU64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut kind, mut buffer) = ([0], vec![0; 1 << 17]);
    stream.read_exact(&mut kind)?;
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        taken.fetch_add(len as u64, Relaxed);
        if kind == *ECHO {
            stream.write_all(&buffer[..len])?;
        }
    }
}

/// Sends as much as goes, until the time is over.
pub(super) fn stream(to: SocketAddr, time: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(SINK)?;
    let (bytes, until) = (vec![7; 1 << 17], sys::now() + time);
    while sys::now() < until {
        stream.write_all(&bytes)?;
    }
    Ok(())
}

/// Times from request to answer at a request a millisecond, one at a time; sorted, at least one.
pub(super) fn requests(to: SocketAddr, time: Duration) -> io::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(ECHO)?;
    let (mut times, until) = (Vec::new(), sys::now() + time);
    while times.is_empty() || sys::now() < until {
        let mut answer = [0; REQUEST];
        let sent = sys::now();
        stream.write_all(&[0x55; REQUEST])?;
        stream.read_exact(&mut answer)?;
        times.push(sys::now().since(sent));
        sys::wait(&[], Some(Duration::from_millis(1)))?;
    }
    times.sort_unstable();
    Ok(times)
}

/// Sends small datagrams of so many flows in turn, past the sender's own IP stack, until the time is over.
pub(super) fn flood(gateway: [u8; 6], from: SocketAddr, to: SocketAddr, flows: u16, time: Duration) -> io::Result<()> {
    let link = Netlink::open().and_then(|mut netlink| netlink.link("eth0")).map_err(io::Error::other)?;
    let own = link.hardware_address.ok_or(io::ErrorKind::NotFound)?;
    let (from, to) = (Endpoint::from(from), Endpoint::from(to));
    let frame = |n| {
        let datagram = build::udp(Endpoint::new(from.address, from.port + n), to, SMALL);
        [&gateway[..], &own, &[0x08, 0x00], &datagram].concat()
    };
    let frames: Vec<Vec<u8>> = (0..flows).map(frame).collect();
    // BPF_RET: it hears nothing.
    let deaf = libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0 };
    let mut socket = sys::packet_socket(link.index, 0, &[deaf])?;
    let (mut each, until) = (frames.iter().cycle(), sys::now() + time);
    while sys::now() < until {
        for frame in each.by_ref().take(64) {
            match socket.write(frame) {
                // The interface's queue is full.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN)) => {}
                sent => drop(sent?),
            }
        }
    }
    Ok(())
}

/// UDP datagrams that have come to the sockets of the calling thread's namespace, read or not.
pub(super) fn datagrams() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let counted =
        names.split(' ').zip(values.split(' ')).filter(|(name, _)| matches!(*name, "InDatagrams" | "InErrors"));
    Ok(counted.filter_map(|(_, value)| value.parse::<u64>().ok()).sum())
}
