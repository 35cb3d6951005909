//! Rules about `[service.health]` and `[service.passive]`.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use super::service::CheckedService;
use crate::config::diagnostic::{Code, Diagnostic};
use crate::config::raw::{RawHealth, RawPassive};
use crate::config::values::Set;
use crate::config::{Carried, Check, Health, HttpCheck, OnDown, Passive, UdpCheck};
use crate::wire::Protocol;

/// Less would be a flood of questions; more, and nobody would know that it is on.
const LIMITS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

/// A long answer would have to be kept to be searched.
const LONGEST_TEXT: usize = 1024;

/// What stands in a service until its own has been read.
pub(super) fn unchecked() -> Health {
    Health {
        check: Check::None,
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
        port: None,
        on_down: OnDown::Keep,
        slow_start: Duration::ZERO,
        panic_threshold: 0,
    }
}

pub(super) fn check(mut raw: RawHealth, service: &CheckedService, out: &mut Vec<Diagnostic>) -> Health {
    let port = raw.port.as_ref().map(|port| u16::try_from(port.value).expect("within the limits of its key"));
    let can_ask = port.is_some() || has_ports(service);
    let word = raw.check.as_ref().map_or_else(|| default_check(service, can_ask), |word| word.value);
    foreign_keys(&raw, word, out);
    times(&raw, out);
    let check = match word {
        "tcp" => Check::Tcp,
        "http" => Check::Http(http(&mut raw, out)),
        "udp" => Check::Udp(udp(&mut raw, out)),
        "icmp" => Check::Icmp,
        _ => Check::None,
    };
    if let Some(Set { span: Some(span), .. }) = &raw.check
        && check.needs_port()
        && !can_ask
    {
        let message = format!("the health check of {} has no port to go to", service.title());
        let diagnostic = Diagnostic::new(Code::CheckWithoutPort, span.clone(), message);
        let label = "neither all backends nor `listen` name one port";
        out.push(diagnostic.label(label).help("add `port` to `[service.health]`"));
    }
    let small = |number: i64| u16::try_from(number).expect("within the limits of its key");
    Health {
        check,
        interval: raw.interval.value,
        timeout: raw.timeout.value,
        rise: small(raw.rise),
        fall: small(raw.fall),
        port,
        on_down: if raw.on_down.is_some_and(|word| word.value == "reset") { OnDown::Reset } else { OnDown::Keep },
        slow_start: raw.slow_start.value,
        panic_threshold: u8::try_from(raw.panic_threshold).expect("within the limits of its key"),
    }
}

pub(super) fn passive(raw: &RawPassive, out: &mut Vec<Diagnostic>) -> Passive {
    within_limits("eject-for", &raw.eject_for, out);
    Passive {
        failures: u16::try_from(raw.failures).expect("within the limits of its key"),
        eject_for: raw.eject_for.value,
        max_ejected: u8::try_from(raw.max_ejected).expect("within the limits of its key"),
    }
}

/// Whether there is a port to ask every backend at.
fn has_ports(service: &CheckedService) -> bool {
    let listens_alone = || service.listen.items.iter().any(|listen| listen.get_ref().ports.len() == 1);
    service.backends.items.iter().all(|backend| backend.port.is_some()) || listens_alone()
}

/// Of a tunnel, an echo tells much more than nothing.
fn default_check(service: &CheckedService, can_ask: bool) -> &'static str {
    match service.protocol {
        Some(Carried::One(Protocol::TCP)) if can_ask => "tcp",
        Some(_) | None if service.has_tunnels() => "icmp",
        Some(_) | None => "none",
    }
}

