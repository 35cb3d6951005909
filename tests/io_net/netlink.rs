use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use tungate::io::netlink::{LinkChange, LocalAddress, Netlink, Prefix, Route, Rule, Target, Watch};
use tungate::io::sys;

use crate::world::{World, ip};

#[test]
fn datagrams_cross_a_cable_between_two_namespaces() {
    let Some(world) = World::build("datagrams_cross_a_cable_between_two_namespaces") else { return };
    for (near, far) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        let bind = |address| UdpSocket::bind(SocketAddr::new(ip(address), 0)).unwrap();
        let echo = world.b.run(|| bind(far)).unwrap();
        let to = echo.local_addr().unwrap();
        let server = world
            .b
            .spawn("echo", move || {
                let mut buffer = [0; 64];
                let (length, from) = echo.recv_from(&mut buffer).unwrap();
                echo.send_to(&buffer[..length], from).unwrap();
            })
            .unwrap();
        let answer = world.a.run(|| {
            let client = bind(near);
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            client.send_to(b"hello", to).unwrap();
            let mut buffer = [0; 64];
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            (buffer[..length].to_vec(), from)
        });
        assert_eq!(answer.unwrap(), (b"hello".to_vec(), to));
        server.join().unwrap().unwrap();
    }
}

#[test]
fn a_namespace_sees_its_own_links_only() {
    let Some(world) = World::build("a_namespace_sees_its_own_links_only") else { return };
    let names = |namespace: &tungate::io::namespace::Namespace| {
        let links = namespace.run(|| Netlink::open().unwrap().links().unwrap()).unwrap();
        links.into_iter().map(|link| link.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&world.a), ["lo", "left"]);
    assert_eq!(names(&world.b), ["lo", "right"]);

    let error = world.a.run(|| Netlink::open().unwrap().link("right").unwrap_err().to_string()).unwrap();
    assert_eq!(error, "cannot find the interface right: No such device; `ip link` lists those that exist");
}

#[test]
fn a_link_changes_as_told_and_goes_when_deleted() {
    let Some(world) = World::build("a_link_changes_as_told_and_goes_when_deleted") else { return };
    let body = || {
        let mut netlink = Netlink::open().unwrap();
        let before = netlink.link("left").unwrap();
        assert!(before.up && before.hardware_address.is_some() && before.mtu == 1500, "{before:?}");

        let change = LinkChange { mtu: Some(1400), queue_length: Some(77), up: Some(false), ..LinkChange::default() };
        netlink.change_link(before.index, &change).unwrap();
        let after = netlink.link("left").unwrap();
        assert_eq!((after.mtu, after.queue_length, after.up), (1400, 77, false));

        netlink.delete_link(before.index).unwrap();
        assert_eq!(netlink.link("left").unwrap_err().errno(), Some(libc::ENODEV));
    };
    world.a.run(body).unwrap();
    let gone = world.b.run(|| Netlink::open().unwrap().link("right").unwrap_err().errno());
    assert_eq!(gone.unwrap(), Some(libc::ENODEV), "the other end of the cable goes too");
}

