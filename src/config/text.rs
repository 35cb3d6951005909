//! The little languages inside strings: durations, addresses, listen addresses, names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use super::diagnostic::{Code, Diagnostic};
use super::{Listen, Rate};
use crate::wire::Address;

/// Why a string is not what it should be.
#[derive(Debug)]
pub(super) struct Problem {
    code: Code,
    message: String,
    label: &'static str,
    help: String,
}

impl Problem {
    fn malformed(message: impl Into<String>, label: &'static str, help: impl Into<String>) -> Self {
        Self { code: Code::Malformed, message: message.into(), label, help: help.into() }
    }

    /// The same with other words on what to write.
    pub(super) fn help(self, help: &str) -> Self {
        Self { help: help.to_owned(), ..self }
    }

    /// The diagnostic for a string at this place.
    pub(super) fn at(self, span: Range<usize>) -> Diagnostic {
        Diagnostic::new(self.code, span, self.message).label(self.label).help(self.help)
    }
}

/// `"500ms"`, `"2s"`, `"10m"`, `"2h4m"`, `"1d"`.
pub(super) fn duration(text: &str) -> Result<Duration, Problem> {
    const UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let help = "write a whole number and a unit (ms, s, m, h, d), as \"300s\"";
    let refuse = |label| Problem::malformed("this is not a duration", label, help);
    let mut millis = 0_u64;
    let mut rest = text;
    while !rest.is_empty() || text.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        if number.is_empty() {
            return Err(refuse("it does not start with a number"));
        } else if unit.is_empty() {
            return Err(refuse("the unit is missing"));
        }
        let unit = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| refuse("no unit is written so"))?;
        let part = number.parse().ok().and_then(|number: u64| number.checked_mul(unit.1));
        millis = part.and_then(|part| millis.checked_add(part)).ok_or_else(|| refuse("it is too long"))?;
        rest = tail;
    }
    Ok(Duration::from_millis(millis))
}

/// `"100/s"`, `"5k/s"`, `"2M/s"`, `"30/m"`, `"10/h"`.
pub(super) fn rate(text: &str) -> Result<Rate, Problem> {
    let help = "write a whole number and a unit of time (s, m, h), as \"100/s\", \"5k/s\" or \"30/m\"";
    let refuse = |label| Problem::malformed("this is not a rate", label, help);
    let (number, unit) = text.split_once('/').ok_or_else(|| refuse("the unit is missing"))?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(refuse("no unit is written so")),
    };
    let (number, factor) = match number.strip_suffix(['k', 'M']) {
        Some(start) => (start, if number.ends_with('k') { 1_000 } else { 1_000_000 }),
        None => (number, 1),
    };
    let number: u32 = digits(number).ok_or_else(|| refuse("it does not start with a number"))?;
    match number.checked_mul(factor).filter(|events| *events <= Rate::MOST_EVENTS) {
        Some(0) => Err(refuse("nothing would ever pass")),
        Some(events) => Ok(Rate { events, seconds }),
        None => Err(refuse("it is above 10M")),
    }
}

/// An address alone, as in `source-addresses`.
pub(super) fn address(text: &str) -> Result<Address, Problem> {
    let example = "write one address, as \"10.99.0.10\" or \"fd00:99::10\"";
    let refuse = |label| Problem::malformed("this is not an IP address", label, example);
    match Host::split(text) {
        Some(Host { port: Some(_), .. }) => Err(refuse("a port has no meaning here")),
        Some(Host { ip, .. }) if ip.contains('/') => Err(refuse("a prefix has no meaning here")),
        Some(Host { ip, .. }) => ip_address(ip, || refuse(name_or_nothing(ip))),
        None => Err(refuse("")),
    }
}

