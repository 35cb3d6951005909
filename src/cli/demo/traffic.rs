//! The demo's backends and client: plain sockets that know nothing of the gateway between them.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::time::Duration;

use crate::io::sys;
use crate::io::words::in_words;

/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of the large download, a request of its own.
pub(super) const DOWNLOAD: usize = 64 << 20;

/// The four ways of the demo: what a client asks, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    TcpV4,
    TcpV6,
    UdpV4,
    UdpV6,
}

impl Way {
    pub(super) const ALL: [Self; 4] = [Self::TcpV4, Self::TcpV6, Self::UdpV4, Self::UdpV6];

    /// For the table.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::TcpV4 => "TCP over IPv4",
            Self::TcpV6 => "TCP over IPv6",
            Self::UdpV4 => "UDP over IPv4",
            Self::UdpV6 => "UDP over IPv6",
        }
    }

    /// The service's address.
    pub(super) fn service(self) -> SocketAddr {
        let text = match self {
            Self::TcpV4 => "192.0.2.10:80",
            Self::TcpV6 => "[2001:db8::10]:80",
            Self::UdpV4 => "192.0.2.10:53",
            Self::UdpV6 => "[2001:db8::10]:53",
        };
        text.parse().expect("the demo's addresses are written by us")
    }

    /// One request over a flow of its own. The answer: `b1 saw 10.99.0.10:40000`.
    fn ask(self) -> io::Result<Asked> {
        match self {
            Self::TcpV4 | Self::TcpV6 => {
                let (stream, client) = connect(self.service())?;
                (&stream).write_all(b"hello\n")?;
                let mut answer = String::new();
                BufReader::new(stream).read_line(&mut answer)?;
                Ok(Asked { client, answer: answer.trim_end().to_owned() })
            }
            Self::UdpV4 | Self::UdpV6 => {
                let any = if self == Self::UdpV4 { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.connect(self.service())?;
                socket.send(b"hello")?;
                let mut answer = [0; 128];
                let len = socket.recv(&mut answer)?;
                let answer = String::from_utf8_lossy(&answer[..len]).into_owned();
                Ok(Asked { client: socket.local_addr()?, answer })
            }
        }
    }
}

struct Asked {
    client: SocketAddr,
    answer: String,
}

/// What has been asked and answered so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Answers by way and backend.
    pub(super) answered: BTreeMap<(Way, String), u64>,
    /// Requests that got none.
    pub(super) failed: BTreeMap<Way, u64>,
    /// Why the last of them failed.
    pub(super) last_failure: Option<String>,
    /// For each way a flow as both ends saw it.
    pub(super) example: BTreeMap<Way, String>,
}

impl Tally {
    pub(super) fn answered_on(&self, way: Way) -> u64 {
        self.answered.iter().filter(|((on, _), _)| *on == way).map(|(_, n)| n).sum()
    }

    pub(super) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

/// Asks once, and writes down what came of it.
pub(super) fn ask(way: Way, tally: &Mutex<Tally>) {
    let asked = way.ask();
    let mut tally = tally.lock().expect("nobody panics while counting");
    let Asked { client, answer } = match asked {
        Ok(asked) => asked,
        Err(error) => {
            tally.last_failure = Some(format!("{}: {}", way.name(), in_words(&error)));
            return *tally.failed.entry(way).or_default() += 1;
        }
    };
    let Some((backend, seen)) = answer.split_once(" saw ") else {
        tally.last_failure = Some(format!("{}: a garbled answer, {answer:?}", way.name()));
        return *tally.failed.entry(way).or_default() += 1;
    };
    let example = format!("client {client} asked {}, {backend} was asked by {seen}", way.service());
    *tally.answered.entry((way, backend.to_owned())).or_default() += 1;
    tally.example.insert(way, example);
}

/// Downloads [`DOWNLOAD`] bytes and checks each; bytes a second.
pub(super) fn download(way: Way) -> io::Result<f64> {
    let (mut stream, _) = connect(way.service())?;
    let start = sys::now();
    stream.write_all(b"download\n")?;
    let mut buffer = vec![0; 1 << 16];
    let mut got = 0;
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            break;
        }
        if buffer[..len].iter().zip(got..).any(|(byte, at)| *byte != pattern(at)) {
            return Err(io::Error::other("the download was damaged on the way"));
        }
        got += len;
    }
    if got != DOWNLOAD {
        return Err(io::Error::other(format!("the download broke off after {got} bytes")));
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    Ok(DOWNLOAD as f64 / sys::now().since(start).as_secs_f64())
}

fn connect(to: SocketAddr) -> io::Result<(TcpStream, SocketAddr)> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let client = stream.local_addr()?;
    Ok((stream, client))
}

/// The byte at this place of the download: no period of a power of two, so that swapped segments would show.
#[expect(clippy::cast_possible_truncation, reason = "taken modulo 251")]
const fn pattern(at: usize) -> u8 {
    (at % 251) as u8
}

/// Starts one backend on the calling thread's namespace, listening for TCP and UDP at these addresses, in threads of its
/// own. `[::]` takes IPv4 too.
pub(super) fn serve(name: &'static str, tcp: &str, udp: &[&str]) -> io::Result<()> {
    let listener = TcpListener::bind(tcp)?;
    sys::spawn(&format!("{name}-tcp"), move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away early is the client's business.
            let _ = sys::spawn(name, move || answer(name, &stream));
        }
    })?;
    for address in udp {
        let socket = UdpSocket::bind(address)?;
        sys::spawn(&format!("{name}-udp"), move || {
            let mut request = [0; 128];
            while let Ok((_, from)) = socket.recv_from(&mut request) {
                let _ = socket.send_to(format!("{name} saw {}", plain(from)).as_bytes(), from);
            }
        })?;
    }
    Ok(())
}

fn answer(name: &str, stream: &TcpStream) -> io::Result<()> {
    let mut request = String::new();
    BufReader::new(stream).read_line(&mut request)?;
    let mut out = stream;
    if request != "download\n" {
        return writeln!(out, "{name} saw {}", plain(stream.peer_addr()?));
    }
    let chunk: Vec<u8> = (0..251 << 8).map(pattern).collect();
    let mut left = DOWNLOAD;
    while left > 0 {
        let len = left.min(chunk.len());
        out.write_all(&chunk[..len])?;
        left -= len;
    }
    Ok(())
}

/// An IPv4 peer of an IPv6 socket, as IPv4.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