/// Keys that this check has no use for: whoever wrote them meant another.
fn foreign_keys(raw: &RawHealth, check: &str, out: &mut Vec<Diagnostic>) {
    let place = |set: &Option<Set<String>>| set.as_ref().and_then(|set| set.span.clone());
    let port = raw.port.as_ref().and_then(|port| port.span.clone());
    let keys = [
        ("path", place(&raw.path), ["http"].as_slice()),
        ("host", place(&raw.host), &["http"]),
        ("expect", place(&raw.expect), &["http", "udp"]),
        ("body", place(&raw.body), &["http"]),
        ("send", place(&raw.send), &["udp"]),
        ("port", port, &["tcp", "http", "udp"]),
    ];
    for (key, span, checks) in keys {
        let Some(span): Option<Range<usize>> = span.filter(|_| !checks.contains(&check)) else { continue };
        let message = format!("a health check by {check} has no use for `{key}`");
        let message = if check == "none" { format!("without a health check, `{key}` is for nothing") } else { message };
        let help = format!("remove the key, or set `check = \"{}\"`", checks[0]);
        out.push(Diagnostic::new(Code::OfAnotherCheck, span, message).help(help));
    }
}

fn times(raw: &RawHealth, out: &mut Vec<Diagnostic>) {
    within_limits("interval", &raw.interval, out);
    within_limits("timeout", &raw.timeout, out);
    if raw.slow_start.value > *LIMITS.end() {
        within_limits("slow-start", &raw.slow_start, out);
    }
    let place = raw.timeout.span.clone().or_else(|| raw.interval.span.clone());
    if let Some(span) = place.filter(|_| raw.timeout.value > raw.interval.value) {
        let message = "a health check may last longer than `interval`: the next one then waits for it";
        out.push(Diagnostic::new(Code::LongCheck, span, message).help("make `timeout` no longer than `interval`"));
    }
}

fn within_limits(key: &str, written: &Set<Duration>, out: &mut Vec<Diagnostic>) {
    let Some(span) = written.span.clone().filter(|_| !LIMITS.contains(&written.value)) else { return };
    let message = format!("`{key}` has to be between 100ms and 1h");
    out.push(Diagnostic::new(Code::OutOfRange, span, message).label("outside"));
}

fn http(raw: &mut RawHealth, out: &mut Vec<Diagnostic>) -> HttpCheck {
    let path = text(raw.path.take(), out, |path| {
        let sound = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
        (!sound).then_some("a path begins with `/`, and has only visible ASCII characters")
    });
    let host = text(raw.host.take(), out, |host| {
        let sound = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic());
        (!sound).then_some("a host has only visible ASCII characters, and at least one")
    });
    let status = raw.expect.take().and_then(|written| {
        let range = statuses(&written.value);
        if let (None, Some(span)) = (&range, written.span) {
            let help = "write a number from 100 to 599, or two of them, as \"200-299\"";
            out.push(Diagnostic::new(Code::Malformed, span, "this is no status of HTTP").help(help));
        }
        range
    });
    HttpCheck {
        path: path.unwrap_or_else(|| "/".to_owned()),
        host,
        status: status.unwrap_or(200..=399),
        body: text(raw.body.take(), out, |_| None),
    }
}

fn udp(raw: &mut RawHealth, out: &mut Vec<Diagnostic>) -> UdpCheck {
    UdpCheck {
        send: text(raw.send.take(), out, |_| None).unwrap_or_default(),
        expect: text(raw.expect.take(), out, |_| None),
    }
}

/// A text, unless something is wrong with it.
fn text(
    written: Option<Set<String>>,
    out: &mut Vec<Diagnostic>,
    wrong: impl Fn(&str) -> Option<&'static str>,
) -> Option<String> {
    let Set { value, span } = written?;
    let too_long = (value.len() > LONGEST_TEXT).then_some("it is longer than 1024 bytes");
    if let (Some(why), Some(span)) = (too_long.or_else(|| wrong(&value)), span) {
        out.push(Diagnostic::new(Code::Malformed, span, "a health check cannot use this").label(why));
        return None;
    }
    Some(value)
}

/// `200`, or `200-299`.
fn statuses(written: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = written.split_once('-').unwrap_or((written, written));
    let status = |digits: &str| digits.parse().ok().filter(|status| (100..600).contains(status));
    let (first, last): (u16, u16) = (status(first)?, status(last)?);
    (first <= last).then_some(first..=last)
}