/// A backend's address, with or without port.
pub(super) fn backend(text: &str) -> Result<(Address, Option<u16>), Problem> {
    let example = "write \"10.0.0.1:8080\" or \"[2001:db8::1]:8080\", or without a port to keep the packet's";
    let refuse = |label| Problem::malformed("this is not a backend address", label, example);
    let Some(host) = Host::split(text) else { return Err(refuse("")) };
    if host.ip.contains('/') {
        return Err(refuse("a prefix has no meaning here"));
    }
    let address = ip_address(host.ip, || refuse(name_or_nothing(host.ip)))?;
    let port = match host.port {
        None => None,
        Some(port) => Some(one_port(port).ok_or_else(|| refuse("a port is a number from 1 to 65535"))?),
    };
    Ok((address, port))
}

/// A listen address: an address or prefix, and a port, a range of ports or `*`.
pub(super) fn listen(text: &str) -> Result<Listen, Problem> {
    let refuse = |label, help: String| Problem::malformed("this is not a listen address", label, help);
    let general = || "write an address and a port, as \"192.0.2.10:80\" or \"[2001:db8::10]:80\"".to_string();
    let Some(host) = Host::split(text) else { return Err(refuse("", general())) };
    let (ip, length) = host.ip.split_once('/').map_or((host.ip, None), |(ip, length)| (ip, Some(length)));
    let address = ip_address(ip, || refuse(name_or_nothing(ip), general()))?;
    let bits = if address.is_v4() { 32 } else { 128 };
    let prefix = match length {
        None => bits,
        Some(length) => {
            let example = "as \"192.0.2.0/28:443\" or \"[2001:db8::/64]:443\"";
            let wrong = || refuse("", format!("the prefix length is 1 to {bits}, {example}"));
            digits(length).filter(|n| (1..=bits).contains(n)).ok_or_else(wrong)?
        }
    };
    let Some(written) = host.port else {
        return Err(refuse("the port is missing", port_example(host.ip)));
    };
    let wrong = || refuse("", "ports are 1 to 65535: one, a range as 8000-8099, or * for all".to_string());
    let listen = Listen { address, prefix, ports: ports(written).ok_or_else(wrong)? };
    let network = listen.network();
    if network != address {
        let help = format!("the prefix starts at {network}/{prefix}; for the one address, leave out /{prefix}");
        return Err(Problem::malformed("the address has bits beyond its prefix", "", help));
    }
    Ok(listen)
}

/// Why no service, backend or gateway can have an address of this prefix, if so.
pub(super) fn unusable(address: Address, prefix: u8) -> Option<&'static str> {
    const V4: &[([u8; 4], u8, &str)] = &[
        ([0, 0, 0, 0], 8, "unspecified (0.0.0.0/8)"),
        ([127, 0, 0, 0], 8, "loopback (127.0.0.0/8)"),
        ([224, 0, 0, 0], 4, "multicast (224.0.0.0/4)"),
        ([240, 0, 0, 0], 4, "reserved (240.0.0.0/4)"),
    ];
    const V6: &[(Ipv6Addr, u8, &str)] = &[
        (Ipv6Addr::UNSPECIFIED, 128, "unspecified (::)"),
        (Ipv6Addr::LOCALHOST, 128, "loopback (::1)"),
        (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, "mapped IPv4 (::ffff:0:0/96)"),
        (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, "link-local (fe80::/10)"),
        (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, "multicast (ff00::/8)"),
    ];
    let meet = |range: IpAddr, bits: u8| match (range, address.ip()) {
        (IpAddr::V4(range), IpAddr::V4(ip)) => {
            let shift = 32 - u32::from(bits.min(prefix));
            range.to_bits() >> shift == ip.to_bits() >> shift
        }
        (IpAddr::V6(range), IpAddr::V6(ip)) => {
            let shift = 128 - u32::from(bits.min(prefix));
            range.to_bits() >> shift == ip.to_bits() >> shift
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    };
    let v4 = V4.iter().map(|(range, bits, why)| (IpAddr::V4(Ipv4Addr::from(*range)), *bits, *why));
    let v6 = V6.iter().map(|(range, bits, why)| (IpAddr::V6(*range), *bits, *why));
    v4.chain(v6).find(|(range, bits, _)| meet(*range, *bits)).map(|(_, _, why)| why)
}

