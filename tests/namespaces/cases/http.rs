//! HTTP through nginx on two backends: curl and wrk.

use std::fs;

use super::{everything, in_setups};
use crate::counters::assert_nothing_was_sent_twice;
use crate::gateway::{Gateway, Service, Setup};
use crate::lab::Lab;
use crate::runner::Case;
use crate::servers::{self, HTTP};

const WEB: Service = Service { protocol: "tcp", port: 80, to_port: HTTP, backends: &["b1", "b2"] };

pub(super) fn cases() -> Vec<Case> {
    let mut cases = in_setups("curl_reaches_both_backends", &["curl", "nginx"], everything(), curl);
    cases.extend(in_setups("curl_fetches_a_document_whole", &["curl", "nginx"], everything(), document));
    cases.extend(in_setups("a_port_is_used_again_at_once", &["curl", "nginx"], everything(), same_port));
    cases.extend(in_setups("wrk_sees_no_error", &["wrk", "nginx"], everything(), wrk));
    cases
}

fn curl(lab: &Lab, setup: &Setup) {
    let _servers = servers::nginx(lab, setup);
    let _gateway = Gateway::start(lab, setup, &[WEB]);
    let url = format!("http://{}/", setup.vip_with(80));
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(lab.client().run(&format!("curl -sS --globoff --max-time 5 {url}")).succeeded());
    }
    for name in WEB.backends {
        let expected = format!("{name} {}\n", setup.seen_source());
        assert!(answers.contains(&expected), "nobody was answered by `{}` in {answers:?}", expected.trim());
    }
    let strangers: Vec<&String> = answers.iter().filter(|text| !text.contains(setup.seen_source())).collect();
    assert!(strangers.is_empty(), "a backend saw another source than {}: {strangers:?}", setup.seen_source());
}

/// 64 MB, compared byte for byte: iperf3 counts bytes but does not look at them.
fn document(lab: &Lab, setup: &Setup) {
    let original = pseudo_random(64 << 20);
    fs::write(lab.folder().join("document"), &original).expect("the lab's folder takes files");
    let _servers = servers::nginx(lab, setup);
    let _gateway = Gateway::start(lab, setup, &[WEB]);
    let url = format!("http://{}/document", setup.vip_with(80));
    let copy = lab.folder().join("copy");
    lab.client().run(&format!("curl -sS --globoff --max-time 50 -o {} {url}", copy.display())).succeeded();
    let copy = fs::read(copy).expect("curl wrote it");
    if copy != original {
        let wrong = copy.iter().zip(&original).position(|(got, sent)| got != sent);
        panic!("{} of {} bytes, the first wrong one at {wrong:?}", copy.len(), original.len());
    }
}

/// A client that does not wait itself comes again from the same port while the gateway's flow is in TIME-WAIT (R48). A SYN
/// that is dropped then is sent again after a second, which the client's kernel counts.
fn same_port(lab: &Lab, setup: &Setup) {
    let _servers = servers::nginx(lab, setup);
    let _gateway = Gateway::start(lab, setup, &[WEB]);
    let url = format!("http://{}/", setup.vip_with(80));
    lab.client().run("sysctl -qw net.ipv4.tcp_max_tw_buckets=0").succeeded();
    for _ in 0..20 {
        lab.client().run(&format!("curl -sS --globoff --http1.0 --max-time 5 --local-port 40000 {url}")).succeeded();
    }
    assert_nothing_was_sent_twice(lab.client());
}

fn wrk(lab: &Lab, setup: &Setup) {
    let _servers = servers::nginx(lab, setup);
    let _gateway = Gateway::start(lab, setup, &[WEB]);
    let url = format!("http://{}/", setup.vip_with(80));
    let report = lab.client().run(&format!("wrk -t 2 -c 100 -d 3s --timeout 10s {url}")).succeeded();
    let requests = report.lines().find_map(|line| line.split_once(" requests in")).map(|(count, _)| count.trim());
    let requests: u64 = requests.and_then(|count| count.parse().ok()).expect(&report);
    assert!(requests > 1000, "hardly anything was served\n{report}");
    assert!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
}

/// Bytes that no header or compression makes up by chance.
fn pseudo_random(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
