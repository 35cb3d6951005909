//! Metrics and probes over HTTP: a few clients at a time, one request each, none of which can hold up the control thread.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use crate::admin::metrics;
use crate::control::Controller;
use crate::engine::Instant;
use crate::io::words::with_remedy;

/// Clients served at once: whoever has been still for longest goes when another comes.
const MOST_CLIENTS: usize = 32;
/// Longest request, bytes.
const MOST_REQUEST: usize = 8 << 10;

/// The listener for `metrics-listen`.
#[derive(Debug)]
pub struct Http {
    listener: TcpListener,
    first: Token,
    next: usize,
    clients: HashMap<Token, Client>,
}

/// What is answered to one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// 200, 404, 503.
    pub status: u16,
    /// Its media type.
    pub media: &'static str,
    /// The text.
    pub body: String,
}

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    moved: Instant,
}

impl Http {
    /// Listens there.
    ///
    /// # Errors
    /// The address is taken, or not this machine's.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        Ok(Self { listener, first: Token(0), next: 0, clients: HashMap::new() })
    }

    /// Puts it under the eyes of a poll: the token `first` and all above are its own from now on.
    ///
    /// # Errors
    /// No memory or watches left.
    pub fn register(&mut self, registry: &Registry, first: Token) -> io::Result<()> {
        registry.register(&mut self.listener, first, Interest::READABLE)?;
        (self.first, self.next) = (first, first.0 + 1);
        Ok(())
    }

    /// Does what an event of one of its tokens asks for; `page` answers a path with its query. Never blocks.
    pub fn handle(&mut self, registry: &Registry, token: Token, now: Instant, page: &mut dyn FnMut(&str) -> Page) {
        if token == self.first {
            while let Some(stream) = self.accept() {
                self.admit(stream, registry, now);
            }
            return;
        }
        let Some(client) = self.clients.get_mut(&token) else { return };
        if !client.turn(now, page).unwrap_or(false) {
            self.clients.remove(&token);
        }
    }

    fn accept(&self) -> Option<TcpStream> {
        match self.listener.accept() {
            Ok((stream, _)) => Some(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => {
                log::warn!(error:% = with_remedy(&error); "cannot accept a client of metrics-listen");
                None
            }
        }
    }

    fn admit(&mut self, mut stream: TcpStream, registry: &Registry, now: Instant) {
        if self.clients.len() >= MOST_CLIENTS {
            let stillest = self.clients.iter().min_by_key(|(_, client)| client.moved).map(|(token, _)| *token);
            stillest.and_then(|token| self.clients.remove(&token));
        }
        let token = Token(self.next);
        self.next += 1;
        if registry.register(&mut stream, token, Interest::READABLE.add(Interest::WRITABLE)).is_ok() {
            self.clients.insert(token, Client { stream, input: Vec::new(), output: Vec::new(), moved: now });
        }
    }
}

impl Client {
    /// Reads and writes what can be; false when it has been answered.
    fn turn(&mut self, now: Instant, page: &mut dyn FnMut(&str) -> Page) -> io::Result<bool> {
        while self.output.is_empty() {
            let mut buffer = [0; 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(n) => self.input.extend(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
            self.moved = now;
            if let Some(page) = respond(&self.input, page) {
                self.output = encode(&page);
            }
        }
        loop {
            match self.stream.write(&self.output) {
                Ok(0) => return Ok(false),
                Ok(n) => drop(self.output.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
            self.moved = now;
            if self.output.is_empty() {
                return Ok(false);
            }
        }
    }
}

/// The page of a path.
pub fn page(controller: &Controller, path: &str, now: Instant) -> Page {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let state = |state: Result<(), String>| {
        let (status, body) = state.map_or_else(|why| (503, format!("{why}\n")), |()| (200, "ok\n".to_owned()));
        Page { status, media: "text/plain", body }
    };
    match path {
        "/metrics" => {
            let media = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            Page { status: 200, media, body: metrics::metrics(controller, now) }
        }
        "/livez" => state(Ok(())),
        "/readyz" => state(metrics::ready(controller)),
        "/healthz" => match query.split('&').find_map(|part| part.strip_prefix("service=")) {
            None => state(metrics::ready(controller)),
            Some(service) if controller.snapshot().find_service(service).is_ok() => {
                state(metrics::healthy(controller, service))
            }
            Some(service) => {
                Page { status: 404, media: "text/plain", body: format!("there is no service {service}\n") }
            }
        },
        _ => {
            let body = "there are /metrics, /livez, /readyz and /healthz?service=NAME\n".to_owned();
            Page { status: 404, media: "text/plain", body }
        }
    }
}

/// `None` while the request is not whole.
fn respond(input: &[u8], page: &mut dyn FnMut(&str) -> Page) -> Option<Page> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let refuse = |status, body: &str| Some(Page { status, media: "text/plain", body: format!("{body}\n") });
    match request.parse(input) {
        Ok(httparse::Status::Complete(_)) if request.method == Some("GET") => Some(page(request.path.unwrap_or("/"))),
        Ok(httparse::Status::Complete(_)) => refuse(405, "only GET is answered"),
        Ok(httparse::Status::Partial) if input.len() < MOST_REQUEST => None,
        Ok(httparse::Status::Partial) => refuse(431, "the request is too long"),
        Err(error) => refuse(400, &error.to_string()),
    }
}

fn encode(page: &Page) -> Vec<u8> {
    let word = match page.status {
        200 => "OK",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Bad Request",
    };
    let Page { status, media, body } = page;
    let length = body.len();
    format!(
        "HTTP/1.1 {status} {word}\r\nContent-Type: {media}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(input: &str) -> Option<u16> {
        let mut page =
            |path: &str| Page { status: if path == "/metrics" { 200 } else { 404 }, media: "", body: "x".into() };
        respond(input.as_bytes(), &mut page).map(|page| page.status)
    }

    #[test]
    fn a_whole_request_is_answered_and_half_a_one_waited_for() {
        assert_eq!(asked("GET /metrics HTTP/1.1\r\nHost: a\r\n"), None);
        assert_eq!(asked("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"), Some(200));
        assert_eq!(asked("GET /other HTTP/1.0\r\n\r\n"), Some(404));
        assert_eq!(asked("POST /metrics HTTP/1.1\r\n\r\n"), Some(405));
        assert_eq!(asked("\u{1}nonsense\r\n\r\n"), Some(400));
        assert_eq!(asked(&format!("GET /{} ", "a".repeat(MOST_REQUEST))), Some(431));
    }
}
