use super::checks::sysctl;
use super::*;
use crate::config;
use crate::wire::Protocol;

const FULL_NAT: &str = r#"
[gateway]
interface = "gate"
source-addresses = ["10.99.0.10", "fd00:99::10"]
announce-on = ["eth0", "vlan.5"]
[[service]]
name = "web"
listen = ["192.0.2.10:80", "[2001:db8::10]:80"]
backends = [{ address = "10.0.0.1" }, { address = "fd00::1" }]
"#;

fn snapshot(text: &str) -> Snapshot {
    config::load(text, "tungate.toml", None, "host").unwrap_or_else(|report| panic!("{report:?}"))
}

fn link(index: u32, name: &str) -> Link {
    let (mtu, up, hardware_address) = (1500, true, Some([2, 0, 0, 0, 0, 1]));
    let (queue_length, queue_discipline) = (1000, "noqueue".to_owned());
    let (name, carrier, tun, kind) = (name.to_owned(), Some(1), false, String::new());
    Link { index, name, mtu, up, tun, kind, carrier, hardware_address, queue_length, queue_discipline }
}

fn way(interface: u32) -> Way {
    Way { interface: Some(interface), prefix_length: 0, mtu: None }
}

fn nobody() -> Running {
    Running::Nobody("/run/tungate/tungate.sock".into())
}

fn healthy() -> Host {
    let mut host = Host {
        tun_device: None,
        capabilities: Some(0b11 << 12),
        unsteered: None,
        links: vec![link(2, "eth0"), link(3, "vlan.5")],
        addresses: vec![LocalAddress { interface: 2, address: [10, 0, 0, 254].into(), prefix_length: 24 }],
        rules: [true, false].map(|v4| AddedRule { v4, by_mark: false }).to_vec(),
        firewall: Forwarding::Dropping(Vec::new()),
        sockets: Sockets::default(),
        ways: ["10.0.0.1", "fd00::1"].map(|to| (to.parse().unwrap(), Some(way(2)))).into(),
        settings: BTreeMap::new(),
    };
    host.set("ipv6/conf/all/forwarding", "1");
    host.set("ipv4/conf/eth0/forwarding", "1");
    host.set("ipv4/conf/vlan.5/forwarding", "1");
    host
}

impl Host {
    fn set(&mut self, path: &str, value: &str) {
        self.settings.insert(path.to_owned(), value.to_owned());
    }

    /// The only thing that is not well.
    fn complaint(&self, text: &str) -> (Level, String) {
        let findings = self.diagnose(Some((&snapshot(text), &nobody())));
        let complaints: Vec<_> = findings.into_iter().filter(|finding| finding.level != Level::Ok).collect();
        let [complaint] = complaints.as_slice() else { panic!("{complaints:#?}") };
        let remedy = complaint.remedy.as_deref().unwrap();
        (complaint.level, format!("{}: {}; {remedy}", complaint.subject, complaint.found))
    }
}

#[test]
fn a_healthy_machine_gives_no_cause_for_complaint() {
    for configured in [None, Some((&snapshot(FULL_NAT), &nobody()))] {
        let findings = healthy().diagnose(configured);
        assert!(findings.iter().all(|f| f.level == Level::Ok && f.remedy.is_none()), "{findings:#?}");
    }
}

#[test]
fn each_obstacle_is_named_with_its_remedy() {
    type Harm = fn(&mut Host);
    let cases: [(Harm, Level, &str); 11] = [
        (|h| h.tun_device = Some(TunError::NoDevice), Level::Fail, "TUN: there is no /dev/net/tun; modprobe tun"),
        (|h| h.capabilities = Some(1 << 12), Level::Fail, "privileges: missing CAP_NET_RAW; run as root"),
        (|h| h.links.push(link(9, "gate")), Level::Warn, "interface: gate exists"),
        (|h| h.links[0].up = false, Level::Fail, "announce-on: eth0 is down; ip link set eth0 up"),
        (|h| h.links[0].hardware_address = None, Level::Fail, "announce-on: eth0 is no Ethernet"),
        (|h| h.set("ipv4/conf/eth0/proxy_arp", "1"), Level::Warn, "announce-on: eth0: the kernel answers ARP too"),
        (
            |h| h.set("ipv4/conf/eth0/forwarding", "0"),
            Level::Fail,
            "IPv4 forwarding: off on eth0; sysctl -w net.ipv4.ip_forward=1",
        ),
        (
            |h| h.set("ipv6/conf/all/forwarding", "0"),
            Level::Fail,
            "IPv6 forwarding: off on eth0, vlan.5; sysctl -w net.ipv6.conf.all.forwarding=1",
        ),
        (|h| h.set("netfilter/nf_conntrack_count", "7"), Level::Warn, "conntrack: the kernel tracks 7"),
        (|h| h.links[1].mtu = 1400, Level::Warn, "MTU: 1500, more than vlan.5 (1400)"),
        (
            |h| h.addresses[0].address = [10, 99, 0, 10].into(),
            Level::Fail,
            "addresses: 10.99.0.10 (a source address) is an address of eth0: the kernel keeps its packets; \
             ip address del 10.99.0.10/24 dev eth0",
        ),
    ];
    for (harm, level, expected) in cases {
        let mut host = healthy();
        harm(&mut host);
        let (found_level, found) = host.complaint(FULL_NAT);
        assert!(found.starts_with(expected) && found_level == level, "{found_level:?} {found}\nnot {expected}");
    }
}

