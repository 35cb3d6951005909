//! Every file in `bad-configs/` is wrong, or doubtful, and says so exactly as the snapshot beside it.
//!
//! After a change that is meant to change the words: `INSTA_UPDATE=always cargo test --test config_errors`, and read the
//! difference.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use insta::{Settings, assert_snapshot};
use proptest::prelude::*;
use tungate::config::{self, Report};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad-configs")
}

/// Name and text of every file, in the order of names.
fn bad_configs() -> Vec<(String, String)> {
    let entries = fs::read_dir(folder()).expect("the folder is part of the repository");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let mut files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| {
            let name = path.file_stem().expect("it has an extension").to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).expect("UTF-8"))
        })
        .collect();
    files.sort();
    files
}

/// What is said about a text, and whether it could be used.
fn verdict(text: &str) -> (Report, bool) {
    match config::load(text, "tungate.toml", None, "gw") {
        Ok(snapshot) => (snapshot.warnings, true),
        Err(report) => (report, false),
    }
}

#[test]
fn every_bad_file_says_what_is_wrong() {
    let files = bad_configs();
    assert!(files.len() >= 30, "{} files", files.len());
    let mut settings = Settings::clone_current();
    settings.set_snapshot_path(folder());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (name, text) in files {
        let (report, usable) = verdict(&text);
        assert!(!report.is_empty(), "{name}: nothing is said");
        assert_eq!(usable, name.starts_with("warning-"), "{name}: {report}");
        settings.bind(|| assert_snapshot!(name, report.to_string()));
    }
}

#[test]
fn every_rule_has_a_file_that_breaks_it() {
    let mut codes = BTreeSet::new();
    for (_, text) in bad_configs() {
        codes.extend(verdict(&text).0.diagnostics().iter().map(|diagnostic| diagnostic.code.name()));
    }
    // E022 takes 65,536 backends: a test of its own.
    let errors = (1..=29).filter(|n| *n != 22).map(|n| format!("E{n:03}"));
    let warnings = (1..=8).chain([12, 13, 14]).map(|n| format!("W{n:03}"));
    assert_eq!(codes.into_iter().collect::<Vec<_>>(), errors.chain(warnings).collect::<Vec<_>>());
}

#[test]
fn more_backends_than_numbers_are_refused() {
    let entries = |service: usize, n: usize| -> String {
        let address = |i: usize| format!("10.{service}.{}.{}", i / 250, i % 250);
        (0..n).map(|i| format!("{{ address = '{}' }},\n", address(i))).collect()
    };
    let service = |service: usize, n: usize| {
        let listen = format!("192.0.2.{service}:80");
        let entries = entries(service, n);
        format!("[[service]]\nname = 's{service}'\nlisten = '{listen}'\nsource-nat = false\nbackends = [\n{entries}]\n")
    };
    let fits = service(1, 40_000) + &service(2, 25_535);
    let snapshot = config::load(&fits, "tungate.toml", None, "gw").unwrap();
    assert_eq!(snapshot.backends.len(), 65_535);

    let (report, _) = verdict(&(fits + &service(3, 1)));
    assert_eq!(report.diagnostics().iter().map(|d| d.code.name()).collect::<Vec<_>>(), ["E022"]);
}

#[test]
fn colour_is_added_and_changes_no_letter() {
    let (report, _) = verdict("[gateway]\nmtu = 1\n");
    let coloured = report.render(true);
    assert!(coloured.contains("\u{1b}["));
    let mut plain = String::new();
    for (n, part) in coloured.split('\u{1b}').enumerate() {
        plain.push_str(if n == 0 { part } else { part.split_once('m').unwrap().1 });
    }
    assert_eq!(plain, report.to_string());
    assert!(!report.to_string().contains('\u{1b}'));
}

#[test]
fn of_very_many_errors_a_hundred_are_told() {
    let text: String = (0..20_000).map(|n| format!("key-{n} = 1\n")).collect();
    let told = verdict(&text).0.to_string();
    assert_eq!(told.matches("error[E002]").count(), 100);
    assert!(told.ends_with("and 19900 more in tungate.toml"), "{}", &told[told.len() - 60..]);
}

#[test]
fn a_terminal_escape_in_the_file_does_not_reach_the_terminal() {
    for (name, text) in bad_configs() {
        let control = |c: char| c.is_control() && c != '\n';
        assert!(!verdict(&text).0.to_string().contains(control), "{name}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "\\PC*|(\\[\\[?[a-z]+\\]\\]?|[a-z-]+ ?= ?[\"'\\[{0-9a-z:./}\\]]*|[\\s\\S]|\n)*") {
        let (report, _) = verdict(&text);
        let _ = report.render(true);
    }

    #[test]
    fn the_example_with_a_few_bytes_changed_is_read_without_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, "[\\[\\]{}\"'=,.:/*#0-9a-z\n\u{e9}\u{0}-]{0,8}"), 1..6)
    ) {
        let mut text = config::example().replace("\n# ", "\n");
        for (place, length, replacement) in edits {
            let start = text.floor_char_boundary(place.index(text.len()));
            let end = text.floor_char_boundary((start + length).min(text.len())).max(start);
            text.replace_range(start..end, &replacement);
        }
        let (report, usable) = verdict(&text);
        prop_assert_eq!(usable, !report.has_errors());
        let _ = report.render(false);
    }

    #[test]
    fn the_example_without_a_line_is_read_without_panic(skipped in 0_usize..70, repeated in 0_usize..70) {
        let lines = config::example().lines().enumerate();
        let text: Vec<_> = lines.filter(|(n, _)| *n != skipped).flat_map(|(n, line)| {
            std::iter::repeat_n(line, if n == repeated { 2 } else { 1 })
        }).collect();
        let _ = verdict(&text.join("\r\n")).0.render(false);
    }
}
