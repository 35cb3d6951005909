//! What README shows works as it stands there.

#![allow(clippy::unwrap_used, reason = "a test may fail that way")]

use std::process::Command;

const README: &str = include_str!("../README.md");

#[test]
fn the_configuration_of_the_readme_is_valid() {
    let block = README.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let snapshot = tungate::config::load(block, "README.md", 0, "gw").unwrap();
    assert!(snapshot.warnings.is_empty(), "{}", snapshot.warnings);
    assert_eq!(snapshot.services.len(), 1);
}

#[test]
fn the_verbs_of_the_readme_exist() {
    let verbs: Vec<&str> = README
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("tungate "))
        .filter_map(|rest| rest.split(' ').next())
        .collect();
    assert!(verbs.len() > 4, "the test reads the wrong lines: {verbs:?}");
    for verb in verbs {
        let output = Command::new(env!("CARGO_BIN_EXE_tungate")).args([verb, "--help"]).output().unwrap();
        assert!(output.status.success(), "tungate {verb}");
    }
}
