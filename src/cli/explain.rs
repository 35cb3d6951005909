//! `explain`: one packet through a copy of the engine.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::check;
use super::exit::{Exit, Failure};
use super::output::{Format, Printer, View};
use super::show::{Daemon, items};
use crate::admin::{self, Explanation, Probe, Request, Response, hex};
use crate::engine::{Instant, Shared};
use crate::io::serve::Client;
use crate::wire::build::{self, Tcp};
use crate::wire::{Address, Endpoint, TcpFlags};

/// Tell what the gateway would do with a packet, stage by stage
///
/// A copy of the engine decides, so nothing happens to the gateway: the running daemon's copy, which knows its flows, or
/// with -c one that has just started with this configuration and has no flows.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tungate explain tcp 198.51.100.7:40000 192.0.2.10:80\n  \
                        tungate explain udp 198.51.100.7:40000 192.0.2.10:53 --size 1400 -c tungate.toml\n  \
                        tungate explain icmp 2001:db8:1::7 2001:db8::10")]
pub(super) struct Explain {
    /// The protocol; icmp is an echo request, of the addresses' family
    #[arg(value_name = "PROTO")]
    protocol: Proto,
    /// Where the packet comes from: ADDRESS:PORT, or with icmp ADDRESS
    #[arg(value_name = "SRC")]
    source: End,
    /// Where it goes
    #[arg(value_name = "DST")]
    destination: End,
    /// Ask a gateway that has just started with this configuration file, not the running daemon
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// TCP flags [default: SYN]
    #[arg(long, value_name = "FLAG,...", value_parser = flags)]
    flags: Option<TcpFlags>,
    /// Size of the IP packet in bytes [default: no payload]
    #[arg(long, value_name = "BYTES")]
    size: Option<u16>,
    /// How to print it; wide and JSON have the packet that leaves, in hex, too
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Proto {
    Tcp,
    Udp,
    Icmp,
}

/// One end, as people write it.
#[derive(Clone, Copy, Debug)]
struct End {
    address: IpAddr,
    port: Option<u16>,
}

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return Ok(Self { address: socket.ip(), port: Some(socket.port()) });
        }
        let address = text.parse().map_err(|_| "write 192.0.2.10:80, [2001:db8::10]:80, or an address".to_owned())?;
        Ok(Self { address, port: None })
    }
}

fn flags(text: &str) -> Result<TcpFlags, String> {
    let one = |name: &str| match name.to_ascii_uppercase().as_str() {
        "NONE" => Ok(0),
        "FIN" => Ok(TcpFlags::FIN.0),
        "SYN" => Ok(TcpFlags::SYN.0),
        "RST" => Ok(TcpFlags::RST.0),
        "PSH" => Ok(TcpFlags::PSH.0),
        "ACK" => Ok(TcpFlags::ACK.0),
        "URG" => Ok(TcpFlags::URG.0),
        other => {
            Err(format!("`{other}` is no TCP flag: write FIN, SYN, RST, PSH, ACK, URG, joined by commas, or NONE"))
        }
    };
    text.split(',').try_fold(0, |all, name| Ok(all | one(name.trim())?)).map(TcpFlags)
}

impl Explain {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<Exit, Failure> {
        let mut packet = self.packet()?;
        let explanation = match &self.config {
            Some(file) => {
                let (snapshot, _) = check::load(file)?;
                admin::explain(&Shared::new(snapshot, 1, 0), &mut packet, &|_| None, Instant::ZERO)
            }
            None => self.ask(&packet)?,
        };
        match self.output {
            Format::Table => tell(&explanation, false, out)?,
            Format::Wide => tell(&explanation, true, out)?,
            Format::Json | Format::Jsonl => {
                let mut printer = Printer::new(out, self.output, &EXPLAIN);
                printer.item(&explanation)?;
                printer.finish()?;
            }
        }
        Ok(Exit::Yes)
    }

    fn ask(&self, packet: &[u8]) -> Result<Explanation, Failure> {
        let probe = Probe { packet: hex::encode(packet) };
        let mut explained = None;
        Client::connect(&self.daemon.socket)?.ask(Request::Explain(probe), |response| {
            explained = items(response, take)?.pop();
            Ok::<_, Failure>(())
        })?;
        explained.ok_or_else(|| Failure::new(Exit::Refused, "the daemon's answer is empty"))
    }

    /// The packet that the command line describes.
    fn packet(&self) -> Result<Vec<u8>, Failure> {
        let usage = |message: String| Failure::new(Exit::Usage, message);
        if self.source.address.is_ipv4() != self.destination.address.is_ipv4() {
            return Err(usage(format!(
                "{} and {} are of different families",
                self.source.address, self.destination.address
            ))
            .help("give two IPv4 or two IPv6 addresses"));
        }
        if self.flags.is_some() && self.protocol != Proto::Tcp {
            return Err(usage("only TCP has flags".to_owned()).help("leave --flags out"));
        }
        let bare = self.build(&[])?;
        let size = self.size.map_or(bare.len(), usize::from);
        let Some(payload) = size.checked_sub(bare.len()) else {
            return Err(
                usage(format!("no such packet has {size} bytes")).help(format!("its headers have {}", bare.len()))
            );
        };
        self.build(&vec![0; payload])
    }

    fn build(&self, payload: &[u8]) -> Result<Vec<u8>, Failure> {
        match self.protocol {
            Proto::Tcp => {
                let flags = self.flags.unwrap_or(TcpFlags::SYN);
                let segment = Tcp { seq: 1, flags, window: u16::MAX, payload, ..Tcp::default() };
                Ok(build::tcp(endpoint(self.source)?, endpoint(self.destination)?, &segment))
            }
            Proto::Udp => Ok(build::udp(endpoint(self.source)?, endpoint(self.destination)?, payload)),
            Proto::Icmp => {
                if self.source.port.or(self.destination.port).is_some() {
                    return Err(Failure::new(Exit::Usage, "icmp has no ports").help("leave the ports out"));
                }
                let kind = if self.source.address.is_ipv4() { 8 } else { 128 };
                let message = [&[kind, 0, 0, 0, 0, 1, 0, 1], payload].concat();
                Ok(build::icmp(Address::from(self.source.address), Address::from(self.destination.address), message))
            }
        }
    }
}

fn endpoint(end: End) -> Result<Endpoint, Failure> {
    let Some(port) = end.port else {
        let example = SocketAddr::new(end.address, 80);
        return Err(Failure::new(Exit::Usage, format!("{} has no port", end.address)).help(format!("write {example}")));
    };
    Ok(Endpoint::new(end.address.into(), port))
}

fn take(response: Response) -> Result<Vec<Explanation>, Response> {
    if let Response::Explained(explanation) = response { Ok(vec![*explanation]) } else { Err(response) }
}

fn tell(explanation: &Explanation, whole: bool, out: &mut dyn Write) -> Result<(), Failure> {
    for stage in &explanation.stages {
        writeln!(out, "{:<10} {}", stage.stage, stage.text)?;
    }
    if let Some(packet) = explanation.packet_out.as_ref().filter(|_| whole) {
        writeln!(out, "{:<10} {packet}", "packet out")?;
    }
    Ok(())
}

static EXPLAIN: View<Explanation> = View { kind: "Explain", columns: &[] };
