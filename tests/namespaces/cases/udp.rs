//! UDP: datagrams that come back as they were sent, and DNS.

use std::collections::BTreeSet;

use super::{everything, in_setups};
use crate::counters::assert_no_broken_packets;
use crate::gateway::{Gateway, Service, Setup};
use crate::lab::Lab;
use crate::runner::Case;
use crate::servers::{self, DNS, ECHO};

const UDP_ECHO: Service = Service { protocol: "udp", port: 7, to_port: ECHO, backends: &["b1", "b2"] };
const DNS_UDP: Service = Service { protocol: "udp", port: 53, to_port: DNS, backends: &["b1", "b2"] };
const DNS_TCP: Service = Service { protocol: "tcp", port: 53, to_port: DNS, backends: &["b1", "b2"] };

pub(super) fn cases() -> Vec<Case> {
    let mut cases = in_setups("fifty_thousand_datagrams_come_back", &[], everything(), datagrams);
    cases.extend(in_setups("dig_asks_both_backends", &["dig", "dnsmasq"], everything(), dig));
    cases
}

fn datagrams(lab: &Lab, setup: &Setup) {
    let _servers = servers::echo(lab, setup, "udp");
    let _gateway = Gateway::start(lab, setup, &[UDP_ECHO]);
    let mut client = lab.client().start_helper(&format!("datagrams {} 50000", setup.vip_with(7)));
    client.has_printed("verified 50000\n");
    assert_no_broken_packets(lab);
}

fn dig(lab: &Lab, setup: &Setup) {
    let _servers = servers::dnsmasq(lab, setup);
    let _gateway = Gateway::start(lab, setup, &[DNS_UDP, DNS_TCP]);
    for transport in ["+notcp", "+tcp"] {
        let mut answers = BTreeSet::new();
        for _ in 0..10 {
            let line = format!("dig +short +time=5 +tries=1 {transport} @{} who.test TXT", setup.vip());
            answers.insert(lab.client().run(&line).succeeded());
        }
        let expected = BTreeSet::from(["\"b1\"\n".to_string(), "\"b2\"\n".to_string()]);
        assert_eq!(answers, expected, "by {transport}");
    }
}