#[test]
fn who_follows_doctor_removes_no_interface_of_a_running_gateway() {
    let snapshot = snapshot(FULL_NAT);
    let finding = |up: bool, running: Running| {
        let mut host = healthy();
        host.links.push(Link { up, ..link(9, "gate") });
        let findings = host.diagnose(Some((&snapshot, &running)));
        let mut of_interface = findings.into_iter().filter(|finding| finding.subject == "interface");
        let finding = of_interface.next().unwrap();
        (finding.level, format!("{}; {}", finding.found, finding.remedy.unwrap_or_default()))
    };
    let on = |name: &str| Running::On(name.to_owned());
    assert_eq!(finding(true, on("gate")), (Level::Ok, "a tungate serves on gate; ".to_owned()));
    let (level, down) = finding(false, on("gate"));
    assert!(level == Level::Fail && down.ends_with("nothing comes in; ip link set gate up"), "{down}");
    for running in [on("other"), Running::Unknown("no permission".to_owned())] {
        let (level, found) = finding(true, running);
        assert!(level == Level::Warn && !found.contains("ip link del"), "{found}");
    }
    let (level, found) = finding(true, nobody());
    assert!(level == Level::Warn && found.contains("if nobody needs gate: ip link del gate"), "{found}");
}

#[test]
fn a_vip_of_an_attached_network_needs_somebody_who_answers_for_it() {
    let mut host = healthy();
    host.links.push(link(4, "eth2"));
    host.addresses.push(LocalAddress { interface: 4, address: [192, 0, 2, 1].into(), prefix_length: 24 });
    let (level, found) = host.complaint(FULL_NAT);
    assert_eq!(level, Level::Warn);
    assert!(found.starts_with("announce-on: nobody answers for 192.0.2.10/32 in the network of eth2; "), "{found}");
    let announced = FULL_NAT.replace("\"vlan.5\"", "\"eth2\"");
    host.set("ipv4/conf/eth2/forwarding", "1");
    let findings = host.diagnose(Some((&snapshot(&announced), &nobody())));
    assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:#?}");
}

#[test]
fn answers_to_the_clients_own_address_need_a_rule_of_each_family() {
    let mut host = healthy();
    host.rules.retain(|rule| rule.v4);
    let all_well = |text| host.diagnose(Some((&snapshot(text), &nobody()))).iter().all(|f| f.level == Level::Ok);
    assert!(all_well(FULL_NAT), "full NAT needs none");
    let (level, found) = host.complaint(&FULL_NAT.replace("name = \"web\"", "name = \"web\"\nsource-nat = false"));
    assert_eq!(level, Level::Warn);
    assert!(found.starts_with("way back: web: no routing rule of IPv6 brings"), "{found}");
    assert!(found.ends_with("ip -6 route add default dev gate table 100"), "{found}");
}

#[test]
fn raw_sockets_are_for_announcing_alone() {
    let mut host = healthy();
    host.capabilities = Some(1 << 12);
    let silent = snapshot(&FULL_NAT.replace("announce-on = [\"eth0\", \"vlan.5\"]\n", ""));
    let findings = host.diagnose(Some((&silent, &nobody())));
    assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:#?}");
    let worst = host.diagnose(None).into_iter().max_by_key(|finding| finding.level).unwrap();
    assert_eq!((worst.level, worst.found.as_str()), (Level::Warn, "missing CAP_NET_RAW, needed with announce-on only"));
}