/// Why a name cannot be a metric label and part of a filter, if so.
pub(super) fn bad_name(name: &str) -> Option<&'static str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
    if name.is_empty() {
        Some("it is empty")
    } else if name.len() > 63 {
        Some("it is longer than 63 characters")
    } else if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        Some("it does not start with a letter or digit")
    } else if !name.chars().all(fits) {
        Some("only letters, digits, `-`, `_` and `.` are allowed")
    } else {
        None
    }
}

/// Why a name cannot be a network interface's, if so: the kernel's dev_valid_name(), its settings of all interfaces
/// (`net.ipv4.conf.all`), and no `%`, which it would replace.
pub fn bad_interface(name: &str) -> Option<&'static str> {
    let fits = |c: char| c.is_ascii_graphic() && !['/', ':', '%'].contains(&c);
    if matches!(name, "" | "." | ".." | "all" | "default") {
        Some("the kernel does not take this name")
    } else if name.len() > 15 {
        Some("it is longer than 15 characters")
    } else if !name.chars().all(fits) {
        Some("spaces, `/`, `:`, `%` and letters beyond ASCII are not allowed")
    } else {
        None
    }
}

/// A number as it can stand in a file: `129_024`.
pub(super) fn grouped(number: impl Into<i128>) -> String {
    let digits = number.into().to_string();
    let parts = digits.as_bytes().rchunks(3).rev().map(|part| String::from_utf8_lossy(part));
    parts.collect::<Vec<_>>().join("_")
}

/// What stands before and behind the colon of the port.
struct Host<'a> {
    ip: &'a str,
    port: Option<&'a str>,
}

impl<'a> Host<'a> {
    /// `IP`, `V4:PORT`, `[IP]`, `[IP]:PORT`; nothing if the brackets do not fit.
    fn split(text: &'a str) -> Option<Self> {
        if let Some(inside) = text.strip_prefix('[') {
            let (ip, rest) = inside.split_once(']')?;
            return match rest.strip_prefix(':') {
                Some(port) => Some(Self { ip, port: Some(port) }),
                None if rest.is_empty() => Some(Self { ip, port: None }),
                None => None,
            };
        }
        match text.split_once(':') {
            Some((ip, port)) if !port.contains(':') => Some(Self { ip, port: Some(port) }),
            Some(_) | None => Some(Self { ip: text, port: None }),
        }
    }
}

fn ip_address(text: &str, refuse: impl Fn() -> Problem) -> Result<Address, Problem> {
    let ip: IpAddr = text.parse().map_err(|_| refuse())?;
    if let IpAddr::V6(v6) = ip
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        let message = "this is an IPv4 address written as IPv6";
        return Err(Problem::malformed(message, "mapped IPv4", format!("write {v4} in its place")));
    }
    Ok(ip.into())
}

/// How to write this address with a port. Of an IPv6 address without brackets the end may be meant as the port.
fn port_example(ip: &str) -> String {
    if !ip.contains(':') {
        return format!("write \"{ip}:80\", or \"{ip}:*\" for all ports");
    }
    match ip.rsplit_once(':') {
        Some((start, end)) if start.parse::<Ipv6Addr>().is_ok() && one_port(end).is_some() => {
            format!("write \"[{start}]:{end}\" if {end} is the port, or \"[{ip}]:80\" if it belongs to the address")
        }
        Some(_) | None => format!("write \"[{ip}]:80\", or \"[{ip}]:*\" for all ports"),
    }
}

/// A hint for what looks like a host name.
fn name_or_nothing(text: &str) -> &'static str {
    let name = text.contains(|c: char| c.is_ascii_alphabetic()) && !text.contains(':');
    if name { "names are not resolved: write the address" } else { "" }
}

fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    if text == "*" {
        return Some(1..=u16::MAX);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let ports = one_port(first)?..=one_port(last)?;
    (!ports.is_empty()).then_some(ports)
}

fn one_port(text: &str) -> Option<u16> {
    digits(text).filter(|port| *port != 0)
}

