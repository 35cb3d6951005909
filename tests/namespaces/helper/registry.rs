//! A registry: a file by HTTP, with an index that grows with every change, and questions that wait for one.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Serves the file, whatever is in it; a line for each question.
pub(super) fn serve(at: SocketAddr, file: &str) -> io::Result<()> {
    let registry = Arc::new(Registry { file: file.into(), seen: Mutex::default() });
    for stream in TcpListener::bind(at)?.incoming() {
        let (registry, stream) = (Arc::clone(&registry), stream?);
        thread::spawn(move || registry.answer(stream));
    }
    Ok(())
}

struct Registry {
    file: PathBuf,
    /// How often another text was seen, and the last one.
    seen: Mutex<(u64, u64)>,
}

impl Registry {
    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
        let line = text.lines().next().unwrap_or_default();
        super::print(&format!("{line}\n"));
        let number = |key: &str| {
            let digits = line.split(['?', '&', ' ']).find_map(|part| part.strip_prefix(key))?;
            digits.trim_end_matches('s').parse::<u64>().ok()
        };
        let until = Instant::now() + Duration::from_secs(number("wait=").unwrap_or(0));
        let (mut index, mut list) = self.look();
        while number("index=") == Some(index) && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
            (index, list) = self.look();
        }
        let length = list.len();
        let head = format!("HTTP/1.1 200 OK\r\nX-Consul-Index: {index}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(&[head.as_bytes(), &list].concat())
    }

    fn look(&self) -> (u64, Vec<u8>) {
        let list = fs::read(&self.file).unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        list.hash(&mut hasher);
        let mut seen = self.seen.lock().expect("nobody panics while it is held");
        if seen.1 != hasher.finish() {
            *seen = (seen.0 + 1, hasher.finish());
        }
        (seen.0, list)
    }
}
