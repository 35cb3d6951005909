//! A worker over a capture.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tungate::engine::{DropReason, Engine, Instant, Shared, WorkerId};
use tungate::io::capture::CapturePort;
use tungate::io::pcap::{CaptureError, Reader, Writer};
use tungate::io::worker::{Mailbox, Worker};

use crate::world::snapshot;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pcaps").join(name)
}

/// Runs the daemon's worker over a capture; why it ended, and what it counted.
fn run(input: &[u8], output: &Path) -> (std::io::Error, Arc<Shared>) {
    let config = fs::read_to_string(fixture("gateway.toml")).unwrap();
    let shared = Shared::new(snapshot(&config), 1, 1);
    let engine = Engine::new(&shared, WorkerId(0), Instant::ZERO);
    let port = CapturePort::new(Reader::new(input).unwrap(), Writer::new(File::create(output).unwrap()).unwrap());
    let worker = Worker::new(WorkerId(0), port, engine, Arc::new([Mailbox::new().unwrap()]));
    (worker.run().unwrap_err(), shared)
}

/// `replay` has a loop of its own, for its report. The worker's makes the same of every story.
#[test]
fn a_worker_sends_what_replay_sends() {
    for story in ["tcp", "udp", "icmp", "fragments", "hostile"] {
        let output = std::env::temp_dir().join(format!("tungate-ports-{}-{story}.pcap", std::process::id()));
        let (end, _) = run(&fs::read(fixture(&format!("{story}.pcap"))).unwrap(), &output);
        assert_eq!(end.kind(), ErrorKind::UnexpectedEof);
        let sent = fs::read(&output).unwrap();
        fs::remove_file(&output).unwrap();
        assert!(sent == fs::read(fixture(&format!("{story}.out.pcap"))).unwrap(), "{story}");
    }
}

#[test]
fn a_worker_ends_where_its_capture_is_cut_and_counts_what_is_no_ip() {
    let mut capture = fs::read(fixture("udp.pcap")).unwrap();
    capture[20] = 1; // Ethernet: the packets' headers are none
    capture.truncate(capture.len() - 1);
    let output = std::env::temp_dir().join(format!("tungate-ports-{}-cut.pcap", std::process::id()));
    let (end, shared) = run(&capture, &output);
    fs::remove_file(&output).unwrap();
    assert!(matches!(end.downcast().unwrap(), CaptureError::Cut { .. }));
    let received = shared.counters.sum(|worker| &worker.received.packets);
    assert!(received > 0);
    assert_eq!(shared.counters.sum(|worker| worker.drops(DropReason::NotIp)), received);
}
