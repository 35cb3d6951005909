//! The commands with which a Linux backend lets its kernel take tunnels apart.

use std::io::{self, Write};
use std::net::IpAddr;

use crate::io::decap::DecapConfig;
use crate::io::netlink::Prefix;
use crate::wire::Family;
use crate::wire::tunnel::{Encapsulation, GUE_PORT};

/// Writes a script for `sh`, as root, and how to undo it.
pub(super) fn print(config: &DecapConfig, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "# A backend of a service with mode = \"dsr\", by the kernel: run as root.\n")?;
    let devices = devices(config);
    gue_ports(config, out)?;
    // Without `key`, `csum` and `seq` a device takes packets that have none of them, with `key` those with it: no others.
    writeln!(out, "# Devices that take the tunnels apart")?;
    for (name, kind, gateway) in &devices {
        writeln!(out, "ip link add {name} type {kind} local any remote {gateway}\nip link set {name} up")?;
    }
    addresses(config, out)?;
    filters(config, devices.iter().map(|(name, ..)| name.as_str()), out)?;
    segment_sizes(config, out)?;
    undo(config, devices.iter().map(|(name, ..)| name.as_str()), out)
}

/// Settings of the kernel may have been what they are for another reason, and stay.
fn undo<'a>(config: &DecapConfig, devices: impl Iterator<Item = &'a str>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n# To undo (the sysctls of `all` may serve others, too: they stay)")?;
    for name in devices {
        writeln!(out, "#   ip link del {name}")?;
    }
    for (_, option) in gue_families(config) {
        writeln!(out, "#   ip {option}fou del port {GUE_PORT}")?;
    }
    for vip in &config.vips {
        writeln!(out, "#   {}", address("del", *vip))?;
    }
    Ok(())
}

/// Name, kind and gateway of each device: one for each pair of families that needs its own.
fn devices(config: &DecapConfig) -> Vec<(String, String, IpAddr)> {
    let carries = |v4: bool| config.vips.iter().any(|vip| vip.address().is_ipv4() == v4);
    let mut wanted = Vec::new();
    for gateway in &config.from {
        for encapsulation in &config.encapsulations {
            let kinds = match (encapsulation, gateway.is_ipv4()) {
                (Encapsulation::Gre, true) => vec![(true, "gre".to_owned())],
                (Encapsulation::Gre, false) => vec![(true, "ip6gre".to_owned())],
                (Encapsulation::KeyedGre(key), true) => vec![(true, format!("gre key {key}"))],
                (Encapsulation::KeyedGre(key), false) => vec![(true, format!("ip6gre key {key}"))],
                // GUE is IP in IP behind a UDP port, which leads to the same devices.
                (Encapsulation::Ipip | Encapsulation::Gue, true) => {
                    vec![(carries(true), "ipip mode ipip".to_owned()), (carries(false), "sit mode ip6ip".to_owned())]
                }
                (Encapsulation::Ipip | Encapsulation::Gue, false) => vec![(true, "ip6tnl mode any".to_owned())],
            };
            for kind in kinds.into_iter().filter(|(needed, _)| *needed).map(|(_, kind)| (kind, *gateway)) {
                if !wanted.contains(&kind) {
                    wanted.push(kind);
                }
            }
        }
    }
    wanted.into_iter().zip(0..).map(|((kind, gateway), n)| (format!("dsr{n}"), kind, gateway)).collect()
}

fn gue_ports(config: &DecapConfig, out: &mut dyn Write) -> io::Result<()> {
    if !config.encapsulations.contains(&Encapsulation::Gue) {
        return Ok(());
    }
    writeln!(out, "# GUE: what comes to its port goes on to the devices below")?;
    for (module, option) in gue_families(config) {
        writeln!(out, "modprobe {module}\nip {option}fou add port {GUE_PORT} gue")?;
    }
    writeln!(out)
}

/// The module and the option of `ip` for each family in which GUE comes.
fn gue_families(config: &DecapConfig) -> impl Iterator<Item = (&'static str, &'static str)> {
    let gue = config.encapsulations.contains(&Encapsulation::Gue);
    let comes = move |v4: bool| gue && config.from.iter().any(|gateway| gateway.is_ipv4() == v4);
    let families = [(true, "fou", ""), (false, "fou6", "-6 ")].into_iter();
    families.filter(move |(v4, ..)| comes(*v4)).map(|(_, module, option)| (module, option))
}

/// The VIPs on the loopback, and no answer to ARP for them: their packets must go on going to the gateway.
fn addresses(config: &DecapConfig, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n# The services' addresses: on the loopback, and nobody is told by ARP")?;
    if config.vips.iter().any(|vip| vip.address().is_ipv4()) {
        writeln!(out, "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2")?;
    }
    for vip in &config.vips {
        writeln!(out, "{}", address("add", *vip))?;
    }
    Ok(())
}

fn address(what: &str, vip: Prefix) -> String {
    let (family, whole) = if vip.address().is_ipv4() { ("-4", 32) } else { ("-6", 128) };
    if vip.length() == whole {
        format!("ip {family} address {what} {vip} dev lo")
    } else {
        format!("ip {family} route {what} local {vip} dev lo")
    }
}

/// A client's packet comes in by a device that has no route to the client.
fn filters<'a>(config: &DecapConfig, devices: impl Iterator<Item = &'a str>, out: &mut dyn Write) -> io::Result<()> {
    if !config.vips.iter().any(|vip| vip.address().is_ipv4()) {
        return Ok(());
    }
    writeln!(out, "\n# Clients' packets come in by devices that have no route to clients. The greater of `all` and a")?;
    writeln!(out, "# device's own value counts, so a strict `all` has to go, too")?;
    for device in ["all"].into_iter().chain(devices) {
        writeln!(out, "sysctl -w net.ipv4.conf.{device}.rp_filter=0")?;
    }
    Ok(())
}

/// The largest segments that fit the tunnels, where the network takes 1500 bytes.
fn segment_sizes(config: &DecapConfig, out: &mut dyn Write) -> io::Result<()> {
    let families = config.from.iter().map(|gateway| if gateway.is_ipv4() { Family::V4 } else { Family::V6 });
    let overheads = families.flat_map(|family| config.encapsulations.iter().map(move |one| one.overhead(family)));
    let Some(overhead) = overheads.max() else { return Ok(()) };
    writeln!(
        out,
        "\n# So that no upload begins with packets too big for the tunnel: where the network takes 1500 bytes,"
    )?;
    writeln!(out, "# give the routes of the answers (`ip route show default`) a segment size that fits")?;
    for (v4, option, headers) in [(true, "-4", 40), (false, "-6", 60)] {
        if config.vips.iter().any(|vip| vip.address().is_ipv4() == v4) {
            let size = 1500 - overhead - headers;
            writeln!(out, "#   ip {option} route change default via ROUTER dev DEVICE advmss {size}")?;
        }
    }
    Ok(())
}
