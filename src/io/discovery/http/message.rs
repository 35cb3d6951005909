//! Requests and replies as bytes (RFC 9112), sans-IO.

use std::time::Duration;

use httparse::{EMPTY_HEADER, Header, Status};

use crate::config::Url;

/// A list of backends is no larger than that, and its head no larger than this.
const LARGEST: usize = 16 << 20;
const LARGEST_HEAD: usize = 64 << 10;
const MOST_HEADERS: usize = 100;

/// What tells a server which list is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// `X-Consul-Index`: grows with every change.
    Index(u64),
    /// `ETag`, as it was sent.
    Tag(String),
}

impl Mark {
    fn of(headers: &[Header<'_>]) -> Option<Self> {
        let index = value(headers, "x-consul-index").and_then(|index| index.parse().ok());
        // 0 is what Consul would take for no index at all.
        let index = index.filter(|index| *index > 0).map(Self::Index);
        index.or_else(|| value(headers, "etag").map(|tag| Self::Tag(tag.to_owned())))
    }

    /// Whether it is of a time before the other.
    pub(super) const fn is_before(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Index(this), Self::Index(other)) => *this < *other,
            (Self::Index(_), Self::Tag(_)) | (Self::Tag(_), _) => false,
        }
    }
}

/// The question, and how long the server may wait until there is another list than this.
pub(super) fn request(url: &Url, mark: Option<(&Mark, Duration)>) -> Vec<u8> {
    let Url { authority, target, .. } = url;
    let (mut query, mut headers) = (String::new(), String::new());
    if let Some((mark, wait)) = mark {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        match mark {
            Mark::Index(index) => {
                let joint = if target.contains('?') { '&' } else { '?' };
                query = format!("{joint}index={index}&wait={seconds}s");
            }
            // RFC 9110 13.1.2, RFC 7240 4.3.
            Mark::Tag(tag) => headers = format!("If-None-Match: {tag}\r\nPrefer: wait={seconds}\r\n"),
        }
    }
    format!(
        "GET {target}{query} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: tungate\r\nAccept: application/json\r\n\
         Connection: close\r\n{headers}\r\n"
    )
    .into_bytes()
}

/// What a server has answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) mark: Option<Mark>,
    pub(super) body: Vec<u8>,
}

/// What has come of a reply.
#[derive(Debug, Default)]
pub(super) struct Reading {
    bytes: Vec<u8>,
    head: Option<Head>,
}

#[derive(Debug)]
struct Head {
    status: u16,
    mark: Option<Mark>,
    /// Where the body begins.
    len: usize,
    extent: Extent,
}

/// Where the body ends (RFC 9112 6.3).
#[derive(Clone, Copy, Debug)]
enum Extent {
    Length(usize),
    Chunks,
    UntilEnd,
}

impl Reading {
    /// Takes the next bytes, none at the end of the connection; the reply as soon as it is whole.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Option<Reply>, String> {
        self.bytes.extend_from_slice(bytes);
        let ended = bytes.is_empty();
        if self.head.is_none() {
            self.head = head(&self.bytes)?;
        }
        if self.bytes.len() > LARGEST {
            return Err("its answer is larger than 16 MiB".to_owned());
        }
        let body = match &self.head {
            Some(head) => body(&self.bytes[head.len..], head.extent, ended)?,
            None if self.bytes.len() > LARGEST_HEAD => return Err("its answer begins with more than 64 KiB".to_owned()),
            None => None,
        };
        match (self.head.take_if(|_| body.is_some()), body) {
            (Some(Head { status, mark, .. }), Some(body)) => Ok(Some(Reply { status, mark, body })),
            _ if ended && self.bytes.is_empty() => Err("the connection was closed without an answer".to_owned()),
            _ if ended => Err("its answer is cut off".to_owned()),
            _ => Ok(None),
        }
    }
}

fn head(bytes: &[u8]) -> Result<Option<Head>, String> {
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let len = match response.parse(bytes) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("it does not answer by HTTP: {error}")),
    };
    let status = response.code.expect("of a whole head");
    let headers = &*response.headers;
    let extent = match (value(headers, "transfer-encoding"), value(headers, "content-length")) {
        _ if matches!(status, 204 | 304) => Extent::Length(0),
        (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Extent::Chunks,
        (Some(_), _) => return Err("it answers with a transfer coding that nobody asked for".to_owned()),
        (None, Some(length)) => Extent::Length(length.parse().map_err(|_| "its length is no number".to_owned())?),
        (None, None) => Extent::UntilEnd,
    };
    Ok(Some(Head { status, mark: Mark::of(headers), len, extent }))
}

