//! The routes that bring packets for VIPs and source addresses to the TUN, and back after it was down.

use std::os::fd::{AsFd, BorrowedFd};

use super::netlink::{LocalAddress, Netlink, NetlinkError, Prefix, Route, Target, Watch};
use super::tun::Tun;

/// Routes to a TUN. The kernel forgets them when somebody sets it down, and when it is up again nothing would come in:
/// so whenever a link has changed, which makes this readable, [`Self::restore`] them. They end with the TUN.
#[derive(Debug)]
pub struct Routes {
    tun: String,
    index: u32,
    destinations: Vec<Prefix>,
    netlink: Netlink,
    watch: Watch,
    up: bool,
}

impl Routes {
    /// Adds a route for each destination, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// There is another route to one of them, or no privilege.
    pub fn add(tun: &Tun, destinations: Vec<Prefix>) -> Result<Self, NetlinkError> {
        let watch = Watch::links()?;
        let (tun, index) = (tun.name().to_owned(), tun.index());
        let mut routes = Self { tun, index, destinations, netlink: Netlink::open()?, watch, up: true };
        for n in 0..routes.destinations.len() {
            routes.add_one(n)?;
        }
        Ok(routes)
    }

    /// Has these destinations, and no others: adds what is new, removes what is gone.
    ///
    /// # Errors
    /// As [`Self::add`]: the first trouble is told, and all the rest is done.
    pub fn set(&mut self, destinations: Vec<Prefix>) -> Result<(), NetlinkError> {
        let before = std::mem::replace(&mut self.destinations, destinations);
        let mut trouble = Ok(());
        if !self.up {
            return trouble; // They come when the TUN is up again, and those that are gone went when it was set down.
        }
        for n in 0..self.destinations.len() {
            if !before.contains(&self.destinations[n]) {
                trouble = trouble.and(self.add_one(n));
            }
        }
        for destination in before.into_iter().filter(|prefix| !self.destinations.contains(prefix)) {
            let route = Route { destination, target: Target::Device(self.index), metric: None, table: None };
            trouble = trouble.and(self.netlink.delete_route(&route));
        }
        trouble
    }

    /// Adds those routes that are missing, if the TUN is up.
    ///
    /// # Errors
    /// Somebody else has taken a destination meanwhile, the privileges are gone, or the TUN is. The first trouble is told;
    /// the other routes are restored all the same.
    pub fn restore(&mut self) -> Result<(), NetlinkError> {
        self.watch.clear();
        let was_up = std::mem::replace(&mut self.up, self.netlink.link(&self.tun)?.up);
        if !self.up {
            if was_up {
                log::warn!("{} was set down: nothing comes in until it is up again", self.tun);
            }
            return Ok(());
        }
        let (mut missing, mut trouble) = (0, Ok(()));
        for n in 0..self.destinations.len() {
            match self.add_one(n) {
                Ok(()) => missing += 1,
                Err(error) if error.errno() == Some(libc::EEXIST) && self.leads_here(n) => {}
                Err(error) => trouble = trouble.and(Err(error)),
            }
        }
        if missing > 0 {
            log::info!("{} is up again: {missing} route(s) to it restored", self.tun);
        }
        trouble
    }

    /// Whether the route to a destination is ours: the kernel says of another one, too, that it is there. A prefix is
    /// taken to be: of one address in it, something longer may be true. So is an address that has become the machine's
    /// own, which hides all routes to it: [`super::addresses::Watched`] tells of that.
    fn leads_here(&mut self, n: usize) -> bool {
        let (prefix, address) = (self.destinations[n], self.destinations[n].address());
        let is_local = |local: &LocalAddress| local.address == address;
        prefix != Prefix::host(address)
            || self.netlink.way_to(address).is_ok_and(|way| way.interface == Some(self.index))
            || self.netlink.addresses().is_ok_and(|all| all.iter().any(is_local))
    }

    fn add_one(&mut self, n: usize) -> Result<(), NetlinkError> {
        let (destination, target) = (self.destinations[n], Target::Device(self.index));
        self.netlink.add_route(&Route { destination, target, metric: None, table: None })
    }
}

impl AsFd for Routes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}
