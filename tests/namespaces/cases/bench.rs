//! The benchmark runs, says what it measured, and leaves nothing behind. How fast anything is, is not looked at.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::process::search_path;
use crate::runner::Case;

const PROGRAMS: &[&str] = &["iperf3", "wrk", "nft", "haproxy", "nginx", "python3"];

pub(super) fn cases() -> Vec<Case> {
    vec![Case { name: "bench_measures_every_row".to_owned(), needs: PROGRAMS, control: false, body: Box::new(bench) }]
}

fn bench() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let traffic = Path::new(env!("CARGO_BIN_EXE_tungate")).with_file_name("examples/traffic");
    assert!(traffic.exists(), "no {}; run: cargo build --example traffic", traffic.display());
    let report = std::env::temp_dir().join(format!("tungate-bench-{}.json", std::process::id()));
    let mut command = Command::new(root.join("netns-scripts/bench.sh"));
    // Without nginx, whose stream module is a package of its own.
    command.args(["--rounds", "1", "--seconds", "1", "tungate", "nft", "haproxy", "none", "generator", "--json"]);
    command.arg(&report).env("PATH", search_path()).env("TUNGATE", env!("CARGO_BIN_EXE_tungate"));
    let bench =
        command.env("TRAFFIC", traffic).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("bash is there");
    let lab = format!("/run/netns/tg{}-gw", bench.id());
    let output = bench.wait_with_output().expect("it is our child");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!Path::new(&lab).exists(), "the lab is still there");

    let json: Value = serde_json::from_slice(&std::fs::read(&report).expect("a report")).expect("it is JSON");
    std::fs::remove_file(&report).expect("it was read");
    assert_eq!(json["kind"], "LabBench");
    let items = json["items"].as_array().expect("a list");
    let of = |engine: &str| -> BTreeSet<&str> {
        items.iter().filter(|item| item["engine"] == engine).filter_map(|item| item["name"].as_str()).collect()
    };
    let rows = ["bulk-1", "bulk-8", "connections", "idle", "p50", "p99", "packets"];
    assert_eq!(of("tungate"), rows.into());
    assert_eq!(of("nft").len(), 6);
    for item in items {
        assert!(item["median"].is_number() && item["runs"].as_array().is_some_and(|runs| runs.len() == 1), "{item}");
    }
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(text.lines().filter(|line| line.contains("tungate")).count(), rows.len(), "{text}");
}
