//! `decap`: a backend's half of direct server return.

mod kernel;

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use mio::{Events, Interest, Poll, Token};
use signal_hook_mio::v1_0::Signals;

use super::check;
use super::exit::{Exit, Failure};
use super::run::Logging;
use crate::config::{Mode, Snapshot};
use crate::io::decap::{Counts, Decap, DecapConfig, DecapError, Refusal};
use crate::io::netlink::Prefix;
use crate::io::sys::{self, Waker};
use crate::wire::Address;
use crate::wire::tunnel::Encapsulation;

/// Take packets out of a gateway's tunnels, on a backend of a service with mode = "dsr"
///
/// For a machine whose kernel cannot do it, or may not be told to: wrapped packets come through raw sockets (GUE through
/// UDP port 6080), what is inside is delivered through a TUN to the service's address on the loopback, and the answers
/// leave by the ordinary route. Adds what it needs, and removes that on SIGTERM or Ctrl-C. Needs root, or CAP_NET_ADMIN
/// and CAP_NET_RAW.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tungate decap -c tungate.toml                            the gateway's file\n  \
                        tungate decap --vip 192.0.2.10 --from 10.99.0.10\n  \
                        tungate decap -c tungate.toml --print-kernel             let the kernel do it")]
pub(super) struct Decapsulate {
    /// The gateway's configuration file: its DSR services' addresses, its source addresses
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["vip", "from", "encapsulation", "gre_key"])]
    config: Option<PathBuf>,
    /// The service's address, or a range of them; may be given again
    #[arg(long, value_name = "ADDRESS")]
    vip: Vec<Prefix>,
    /// The gateway's source address: only what comes from there is taken apart; may be given again
    #[arg(long, value_name = "GATEWAY")]
    from: Vec<IpAddr>,
    /// What to take apart: gre, ipip or gue, or several with commas [default: all three]
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = encapsulation)]
    encapsulation: Vec<Encapsulation>,
    /// The key of GRE packets, if the gateway's `gre-key` is set: packets with another one, or none, are refused
    #[arg(long, value_name = "KEY")]
    gre_key: Option<u32>,
    /// Name of the TUN
    #[arg(long, value_name = "NAME", default_value = "tungate-decap")]
    interface: String,
    /// Print the commands with which the kernel does it, and end
    #[arg(long)]
    print_kernel: bool,
    #[command(flatten)]
    logging: Logging,
}

fn encapsulation(text: &str) -> Result<Encapsulation, String> {
    let found = Encapsulation::ALL.into_iter().find(|encapsulation| encapsulation.name() == text);
    found.ok_or_else(|| "write gre, ipip or gue".to_owned())
}

impl Decapsulate {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<Exit, Failure> {
        let config = self.what()?;
        if self.print_kernel {
            kernel::print(&config, out)?;
            return Ok(Exit::Yes);
        }
        self.logging.start();
        // Caught from here on: whoever is told to end removes what it has added.
        let signals = Signals::new([libc::SIGTERM, libc::SIGINT, libc::SIGHUP]).map_err(|error| system(&error))?;
        let stop = Arc::new(Waker::new().map_err(|error| system(&error))?);
        let decap = Decap::start(&config).map_err(|error| not_started(&error))?;
        ::log::info!("taking {config} apart");
        warn_of_filters(&config);
        wake_on(signals, Arc::clone(&stop)).map_err(|error| system(&error))?;
        let counts = decap.run(&stop).map_err(|error| system(&error))?;
        ::log::info!("{}", told(&counts));
        Ok(Exit::Yes)
    }

    /// What the file says, or the command line.
    fn what(&self) -> Result<DecapConfig, Failure> {
        let interface = self.interface.clone();
        let Some(file) = &self.config else {
            self.refuse_nonsense()?;
            let mut encapsulations =
                if self.encapsulation.is_empty() { Encapsulation::ALL.to_vec() } else { self.encapsulation.clone() };
            if let Some(key) = self.gre_key {
                let gre = encapsulations.iter_mut().find(|encapsulation| **encapsulation == Encapsulation::Gre);
                *gre.ok_or_else(|| Failure::new(Exit::Usage, "--gre-key without gre among --encapsulation"))? =
                    Encapsulation::KeyedGre(key);
            }
            let (from, vips) = (self.from.clone(), self.vip.clone());
            return Ok(DecapConfig { interface, encapsulations, from, vips });
        };
        let (snapshot, _) = check::load(file)?;
        let config = DecapConfig { interface, ..of_gateway(&snapshot) };
        if config.vips.is_empty() {
            return Err(Failure::no(format!("{}: no service has `mode = \"dsr\"`", file.display()))
                .help("only backends of such services need it"));
        }
        Ok(config)
    }

