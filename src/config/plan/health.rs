//! How backends are found and asked, in the words of a plan.

use super::{Effect, Field, number};
use crate::config::{Check, Discovery, Health, HttpCheck, OnDown, Passive, Source, UdpCheck};

/// All of `[service.health]`: it holds for the next question, and for what follows from its answer.
pub(super) fn fields(health: &Health) -> Vec<Field> {
    let Health { check: asked, interval, timeout, rise, fall, port, on_down, slow_start, panic_threshold } = health;
    let on_down = match on_down {
        OnDown::Keep => "keep",
        OnDown::Reset => "reset",
    };
    [
        ("health check", check(asked)),
        ("health interval", format!("{interval:?}")),
        ("health timeout", format!("{timeout:?}")),
        ("health rise", rise.to_string()),
        ("health fall", fall.to_string()),
        ("health port", number(port.map(u32::from))),
        ("health on-down", on_down.to_owned()),
        ("health slow-start", format!("{slow_start:?}")),
        ("health panic-threshold", panic_threshold.to_string()),
    ]
    .map(|(name, value)| (name, value, Effect::InPlace))
    .into()
}

fn check(check: &Check) -> String {
    let mut text = check.name().to_owned();
    match check {
        Check::None | Check::Tcp | Check::Icmp => {}
        Check::Http(HttpCheck { path, host, status, body }) => {
            text += &format!(" {path}, status {}", status.start());
            if status.start() != status.end() {
                text += &format!("-{}", status.end());
            }
            text += &host.as_ref().map_or_else(String::new, |host| format!(", host {host}"));
            text += &body.as_ref().map_or_else(String::new, |body| format!(", body {body:?}"));
        }
        Check::Udp(UdpCheck { send, expect }) => {
            text += &format!(" {send:?}");
            text += &expect.as_ref().map_or_else(String::new, |expect| format!(", expect {expect:?}"));
        }
    }
    text
}

/// `[service.passive]`: an ejection that lasts ends when it would have, or with the table.
pub(super) fn passive(passive: Option<Passive>) -> String {
    passive.map_or_else(
        || "none".to_owned(),
        |Passive { failures, eject_for, max_ejected }| {
            format!("after {failures} failures for {eject_for:?}, {max_ejected} % at most")
        },
    )
}

/// `[service.discovery]`: what was found stays until the new source has answered.
pub(super) fn discovery(discovery: Option<&Discovery>) -> String {
    let Some(Discovery { source, interval }) = discovery else { return "none".to_owned() };
    let mut text = source.to_string();
    match source {
        Source::File(_) => {}
        Source::Dns(name) => {
            text += &name.port.map_or_else(String::new, |port| format!(", port {port}"));
            text += &name.resolver.map_or_else(String::new, |resolver| format!(", from {resolver}"));
        }
        Source::Http(source) => text += &format!(", wait {:?}", source.wait),
    }
    text + &interval.map_or_else(String::new, |interval| format!(", every {interval:?}"))
}
