//! Any text is a configuration or a report: never a panic, and every diagnostic points into the text.

use std::sync::Arc;

use tungate::config::{self, Code, Diagnostic, Label, Report, Severity};
use tungate::engine::Policy;

/// The text of a `tungate.toml`.
pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let loaded = config::load(text, "fuzz.toml", None, "gw");
    match &loaded {
        Ok(snapshot) => {
            assert!(snapshot.warnings.diagnostics().iter().all(|d| d.code.severity() == Severity::Warning));
            check(&snapshot.warnings, text);
        }
        Err(report) => {
            assert!(report.has_errors(), "refused without a reason");
            check(report, text);
        }
    }
    let again = config::load(text, "fuzz.toml", None, "gw");
    assert_eq!(reported(&loaded), reported(&again), "the same text, the same report");
    if let Ok(snapshot) = loaded {
        let _ = Policy::new(Arc::new(snapshot));
    }
}

fn reported(loaded: &Result<config::Snapshot, Report>) -> &Report {
    loaded.as_ref().map_or_else(|report| report, |snapshot| &snapshot.warnings)
}

fn check(report: &Report, text: &str) {
    for diagnostic in report.diagnostics() {
        assert!(!diagnostic.message.is_empty() && !diagnostic.message.ends_with('.'), "{diagnostic:?}");
        for label in labels(diagnostic) {
            let span = label.span.clone();
            assert!(text.get(span).is_some(), "{label:?} of {diagnostic:?} lies outside the text");
        }
    }
    let starts = |d: &Diagnostic| d.primary.span.start;
    assert!(report.diagnostics().is_sorted_by_key(starts), "in the order of the file");
    let rendered = report.render(false);
    for diagnostic in report.diagnostics() {
        assert!(rendered.contains(diagnostic.code.name()), "{diagnostic:?} is not shown in\n{rendered}");
    }
    assert!(report.render(true).len() >= rendered.len());
}

fn labels(diagnostic: &Diagnostic) -> impl Iterator<Item = &Label> {
    std::iter::once(&diagnostic.primary).chain(&diagnostic.secondary)
}