/// A number in digits alone: no sign.
fn digits<N: std::str::FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_add_up() {
        for (text, millis) in [("500ms", 500), ("2s", 2000), ("10m", 600_000), ("2h4m", 7_440_000), ("1d", 86_400_000)]
        {
            assert_eq!(duration(text).unwrap().as_millis(), millis, "{text}");
        }
        for text in ["", "2", "s", "2 s", "2S", "-2s", "+2s", "1.5s", "2s ", "2s3", "\u{0661}s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_have_a_unit_of_time() {
        for (text, events, seconds) in
            [("100/s", 100, 1), ("5k/s", 5_000, 1), ("10M/s", 10_000_000, 1), ("30/m", 30, 60), ("1/h", 1, 3600)]
        {
            assert_eq!(rate(text).unwrap(), Rate { events, seconds }, "{text}");
        }
        let more =
            ["", "5", "5/", "/s", "5k", "k/s", "5K/s", "5 k/s", "+5/s", "-5/s", "1.5k/s", "5kk/s", "5/d", "5/s "];
        for text in more.into_iter().chain(["0/s", "0k/s", "10000001/s", "11M/s", "4294967296/s", "5/s/s"]) {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_is_the_time_between_two_events() {
        let read = |text| rate(text).map(|rate| (rate.interval(), rate.burst())).unwrap();
        assert_eq!(read("3/s"), (333_333_333, 3));
        assert_eq!(read("10M/s"), (100, 10_000_000));
        assert_eq!(read("30/m"), (2_000_000_000, 1));
        assert_eq!(read("90/m"), (666_666_666, 1));
    }

    #[test]
    fn backends_may_keep_the_port_of_the_packet() {
        let read = |text| backend(text).map(|(address, port)| (address.to_string(), port)).unwrap();
        assert_eq!(read("10.0.0.1:8080"), ("10.0.0.1".to_string(), Some(8080)));
        assert_eq!(read("10.0.0.1"), ("10.0.0.1".to_string(), None));
        assert_eq!(read("[fd00::1]:8080"), ("fd00::1".to_string(), Some(8080)));
        for bare in ["[fd00::1]", "fd00::1"] {
            assert_eq!(read(bare), ("fd00::1".to_string(), None));
        }
    }

    #[test]
    fn all_ports_are_a_range() {
        assert_eq!(listen("192.0.2.1:*").unwrap().ports, 1..=65_535);
        assert_eq!(listen("192.0.2.1:7-7").unwrap().ports, 7..=7);
    }

    #[test]
    fn names_that_the_kernel_would_refuse_or_number_are_refused_first() {
        for name in ["tungate0", "a", "fifteen-bytes-x", "tun.5", "...", "all0"] {
            assert_eq!(bad_interface(name), None, "{name}");
        }
        let bad =
            ["", ".", "..", "sixteen-bytes-xy", "a b", "a/b", "a:b", "tun%d", "a\tb", "t\u{e4}n", "all", "default"];
        for name in bad {
            assert!(bad_interface(name).is_some(), "{name}");
        }
    }

    #[test]
    fn unusable_is_what_a_prefix_touches() {
        let why = |text: &str| {
            let listen = listen(text).unwrap();
            unusable(listen.address, listen.prefix)
        };
        let usable = ["192.0.2.1:1", "128.0.0.0/2:1", "1.0.0.0/8:1", "169.254.1.1:1", "[2000::/3]:1", "[fd00::1]:1"];
        for text in usable {
            assert_eq!(why(text), None, "{text}");
        }
        let unusable =
            ["0.1.2.3:1", "127.255.0.0/16:1", "126.0.0.0/7:1", "128.0.0.0/1:1", "239.0.0.1:1", "255.255.255.255:1"];
        for text in unusable.into_iter().chain([
            "[::]:1",
            "[::1]:1",
            "[::/64]:1",
            "[fe80::1]:1",
            "[ff00::/8]:1",
            "[8000::/1]:1",
        ]) {
            assert!(why(text).is_some(), "{text}");
        }
    }

    #[test]
    fn numbers_are_grouped_from_the_right() {
        let grouped: Vec<_> = [0_u32, 576, 1280, 65_535, 129_024, 1_000_000].map(grouped).into();
        assert_eq!(grouped, ["0", "576", "1_280", "65_535", "129_024", "1_000_000"]);
    }
}
