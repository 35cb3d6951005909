use std::process::Command;

use tungate::io::diagnosis::{Finding, Host, Level};

use crate::world::{World, set};

/// What is wrong with the network namespace of the calling thread, and can be mended by a sysctl.
fn complaints() -> Vec<Finding> {
    let findings = Host::read(None).unwrap().diagnose(None);
    let mendable = |f: &Finding| f.remedy.as_ref().is_some_and(|remedy| remedy.starts_with("sysctl"));
    findings.into_iter().filter(|finding| finding.level != Level::Ok && mendable(finding)).collect()
}

#[test]
fn what_a_real_namespace_lacks_is_found_and_mended_by_the_commands_given() {
    const TEST: &str = "what_a_real_namespace_lacks_is_found_and_mended_by_the_commands_given";
    let Some(world) = World::build(TEST) else { return };
    for (program, option, package) in [("sysctl", "--version", "procps"), ("ip", "-V", "iproute2")] {
        if Command::new(program).arg(option).output().is_err() {
            return crate::common::skip(
                TEST,
                &format!("`{program}` is missing"),
                &format!("apt-get install {package}"),
            );
        }
    }
    let body = || {
        set("ipv4/conf/all/rp_filter", "1");
        let by_mark = Command::new("ip").args(["rule", "add", "fwmark", "7", "lookup", "100"]).status();
        assert!(by_mark.unwrap().success());
        let found = complaints();
        let subjects: Vec<_> = found.iter().map(|finding| (finding.subject.as_str(), finding.level)).collect();
        let expected = [("IPv4 forwarding", Level::Fail), ("IPv6 forwarding", Level::Warn), ("rp_filter", Level::Warn)];
        assert_eq!(subjects, expected);
        for finding in found {
            let remedy = finding.remedy.unwrap();
            assert!(Command::new("sh").args(["-c", &remedy]).output().unwrap().status.success(), "{remedy}");
        }
        assert_eq!(complaints(), []);
    };
    world.a.run(body).unwrap();
}
