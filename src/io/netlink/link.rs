//! Links: what interfaces there are, and how they are made, tuned and removed.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use super::{Make, Netlink, NetlinkError};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number, unique in its namespace and not used again soon.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Largest packet, bytes, without link header.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it is a TUN or TAP. If it has a carrier, a program holds it.
    pub tun: bool,
    /// How often it has found somebody at the other end, if somebody is there now: another number means that it was
    /// down in between, however short.
    pub carrier: Option<u32>,
    /// MAC address, if it is an Ethernet.
    pub hardware_address: Option<[u8; 6]>,
    /// Slots of its transmit queue; for a TUN, of the ring that its reader drains.
    pub queue_length: u32,
    /// What kind of device it is, by the kernel's name: `veth`, `gre`; empty if it is a real one.
    pub kind: String,
    /// Its queueing discipline.
    pub queue_discipline: String,
}

/// What to change of a link; `None` leaves a thing as it is. All in one request: either everything changes or nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkChange {
    /// Administratively up or down.
    pub up: Option<bool>,
    /// Whether the kernel takes part in multicast on it. Off: no MLD reports.
    pub multicast: Option<bool>,
    /// Bytes.
    pub mtu: Option<u32>,
    /// Slots.
    pub queue_length: Option<u32>,
}

/// IPv4 settings of one interface: `net.ipv4.conf.NAME.*`, settable even where `/proc/sys` is read-only (containers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Ipv4Setting {
    /// Forward what comes in here.
    Forwarding = 1,
    /// Tell neighbours of shorter ways.
    SendRedirects = 6,
    /// Check that sources are reached this way (the greater of this and `all` counts).
    ReversePathFilter = 8,
    /// Take in packets from addresses of this machine.
    AcceptLocal = 23,
}