#[test]
fn a_reverse_path_filter_only_harms_who_keeps_the_clients_address_and_routes_by_marks() {
    let keeps = FULL_NAT.replace("name = \"web\"", "name = \"web\"\nsource-nat = false");
    for (value, how) in [("1", "strict"), ("2", "loose")] {
        let mut host = healthy();
        host.set("ipv4/conf/all/rp_filter", value);
        let all_well =
            |host: &Host, text| host.diagnose(Some((&snapshot(text), &nobody()))).iter().all(|f| f.level == Level::Ok);
        assert!(all_well(&host, FULL_NAT) && all_well(&host, &keeps));

        host.rules.push(AddedRule { v4: true, by_mark: true });
        assert!(all_well(&host, FULL_NAT));
        let (level, found) = host.complaint(&keeps);
        assert_eq!(level, Level::Warn);
        assert!(found.starts_with(&format!("rp_filter: {how} for all: ")), "{found}");
        assert!(found.ends_with("sysctl -w net.ipv4.conf.all.rp_filter=0"), "{found}");
    }
}

#[test]
fn a_local_address_within_a_prefix_is_doubtful_and_every_one_is_named() {
    let mut host = healthy();
    host.addresses[0].address = [192, 0, 2, 10].into();
    let (level, found) = host.complaint(&FULL_NAT.replace("192.0.2.10:80", "192.0.2.0/28:80"));
    assert_eq!(level, Level::Warn);
    assert!(found.starts_with("addresses: 192.0.2.10 (in the prefix of a VIP) is an address of eth0"), "{found}");

    host.addresses.push(LocalAddress { interface: 9, address: [10, 99, 0, 10].into(), prefix_length: 32 });
    let failed = host
        .diagnose(Some((&snapshot(FULL_NAT), &nobody())))
        .into_iter()
        .filter(|finding| finding.level == Level::Fail);
    let remedies: Vec<_> = failed.filter_map(|finding| finding.remedy).collect();
    assert_eq!(remedies, ["ip address del 192.0.2.10/24 dev eth0", "ip address del 10.99.0.10/32 dev interface 9"]);
}

#[test]
fn ipv6_may_be_forced_on_or_not_be_wanted() {
    let mut host = healthy();
    host.set("ipv6/conf/all/forwarding", "0");
    let v4_only = FULL_NAT
        .replace(", \"fd00:99::10\"", "")
        .replace(", \"[2001:db8::10]:80\"", "")
        .replace(", { address = \"fd00::1\" }", "");
    assert!(host.diagnose(Some((&snapshot(&v4_only), &nobody()))).iter().all(|finding| finding.level == Level::Ok));

    host.set("ipv6/conf/eth0/force_forwarding", "1");
    host.set("ipv6/conf/vlan.5/force_forwarding", "1");
    assert!(host.diagnose(Some((&snapshot(FULL_NAT), &nobody()))).iter().all(|finding| finding.level == Level::Ok));
}

#[test]
fn a_dot_in_an_interfaces_name_is_not_one_of_the_settings() {
    assert_eq!(sysctl("ipv4/conf/eth0/proxy_arp", 0), "sysctl -w net.ipv4.conf.eth0.proxy_arp=0");
    assert_eq!(sysctl("ipv4/conf/vlan.5/proxy_arp", 0), "sysctl -w net/ipv4/conf/vlan.5/proxy_arp=0");
}

const DSR: &str = r#"
[gateway]
interface = "gate"
mtu = 1300
source-addresses = ["10.99.0.10", "fd00:99::10"]
announce-on = ["eth0", "vlan.5"]
[[service]]
name = "web"
listen = ["192.0.2.10:80", "[2001:db8::10]:80"]
mode = "dsr"
backends = [{ address = "10.0.0.1" }, { address = "fd00::1" }]
"#;

#[test]
fn the_arithmetic_of_tunnels_is_told_for_each_service_and_family() {
    let found = |text: &str| {
        let findings = healthy().diagnose(Some((&snapshot(text), &nobody())));
        let tunnels = findings.into_iter().filter(|finding| finding.subject == "tunnel");
        tunnels.map(|finding| (finding.level, finding.found)).collect::<Vec<_>>()
    };
    let wide = found(&DSR.replace("mtu = 1300\n", ""));
    let v4 = "web: gre over IPv4 takes 24 of 1500 bytes; packets up to 1476 fit: advmss 1436 (IPv4), 1416 (IPv6) on the backends";
    let v6 = "web: gre over IPv6 takes 44 of 1500 bytes; packets up to 1456 fit: advmss 1416 (IPv4), 1396 (IPv6) on the backends";
    assert_eq!(wide, [(Level::Ok, v4.to_owned()), (Level::Ok, v6.to_owned())]);
    let narrow = found(DSR);
    assert_eq!(narrow.iter().map(|(level, _)| *level).collect::<Vec<_>>(), [Level::Warn; 2], "{narrow:?}");
    assert_eq!(found(FULL_NAT), []);
}

