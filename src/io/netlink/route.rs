//! Addresses, routes and routing rules.

use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Make, Netlink, NetlinkError, Prefix};

/// Who has added an address, for all to see (Linux 5.18 and later): `ip address` shows it as `proto 0x74`.
const OURS: AddressAttribute = AddressAttribute::Protocol(AddressProtocol::Other(0x74));

/// An address that the kernel itself holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// Index of the interface it sits on.
    pub interface: u32,
    /// The address.
    pub address: IpAddr,
    /// Length of the on-link prefix.
    pub prefix_length: u8,
}

/// A route. Its destination, table and metric identify it to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which packets.
    pub destination: Prefix,
    /// Where to.
    pub target: Target,
    /// Preference among routes to the same destination, lower first; `None` = the kernel's default (0, IPv6 1024).
    pub metric: Option<u32>,
    /// Routing table; `None` = main.
    pub table: Option<u32>,
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Straight out of the interface with this index.
    Device(u32),
    /// To this next hop.
    Gateway(IpAddr),
    /// Nowhere, in silence.
    Blackhole,
    /// To this machine itself, as if all of it were addresses of the interface with this index.
    Local(u32),
}

/// What matters of the route to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Index of the interface that it leads to; `None` if it leads to several, or to none.
    pub interface: Option<u32>,
    /// Length of its destination's prefix: 0 for a default route.
    pub prefix_length: u8,
    /// Bytes that the route itself takes at most, if it says so.
    pub mtu: Option<u32>,
}

/// Packets from some sources are routed by a table of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Source addresses.
    pub from: Prefix,
    /// The table.
    pub table: u32,
    /// Place among all rules, lower first; the main table is looked up at 32766.
    pub priority: u32,
}

/// What matters of a routing rule that is not the kernel's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddedRule {
    /// Its family.
    pub v4: bool,
    /// Whether it goes by packets' marks.
    pub by_mark: bool,
}

impl Netlink {
    /// All addresses of all interfaces.
    ///
    /// # Errors
    /// The kernel's answer cannot be read.
    pub fn addresses(&mut self) -> Result<Vec<LocalAddress>, NetlinkError> {
        let all = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        Ok(self.dump("list the addresses", all)?.into_iter().filter_map(local_address).collect())
    }

    /// Those of them that a program of ours [has added](Self::add_own_address), this one or another.
    ///
    /// # Errors
    /// The kernel's answer cannot be read.
    pub fn own_addresses(&mut self) -> Result<Vec<LocalAddress>, NetlinkError> {
        let all = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let is_ours = |answer: &RouteNetlinkMessage| matches!(answer, RouteNetlinkMessage::NewAddress(message) if message.attributes.contains(&OURS));
        let ours = self.dump("list the addresses", all)?.into_iter().filter(is_ours);
        Ok(ours.filter_map(local_address).collect())
    }

    /// Gives an interface an address, usable at once: IPv6 without duplicate address detection.
    ///
    /// # Errors
    /// No privilege, no such interface, or the interface has the address already.
    pub fn add_address(&mut self, address: &LocalAddress) -> Result<(), NetlinkError> {
        let attempt = format!("add the address {}", address.address);
        self.make(&attempt, RouteNetlinkMessage::NewAddress(address_message(address)), Make::New)
    }

    /// The same with a mark, by which it is known if this program ends without removing it.
    ///
    /// # Errors
    /// As [`add_address`](Self::add_address).
    pub fn add_own_address(&mut self, address: &LocalAddress) -> Result<(), NetlinkError> {
        let mut message = address_message(address);
        message.attributes.push(OURS);
        let attempt = format!("add the address {}", address.address);
        self.make(&attempt, RouteNetlinkMessage::NewAddress(message), Make::New)
    }

    /// Takes an address away from an interface.
    ///
    /// # Errors
    /// No privilege or no such address.
    pub fn delete_address(&mut self, address: &LocalAddress) -> Result<(), NetlinkError> {
        let attempt = format!("remove the address {}", address.address);
        self.change(&attempt, RouteNetlinkMessage::DelAddress(address_message(address)), 0)
    }

