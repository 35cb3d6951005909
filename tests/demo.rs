//! The demo as a program: here what happens when its gateway breaks; `.ci/run` sees it work.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail that way, and says what it skips")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tungate::io::sys;

/// A running demo, ended with the test.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_live_demo_whose_gateway_has_lost_its_tun_ends_and_says_so() {
    const TEST: &str = "a_live_demo_whose_gateway_has_lost_its_tun_ends_and_says_so";
    if sys::effective_user() != 0 || !Path::new("/dev/net/tun").exists() {
        return common::skip(TEST, "needs root and /dev/net/tun", "sudo -E cargo test --test demo");
    }
    for (program, package) in [("ip", "iproute2"), ("nsenter", "util-linux")] {
        if Command::new(program).arg("-V").output().is_err() {
            return common::skip(TEST, &format!("there is no {program}"), &format!("apt-get install {package}"));
        }
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_tungate"));
    let mut demo = Demo(command.arg("demo").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(demo.0.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("Ctrl-C")), "it has shown its table once");

    let threads = fs::read_dir(format!("/proc/{}/task", demo.0.id())).unwrap().map(|thread| thread.unwrap().path());
    let is_worker = |thread: &Path| fs::read_to_string(thread.join("comm")).is_ok_and(|name| name == "worker-0\n");
    let gateway =
        format!("--net={}", threads.into_iter().find(|thread| is_worker(thread)).unwrap().join("ns/net").display());
    let removed = Command::new("nsenter").args([&gateway, "ip", "link", "del", "tungate0"]).status().unwrap();
    assert!(removed.success());

    lines.for_each(drop); // until it ends
    let said = std::io::read_to_string(demo.0.stderr.take().unwrap()).unwrap();
    assert_eq!((demo.0.wait().unwrap().code(), said.contains("the TUN was taken away")), (Some(1), true), "{said}");
}

#[test]
fn a_root_who_may_not_make_namespaces_is_told_what_he_lacks() {
    const TEST: &str = "a_root_who_may_not_make_namespaces_is_told_what_he_lacks";
    if sys::effective_user() != 0 {
        return common::skip(TEST, "needs root", "sudo -E cargo test --test demo");
    }
    let less = ["--bounding-set=-sys_admin", "--inh-caps=-sys_admin", env!("CARGO_BIN_EXE_tungate"), "demo", "--once"];
    let Ok(output) = Command::new("setpriv").args(less).output() else {
        return common::skip(TEST, "there is no setpriv", "apt-get install util-linux");
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.contains("CAP_SYS_ADMIN")), (Some(4), true), "{said}");
}
