//! The command line as its users meet it: help, errors and exit codes, word for word.

#![allow(clippy::unwrap_used, reason = "a test may fail that way")]

#[expect(clippy::print_stdout, reason = "it says what it skips")]
#[path = "common/mod.rs"]
mod common;

use std::fs;
use std::process::{Command, Stdio};

#[test]
fn the_command_line_says_what_it_should() {
    trycmd::TestCases::new().env("TUNGATE_SOCKET", "/nonexistent/tungate.sock").case("tests/cli/*.trycmd");
}

fn tungate(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tungate"));
    command.args(words);
    command
}

fn printed(words: &[&str]) -> String {
    let output = tungate(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_example_configuration_is_valid_and_the_schema_is_json() {
    let folder = std::env::temp_dir().join(format!("tungate-cli-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("tungate.toml");
    fs::write(&file, printed(&["config", "example"])).unwrap();
    assert!(printed(&["check", file.to_str().unwrap()]).contains("valid"));
    let schema: serde_json::Value = serde_json::from_str(&printed(&["config", "schema"])).unwrap();
    assert_eq!(schema["type"], "object");
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn every_verb_has_a_manual_page_and_every_shell_a_script() {
    let folder = std::env::temp_dir().join(format!("tungate-man-{}", std::process::id()));
    printed(&["man", folder.to_str().unwrap()]);
    for page in ["tungate", "tungate-check", "tungate-show-flows", "tungate-flows-kill"] {
        let text = fs::read_to_string(folder.join(format!("{page}.1"))).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
    fs::remove_dir_all(&folder).unwrap();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(printed(&["completions", shell]).contains("tungate"), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = tungate(&["config", "example"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
}

#[test]
fn the_bench_prints_its_rows_as_json() {
    let printed = printed(&["bench", "engine", "--flows", "1000", "--workers", "2", "--time", "1ms", "-o", "json"]);
    let list: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&list["schema"], &list["kind"]), (&"tungate/v1".into(), &"BenchList".into()));
    let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["harness", "new", "established", "listing", "expiry"]);
    for item in list["items"].as_array().unwrap() {
        assert_eq!((&item["flows"], &item["workers"]), (&1000.into(), &2.into()));
        assert!(item["ns_per_packet"].as_f64().unwrap() > 0.0 && item["packets_per_second"].as_f64().unwrap() > 0.0);
    }
}

/// Client, gateway and backend in namespaces of their own, real packets through a real TUN.
#[test]
fn the_bench_of_a_whole_gateway_prints_its_rows_as_json() {
    let options = ["--streams", "2", "--flows", "100", "--workers", "1", "--time", "200ms", "-o", "json"];
    let output = tungate(&[&["bench", "tun"], &options[..]].concat()).output().unwrap();
    let reason = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(4) {
        let test = "the_bench_of_a_whole_gateway_prints_its_rows_as_json";
        return common::skip(test, reason.trim(), "run the tests as root");
    }
    assert!(output.status.success(), "{reason}");
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&list["schema"], &list["kind"]), (&"tungate/v1".into(), &"TunBenchList".into()));
    let items = list["items"].as_array().unwrap();
    let rows: Vec<_> =
        items.iter().map(|item| (item["via"].as_str().unwrap(), item["name"].as_str().unwrap())).collect();
    let of = |via| ["bulk", "packets", "latency"].map(|name| (via, name));
    assert_eq!(rows, [of("tungate"), of("kernel")].concat());
    for item in items {
        let figures: &[&str] = match item["name"].as_str().unwrap() {
            "bulk" => &["gbit_per_second"],
            "packets" => &["packets_per_second"],
            _ => &["p50_us", "p99_us"],
        };
        for figure in ["gbit_per_second", "packets_per_second", "p50_us", "p99_us"] {
            let measured = item[figure].as_f64();
            assert_eq!(
                measured.is_some_and(|measured| measured > 0.0),
                figures.contains(&figure),
                "{figure} of {item}"
            );
        }
    }
}
