//! Bulk TCP by iperf3, with every checksum on the way right.

use std::time::Duration;

use super::{both_families, everything, full_nat, in_setups};
use crate::counters::assert_no_broken_packets;
use crate::gateway::{Engine, Gateway, Nat, Service, Setup};
use crate::lab::{Host, Lab};
use crate::runner::Case;
use crate::servers::{self, IPERF};

const TCP: Service = Service { protocol: "tcp", port: 5201, to_port: IPERF, backends: &["b1"] };
const UDP: Service = Service { protocol: "udp", port: 5201, to_port: IPERF, backends: &["b1"] };
const GIGABYTE: u64 = 1 << 30;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = in_setups("a_gigabyte_each_way", &["iperf3"], everything(), offloads_on);
    // A veth hands a partial checksum to the other end, where nobody verifies it. So once the hosts finish their
    // checksums themselves, and once the gateway's ports finish what the gateway wrote.
    cases.extend(in_setups("a_gigabyte_with_finished_checksums", &["iperf3", "ethtool"], both(), hosts_off));
    cases.extend(in_setups("a_gigabyte_with_checksums_finished_last", &["iperf3", "ethtool"], both(), ports_off));
    cases.extend(in_setups("eight_streams_both_ways_at_once", &["iperf3"], everything(), eight_streams));
    cases.extend(in_setups("one_udp_flow_stays_in_order", &["iperf3"], in_order(), udp_order));
    cases
}

fn both() -> Vec<Setup> {
    let destination = both_families(Engine::Tungate { workers: 1 }, Nat::Destination);
    full_nat().into_iter().chain(destination).collect()
}

fn in_order() -> Vec<Setup> {
    both_families(Engine::Tungate { workers: 2 }, Nat::Full).chain(full_nat()).collect()
}

fn offloads_on(lab: &Lab, setup: &Setup) {
    a_gigabyte_each_way(lab, setup);
}

fn hosts_off(lab: &Lab, setup: &Setup) {
    finish_checksums(lab.client(), "eth0");
    finish_checksums(lab.backend("b1"), "eth0");
    a_gigabyte_each_way(lab, setup);
}

fn ports_off(lab: &Lab, setup: &Setup) {
    finish_checksums(lab.gateway(), "to-client");
    finish_checksums(lab.gateway(), "to-b1");
    a_gigabyte_each_way(lab, setup);
}

/// Lets the kernel compute checksums, and so cut super-packets, before packets leave by this interface.
fn finish_checksums(host: Host<'_>, interface: &str) {
    host.run(&format!("ethtool -K {interface} tx off")).succeeded();
}

fn a_gigabyte_each_way(lab: &Lab, setup: &Setup) {
    let _gateway = Gateway::start(lab, setup, &[TCP]);
    for direction in ["", "-R"] {
        // The receiver stops counting when the sender says that it is done, whatever is on its way then: so more is sent.
        let report = iperf3(lab, setup, &format!("-n {} {direction}", GIGABYTE + GIGABYTE / 16));
        let received = number(&report, "/end/sum_received/bytes");
        assert!(received >= GIGABYTE, "iperf3 {direction} received {received} bytes\n{report}");
    }
    assert_no_broken_packets(lab);
}

fn eight_streams(lab: &Lab, setup: &Setup) {
    let _gateway = Gateway::start(lab, setup, &[TCP]);
    iperf3(lab, setup, "-P 8 -t 2 --bidir");
    assert_no_broken_packets(lab);
}

fn udp_order(lab: &Lab, setup: &Setup) {
    let _gateway = Gateway::start(lab, setup, &[TCP, UDP]);
    for direction in ["", "-R"] {
        let report = iperf3(lab, setup, &format!("-u -b 200M -l 1200 -t 2 {direction}"));
        let stream = "/end/streams/0/udp";
        assert!(number(&report, &format!("{stream}/packets")) > 10_000, "{report}");
        assert_eq!(number(&report, &format!("{stream}/out_of_order")), 0, "{report}");
    }
}

/// One test; its report as JSON.
#[track_caller]
fn iperf3(lab: &Lab, setup: &Setup, options: &str) -> serde_json::Value {
    let _server = servers::iperf3(lab);
    let line = format!("iperf3 -J -c {} -p 5201 {options}", setup.vip());
    let report = lab.client().run_within(Duration::from_secs(120), &line).succeeded();
    serde_json::from_str(&report).expect(&report)
}

#[track_caller]
fn number(report: &serde_json::Value, path: &str) -> u64 {
    report.pointer(path).and_then(serde_json::Value::as_u64).unwrap_or_else(|| panic!("no {path} in {report}"))
}