#[test]
fn the_way_to_a_backend_may_be_missing_or_narrow() {
    let text = DSR.replace("mtu = 1300\n", "");
    let mut host = healthy();
    let address = |text: &str| text.parse().unwrap();
    host.ways.insert(address("10.0.0.1"), Some(Way { mtu: Some(1400), ..way(2) }));
    let findings = host.diagnose(Some((&snapshot(&text), &nobody())));
    let narrow = "takes 24 of 1400 bytes; packets up to 1376 fit: advmss 1336 (IPv4), 1316 (IPv6)";
    assert!(findings.iter().any(|finding| finding.found.contains(narrow)), "{findings:#?}");

    host.ways.insert(address("10.0.0.1"), None);
    let missing = (Level::Fail, "routes: backend web/10.0.0.1 (10.0.0.1): no route; ip route get 10.0.0.1".to_owned());
    assert_eq!(host.complaint(&text), missing);
    host.ways.insert(address("10.0.0.1"), Some(way(9)));
    host.links.push(Link { carrier: None, up: false, ..link(9, "eth2") });
    let (_, found) = host.complaint(&text);
    assert!(found.contains("(10.0.0.1): its way is by eth2, which is down"), "{found}");
}

/// A backend on which nothing is missing, and which is no gateway.
fn backend() -> Host {
    let mut host = healthy();
    for address in ["10.0.0.1", "192.0.2.10", "2001:db8::10"] {
        let address = address.parse().unwrap();
        host.addresses.push(LocalAddress { interface: 1, address, prefix_length: 32 });
    }
    host.settings.clear();
    host.sockets = Sockets::default().with(Protocol::GRE, "0.0.0.0", 0).with(Protocol::TCP, "::", 80);
    host
}

#[test]
fn a_backend_is_told_what_it_lacks() {
    let text = DSR.replace("mtu = 1300\n", "");
    let findings = backend().diagnose(Some((&snapshot(&text), &nobody())));
    assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:#?}");
    assert_eq!(findings[0].found, "backend web/10.0.0.1 (10.0.0.1)");
    assert_eq!(findings[1].found, "a program takes gre from 10.99.0.10 apart");

    type Harm = fn(&mut Host);
    let cases: [(Harm, Level, &str); 5] = [
        (|h| h.addresses.truncate(3), Level::Fail, "2001:db8::10 not an address of this machine"),
        (
            |h| h.sockets = Sockets::default().with(Protocol::TCP, "::", 80),
            Level::Fail,
            "nothing takes gre from 10.99.0.10 apart: no tungate decap runs, and no device of the kernel's does; tungate \
             decap -c FILE",
        ),
        (
            |h| h.sockets = h.sockets.clone().without(Protocol::TCP).with(Protocol::TCP, "192.0.2.10", 80),
            Level::Warn,
            "nothing listens on TCP [2001:db8::10]:80 (web); a server on port 80",
        ),
        (|h| h.set("ipv4/conf/all/rp_filter", "1"), Level::Fail, "rp_filter is strict for all"),
        (
            |h| {
                h.set("ipv4/conf/all/arp_ignore", "0");
                h.addresses[0].address = [192, 0, 2, 1].into();
            },
            Level::Warn,
            "answers ARP for 192.0.2.10, which lies in its network",
        ),
    ];
    for (harm, level, expected) in cases {
        let mut host = backend();
        harm(&mut host);
        let (found_level, found) = host.complaint(&text);
        let expected = format!("backend: {expected}");
        assert!(found.starts_with(&expected) && found_level == level, "{found_level:?} {found}\nnot {expected}");
    }
}

#[test]
fn the_kernels_devices_take_tunnels_apart_too() {
    let mut host = backend();
    host.sockets = Sockets::default().with(Protocol::TCP, "::", 80);
    host.links.push(Link { kind: "gre".to_owned(), ..link(7, "dsr0") });
    let findings = host.diagnose(Some((&snapshot(&DSR.replace("mtu = 1300\n", "")), &nobody())));
    assert_eq!(findings[1].found, "the kernel's dsr0 takes gre from 10.99.0.10 apart");
}

#[test]
fn a_kernel_that_takes_no_program_is_slower_with_several_workers() {
    let host = Host { unsteered: Some(std::io::Error::from_raw_os_error(libc::EPERM)), ..healthy() };
    let (level, text) = host.complaint(FULL_NAT);
    assert_eq!(level, Level::Warn);
    assert!(text.starts_with("steering: ") && text.contains("CAP_BPF"), "{text}");
}
