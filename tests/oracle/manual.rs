//! The manual's chapter about all this is made from the one list of decisions.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::decisions::DECISIONS;
use crate::kernel::SETTINGS;

const INTRODUCTION: &str = "\
Where tungate does otherwise than the kernel's own NAT would, and why.

A test (`cargo test --test oracle`, as root) builds a gateway of nft rules between two TUNs, in a network namespace of its
own, and beside it tungate's engine with the same services, with and without source NAT. Both get the same packets:
connections and datagrams that end well and badly, random ones, and those that others have captured, sent anew to a
service's address. What leaves, from which side and in how many pieces, has to be the same, byte for byte; source ports
may be chosen differently, as long as no two flows share one. Any other difference is one of these, or the test fails.

# What tungate does otherwise

| what comes | the kernel | tungate | because |
|---|---|---|---|
";

const KERNEL: &str = "
# How the kernel is set

Timeouts are as long as they are so that nothing depends on how fast the test runs; tungate's are, too. Errors are not
limited, since it is they that are compared. All else is as Linux has it; rules forward only what belongs to a translated
flow, so that what connection tracking calls invalid is dropped.

| setting | value |
|---|---|
";

/// `UPDATE_MANUAL=1 cargo test --test oracle` writes it anew.
#[test]
fn the_manual_lists_every_decision() {
    let mut text = INTRODUCTION.to_owned();
    for decision in DECISIONS {
        let rules: Vec<String> = decision.rules.iter().map(|rule| format!("R{rule}")).collect();
        let rules = if rules.is_empty() { String::new() } else { format!(" ({})", rules.join(", ")) };
        let what = decision.what;
        writeln!(text, "| {what}{rules} | {} | {} | {} |", decision.kernel, decision.tungate, decision.why).unwrap();
    }
    text += KERNEL;
    for (setting, value) in SETTINGS {
        writeln!(text, "| `net.{}` | {value} |", setting.replace('/', ".")).unwrap();
    }
    let chapter = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manual/kernel.md");
    if std::env::var_os("UPDATE_MANUAL").is_some() {
        fs::write(&chapter, &text).unwrap();
    }
    let advice = "src/manual/kernel.md is out of date: run `UPDATE_MANUAL=1 cargo test --test oracle`, and commit it";
    assert!(fs::read_to_string(chapter).unwrap() == text, "{advice}");
}
