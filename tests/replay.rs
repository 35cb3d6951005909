//! The engine on captures: what comes out depends on the capture, the configuration and the seed, and on nothing else.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail that way, and says what it skips")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tungate::engine::DropReason;
use tungate::io::pcap::{Content, Reader};

const CONFIG: &str = r#"
[gateway]
source-addresses = ["10.99.0.10", "fd00:99::10"]
workers = WORKERS

[[service]]
name = "web"
listen = ["128.0.0.0/2:*", "192.0.0.0/3:*", "[2000::/3]:*"]
backends = [{ name = "b1", address = "10.0.0.1" }, { name = "b2", address = "10.0.0.2" }, { name = "b6", address = "fd00::1" }]

[[service]]
name = "dns"
listen = ["128.0.0.0/2:*", "192.0.0.0/3:*", "[2000::/3]:*"]
protocol = "udp"
balance = "round-robin"
backends = [{ name = "b1", address = "10.0.0.1" }, { name = "b2", address = "10.0.0.2" }, { name = "b6", address = "fd00::1" }]
"#;

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("tungate-replay-{}-{test}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a replay writes.
#[derive(PartialEq, Eq)]
struct Output {
    capture: Vec<u8>,
    report: String,
}

fn replay(folder: &Folder, input: &Path, workers: u16, seed: u64) -> Output {
    let path = |name: &str| folder.0.join(format!("{name}-{workers}-{seed}"));
    let (config, capture, report) = (path("tungate.toml"), path("out.pcap"), path("report.jsonl"));
    fs::write(&config, CONFIG.replace("WORKERS", &workers.to_string())).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tungate"));
    command.arg("replay").arg(input).arg("-c").arg(&config).arg("-w").arg(&capture);
    let output = command.arg("--report").arg(&report).args(["--seed", &seed.to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Output { capture: fs::read(capture).unwrap(), report: fs::read_to_string(report).unwrap() }
}

fn raw_collection(test: &str) -> Option<PathBuf> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/pcaps/all-ip-raw.pcap");
    if !file.is_file() {
        common::skip(test, "no ../shared/pcaps", "copy the public captures that its README names there");
        return None;
    }
    Some(file)
}

fn packets(capture: &[u8]) -> u64 {
    let mut reader = Reader::new(capture).unwrap();
    let mut count = 0;
    while let Some(frame) = reader.next_frame().unwrap() {
        assert!(matches!(frame.content, Content::Ip(_)));
        count += 1;
    }
    count
}

#[test]
fn the_same_capture_configuration_and_seed_give_the_same_bytes() {
    let Some(input) = raw_collection("the_same_capture_configuration_and_seed_give_the_same_bytes") else { return };
    let folder = Folder::new("same");
    let first = replay(&folder, &input, 1, 7);
    assert!(first == replay(&folder, &input, 1, 7), "asked twice, told the same");
    assert!(first == replay(&folder, &input, 4, 7), "the number of workers has no influence");
    let other = replay(&folder, &input, 1, 8);
    assert!(first.capture != other.capture, "the seed has");
}

#[test]
fn every_packet_has_a_verdict_every_drop_a_reason_and_every_packet_out_a_cause() {
    let Some(input) = raw_collection("every_packet_has_a_verdict") else { return };
    let folder = Folder::new("verdicts");
    let output = replay(&folder, &input, 1, 7);
    let lines: Vec<Value> = output.report.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len() as u64, packets(&fs::read(&input).unwrap()));
    let reasons: BTreeSet<&str> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    let mut left = BTreeSet::new();
    let mut last_at = 0.0;
    for (n, line) in (1..).zip(&lines) {
        assert_eq!(line["n"], n);
        let at = line["at"].as_f64().unwrap();
        assert!(at >= last_at, "time goes back at {n}");
        last_at = at;
        let out = line["out"].as_array().unwrap();
        for number in out {
            assert!(left.insert(number.as_u64().unwrap()), "packet {number} of the output has two causes, one is {n}");
        }
        match line["verdict"].as_str().unwrap() {
            "forward" => assert_eq!((out.len(), &line["reason"]), (1, &Value::Null), "{line}"),
            "reply" => assert!(!out.is_empty() && line["reason"].is_null(), "{line}"),
            "consume" => assert!(line["reason"].is_null(), "{line}"),
            "drop" => assert!(out.is_empty() && reasons.contains(line["reason"].as_str().unwrap()), "{line}"),
            other => panic!("packet {n}: {other}"),
        }
    }
    assert!(left.into_iter().eq(1..=packets(&output.capture)), "every packet of the output has a cause");
}
