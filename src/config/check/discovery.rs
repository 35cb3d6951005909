//! Rules within `[service.discovery]`.

use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use super::gateway::limits;
use crate::config::diagnostic::{Code, Diagnostic};
use crate::config::raw::RawDiscovery;
use crate::config::values::Set;
use crate::config::{Discovery, DnsName, HttpSource, Records, Source, Url};

/// How long a server may wait for a change. Consul takes ten minutes at most; what lies between may cut off sooner.
const WAITS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);
const USUAL_WAIT: Duration = Duration::from_secs(30);

/// What is asked, if anything is.
pub(super) fn check(raw: &RawDiscovery, out: &mut Vec<Diagnostic>) -> Option<Discovery> {
    if let Some(interval) = &raw.interval {
        limits("interval", interval, out);
    }
    let source = match raw.source.as_ref().map(|word| word.value) {
        Some("file") => file(raw, out),
        Some("dns") => dns(raw, out),
        Some("http") => http(raw, out),
        Some(_) | None => {
            without_source(raw, out);
            None
        }
    };
    Some(Discovery { source: source?, interval: raw.interval.as_ref().map(|interval| interval.value) })
}

fn file(raw: &RawDiscovery, out: &mut Vec<Diagnostic>) -> Option<Source> {
    refuse_others(raw, "file", &["path", "interval"], out);
    let Some((path, span)) = raw.path.as_ref().and_then(|path| Some((path.value.as_str(), path.span.clone()?))) else {
        let diagnostic = Diagnostic::new(Code::MissingKey, raw.span.clone(), "a file that is to be read needs a path");
        out.push(diagnostic.help("add a line like `path = \"/etc/tungate/web.toml\"`"));
        return None;
    };
    if !path.starts_with('/') {
        let diagnostic = Diagnostic::new(Code::Malformed, span, "this path does not begin at the root");
        let help = "write the whole path, as \"/etc/tungate/web.toml\": the daemon has no folder of its own";
        out.push(diagnostic.help(help));
    }
    Some(Source::File(path.into()))
}

fn dns(raw: &RawDiscovery, out: &mut Vec<Diagnostic>) -> Option<Source> {
    let records = match raw.records.as_ref().map(|word| word.value) {
        Some("srv") => Records::Srv,
        Some("aaaa") => Records::Aaaa,
        Some(_) | None => Records::A,
    };
    let keys = ["name", "type", "resolver", "interval", "port"];
    let taken = if records == Records::Srv { &keys[..4] } else { &keys[..] };
    refuse_others(raw, if records == Records::Srv { "dns\" and type = \"srv" } else { "dns" }, taken, out);
    let Some((name, span)) = raw.name.as_ref().and_then(|name| Some((name.value.as_str(), name.span.clone()?))) else {
        let diagnostic =
            Diagnostic::new(Code::MissingKey, raw.span.clone(), "who is asked needs a name to be asked for");
        out.push(diagnostic.help("add a line like `name = \"web.example.org\"`"));
        return None;
    };
    if let Some(why) = bad_domain(name) {
        out.push(Diagnostic::new(Code::BadName, span, "this is no name of the DNS").label(why));
    }
    let port = raw.port.as_ref().map(|port| u16::try_from(port.value).expect("within the limits of its key"));
    Some(Source::Dns(DnsName { name: name.to_owned(), records, port, resolver: resolver(raw, out) }))
}

fn http(raw: &RawDiscovery, out: &mut Vec<Diagnostic>) -> Option<Source> {
    refuse_others(raw, "http", &["url", "wait", "interval"], out);
    if let Some(Set { span: Some(span), .. }) = raw.wait.as_ref().filter(|wait| !WAITS.contains(&wait.value)) {
        let message = "`wait` has to be between 1s and 10m";
        out.push(Diagnostic::new(Code::OutOfRange, span.clone(), message).label("outside"));
    }
    let Some((text, span)) = raw.url.as_ref().and_then(|url| Some((url.value.as_str(), url.span.clone()?))) else {
        let diagnostic =
            Diagnostic::new(Code::MissingKey, raw.span.clone(), "a server that is to be asked needs a URL");
        out.push(diagnostic.help("add a line like `url = \"http://10.0.0.5:8080/backends/web\"`"));
        return None;
    };
    let url = Url::read(text).map_err(|why| {
        let diagnostic = Diagnostic::new(Code::Malformed, span, "this URL cannot be asked").label(why);
        out.push(diagnostic.help("write \"http://HOST:PORT/PATH\"; what speaks TLS needs a proxy on this machine"));
    });
    Some(Source::Http(HttpSource { url: url.ok()?, wait: raw.wait.as_ref().map_or(USUAL_WAIT, |wait| wait.value) }))
}

fn resolver(raw: &RawDiscovery, out: &mut Vec<Diagnostic>) -> Option<SocketAddr> {
    let Set { value, span } = raw.resolver.as_ref()?;
    let alone = value.parse().ok().map(|address: IpAddr| SocketAddr::new(address, 53));
    let resolver = alone.or_else(|| value.parse().ok());
    if resolver.is_none() {
        let span = span.clone().expect("a resolver has no default");
        let diagnostic = Diagnostic::new(Code::Malformed, span, "this is not the address of a resolver");
        out.push(diagnostic.help("write \"10.0.0.53\", or with a port \"10.0.0.53:5353\" or \"[fd00::53]:5353\""));
    }
    resolver
}

/// RFC 1035 2.3.4, RFC 2181 11.
fn bad_domain(name: &str) -> Option<&'static str> {
    let labels = || name.trim_end_matches('.').split('.');
    if name.len() > 253 {
        Some("it is longer than 253 characters")
    } else if labels().any(str::is_empty) {
        Some("there is nothing between two dots")
    } else if labels().any(|label| label.len() > 63) {
        Some("a part of it is longer than 63 characters")
    } else if !name.chars().all(|c| c.is_ascii_graphic()) {
        Some("only visible ASCII characters can be asked for")
    } else {
        None
    }
}

/// Each key that is written, and where.
fn written(raw: &RawDiscovery) -> impl Iterator<Item = (&'static str, Range<usize>)> {
    [
        ("path", raw.path.as_ref().and_then(|set| set.span.clone())),
        ("name", raw.name.as_ref().and_then(|set| set.span.clone())),
        ("type", raw.records.as_ref().and_then(|set| set.span.clone())),
        ("port", raw.port.as_ref().and_then(|set| set.span.clone())),
        ("resolver", raw.resolver.as_ref().and_then(|set| set.span.clone())),
        ("url", raw.url.as_ref().and_then(|set| set.span.clone())),
        ("wait", raw.wait.as_ref().and_then(|set| set.span.clone())),
        ("interval", raw.interval.as_ref().and_then(|set| set.span.clone())),
    ]
    .into_iter()
    .filter_map(|(key, span)| Some((key, span?)))
}

fn refuse_others(raw: &RawDiscovery, source: &str, taken: &[&str], out: &mut Vec<Diagnostic>) {
    for (key, span) in written(raw).filter(|(key, _)| !taken.contains(key)) {
        let message = format!("`{key}` means nothing with source = \"{source}\"");
        out.push(Diagnostic::new(Code::UnknownKey, span, message).help("remove the key"));
    }
}

fn without_source(raw: &RawDiscovery, out: &mut Vec<Diagnostic>) {
    if raw.source.is_some() {
        return;
    }
    if let Some((_, span)) = written(raw).next() {
        let diagnostic = Diagnostic::new(Code::MissingKey, span, "`source` is missing in `[service.discovery]`");
        out.push(diagnostic.help("add a line like `source = \"file\"`"));
    }
}