/// The body, if it is whole.
fn body(bytes: &[u8], extent: Extent, ended: bool) -> Result<Option<Vec<u8>>, String> {
    match extent {
        Extent::Length(length) => Ok(bytes.get(..length).map(<[u8]>::to_vec)),
        Extent::UntilEnd => Ok(ended.then(|| bytes.to_vec())),
        // Taken apart only when it can be whole: not again and again.
        Extent::Chunks if ended || bytes.ends_with(b"\r\n\r\n") => chunks(bytes),
        Extent::Chunks => Ok(None),
    }
}

/// RFC 9112 7.1; fields behind the last chunk are of no interest.
fn chunks(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let broken = || "its chunks are not as they should be".to_owned();
    let mut body = Vec::new();
    loop {
        let (start, size) = match httparse::parse_chunk_size(bytes) {
            Ok(Status::Complete(chunk)) => chunk,
            Ok(Status::Partial) => return Ok(None),
            Err(_) => return Err(broken()),
        };
        let end = usize::try_from(size).ok().and_then(|size| start.checked_add(size)).ok_or_else(broken)?;
        if size == 0 {
            return Ok(Some(body));
        }
        let Some(chunk) = bytes.get(start..end) else { return Ok(None) };
        body.extend_from_slice(chunk);
        match bytes.get(end..end + 2) {
            Some(b"\r\n") => bytes = &bytes[end + 2..],
            Some(_) => return Err(broken()),
            None => return Ok(None),
        }
    }
}

fn value<'h>(headers: &[Header<'h>], name: &str) -> Option<&'h str> {
    let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(header.value).ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reply, whatever the pieces that it comes in; then the connection ends.
    #[track_caller]
    fn read(answer: &str) -> Result<Reply, String> {
        let outcomes = [1, 5, 100_000].map(|piece| {
            let mut reading = Reading::default();
            let pieces = answer.as_bytes().chunks(piece).chain([&[][..]]);
            pieces.map(|bytes| reading.take(bytes)).find_map(Result::transpose).expect("the end says something")
        });
        assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:?}");
        let [outcome, ..] = outcomes;
        outcome
    }

    fn reply(status: u16, mark: Option<Mark>, body: &str) -> Result<Reply, String> {
        Ok(Reply { status, mark, body: body.into() })
    }

    #[test]
    fn a_reply_is_whole_by_its_length_its_chunks_or_its_end() {
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), reply(200, None, "{}"));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n\r\n\r\r\n2;x=y\r\n\n{\r\n0\r\n\r\n";
        assert_eq!(read(chunked), reply(200, None, "\r\n\r\n{"));
        assert_eq!(read("HTTP/1.0 200 OK\r\n\r\n{}"), reply(200, None, "{}"));
        let not_modified = "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 17\r\n\r\n";
        assert_eq!(read(not_modified), reply(304, Some(Mark::Tag("\"a\"".into())), ""));
        let indexed = "HTTP/1.1 200 OK\r\nETag: x\r\nX-Consul-Index: 17\r\n\r\n";
        assert_eq!(read(indexed), reply(200, Some(Mark::Index(17)), ""));
        assert_eq!(read("HTTP/1.1 200 OK\r\nX-Consul-Index: 0\r\n\r\n"), reply(200, None, ""));
    }

    #[test]
    fn what_is_cut_off_or_no_http_fails() {
        for answer in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n",
        ] {
            assert!(read(answer).is_err(), "{answer:?}");
        }
        let mut reading = Reading::default();
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(LARGEST_HEAD));
        assert!(reading.take(long.as_bytes()).is_err());
    }

    #[test]
    fn a_question_says_what_is_known_in_the_language_of_the_server() {
        let asked = |url: &str, mark: Option<(&Mark, Duration)>| {
            String::from_utf8(request(&Url::read(url).unwrap(), mark)).unwrap()
        };
        let wait = Duration::from_millis(29_500);
        assert!(asked("http://a:81/web?raw", None).starts_with("GET /web?raw HTTP/1.1\r\nHost: a:81\r\n"));
        let index = Mark::Index(7);
        assert!(
            asked("http://a/web?raw", Some((&index, wait))).starts_with("GET /web?raw&index=7&wait=30s HTTP/1.1\r\n")
        );
        assert!(asked("http://a/web", Some((&index, wait))).starts_with("GET /web?index=7&wait=30s HTTP/1.1\r\n"));
        let tag = Mark::Tag("W/\"x\"".into());
        let text = asked("http://a/web", Some((&tag, wait)));
        assert!(
            text.contains("\r\nIf-None-Match: W/\"x\"\r\nPrefer: wait=30\r\n") && text.ends_with("\r\n\r\n"),
            "{text}"
        );
    }
}
