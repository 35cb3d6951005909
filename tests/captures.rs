//! Captures that nobody of this project wrote: whatever is in them, reading ends, and never in a panic.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail that way, and says what it skips")]

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tungate::io::pcap::{CaptureError, Content, Reader};

/// The folder of public captures beside the repository, if it is there.
fn public_captures(test: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/pcaps");
    if !folder.is_dir() {
        common::skip(test, "no ../shared/pcaps", "copy the public captures that its README names there");
        return None;
    }
    Some(folder)
}

#[derive(Default)]
struct Tally {
    packets: u64,
    other: u64,
    largest: usize,
}

fn read_all(path: &Path) -> (Tally, Option<CaptureError>) {
    let mut tally = Tally::default();
    let mut reader = match Reader::new(File::open(path).unwrap()) {
        Ok(reader) => reader,
        Err(error) => return (tally, Some(error)),
    };
    loop {
        match reader.next_frame() {
            Ok(Some(frame)) => match frame.content {
                Content::Ip(packet) => {
                    tally.packets += 1;
                    tally.largest = tally.largest.max(packet.len());
                }
                Content::Other(_) => tally.other += 1,
            },
            Ok(None) => return (tally, None),
            Err(error) => return (tally, Some(error)),
        }
    }
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[test]
fn every_packet_of_the_raw_collection_is_read() {
    let Some(folder) = public_captures("every_packet_of_the_raw_collection_is_read") else { return };
    let (tally, error) = read_all(&folder.join("all-ip-raw.pcap"));
    assert!(error.is_none(), "{error:?}");
    assert_eq!((tally.packets, tally.other), (43_094, 0), "the collection's README counts them");
}

#[test]
fn every_public_capture_is_read_or_refused_with_a_sentence() {
    let Some(folder) = public_captures("every_public_capture_is_read_or_refused_with_a_sentence") else { return };
    let mut paths = Vec::new();
    files(&folder, &mut paths);

    let mut whole = 0;
    for path in &paths {
        let (tally, error) = read_all(path);
        assert!(tally.largest <= 1 << 24, "{}: a packet of {} bytes", path.display(), tally.largest);
        let is_capture = path.extension().is_some_and(|e| e == "pcap" || e == "pcapng" || e == "cap" || e == "dmp");
        match error {
            None => whole += 1,
            Some(CaptureError::LinkType(_) | CaptureError::Cut { .. } | CaptureError::Nonsense { .. }) => {}
            Some(CaptureError::NotACapture { .. }) => assert!(!is_capture, "{} is a capture", path.display()),
            Some(CaptureError::Read(error)) => panic!("{}: {error}", path.display()),
        }
    }
    assert!(whole > 1700, "only {whole} of {} files were read to their end", paths.len());
}
