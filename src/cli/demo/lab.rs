//! The network of `demo` and `bench tun`: a client, a gateway and two backends, each in a namespace of its own, with no way out.

use std::fs;
use std::net::IpAddr;
use std::os::fd::AsFd as _;

use crate::io::namespace::{Namespace, NamespaceError};
use crate::io::netlink::{LinkChange, LocalAddress, Netlink, NetlinkError, Prefix, Route, Target};
use crate::io::words::in_words;

/// What the gateway is told: two services, both families, full NAT.
pub(super) const NAT: &str = r#"[gateway]
source-addresses = ["10.99.0.10", "fd00:99::10"]

[[service]]
name = "web"
listen = ["192.0.2.10:80", "[2001:db8::10]:80"]
balance = "round-robin"
backends = [
  { name = "b1", address = "10.0.1.1:8080" }, { name = "b2", address = "10.0.2.1:8080" },
  { name = "b1-v6", address = "[fd00:1::1]:8080" }, { name = "b2-v6", address = "[fd00:2::1]:8080" },
]

[[service]]
name = "dns"
protocol = "udp"
listen = ["192.0.2.10:53", "[2001:db8::10]:53"]
balance = "random"
backends = [
  { name = "b1", address = "10.0.1.1:5353" }, { name = "b2", address = "10.0.2.1:5353" },
  { name = "b1-v6", address = "[fd00:1::1]:5353" }, { name = "b2-v6", address = "[fd00:2::1]:5353" },
]
"#;

/// The same services by tunnels; of each kind, and to backends of each family, both families.
pub(super) const DSR: &str = r#"[gateway]
source-addresses = ["10.99.0.10", "fd00:99::10"]

[[service]]
name = "web"
listen = ["192.0.2.10:80", "[2001:db8::10]:80"]
mode = "dsr"
balance = "round-robin"
backends = [{ name = "b1", address = "10.0.1.1" }, { name = "b2", address = "fd00:2::1" }]

[[service]]
name = "dns"
protocol = "udp"
listen = ["192.0.2.10:53", "[2001:db8::10]:53"]
mode = "dsr"
encapsulation = "gue"
balance = "random"
backends = [{ name = "b1", address = "fd00:1::1" }, { name = "b2", address = "10.0.2.1" }]
"#;

/// The namespaces. They vanish with this value, or with the process.
#[derive(Debug)]
pub(in crate::cli) struct Lab {
    pub(in crate::cli) client: Namespace,
    pub(in crate::cli) gateway: Namespace,
    pub(in crate::cli) backends: [Namespace; 2],
}

impl Lab {
    /// Builds the network and waits for nothing: addresses and routes are usable at once.
    ///
    /// # Errors
    /// The system does not allow it; with what would.
    pub(in crate::cli) fn build() -> Result<Self, LabError> {
        let lab = Self {
            client: Namespace::new()?,
            gateway: Namespace::new()?,
            backends: [Namespace::new()?, Namespace::new()?],
        };
        for namespace in [&lab.client, &lab.gateway, &lab.backends[0], &lab.backends[1]] {
            // Until its link-local address has passed duplicate address detection, a second or two, an interface asks
            // for no neighbour, and first packets are lost. Nobody else is on these cables.
            namespace.run(|| set("ipv6/conf/default/accept_dad", "0"))??;
        }
        // A router of both families.
        for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            lab.gateway.run(|| set(setting, "1"))??;
        }
        connect(
            &lab.client,
            &lab.gateway,
            "to-client",
            ["198.51.100.2", "2001:db8:1::2"],
            ["198.51.100.1", "2001:db8:1::1"],
        )?;
        connect(&lab.backends[0], &lab.gateway, "to-b1", ["10.0.1.1", "fd00:1::1"], ["10.0.1.254", "fd00:1::fe"])?;
        connect(&lab.backends[1], &lab.gateway, "to-b2", ["10.0.2.1", "fd00:2::1"], ["10.0.2.254", "fd00:2::fe"])?;
        Ok(lab)
    }

    /// Gives the backends a way to the client that does not pass the gateway: their answers go there.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub(super) fn connect_backends_to_the_client(&self) -> Result<(), LabError> {
        for namespace in [&self.client, &self.backends[0], &self.backends[1]] {
            // What comes by one way is answered by another: by the tunnel and by the cable, by the cable and by the gateway.
            namespace.run(|| set("ipv4/conf/all/rp_filter", "0"))??;
            namespace.run(|| set("ipv4/conf/default/rp_filter", "0"))??;
        }
        cable(&self.client, &self.backends[0], "from-b1", ["10.9.1.1", "fd00:9:1::1"], ["10.9.1.2", "fd00:9:1::2"])?;
        cable(&self.client, &self.backends[1], "from-b2", ["10.9.2.1", "fd00:9:2::1"], ["10.9.2.2", "fd00:9:2::2"])
    }
}

