//! `url`: where a server is asked.

use std::fmt;

/// `http://HOST[:PORT][/PATH][?QUERY]` (RFC 9110 4.2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Host and port as written: the `Host` header.
    pub authority: String,
    /// Name or address, without brackets.
    pub host: String,
    /// Port; 80 if none is written.
    pub port: u16,
    /// Path and query, at least `/`.
    pub target: String,
}

impl Url {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it, in a few words.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        let Some(rest) = text.strip_prefix("http://") else { return Err("it does not begin with http://") };
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("it has something else than visible ASCII characters");
        }
        if rest.contains('#') {
            return Err("what is behind a # is not sent to servers");
        }
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("names and passwords are not sent");
        }
        let (host, port) = split(authority)?;
        if host.is_empty() {
            return Err("it names no host");
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self { authority: authority.to_owned(), host: host.to_owned(), port, target: format!("{slash}{target}") })
    }
}

fn split(authority: &str) -> Result<(&str, u16), &'static str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let Some((host, port)) = rest.split_once(']') else { return Err("a bracket is not closed") };
            (host, port.strip_prefix(':').or(port.is_empty().then_some("80")))
        }
        None => authority.split_once(':').map_or((authority, Some("80")), |(host, port)| (host, Some(port))),
    };
    match port.and_then(|port| port.parse().ok()) {
        Some(0) | None => Err("its port is no number from 1 to 65535"),
        Some(port) => Ok((host, port)),
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_as_written() {
        for (text, host, port, target) in [
            ("http://10.0.0.5:8500/v1/kv/web?raw", "10.0.0.5", 8500, "/v1/kv/web?raw"),
            ("http://registry.example", "registry.example", 80, "/"),
            ("http://[fd00::5]:81?web", "fd00::5", 81, "/?web"),
            ("http://[fd00::5]/", "fd00::5", 80, "/"),
        ] {
            let url = Url::read(text).unwrap();
            assert_eq!((url.host.as_str(), url.port, url.target.as_str()), (host, port, target));
        }
        assert_eq!(Url::read("http://[::1]:81/x").unwrap().to_string(), "http://[::1]:81/x");
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        for text in [
            "https://a/",
            "10.0.0.5",
            "http://",
            "http:///x",
            "http://a:0/",
            "http://a:65536/",
            "http://a:b/",
            "http://a b",
            "http://me:secret@a/",
            "http://a/#x",
            "http://[::1",
            "http://[::1]x/",
            "http://a\r\nX: y/",
            "http://ä/",
        ] {
            assert!(Url::read(text).is_err(), "{text}");
        }
    }
}