impl Netlink {
    /// The link of this name.
    ///
    /// # Errors
    /// There is none; or it is a device of a kind that this kernel does not describe.
    pub fn link(&mut self, name: &str) -> Result<Link, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let attempt = format!("find the interface {name}");
        let no_such = || "`ip link` lists those that exist".to_owned();
        let answer = self
            .get(&attempt, RouteNetlinkMessage::GetLink(message))
            .map_err(|error| error.remedy_for(libc::ENODEV, no_such))?;
        describe(answer).ok_or_else(|| NetlinkError::new(&attempt, std::io::ErrorKind::InvalidData.into()))
    }

    /// All links of the namespace.
    ///
    /// # Errors
    /// The kernel's answer cannot be read.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let all = RouteNetlinkMessage::GetLink(LinkMessage::default());
        Ok(self.dump("list the interfaces", all)?.into_iter().filter_map(describe).collect())
    }

    /// Changes a link.
    ///
    /// # Errors
    /// No privilege, no such link, or a value outside what the device allows.
    pub fn change_link(&mut self, index: u32, change: &LinkChange) -> Result<(), NetlinkError> {
        let mut message = message_for(index);
        for (wanted, flag) in [(change.up, LinkFlags::Up), (change.multicast, LinkFlags::Multicast)] {
            let Some(on) = wanted else { continue };
            message.header.change_mask |= flag;
            message.header.flags.set(flag, on);
        }
        message.attributes.extend(change.mtu.map(LinkAttribute::Mtu));
        message.attributes.extend(change.queue_length.map(LinkAttribute::TxQueueLen));
        self.change(&format!("configure interface {index}"), RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets IPv4 settings of a link.
    ///
    /// # Errors
    /// No privilege or no such link.
    pub fn set_ipv4(&mut self, index: u32, settings: &[(Ipv4Setting, u32)]) -> Result<(), NetlinkError> {
        const IFLA_INET_CONF: u16 = 1;
        // Built by hand: the library's form of this request leaves zeros out, and two of our three values are zero.
        let nested = |(setting, value): &(Ipv4Setting, u32)| {
            let attribute = DefaultNla::new(*setting as u16, value.to_ne_bytes().to_vec());
            let mut bytes = vec![0; attribute.buffer_len()];
            attribute.emit(&mut bytes);
            bytes
        };
        let values = settings.iter().flat_map(nested).collect();
        let spec = AfSpecInet::Other(DefaultNla::new(IFLA_INET_CONF | NLA_F_NESTED, values));
        let mut message = message_for(index);
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![spec])]));
        self.change(&format!("set up IPv4 on interface {index}"), RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Keeps the kernel from giving the link IPv6 addresses of its own making: no link-local address, hence no duplicate
    /// address detection and no router solicitations.
    ///
    /// # Errors
    /// No privilege, no such link, or `EAFNOSUPPORT`: the kernel runs without IPv6.
    pub fn disable_ipv6_autoconfiguration(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut message = message_for(index);
        let spec = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![spec]));
        self.change(&format!("set up IPv6 on interface {index}"), RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Replaces the link's queueing discipline by none at all: packets go straight to the device.
    ///
    /// # Errors
    /// No privilege or no such link.
    pub fn remove_queueing(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut message = TcMessage::default();
        message.header.index = index.cast_signed();
        message.header.parent = TcHandle::ROOT;
        message.attributes.push(TcAttribute::Kind("noqueue".to_owned()));
        let attempt = format!("remove the queueing of interface {index}");
        self.make(&attempt, RouteNetlinkMessage::NewQueueDiscipline(message), Make::Replace)
    }

    /// Makes a cable of two virtual Ethernets: `name` here, `peer` in the namespace given (`None` = here as well).
    ///
    /// # Errors
    /// No privilege, or one of the names is taken.
    pub fn create_veth(
        &mut self,
        name: &str,
        peer: &str,
        peer_namespace: Option<BorrowedFd<'_>>,
    ) -> Result<(), NetlinkError> {
        let mut other = LinkMessage::default();
        other.attributes.push(LinkAttribute::IfName(peer.to_owned()));
        other.attributes.extend(peer_namespace.map(|fd| LinkAttribute::NetNsFd(fd.as_raw_fd())));
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
        ]));
        let attempt = format!("make the veth pair {name} and {peer}");
        self.make(&attempt, RouteNetlinkMessage::NewLink(message), Make::New)
            .map_err(|error| error.remedy_for(libc::EEXIST, || "one of the two names is taken".to_owned()))
    }

    /// Removes a link, and with it its routes and addresses.
    ///
    /// # Errors
    /// No privilege, no such link, or a kind that cannot be removed.
    pub fn delete_link(&mut self, index: u32) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelLink(message_for(index));
        self.change(&format!("remove interface {index}"), message, 0)
    }
}

fn message_for(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn describe(answer: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = answer else { return None };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        tun: false,
        carrier: message.header.flags.contains(LinkFlags::LowerUp).then_some(0),
        hardware_address: None,
        queue_length: 0,
        kind: String::new(),
        queue_discipline: String::new(),
    };
    for attribute in message.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            link.name = name;
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            link.mtu = mtu;
        } else if let LinkAttribute::TxQueueLen(slots) = attribute {
            link.queue_length = slots;
        } else if let LinkAttribute::LinkInfo(info) = attribute {
            let kind =
                info.into_iter().find_map(|info| if let LinkInfo::Kind(kind) = info { Some(kind) } else { None });
            link.tun = kind == Some(InfoKind::Tun);
            link.kind = kind.map_or_else(String::new, |kind| kind.to_string());
        } else if let LinkAttribute::CarrierUpCount(times) = attribute {
            link.carrier = link.carrier.map(|_| times);
        } else if let LinkAttribute::Qdisc(name) = attribute {
            link.queue_discipline = name;
        } else if let LinkAttribute::Address(bytes) = attribute
            && message.header.link_layer_type == LinkLayerType::Ether
        {
            link.hardware_address = bytes.try_into().ok();
        }
    }
    Some(link)
}