    /// Adds a route; it must not be there yet.
    ///
    /// # Errors
    /// No privilege, the target is down or unreachable, or there is a route to the same destination.
    pub fn add_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        let attempt = format!("add the route to {}", route.destination);
        let down = || "the interface that it leads to is down".to_owned();
        self.make(&attempt, RouteNetlinkMessage::NewRoute(route_message(route)), Make::New).map_err(|error| {
            let there = || self.instead_of_route_to(route.destination);
            error.remedy_for(libc::EEXIST, there).remedy_for(libc::ENETDOWN, down)
        })
    }

    /// What to do about a route that is there already. One that leads into a program's TUN is a running gateway's.
    fn instead_of_route_to(&mut self, to: Prefix) -> String {
        let index = self.way_to(to.address()).ok().and_then(|way| way.interface);
        let links = self.links().unwrap_or_default();
        match links.into_iter().find(|link| Some(link.index) == index) {
            Some(link) if link.tun && link.carrier.is_some() => format!(
                "the route to it leads to {}, which a program serves: another gateway? Stop that one, or give the two \
                 addresses of their own",
                link.name
            ),
            other => {
                let device = other.map_or_else(String::new, |link| format!(", to {}", link.name));
                format!(
                    "another route to it exists{device}: remove that one (`ip route del {to}`), or set `routes = false` \
                     and see to the routes yourself"
                )
            }
        }
    }

    /// Removes a route.
    ///
    /// # Errors
    /// No privilege, or `ESRCH`: there is no such route.
    pub fn delete_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        let attempt = format!("remove the route to {}", route.destination);
        self.change(&attempt, RouteNetlinkMessage::DelRoute(route_message(route)), 0)
    }

    /// The route by which the kernel sends packets to this address: the one that fits best.
    ///
    /// # Errors
    /// There is no such route, or one that leads nowhere.
    pub fn way_to(&mut self, address: IpAddr) -> Result<Way, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(address);
        message.header.destination_prefix_length = Prefix::host(address).length();
        message.header.flags = RouteFlags::FibMatch;
        message.attributes.push(RouteAttribute::Destination(RouteAddress::from(address)));
        let answer = self.get(&format!("find the route to {address}"), RouteNetlinkMessage::GetRoute(message))?;
        let mut way = Way { interface: None, prefix_length: 0, mtu: None };
        let RouteNetlinkMessage::NewRoute(route) = answer else { return Ok(way) };
        way.prefix_length = route.header.destination_prefix_length;
        for attribute in route.attributes {
            if let RouteAttribute::Oif(index) = attribute {
                way.interface = Some(index);
            } else if let RouteAttribute::Metrics(metrics) = attribute {
                way.mtu = metrics
                    .into_iter()
                    .find_map(|metric| if let RouteMetric::Mtu(mtu) = metric { Some(mtu) } else { None });
            }
        }
        Ok(way)
    }

    /// Adds a routing rule.
    ///
    /// # Errors
    /// No privilege, or the same rule is there.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<(), NetlinkError> {
        let attempt = format!("add the routing rule for {}", rule.from);
        self.make(&attempt, RouteNetlinkMessage::NewRule(rule_message(rule)), Make::New)
    }

    /// Removes a routing rule.
    ///
    /// # Errors
    /// No privilege, or there is no such rule.
    pub fn delete_rule(&mut self, rule: &Rule) -> Result<(), NetlinkError> {
        let attempt = format!("remove the routing rule for {}", rule.from);
        self.change(&attempt, RouteNetlinkMessage::DelRule(rule_message(rule)), 0)
    }

    /// The routing rules of a family that somebody has added: those of the kernel know three tables only.
    ///
    /// # Errors
    /// The kernel's answer cannot be read, or it does not know the family.
    pub fn added_rules(&mut self, v4: bool) -> Result<Vec<AddedRule>, NetlinkError> {
        let mut all = RuleMessage::default();
        all.header.family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let rules = self.dump("list the routing rules", RouteNetlinkMessage::GetRule(all))?;
        let added = rules.into_iter().filter_map(|rule| {
            let RouteNetlinkMessage::NewRule(rule) = rule else { return None };
            let by_mark = rule.attributes.iter().any(|attribute| matches!(attribute, RuleAttribute::FwMark(_)));
            let of_kernel =
                matches!(rule.header.table, libc::RT_TABLE_LOCAL | libc::RT_TABLE_MAIN | libc::RT_TABLE_DEFAULT);
            let leads_elsewhere = rule.header.action == RuleAction::ToTable && !of_kernel;
            (by_mark || leads_elsewhere).then_some(AddedRule { v4, by_mark })
        });
        Ok(added.collect())
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn address_message(local: &LocalAddress) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(local.address);
    message.header.prefix_len = local.prefix_length;
    message.header.index = local.interface;
    if local.address.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message.attributes.push(AddressAttribute::Local(local.address));
    message.attributes.push(AddressAttribute::Address(local.address));
    message
}

fn local_address(answer: RouteNetlinkMessage) -> Option<LocalAddress> {
    let RouteNetlinkMessage::NewAddress(message) = answer else { return None };
    let mut found = None;
    for attribute in message.attributes {
        // On a point-to-point link `Address` is the far end and `Local` ours; elsewhere one or both give ours.
        if let AddressAttribute::Local(address) = attribute {
            found = Some(address);
        } else if let AddressAttribute::Address(address) = attribute {
            found = found.or(Some(address));
        }
    }
    let (interface, prefix_length) = (message.header.index, message.header.prefix_len);
    found.map(|address| LocalAddress { interface, address, prefix_length })
}

fn route_message(route: &Route) -> RouteMessage {
    let destination = route.destination;
    let mut message = RouteMessage::default();
    message.header.address_family = family(destination.address());
    message.header.destination_prefix_length = destination.length();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(destination.address())));
    message.attributes.extend(route.metric.map(RouteAttribute::Priority));
    message.attributes.extend(route.table.map(RouteAttribute::Table));
    match route.target {
        Target::Device(index) => {
            message.attributes.push(RouteAttribute::Oif(index));
            if destination.address().is_ipv4() {
                message.header.scope = RouteScope::Link;
            }
        }
        Target::Gateway(hop) => message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(hop))),
        Target::Blackhole => message.header.kind = RouteType::BlackHole,
        Target::Local(index) => {
            message.header.kind = RouteType::Local;
            message.header.table = libc::RT_TABLE_LOCAL;
            message.header.scope = RouteScope::Host;
            message.attributes.push(RouteAttribute::Oif(index));
        }
    }
    message
}

fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(rule.from.address());
    message.header.src_len = rule.from.length();
    message.header.action = RuleAction::ToTable;
    message.attributes.push(RuleAttribute::Source(rule.from.address()));
    message.attributes.push(RuleAttribute::Priority(rule.priority));
    message.attributes.push(RuleAttribute::Table(rule.table));
    message
}
