//! The manual is true: what can be generated is generated, what can be compared is compared.
//!
//! `UPDATE_MANUAL=1 cargo test --test manual` writes the generated chapters (drops, requirements) anew.

#![allow(clippy::unwrap_used, reason = "a test may fail that way")]

mod fields;
mod requirements;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use requirements::{DUE, Level, RULES};
use tungate::admin::metrics::METRICS;
use tungate::config;
use tungate::engine::DropReason;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn chapter(name: &str) -> String {
    fs::read_to_string(root("src/manual").join(name)).unwrap()
}

/// The committed chapter is this text, or becomes it.
fn assert_generated(name: &str, text: &str) {
    if std::env::var_os("UPDATE_MANUAL").is_some() {
        fs::write(root("src/manual").join(name), text).unwrap();
    }
    let advice = "src/manual/{name} is out of date: run `UPDATE_MANUAL=1 cargo test --test manual`, and commit it";
    assert!(chapter(name) == text, "{}", advice.replace("{name}", name));
}

#[test]
fn the_drop_reasons_are_those_of_the_engine() {
    let mut text = "All reasons for which a packet is dropped: each dropped packet counts under exactly one.\n\n\
                    `tungate show drops` counts them, `explain` and `replay` name them; \
                    [what to do about each](super::troubleshooting).\n\n\
                    | reason | meaning |\n|---|---|\n"
        .to_owned();
    for reason in DropReason::ALL {
        writeln!(text, "| `{}` | {} |", reason.name(), reason.meaning()).unwrap();
    }
    assert_generated("drops.md", &text);
}

#[test]
fn the_metrics_are_those_of_the_list() {
    let head = chapter("metrics.md").split("| metric | labels |").next().unwrap().to_owned();
    let mut text = head + "| metric | labels | what it says |\n|---|---|---|\n";
    for metric in METRICS {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(text, "| `{}` | {} | {} |", metric.full_name(), labels.join(", "), metric.help).unwrap();
    }
    assert_generated("metrics.md", &text);
}

#[test]
fn every_drop_reason_has_a_remedy() {
    let remedies: Vec<String> = rows(&chapter("troubleshooting.md"), "# Drop reasons").map(|row| row.key).collect();
    assert_eq!(remedies, DropReason::ALL.iter().map(|reason| reason.name()).collect::<Vec<_>>());
}

#[test]
fn the_requirements_and_their_tests_are_listed() {
    let tests = tests_by_rule();
    let mut text = "The rules for packets, and the tests that show each of them.\n\n\
                    *choice*: the references disagree, and the sentence says what tungate does. Rules without a test yet \
                    have `-`; many of them belong to later versions.\n\n\
                    | rule | level | what happens | tests |\n|---|---|---|---|\n"
        .to_owned();
    for (n, (level, sentence)) in (1..).zip(RULES) {
        let level = match level {
            Level::Must => "must",
            Level::Should => "should",
            Level::Choice => "choice",
        };
        let shown: Vec<String> = tests.get(&n).into_iter().flatten().map(|test| format!("`{test}`")).collect();
        let shown = if shown.is_empty() { "-".to_owned() } else { shown.join(", ") };
        writeln!(text, "| R{n} | {level} | {sentence} | {shown} |").unwrap();
    }
    assert_generated("requirements.md", &text);
}

#[test]
fn every_rule_that_is_due_has_a_test() {
    let tests = tests_by_rule();
    let without: Vec<_> = DUE.filter(|n| !tests.contains_key(n)).map(|n| format!("R{n}")).collect();
    assert!(without.is_empty(), "no function named rNN_... shows {}", without.join(", "));
    let unknown: Vec<_> = tests.iter().filter(|(n, _)| **n == 0 || **n > RULES.len()).collect();
    assert!(unknown.is_empty(), "tests cite rules that do not exist: {unknown:?}");
}

/// The functions whose names begin with `rNN_`, or `rNN_rMM_` for several, by rule.
fn tests_by_rule() -> BTreeMap<usize, BTreeSet<String>> {
    let mut tests: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for file in rust_files() {
        let text = fs::read_to_string(file).unwrap();
        for line in text.lines() {
            let Some(rest) = line.trim_start().strip_prefix("fn r") else { continue };
            let name: String =
                format!("r{rest}").chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            for part in name.split('_') {
                let Some(rule) = part.strip_prefix('r').and_then(|digits| digits.parse().ok()) else { break };
                tests.entry(rule).or_default().insert(name.clone());
            }
        }
    }
    tests
}