    /// What of the command line cannot name a tunnel.
    fn refuse_nonsense(&self) -> Result<(), Failure> {
        if self.vip.is_empty() || self.from.is_empty() {
            let failure = Failure::new(Exit::Usage, "which tunnels?");
            return Err(failure.help("-c FILE (the gateway's file), or --vip ADDRESS with --from GATEWAY"));
        }
        let nobodys = |vip: &&Prefix| !Address::from(vip.address()).is_host() && vip.length() > 0;
        if let Some(vip) = self.vip.iter().find(nobodys) {
            let failure = Failure::new(Exit::Usage, format!("{} is no address that clients can ask", vip.address()));
            return Err(failure.help("--vip takes the address of the service, as in its `listen`"));
        }
        if let Some(gateway) = self.from.iter().find(|gateway| self.vip.iter().any(|vip| vip.contains(**gateway))) {
            let failure = Failure::new(Exit::Usage, format!("{gateway} is a VIP and the gateway's source address"));
            return Err(failure.help("--from takes one of `source-addresses`"));
        }
        Ok(())
    }
}

/// What a backend of this gateway has to take apart.
pub(super) fn of_gateway(snapshot: &Snapshot) -> DecapConfig {
    let (mut encapsulations, mut vips) = (Vec::new(), Vec::new());
    for service in &snapshot.services {
        let Mode::Dsr { encapsulation } = service.mode else { continue };
        if !encapsulations.contains(&encapsulation) {
            encapsulations.push(encapsulation);
        }
        vips.extend(service.listen.iter().map(|listen| Prefix::new(listen.address.ip(), listen.prefix)));
    }
    vips.sort_unstable_by_key(|vip| (vip.address(), vip.length()));
    vips.dedup();
    let from = [true, false].into_iter().filter_map(|v4| snapshot.sources(v4).first()).map(|address| address.ip());
    DecapConfig { interface: String::new(), encapsulations, from: from.collect(), vips }
}

/// What would let everything arrive, and nothing come out.
fn warn_of_filters(config: &DecapConfig) {
    const ALL: &str = "/proc/sys/net/ipv4/conf/all/rp_filter";
    let strict = std::fs::read_to_string(ALL).is_ok_and(|value| value.trim() == "1");
    if strict && config.vips.iter().any(|vip| vip.address().is_ipv4()) {
        ::log::warn!("rp_filter is strict for all, and drops every packet: sysctl -w net.ipv4.conf.all.rp_filter=2");
    }
}

/// Wakes the one who takes packets apart when we are told to end. A terminal that is closed does not tell us so.
fn wake_on(mut signals: Signals, stop: Arc<Waker>) -> io::Result<()> {
    let mut poll = Poll::new()?;
    poll.registry().register(&mut signals, Token(0), Interest::READABLE)?;
    let wait = move || {
        let mut events = Events::with_capacity(1);
        // An interrupted wait is tried again: the signal that interrupted it is what we wait for.
        while signals.pending().all(|signal| signal == libc::SIGHUP) {
            let _ = poll.poll(&mut events, None);
        }
        stop.wake();
    };
    sys::spawn("signals", wait).map(drop)
}

/// `stopped: 12 packets handed to the kernel, 3 refused (3 not for a VIP)`.
fn told(counts: &Counts) -> String {
    let refused: u64 = counts.refused.iter().sum();
    let reasons = Refusal::ALL.iter().zip(counts.refused).filter(|(_, count)| *count > 0);
    let reasons: Vec<String> = reasons.map(|(reason, count)| format!("{count} {}", reason.meaning())).collect();
    let why = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
    let failed = if counts.failed > 0 { format!(", {} lost by the kernel", counts.failed) } else { String::new() };
    format!("stopped: {} packets handed to the kernel, {refused} refused{why}{failed}", counts.delivered)
}

/// A decapsulator that did not start, told as it is.
pub(super) fn not_started(error: &DecapError) -> Failure {
    Failure::new(if error.is_refused() { Exit::Refused } else { Exit::No }, error.to_string())
}

fn system(error: &io::Error) -> Failure {
    Failure::no(format!("cannot go on: {}", crate::io::words::in_words(error)))
}
