//! The addresses whose packets are to come to us, and those among them that the kernel keeps for itself.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use super::netlink::{Link, LocalAddress, Netlink, NetlinkError, Prefix, Watch};
use crate::config::Snapshot;
use crate::wire::Address;

/// VIPs and source addresses, those that only flows still have included: what is routed to the TUN and announced.
pub(super) fn own_addresses(snapshot: &Snapshot) -> Vec<Prefix> {
    let present = snapshot.addresses().map(|(prefix, _)| prefix);
    let mut prefixes: Vec<Prefix> = present.chain(snapshot.retired.addresses.iter().copied()).collect();
    prefixes.sort_unstable_by_key(|prefix| (prefix.address(), prefix.length()));
    prefixes.dedup();
    prefixes
}

/// An address of the machine that is to be the gateway's: its packets never come to the TUN, since the kernel looks into
/// its table of local addresses first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    address: IpAddr,
    prefix_length: u8,
    interface: String,
    purpose: &'static str,
    /// It is all that the configuration names there, and not one address of many.
    alone: bool,
}

impl Kept {
    /// All of them in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel cannot be asked for its links and addresses.
    pub(super) fn find(snapshot: &Snapshot, netlink: &mut Netlink) -> Result<Vec<Self>, NetlinkError> {
        Ok(Self::among(&netlink.addresses()?, &netlink.links()?, snapshot))
    }

    /// All of them among these addresses of these interfaces.
    pub(super) fn among(addresses: &[LocalAddress], links: &[Link], snapshot: &Snapshot) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for (prefix, purpose) in snapshot.addresses() {
            for local in addresses.iter().filter(|local| prefix.contains(local.address)) {
                if all.iter().any(|kept| kept.address == local.address) {
                    continue; // a VIP of several services
                }
                let link = links.iter().find(|link| link.index == local.interface);
                let interface = link.map_or_else(|| format!("interface {}", local.interface), |link| link.name.clone());
                let (address, prefix_length) = (local.address, local.prefix_length);
                let alone = prefix == Prefix::host(address);
                all.push(Self { address, prefix_length, interface, purpose, alone });
            }
        }
        all
    }

    /// Whether it is all that the configuration names there. Of a prefix the other addresses still work.
    pub(super) const fn is_alone(&self) -> bool {
        self.alone
    }

    /// The command that gives its packets to the gateway.
    pub(super) fn remedy(&self) -> String {
        format!("ip address del {}/{} dev {}", self.address, self.prefix_length, self.interface)
    }
}

/// Looks after the gateway's addresses while it serves: one may become the machine's own at any time. Readable when an
/// address has come or gone.
#[derive(Debug)]
pub struct Watched {
    netlink: Netlink,
    watch: Watch,
    kept: Vec<Kept>,
}

impl Watched {
    /// From now on, in the network namespace of the calling thread. What is kept already has been told.
    ///
    /// # Errors
    /// The kernel cannot be asked for its links and addresses.
    pub(super) fn start(snapshot: &Snapshot) -> Result<Self, NetlinkError> {
        let watch = Watch::links_and_addresses()?;
        let mut netlink = Netlink::open()?;
        let kept = Kept::find(snapshot, &mut netlink)?;
        Ok(Self { netlink, watch, kept })
    }

    /// Says why packets for an address do not come to the gateway, if the kernel keeps them now.
    pub fn complaints(&self) -> impl Fn(Address) -> Option<String> + use<> {
        let all = self.kept.clone();
        move |address| {
            let kept = all.iter().find(|kept| kept.address == address.ip())?;
            Some(format!("{kept}, and keeps such a packet: it never comes here; {}", kept.remedy()))
        }
    }

    /// Tells the log which addresses the kernel keeps now and did not before, and the other way round.
    pub(super) fn look(&mut self, snapshot: &Snapshot) {
        self.watch.clear();
        let now = match Kept::find(snapshot, &mut self.netlink) {
            Ok(now) => now,
            Err(error) => return log::warn!("cannot see whether the kernel keeps packets for itself: {error}"),
        };
        for kept in now.iter().filter(|kept| !self.kept.contains(kept)) {
            log::warn!("{kept} now: the kernel keeps its packets, and the gateway sees none; {}", kept.remedy());
        }
        for kept in self.kept.iter().filter(|kept| !now.iter().any(|other| other.address == kept.address)) {
            log::info!("{} is no address of {} any more: its packets come here again", kept.address, kept.interface);
        }
        self.kept = now;
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

impl fmt::Display for Kept {
    /// `192.0.2.10 (a VIP) is an address of eth0`, or `... (in a VIP's prefix) ...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let purpose = if self.alone { self.purpose } else { "in the prefix of a VIP" };
        write!(f, "{} ({purpose}) is an address of {}", self.address, self.interface)
    }
}
