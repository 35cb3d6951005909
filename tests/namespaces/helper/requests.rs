//! Requests at a steady rate, each on a connection of its own: how many are served, and how many fail.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Who waits longer gives up.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks for `/` so many times a second until the end of standard input; then says how that went.
pub(super) fn run(to: SocketAddr, rate: u32) -> io::Result<()> {
    let over = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&over);
    thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        heard.store(true, Ordering::Relaxed);
    });
    super::print("running\n");
    let (results, outcomes) = mpsc::channel();
    let mut next = Instant::now();
    while !over.load(Ordering::Relaxed) {
        let results = results.clone();
        thread::Builder::new().stack_size(64 << 10).spawn(move || {
            let begun = Instant::now();
            // The last to hear of it is gone only when all is over.
            let _ = results.send((begun, request(to).is_ok()));
        })?;
        next += Duration::from_secs(1) / rate;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    drop(results);
    let (served, failed): (Vec<_>, Vec<_>) = outcomes.iter().partition(|(_, good)| *good);
    let times = || failed.iter().map(|(begun, _)| *begun);
    let span = times().max().zip(times().min()).map_or(Duration::ZERO, |(last, first)| last - first);
    super::print(&format!("{} served, {} failed within {} ms\n", served.len(), failed.len(), span.as_millis()));
    Ok(())
}

fn request(to: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}