/// A cable from the client to a backend, which becomes the backend's way to clients.
fn cable(
    client: &Namespace,
    backend: &Namespace,
    port: &'static str,
    client_addresses: [&str; 2],
    backend_addresses: [&str; 2],
) -> Result<(), LabError> {
    client.run(|| Netlink::open()?.create_veth(port, "direct", Some(backend.as_fd())))??;
    client.run(|| address(port, client_addresses))??;
    backend.run(|| {
        address("direct", backend_addresses)?;
        let mut netlink = Netlink::open()?;
        for (clients, next_hop) in [("198.51.100.0", 24), ("2001:db8:1::", 64)].into_iter().zip(client_addresses) {
            let (destination, target) = (Prefix::new(ip(clients.0), clients.1), Target::Gateway(ip(next_hop)));
            netlink.add_route(&Route { destination, target, metric: None, table: None })?;
        }
        Ok::<(), NetlinkError>(())
    })??;
    Ok(())
}

/// A cable from a host to the gateway, which becomes the host's way to everywhere.
fn connect(
    host: &Namespace,
    gateway: &Namespace,
    port: &'static str,
    host_addresses: [&str; 2],
    gateway_addresses: [&str; 2],
) -> Result<(), LabError> {
    let plug = || Netlink::open()?.create_veth(port, "eth0", Some(host.as_fd()));
    gateway.run(plug)??;
    gateway.run(|| address(port, gateway_addresses))??;
    host.run(|| {
        address("eth0", host_addresses)?;
        let mut netlink = Netlink::open()?;
        for next_hop in gateway_addresses.map(ip) {
            let everywhere = Prefix::new(if next_hop.is_ipv4() { ip("0.0.0.0") } else { ip("::") }, 0);
            let target = Target::Gateway(next_hop);
            netlink.add_route(&Route { destination: everywhere, target, metric: None, table: None })?;
        }
        Ok::<(), NetlinkError>(())
    })??;
    Ok(())
}

fn address(interface: &str, addresses: [&str; 2]) -> Result<(), NetlinkError> {
    let mut netlink = Netlink::open()?;
    let index = netlink.link(interface)?.index;
    netlink.change_link(index, &LinkChange { up: Some(true), ..LinkChange::default() })?;
    for (address, prefix_length) in addresses.map(ip).into_iter().zip([24, 64]) {
        netlink.add_address(&LocalAddress { interface: index, address, prefix_length })?;
    }
    Ok(())
}

/// Sets a setting of the calling thread's namespace, a path below `/proc/sys/net`.
fn set(setting: &str, value: &str) -> Result<(), LabError> {
    let file = format!("/proc/sys/net/{setting}");
    fs::write(&file, value).map_err(|error| LabError::Setting(file, error))
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("the demo's addresses are written by us")
}

/// Why there is no lab.
#[derive(Debug)]
pub(in crate::cli) enum LabError {
    /// No namespaces.
    Namespace(NamespaceError),
    /// No cables, addresses or routes in them.
    Netlink(NetlinkError),
    /// The kernel does not take a setting.
    Setting(String, std::io::Error),
}

impl std::fmt::Display for LabError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Namespace(error) => error.fmt(f),
            Self::Netlink(error) => write!(f, "the network cannot be built: {error}"),
            Self::Setting(file, error) => write!(
                f,
                "the network cannot be set up: {file}: {}; a container may need /proc/sys mounted writable \
                 (`--privileged`)",
                in_words(error)
            ),
        }
    }
}

impl LabError {
    /// Whether it is for want of privileges.
    pub(in crate::cli) const fn is_refusal(&self) -> bool {
        matches!(self, Self::Namespace(NamespaceError::Forbidden(..)))
    }
}

impl From<NamespaceError> for LabError {
    fn from(error: NamespaceError) -> Self {
        Self::Namespace(error)
    }
}

impl From<NetlinkError> for LabError {
    fn from(error: NetlinkError) -> Self {
        Self::Netlink(error)
    }
}
