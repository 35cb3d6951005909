//! What is looked at before a daemon starts, and why it may not.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;

use crate::config::{Snapshot, Workers};
use crate::io::addresses::Kept;
use crate::io::announce::{AnnounceError, Announcer};
use crate::io::key_file::KeyFileError;
use crate::io::netlink::{Netlink, NetlinkError};
use crate::io::peer::PairError;
use crate::io::tun::TunError;
use crate::io::words::with_remedy;

/// Seeds the engine's hashes. The standard library seeds its own maps with system randomness: this is some of it.
pub(super) fn random_seed() -> u64 {
    RandomState::new().hash_one(0)
}

/// With an address that the kernel keeps, all would look well and nothing would come in.
///
/// # Errors
/// There is one; or the addresses cannot be listed.
pub(super) fn refuse_kept(snapshot: &Snapshot) -> Result<(), StartError> {
    let kept =
        Netlink::open().and_then(|mut netlink| Kept::find(snapshot, &mut netlink)).map_err(StartError::Addresses)?;
    let (alone, among_others): (Vec<_>, Vec<_>) = kept.into_iter().partition(Kept::is_alone);
    for kept in among_others {
        log::warn!("{kept}: the kernel keeps its packets; if they are for the gateway: {}", kept.remedy());
    }
    if alone.is_empty() { Ok(()) } else { Err(StartError::Kept(alone)) }
}

/// Says whether the machine can take a configuration in place of the one that runs: `announce_on` is its own.
///
/// # Errors
/// An address of it is the machine's own; or an interface is to be announced on, was not before, and cannot be.
pub fn admit(snapshot: &Snapshot, announce_on: &[String]) -> Result<(), StartError> {
    refuse_kept(snapshot)?;
    let added = snapshot.gateway.announce_on.iter().filter(|name| !announce_on.contains(name));
    Announcer::check(added).map_err(StartError::Announce)
}

/// What the kernel does not forward never leaves this machine, and comes to the TUN all the same. A single interface may
/// be open.
pub(super) fn warn_of_closed_doors(snapshot: &Snapshot) {
    let v4 = ["ipv4/conf", "forwarding", "net.ipv4.ip_forward"];
    let v6 = ["ipv6/conf", "force_forwarding", "net.ipv6.conf.all.forwarding"];
    let read = |path: String| std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "1");
    for (is_v4, [folder, setting, remedy]) in [(true, v4), (false, v6)] {
        if !snapshot.addresses().any(|(prefix, _)| prefix.address().is_ipv4() == is_v4) {
            continue;
        }
        let folder = format!("/proc/sys/net/{folder}");
        let interfaces = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let open = interfaces.into_iter().any(|interface| read(interface.path().join(setting).display().to_string()));
        if !open && !read(format!("{folder}/all/forwarding")) {
            let family = if is_v4 { "IPv4" } else { "IPv6" };
            log::warn!(
                "{family} forwarding is off: packets come to the gateway and leave nowhere; sysctl -w {remedy}=1"
            );
        }
    }
}

/// How many workers that is on this machine.
pub(super) fn worker_count(workers: Workers) -> u16 {
    match workers {
        Workers::Count(count) => count,
        Workers::Auto => {
            let cpus = std::thread::available_parallelism().map_or(1, usize::from);
            // A worker's writes run the kernel's receive path: it and the network's softirqs want a CPU each. Of two
            // CPUs, though, a single worker leaves one idle: two carry eight streams of bulk TCP 1.6 times as fast.
            u16::try_from((cpus / 2).max(2).min(cpus)).unwrap_or(64).min(64)
        }
    }
}

/// Why the daemon did not start.
#[derive(Debug)]
pub enum StartError {
    /// These addresses are the machine's own: the kernel would keep their packets.
    Kept(Vec<Kept>),
    /// The machine's addresses cannot be listed.
    Addresses(NetlinkError),
    /// No TUN.
    Tun(TunError),
    /// A route could not be added.
    Route(NetlinkError),
    /// The addresses cannot be announced.
    Announce(AnnounceError),
    /// The pair's keys cannot be read.
    Keys(KeyFileError),
    /// The other gateway cannot be talked to.
    Pair(PairError),
    /// The system refused something ordinary.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept(all) => {
                let each = |of: fn(&Kept) -> String, by: &str| all.iter().map(of).collect::<Vec<_>>().join(by);
                let (found, remedy) = (each(Kept::to_string, ", "), each(Kept::remedy, "; "));
                write!(f, "{found}: the kernel would keep its packets, and the gateway see none; `{remedy}`")
            }
            Self::Tun(error) => error.fmt(f),
            Self::Addresses(error) | Self::Route(error) => error.fmt(f),
            Self::Announce(error) => error.fmt(f),
            Self::Keys(error) => error.fmt(f),
            Self::Pair(error) => error.fmt(f),
            Self::System(error) => write!(f, "the system refuses what a daemon needs: {}", with_remedy(error)),
        }
    }
}

impl std::error::Error for StartError {}
