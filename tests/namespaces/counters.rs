//! What the kernels on the way counted.

use crate::lab::{Host, Lab};

/// Every counter by which a kernel says that a packet's header or checksum was wrong.
const BROKEN: [&str; 9] = [
    "IpInHdrErrors",
    "IpExtInCsumErrors",
    "IcmpInCsumErrors",
    "TcpInCsumErrors",
    "UdpInCsumErrors",
    "Ip6InHdrErrors",
    "Ip6InTruncatedPkts",
    "Icmp6InCsumErrors",
    "Udp6InCsumErrors",
];

/// No kernel of the lab has seen a broken header or a wrong checksum since the lab was built.
#[track_caller]
pub(crate) fn assert_no_broken_packets(lab: &Lab) {
    let mut broken = Vec::new();
    for host in lab.hosts() {
        let table = host.run("nstat -asz").succeeded();
        for counter in BROKEN {
            match value(&table, counter) {
                0 => {}
                count => broken.push(format!("{}: {counter} {count}", host.name)),
            }
        }
    }
    assert!(broken.is_empty(), "kernels counted broken packets: {}", broken.join(", "));
}

/// This kernel did not have to send any TCP segment again.
#[track_caller]
pub(crate) fn assert_nothing_was_sent_twice(host: Host<'_>) {
    let table = host.run("nstat -asz").succeeded();
    assert_eq!(value(&table, "TcpRetransSegs"), 0, "segments that {} sent again", host.name);
}

#[track_caller]
fn value(table: &str, counter: &str) -> u64 {
    let line = table.lines().find(|line| line.split_whitespace().next() == Some(counter));
    let value = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    value.unwrap_or_else(|| panic!("nstat does not know {counter}:\n{table}"))
}