/// There a test that is skipped has failed.
#[test]
fn ci_installs_what_a_test_would_be_skipped_without() {
    const ASKED: &str = "apt-get install ";
    let ci = fs::read_to_string(root(".ci/run")).unwrap();
    let installed: BTreeSet<&str> = ci.split_whitespace().filter_map(|word| Some(word.split_once(':')?.1)).collect();
    for file in rust_files() {
        let text = fs::read_to_string(&file).unwrap();
        for after in text.split(ASKED).skip(1) {
            let package = after.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().unwrap();
            let known = package.is_empty() || installed.contains(package);
            assert!(known, "{}: {package} is not among the packages of .ci/run", file.display());
        }
    }
}

fn rust_files() -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![root("src"), root("tests")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

#[test]
fn every_key_is_explained_with_its_default() {
    let schema: serde_json::Value = serde_json::from_str(&config::schema()).unwrap();
    let service = &schema["properties"]["service"]["items"];
    let tables = [
        ("# `[gateway]`", &schema["properties"]["gateway"]),
        ("# `[timeouts]`", &schema["properties"]["timeouts"]),
        ("# `[[service]]`", service),
        ("# `[service.limits]`", &service["properties"]["limits"]),
        ("# `[ha]`", &schema["properties"]["ha"]),
        ("# `backends`", &service["properties"]["backends"]["items"]),
    ];
    let text = chapter("configuration.md");
    for (heading, table) in tables {
        let explained: BTreeMap<String, String> = rows(&text, heading).map(|row| (row.key, row.second)).collect();
        let keys = table["properties"].as_object().unwrap();
        let known: BTreeSet<&String> = keys.keys().collect();
        assert_eq!(explained.keys().collect::<BTreeSet<_>>(), known, "{heading}");
        for (key, about) in keys {
            let Some(default) = about.get("default") else { continue };
            let written = explained[key].replace(['`', '_'], "");
            assert_eq!(written, default.to_string().replace('_', ""), "{heading}: default of {key}");
        }
    }
    let timeouts: BTreeMap<String, String> =
        text_rows(&chapter("timeouts.md")).map(|row| (row.key, row.second)).collect();
    for (key, about) in tables[1].1["properties"].as_object().unwrap() {
        let default = format!("`{}`", about["default"]);
        assert_eq!(timeouts.get(key), Some(&default), "timeouts.md: {key}");
    }
}

#[test]
fn every_configuration_that_is_shown_is_valid() {
    let shown = blocks("toml");
    assert!(shown.len() >= 3, "the test reads the wrong blocks: {shown:?}");
    for block in shown {
        let snapshot = config::load(&block, "shown.toml", None, "gw").unwrap_or_else(|report| panic!("{report}"));
        assert!(snapshot.warnings.is_empty(), "{}", snapshot.warnings);
    }
}

#[test]
fn every_verb_and_option_that_is_shown_exists() {
    let blocks = blocks("sh");
    let lines = blocks.iter().flat_map(|block| block.lines()).filter_map(|line| line.strip_prefix("tungate "));
    let mut shown = 0;
    for line in lines {
        // Read, but not done: help comes after what is wrong before it.
        let words = line.split(['#', '>', '|']).next().unwrap().split_whitespace();
        let output = Command::new(env!("CARGO_BIN_EXE_tungate")).args(words).arg("--help").output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        shown += 1;
    }
    assert!(shown > 8, "the test reads the wrong blocks: {blocks:?}");
}

/// The blocks in this language that README and the manual show.
fn blocks(language: &str) -> Vec<String> {
    let chapters = fs::read_dir(root("src/manual")).unwrap().map(|entry| entry.unwrap().path());
    let opening = format!("```{language}\n");
    let mut shown = Vec::new();
    for file in chapters.chain([root("README.md")]) {
        let text = fs::read_to_string(file).unwrap();
        let blocks = text.split(&opening).skip(1);
        shown.extend(blocks.map(|block| block.split("```").next().unwrap().to_owned()));
    }
    shown
}

/// A row of a table of the manual: its first cell without backquotes, and the second as it stands.
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) second: String,
}

/// The rows whose first cell is a word in backquotes, below a heading of the first rank that begins so.
pub(crate) fn rows(text: &str, heading: &str) -> impl Iterator<Item = Row> {
    let section = text.split_once(&format!("\n{heading}")).unwrap_or_else(|| panic!("no {heading}")).1;
    text_rows(section.split("\n# ").next().unwrap())
}

fn text_rows(text: &str) -> impl Iterator<Item = Row> {
    text.lines().filter_map(|line| {
        let (key, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        Some(Row { key: key.to_owned(), second: rest.split(" | ").next()?.to_owned() })
    })
}
