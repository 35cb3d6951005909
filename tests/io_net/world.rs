//! Two namespaces and a cable between them.

use std::net::IpAddr;
use std::os::fd::AsFd as _;

use tungate::io::namespace::Namespace;
use tungate::io::netlink::{LinkChange, LocalAddress, Netlink};

/// `a` has `left` (10.0.0.1/24, fd00::1/64), `b` has `right` (10.0.0.2/24, fd00::2/64).
pub(crate) struct World {
    pub(crate) a: Namespace,
    pub(crate) b: Namespace,
}

impl World {
    /// Builds it, or says why the test is skipped.
    pub(crate) fn build(test: &str) -> Option<Self> {
        let (a, b) = match (Namespace::new(), Namespace::new()) {
            (Ok(a), Ok(b)) => (a, b),
            (Err(error), _) | (_, Err(error)) => {
                crate::common::skip(test, &error.to_string(), "sudo -E cargo test --test io_net");
                return None;
            }
        };
        let world = Self { a, b };
        world.connect();
        Some(world)
    }

    /// Makes the cable with its two ends.
    pub(crate) fn connect(&self) {
        let other = self.b.as_fd();
        self.a.run(|| Netlink::open().unwrap().create_veth("left", "right", Some(other)).unwrap()).unwrap();
        self.a.run(|| configure("left", "10.0.0.1", "fd00::1")).unwrap();
        self.b.run(|| configure("right", "10.0.0.2", "fd00::2")).unwrap();
    }

    /// Deletes the cable with its two ends.
    pub(crate) fn cut(&self) {
        let delete = || {
            let mut netlink = Netlink::open().unwrap();
            let index = netlink.link("left").unwrap().index;
            netlink.delete_link(index).unwrap();
        };
        self.a.run(delete).unwrap();
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn configure(name: &str, v4: &str, v6: &str) {
    let mut netlink = Netlink::open().unwrap();
    let interface = netlink.link(name).unwrap().index;
    netlink.change_link(interface, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
    for (address, prefix_length) in [(ip(v4), 24), (ip(v6), 64)] {
        netlink.add_address(&LocalAddress { interface, address, prefix_length }).unwrap();
    }
}

/// Sets a setting of the calling thread's namespace, a path below `/proc/sys/net`.
pub(crate) fn set(setting: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{setting}"), value).unwrap();
}