/// What `ip route get` says, in the namespace of the calling thread.
fn way_to(destination: &str, from: Option<&str>) -> String {
    let mut command = std::process::Command::new("ip");
    command.args(["route", "get", destination]);
    if let Some(from) = from {
        command.args(["from", from]);
    }
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn routes_lead_where_they_say_until_they_are_removed() {
    const TEST: &str = "routes_lead_where_they_say_until_they_are_removed";
    let Some(world) = World::build(TEST) else { return };
    if std::process::Command::new("ip").arg("-V").output().is_err() {
        return crate::common::skip(TEST, "`ip` is missing", "apt-get install iproute2");
    }
    let body = || {
        let mut netlink = Netlink::open().unwrap();
        let left = netlink.link("left").unwrap().index;
        for (vip, next_hop) in [("192.0.2.10", "10.0.0.2"), ("2001:db8::10", "fd00::2")] {
            let to = |target, metric| Route { destination: Prefix::host(ip(vip)), target, metric, table: None };
            let device = to(Target::Device(left), Some(10));
            netlink.add_route(&device).unwrap();
            assert!(way_to(vip, None).contains("dev left"), "{}", way_to(vip, None));

            let error = netlink.add_route(&device).unwrap_err();
            assert_eq!(error.errno(), Some(libc::EEXIST));
            assert!(error.to_string().contains("remove that one"), "{error}");

            // The blackhole below takes over when the device route goes: no route error, silence.
            let blackhole = to(Target::Blackhole, Some(4000));
            netlink.add_route(&blackhole).unwrap();
            netlink.delete_route(&device).unwrap();
            assert!(way_to(vip, None).contains("Invalid argument"), "{}", way_to(vip, None));
            netlink.delete_route(&blackhole).unwrap();
            assert_eq!(netlink.delete_route(&blackhole).unwrap_err().errno(), Some(libc::ESRCH));

            let gateway = to(Target::Gateway(ip(next_hop)), None);
            netlink.add_route(&gateway).unwrap();
            assert!(way_to(vip, None).contains(&format!("via {next_hop}")), "{}", way_to(vip, None));
            netlink.delete_route(&gateway).unwrap();
        }
    };
    world.a.run(body).unwrap();
}

#[test]
fn a_rule_sends_some_sources_to_a_table_of_their_own() {
    const TEST: &str = "a_rule_sends_some_sources_to_a_table_of_their_own";
    let Some(world) = World::build(TEST) else { return };
    if std::process::Command::new("ip").arg("-V").output().is_err() {
        return crate::common::skip(TEST, "`ip` is missing", "apt-get install iproute2");
    }
    let body = || {
        let mut netlink = Netlink::open().unwrap();
        let left = netlink.link("left").unwrap().index;
        for (destination, from) in [("198.51.100.1", "10.0.0.1"), ("2001:db8:9::1", "fd00::1")] {
            let table = Some(100);
            let route =
                Route { destination: Prefix::host(ip(destination)), target: Target::Device(left), metric: None, table };
            netlink.add_route(&route).unwrap();
            let rule = Rule { from: Prefix::host(ip(from)), table: 100, priority: 1000 };
            netlink.add_rule(&rule).unwrap();
            assert!(way_to(destination, Some(from)).contains("dev left"), "{}", way_to(destination, Some(from)));
            netlink.delete_rule(&rule).unwrap();
            assert!(way_to(destination, Some(from)).contains("unreachable"), "{}", way_to(destination, Some(from)));
        }
        assert_eq!(netlink.added_rules(true).unwrap(), [], "those of the kernel do not count");
        let by_mark = std::process::Command::new("ip").args(["rule", "add", "fwmark", "7", "lookup", "100"]).status();
        assert!(by_mark.unwrap().success() && netlink.added_rules(true).unwrap()[0].by_mark);
    };
    world.a.run(body).unwrap();
}

#[test]
fn an_address_is_listed_and_its_coming_is_noticed() {
    let Some(world) = World::build("an_address_is_listed_and_its_coming_is_noticed") else { return };
    let body = || {
        let mut netlink = Netlink::open().unwrap();
        let interface = netlink.link("left").unwrap().index;
        let watch = Watch::links_and_addresses().unwrap();
        // IPv6 tells of a new address from a work queue of the kernel: a little later.
        let changed = || !sys::wait(&[watch.as_fd()], Some(Duration::from_secs(10))).unwrap().is_empty();
        for (address, prefix_length) in [(ip("192.0.2.1"), 32), (ip("2001:db8::1"), 128)] {
            watch.clear();
            let new = LocalAddress { interface, address, prefix_length };
            assert!(!netlink.addresses().unwrap().contains(&new));
            netlink.add_address(&new).unwrap();
            assert!(changed(), "{address} came unnoticed");
            assert!(netlink.addresses().unwrap().contains(&new));
            watch.clear();
            netlink.delete_address(&new).unwrap();
            assert!(changed(), "{address} went unnoticed");
            assert!(!netlink.addresses().unwrap().contains(&new));
        }
    };
    world.a.run(body).unwrap();
}
