//! Rules of `[ha]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::Spanned;

use super::super::ha::{Ha, MOST_PATHS, Path, Profile, Role, SplitBrain};
use crate::config::Gateway;
use crate::config::diagnostic::{Code, Diagnostic};
use crate::config::raw::RawHa;
use crate::config::values::{List, Set};

/// The pair. What cannot be read is left out: then the file is refused anyway.
pub(super) fn check(raw: Option<RawHa>, gateway: &Gateway, out: &mut Vec<Diagnostic>) -> Option<Ha> {
    let raw = raw?;
    if gateway.announce_on.is_empty() {
        let message = "a gateway of a pair announces its addresses nowhere";
        let diagnostic = Diagnostic::new(Code::Unannounced, raw.span.clone(), message);
        let help = "name the interfaces of clients and backends in `announce-on` of [gateway]: after a take-over, nothing \
                    else tells the neighbours";
        out.push(diagnostic.help(help));
    }
    let (listen, peer) = (addresses(&raw.listen, out), addresses(&raw.peer, out));
    let paths = paths(&listen, &peer, out);
    Some(Ha {
        role: match raw.role {
            Some("active") => Role::Active,
            Some("standby") => Role::Standby,
            Some(_) | None => Role::Auto,
        },
        priority: u8::try_from(raw.priority).expect("within the limits of its key"),
        paths,
        key_file: raw.key_file.map(|path| key_file(&path, out)).unwrap_or_default(),
        profile: match raw.profile {
            Some("fast") => Profile::Fast,
            Some("normal") => Profile::Normal,
            Some("vm") => Profile::Vm,
            Some("wan") => Profile::Wan,
            Some(_) | None => Profile::Auto,
        },
        split_brain: if raw.split_brain == Some("manual") { SplitBrain::Manual } else { SplitBrain::Pair },
    })
}

fn addresses(written: &List<Spanned<String>>, out: &mut Vec<Diagnostic>) -> List<Spanned<SocketAddr>> {
    let mut items: Vec<Spanned<SocketAddr>> = Vec::with_capacity(written.items.len());
    let mut whole = written.whole;
    for text in &written.items {
        match address(text) {
            Ok(address) => {
                if let Some(first) = items.iter().find(|other| *other.get_ref() == address) {
                    let diagnostic =
                        Diagnostic::new(Code::DuplicateEntry, text.span(), "an address stands there twice");
                    let diagnostic = diagnostic.label("again here").also(first.span(), "first here");
                    out.push(diagnostic.help("each path has an end of its own"));
                }
                items.push(Spanned::new(text.span(), address));
            }
            Err(diagnostic) => {
                out.push(diagnostic);
                whole = false;
            }
        }
    }
    List { items, whole, span: written.span.clone() }
}

fn address(text: &Spanned<String>) -> Result<SocketAddr, Diagnostic> {
    let wrong = |message: &str, label: &str| {
        let diagnostic = Diagnostic::new(Code::Malformed, text.span(), message.to_owned()).label(label.to_owned());
        diagnostic.help("write an address and a port, as \"10.0.5.1:7946\" or \"[fd00:5::1]:7946\"")
    };
    let address: SocketAddr =
        text.get_ref().parse().map_err(|_| wrong("this is no end of a heartbeat path", "no address with a port"))?;
    if address.port() == 0 {
        return Err(wrong("this is no end of a heartbeat path", "port 0 is none"));
    }
    if address.ip().is_unspecified() || address.ip().is_multicast() {
        return Err(wrong("this is no end of a heartbeat path", "not the address of one machine"));
    }
    Ok(address)
}

/// The nth address of one list belongs to the nth of the other.
fn paths(listen: &List<Spanned<SocketAddr>>, peer: &List<Spanned<SocketAddr>>, out: &mut Vec<Diagnostic>) -> Vec<Path> {
    let Some(span) = peer.span.clone().filter(|_| listen.whole && peer.whole) else { return Vec::new() };
    let (ours, theirs) = (listen.items.len(), peer.items.len());
    if ours != theirs || ours == 0 {
        let message = format!("{ours} in `listen`, {theirs} in `peer`: each path has an end in both");
        let diagnostic = Diagnostic::new(Code::PathEnds, span, message);
        out.push(diagnostic.help("write as many in both lists, the ends of one path at the same place"));
        return Vec::new();
    }
    if ours > MOST_PATHS {
        let message = format!("{ours} heartbeat paths, {MOST_PATHS} at most");
        out.push(Diagnostic::new(Code::TooMany, span, message));
        return Vec::new();
    }
    for (ours, theirs) in listen.items.iter().zip(&peer.items) {
        let (ip, other) = (ours.get_ref().ip(), theirs.get_ref().ip());
        let why = if ip == other {
            "both ends of the path are the same machine"
        } else if ip.is_ipv4() != other.is_ipv4() {
            "the ends of the path are of different families"
        } else {
            continue;
        };
        let diagnostic = Diagnostic::new(Code::PathEnds, theirs.span(), why);
        out.push(diagnostic.also(ours.span(), "the other end"));
    }
    let ends = listen.items.iter().zip(&peer.items);
    ends.map(|(listen, peer)| Path { listen: *listen.get_ref(), peer: *peer.get_ref() }).collect()
}

fn key_file(path: &Set<String>, out: &mut Vec<Diagnostic>) -> PathBuf {
    if let Some(span) = path.span.clone().filter(|_| !path.value.starts_with('/')) {
        let diagnostic = Diagnostic::new(Code::Malformed, span, "this path does not begin at the root");
        let help = "write the whole path, as \"/etc/tungate/ha.key\": the daemon has no folder of its own";
        out.push(diagnostic.help(help));
    }
    PathBuf::from(&path.value)
}
