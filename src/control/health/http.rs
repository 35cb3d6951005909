//! One HTTP exchange: the question as bytes, and when the bytes of the answer have said enough.

use super::{Outcome, Reason};
use crate::config::HttpCheck;
use crate::wire::Endpoint;

/// As much of an answer is looked at.
const LONGEST: usize = 64 << 10;

/// The request. HTTP/1.0, so that the answer is not in chunks and its end is the end of the connection (RFC 1945 7.2).
pub fn request(check: &HttpCheck, endpoint: Endpoint) -> Vec<u8> {
    let host = check.host.clone().unwrap_or_else(|| endpoint.to_string());
    format!("GET {} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: tungate\r\nConnection: close\r\n\r\n", check.path)
        .into_bytes()
}

/// What has come of an answer.
#[derive(Debug, Default)]
pub struct Reading {
    bytes: Vec<u8>,
    /// Where the body begins, once that is known.
    body: Option<usize>,
}

impl Reading {
    /// Takes the next bytes; what the answer says, as soon as that is clear.
    pub fn take(&mut self, bytes: &[u8], check: &HttpCheck) -> Option<Outcome> {
        let (known, room) = (self.bytes.len(), LONGEST - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let status = match status(&self.bytes) {
            Status::Unfinished => return None,
            Status::NotHttp => return Some(Outcome::Bad(Reason::NotHttp)),
            Status::Is(status) => status,
        };
        if !check.status.contains(&status) {
            return Some(Outcome::Bad(Reason::Status(status)));
        }
        let Some(wanted) = &check.body else { return Some(Outcome::Good) };
        // What was there before has been searched, but for the beginning of a match.
        let searched = known.saturating_sub(wanted.len().max(4));
        if self.body.is_none() {
            let end = self.bytes[searched..].windows(4).position(|four| four == b"\r\n\r\n");
            self.body = end.map(|end| searched + end + 4);
        }
        let from = self.body.map(|start| start.max(searched));
        if from.is_some_and(|from| contains(&self.bytes[from..], wanted.as_bytes())) {
            return Some(Outcome::Good);
        }
        (self.bytes.len() == LONGEST).then_some(Outcome::Bad(Reason::BodyLacks))
    }

    /// The connection has ended before enough was said.
    pub fn end(&self) -> Outcome {
        Outcome::Bad(match status(&self.bytes) {
            Status::Unfinished if self.bytes.is_empty() => Reason::Closed,
            Status::Unfinished | Status::NotHttp => Reason::NotHttp,
            Status::Is(_) => Reason::BodyLacks,
        })
    }
}

enum Status {
    Unfinished,
    NotHttp,
    Is(u16),
}

/// `HTTP/1.1 200 OK`: of the first line only the status counts (RFC 9112 4).
fn status(bytes: &[u8]) -> Status {
    const START: &[u8] = b"HTTP/1.";
    let common = bytes.len().min(START.len());
    if bytes[..common] != START[..common] {
        return Status::NotHttp;
    }
    // Version digit, space, three digits, and what ends them.
    let Some(rest) = bytes.get(START.len()..START.len() + 6) else { return Status::Unfinished };
    let digits = std::str::from_utf8(&rest[2..5]).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse().ok());
    match number {
        Some(status) if rest[0].is_ascii_digit() && rest[1] == b' ' && matches!(rest[5], b' ' | b'\r' | b'\n') => {
            Status::Is(status)
        }
        Some(_) | None => Status::NotHttp,
    }
}

/// Whether the needle is in there; an empty one always is.
pub fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || bytes.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: Option<&str>) -> HttpCheck {
        HttpCheck { path: "/".into(), host: None, status: 200..=299, body: body.map(str::to_owned) }
    }

    /// What an answer says, whatever the pieces it comes in; with the end of the connection behind it.
    #[track_caller]
    fn said(answer: &str, check: &HttpCheck) -> Outcome {
        let outcomes = [1, 7, 100_000].map(|piece| {
            let mut reading = Reading::default();
            let said = answer.as_bytes().chunks(piece).find_map(|bytes| reading.take(bytes, check));
            said.unwrap_or_else(|| reading.end())
        });
        assert_eq!(outcomes[0], outcomes[1]);
        assert_eq!(outcomes[0], outcomes[2]);
        let [outcome, ..] = outcomes;
        outcome
    }

    #[test]
    fn the_status_decides_and_then_the_body() {
        assert_eq!(said("HTTP/1.1 204 No Content\r\n\r\n", &check(None)), Outcome::Good);
        assert_eq!(said("HTTP/1.0 200\r\n", &check(None)), Outcome::Good);
        assert_eq!(said("HTTP/1.1 503 Busy\r\n\r\nok", &check(Some("ok"))), Outcome::Bad(Reason::Status(503)));
        assert_eq!(said("HTTP/1.1 200 OK\r\nX: ok\r\n\r\nno", &check(Some("ok"))), Outcome::Bad(Reason::BodyLacks));
        assert_eq!(said("HTTP/1.1 200 OK\r\nX: y\r\n\r\nit is ok so far", &check(Some("ok"))), Outcome::Good);
        let long = format!("HTTP/1.1 200 OK\r\n\r\n{}ok", "x".repeat(LONGEST));
        assert_eq!(said(&long, &check(Some("ok"))), Outcome::Bad(Reason::BodyLacks), "the end is out of sight");
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        assert_eq!(said("", &check(None)), Outcome::Bad(Reason::Closed));
        for other in ["SSH-2.0-OpenSSH\r\n", "HTTP/2 200 \r\n", "HTTP/1.1 2x0 OK\r\n", "HTTP/1.1 2000\r\n", "HTTP/1.1"]
        {
            assert_eq!(said(other, &check(None)), Outcome::Bad(Reason::NotHttp), "{other}");
        }
    }

    #[test]
    fn a_request_names_the_host_that_was_written_or_the_endpoint() {
        let endpoint: Endpoint = "[fd00::1]:80".parse::<std::net::SocketAddr>().unwrap().into();
        let text = String::from_utf8(request(&check(None), endpoint)).unwrap();
        assert!(text.starts_with("GET / HTTP/1.0\r\nHost: [fd00::1]:80\r\n") && text.ends_with("\r\n\r\n"), "{text}");
        let named = HttpCheck { host: Some("web.example".into()), ..check(None) };
        assert!(String::from_utf8(request(&named, endpoint)).unwrap().contains("\r\nHost: web.example\r\n"));
    }
}
