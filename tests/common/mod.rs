//! What the integration tests share.

/// Reports a test that cannot run here, with the command that makes it run. Where everything is meant to be installed
/// (`TUNGATE_TEST_ALL=1`, as in `.ci/run`), that is a failure.
pub(crate) fn skip(test: &str, why: &str, command: &str) {
    let message = format!("SKIPPED {test}: {why}; {command}");
    assert!(std::env::var_os("TUNGATE_TEST_ALL").is_none(), "{message}");
    println!("{message}");
}
