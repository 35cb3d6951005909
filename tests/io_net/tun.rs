use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;
use std::time::Duration;

use tungate::io::netlink::{LinkChange, Netlink, Prefix, Route, Target};
use tungate::io::routes::Routes;
use tungate::io::sys;
use tungate::io::tun::{Granted, Offloads, Tun, TunConfig, TunError};

use crate::mirror::{BUFFER, Mirror, VIPS, config, reach_through_a};
use crate::world::{World, ip, set};

fn setting(setting: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/net/{setting}")).unwrap().trim().to_owned()
}

/// A TCP connection with itself, by way of the mirror: its own SYN comes back as that of a peer that opens at the same
/// moment (RFC 9293 3.5, simultaneous open), and everything sent is received.
fn tcp_through_the_mirror(vip: &str, bytes: usize) {
    let port = 7000;
    let near = SocketAddr::new(ip(if vip.contains(':') { "fd00::2" } else { "10.0.0.2" }), port);
    // The port that we connect to must be the one that we connect from; the standard library cannot bind before it
    // connects, so leave it the one ephemeral port that there is.
    set("ipv4/ip_local_port_range", &format!("{port} {port}"));
    let mut stream = TcpStream::connect(SocketAddr::new(ip(vip), port)).unwrap();
    assert_eq!(stream.local_addr().unwrap(), near);
    let sent: Vec<u8> = (0..bytes).map(|n| (n % 251).to_le_bytes()[0]).collect();
    let writer = thread::scope(|scope| {
        let mut sink = stream.try_clone().unwrap();
        let writer = scope.spawn({
            let sent = &sent;
            move || {
                sink.write_all(sent).unwrap();
                sink.shutdown(Shutdown::Write).unwrap();
            }
        });
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert!(received == sent, "{} of {bytes} bytes came back as they were sent", received.len());
        writer.join()
    });
    writer.unwrap();
}

#[test]
fn bulk_tcp_passes_as_super_packets_in_both_families() {
    let Some(world) = World::build("bulk_tcp_passes_as_super_packets_in_both_families") else { return };
    let mirror = Mirror::build(&world, 1, Offloads::All);
    reach_through_a(&world);
    assert_eq!(mirror.tun.offloads(), Granted::TcpAndUdp);
    for vip in VIPS {
        world.b.run(|| tcp_through_the_mirror(vip, 4 << 20)).unwrap();
    }
    let longest = mirror.stop();
    assert!(longest[0] > 20_000, "the longest packet had {longest:?} bytes");
}

#[test]
fn without_offloads_every_packet_fits_the_mtu() {
    let Some(world) = World::build("without_offloads_every_packet_fits_the_mtu") else { return };
    let mirror = Mirror::build(&world, 1, Offloads::None);
    reach_through_a(&world);
    assert_eq!(mirror.tun.offloads(), Granted::Nothing);
    world.b.run(|| tcp_through_the_mirror(VIPS[0], 1 << 20)).unwrap();
    assert_eq!(mirror.stop(), [1500]);
}

#[test]
fn two_queues_share_the_flows_and_lose_none() {
    let Some(world) = World::build("two_queues_share_the_flows_and_lose_none") else { return };
    let mirror = Mirror::build(&world, 2, Offloads::All);
    reach_through_a(&world);
    let ask = |vip: &str| {
        for flow in 0..64 {
            let near = SocketAddr::new(ip(if vip.contains(':') { "fd00::2" } else { "10.0.0.2" }), 20_000 + flow);
            let socket = UdpSocket::bind(near).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket.connect(SocketAddr::new(ip(vip), 20_000 + flow)).unwrap();
            socket.send(&flow.to_be_bytes()).unwrap();
            let mut answer = [0; 8];
            assert_eq!(socket.recv(&mut answer).unwrap(), 2);
            assert_eq!(answer[..2], flow.to_be_bytes());
        }
    };
    world.b.run(|| VIPS.into_iter().for_each(ask)).unwrap();
    let longest = mirror.stop();
    assert!(longest.len() == 2 && longest.iter().all(|&bytes| bytes > 0), "one queue got everything: {longest:?}");
}

#[test]
fn a_new_tun_is_as_its_documentation_says() {
    let Some(world) = World::build("a_new_tun_is_as_its_documentation_says") else { return };
    let body = || {
        let (tun, _queues) =
            Tun::create(&TunConfig { name: "gate", mtu: 1400, queues: 2, offloads: Offloads::All }).unwrap();
        let mut netlink = Netlink::open().unwrap();
        let link = netlink.link("gate").unwrap();
        assert_eq!((tun.name(), tun.index()), ("gate", link.index));
        assert!(link.up && link.hardware_address.is_none());
        assert_eq!((link.mtu, link.queue_length), (1400, 4096));
        assert_eq!(link.queue_discipline, "noqueue");
        for (name, value) in [("forwarding", "1"), ("rp_filter", "0"), ("send_redirects", "0"), ("accept_local", "1")] {
            assert_eq!(setting(&format!("ipv4/conf/gate/{name}")), value, "{name}");
        }
        // Others' settings are theirs.
        assert_eq!(setting("ipv4/ip_forward"), "0");
        assert_eq!(setting("ipv6/conf/all/forwarding"), "0");
        let addresses = netlink.addresses().unwrap();
        assert!(addresses.iter().all(|a| a.interface != link.index), "{addresses:?}");
    };
    world.a.run(body).unwrap();
}

#[test]
fn the_device_has_the_offloads_that_were_granted() {
    const TEST: &str = "the_device_has_the_offloads_that_were_granted";
    let Some(world) = World::build(TEST) else { return };
    let features = |queues, offloads| {
        let (_tun, _queues) = Tun::create(&config(queues, offloads)).unwrap();
        let output = Command::new("ethtool").args(["-k", "gate"]).output().ok()?;
        let on = |line: &str| line.split_once(": on").map(|(feature, _)| feature.trim().to_owned());
        Some(String::from_utf8_lossy(&output.stdout).lines().filter_map(on).collect::<Vec<_>>())
    };
    let super_packets =
        ["tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-tcp-ecn-segmentation", "tx-udp-segmentation"];
    for queues in [1, 2] {
        let Some(all) = world.a.run(|| features(queues, Offloads::All)).unwrap() else {
            return crate::common::skip(TEST, "`ethtool` is missing", "apt-get install ethtool");
        };
        assert!(super_packets.iter().all(|feature| all.iter().any(|on| on == feature)), "{all:?}");
        let none = world.a.run(|| features(queues, Offloads::None)).unwrap().unwrap();
        assert!(super_packets.iter().all(|feature| none.iter().all(|on| on != feature)), "{none:?}");
    }
}

#[test]
fn a_tun_too_narrow_for_ipv6_carries_ipv4() {
    let Some(world) = World::build("a_tun_too_narrow_for_ipv6_carries_ipv4") else { return };
    let body = || {
        let (tun, _queues) = Tun::create(&TunConfig { mtu: 576, ..config(1, Offloads::All) }).unwrap();
        assert_eq!(Netlink::open().unwrap().link(tun.name()).unwrap().mtu, 576);
        assert_eq!(setting("ipv4/conf/gate/forwarding"), "1");
    };
    world.a.run(body).unwrap();
}

#[test]
fn the_kernel_says_nothing_into_a_tun_of_its_own_accord() {
    let Some(world) = World::build("the_kernel_says_nothing_into_a_tun_of_its_own_accord") else { return };
    let body = || {
        // A router joins groups and reports them: the loudest case.
        set("ipv6/conf/all/forwarding", "1");
        let (_tun, queues) = Tun::create(&config(1, Offloads::All)).unwrap();
        let ready = sys::wait(&[queues[0].as_fd()], Some(Duration::from_millis(1500))).unwrap();
        let mut buffer = vec![0; BUFFER];
        let noise = queues[0].read(&mut buffer).map(|length| buffer[..length].to_vec());
        assert!(ready.is_empty(), "{noise:02x?}");
    };
    world.a.run(body).unwrap();
}

#[test]
fn an_existing_interface_of_the_name_is_refused_and_left_alone() {
    let Some(world) = World::build("an_existing_interface_of_the_name_is_refused_and_left_alone") else { return };
    let body = || {
        let (tun, _queues) = Tun::create(&config(2, Offloads::All)).unwrap();
        let mut netlink = Netlink::open().unwrap();
        for (name, index) in [("gate", tun.index()), ("left", netlink.link("left").unwrap().index)] {
            for queues in [1, 2] {
                let error = Tun::create(&TunConfig { name, ..config(queues, Offloads::All) }).unwrap_err();
                assert!(matches!(error, TunError::NameTaken(_)), "{error}");
                assert!(error.to_string().contains(&format!("`ip link del {name}`")), "{error}");
            }
            assert_eq!(netlink.link(name).unwrap().index, index);
        }
    };
    world.a.run(body).unwrap();
}

#[test]
fn a_tun_that_was_down_gets_its_routes_again() {
    let Some(world) = World::build("a_tun_that_was_down_gets_its_routes_again") else { return };
    let body = || {
        let (tun, _queues) = Tun::create(&config(1, Offloads::All)).unwrap();
        let destinations = vec![Prefix::new(ip("192.0.2.10"), 32), Prefix::new(ip("2001:db8::10"), 128)];
        let mut routes = Routes::add(&tun, destinations.clone()).unwrap();
        let mut netlink = Netlink::open().unwrap();
        let mut set_up = |up| netlink.change_link(tun.index(), &LinkChange { up: Some(up), ..LinkChange::default() });
        for seen_down in [true, false] {
            set_up(false).unwrap();
            if seen_down {
                routes.restore().unwrap();
            }
            set_up(true).unwrap();
            assert!(!sys::wait(&[routes.as_fd()], Some(Duration::from_secs(10))).unwrap().is_empty());
            routes.restore().unwrap();
            for destination in &destinations {
                let target = Target::Device(tun.index());
                let again = Route { destination: *destination, target, metric: None, table: None };
                let refused = Netlink::open().unwrap().add_route(&again).unwrap_err();
                assert_eq!(refused.errno(), Some(libc::EEXIST), "{destination} is routed to the TUN");
            }
        }
        assert!(sys::wait(&[routes.as_fd()], Some(Duration::ZERO)).unwrap().is_empty(), "all is taken note of");
    };
    world.a.run(body).unwrap();
}

#[test]
fn a_route_that_was_taken_meanwhile_is_told_and_the_others_come_back() {
    let Some(world) = World::build("a_route_that_was_taken_meanwhile_is_told_and_the_others_come_back") else { return };
    let body = || {
        let (tun, _queues) = Tun::create(&config(1, Offloads::All)).unwrap();
        let all = ["192.0.2.10", "2001:db8::10", "192.0.2.11", "2001:db8::11"].map(ip);
        let mut netlink = Netlink::open().unwrap();
        let left = netlink.link("left").unwrap().index;
        for taken in &all[..2] {
            let mut routes = Routes::add(&tun, all.map(Prefix::host).to_vec()).unwrap();
            netlink.change_link(tun.index(), &LinkChange { up: Some(false), ..LinkChange::default() }).unwrap();
            let (destination, target) = (Prefix::host(*taken), Target::Device(left));
            let route = Route { destination, target, metric: None, table: None };
            netlink.add_route(&route).unwrap();
            netlink.change_link(tun.index(), &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
            let told = routes.restore().unwrap_err().to_string();
            assert!(told.contains(&format!("ip route del {taken}/")), "{told}");
            for address in all {
                let expected = if address == *taken { left } else { tun.index() };
                assert_eq!(netlink.way_to(address).unwrap().interface, Some(expected), "{address}");
            }
            netlink.delete_route(&route).unwrap();
            routes.restore().unwrap();
            for destination in all.map(Prefix::host) {
                let target = Target::Device(tun.index());
                netlink.delete_route(&Route { destination, target, metric: None, table: None }).unwrap();
            }
        }
    };
    world.a.run(body).unwrap();
}

#[test]
fn dropping_the_handle_removes_interface_and_routes_even_while_a_queue_is_held() {
    let Some(world) = World::build("dropping_the_handle_removes_interface_and_routes_even_while_a_queue_is_held")
    else {
        return;
    };
    let body = || {
        let (tun, queues) = Tun::create(&config(1, Offloads::All)).unwrap();
        let mut netlink = Netlink::open().unwrap();
        let (destination, target) = (Prefix::host(ip(VIPS[0])), Target::Device(tun.index()));
        let route = Route { destination, target, metric: None, table: None };
        netlink.add_route(&route).unwrap();

        drop(tun);
        assert_eq!(netlink.link("gate").unwrap_err().errno(), Some(libc::ENODEV));
        assert_ne!(netlink.delete_route(&route).unwrap_err().errno(), None);
        assert!(sys::wait(&[queues[0].as_fd()], None).unwrap().contains(0), "a worker that waits is told");
        assert_eq!(queues[0].read(&mut [0; 64]).unwrap_err().raw_os_error(), Some(libc::EBADFD));
        assert_eq!(queues[0].write(&[0; 64]).unwrap_err().raw_os_error(), Some(libc::EBADFD));

        Tun::create(&config(1, Offloads::All)).expect("the name is free again");
    };
    world.a.run(body).unwrap();
}

/// Not a test of its own: what the two below run under other conditions.
#[test]
#[ignore = "run by the tests of missing privileges and a missing device"]
fn try_to_create_a_tun() {
    let outcome = Tun::create(&config(1, Offloads::All)).map(drop);
    println!("outcome: {}", outcome.map_or_else(|error| error.to_string(), |()| "created".to_owned()));
}

/// What creating a TUN says in a process started by this shell line, of which `$0` is this very program.
fn outcome_under(test: &str, shell: &str) -> Option<String> {
    // A world proves that this machine lets us make namespaces at all.
    World::build(test)?;
    let program = std::env::current_exe().unwrap();
    let helper = ["--exact", "tun::try_to_create_a_tun", "--ignored", "--nocapture"];
    let output = Command::new("unshare").args(["-n", "-m", "sh", "-c", shell]).arg(program).args(helper).output();
    let output = match output {
        Ok(output) => String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        Err(error) => {
            crate::common::skip(test, &format!("unshare: {error}"), "apt-get install util-linux");
            return None;
        }
    };
    let line = output.lines().find_map(|line| line.split_once("outcome: "));
    Some(line.unwrap_or_else(|| panic!("no outcome: {output}")).1.to_owned())
}

#[test]
fn a_missing_device_is_told_with_the_remedy() {
    const TEST: &str = "a_missing_device_is_told_with_the_remedy";
    let Some(created) = outcome_under(TEST, r#"exec "$0" "$@""#) else { return };
    assert_eq!(created, "created");
    let hidden = r#"mount -t tmpfs none /dev/net && exec "$0" "$@""#;
    let Some(outcome) = outcome_under(TEST, hidden) else { return };
    assert!(outcome.starts_with("no /dev/net/tun: load the driver with `modprobe tun`"), "{outcome}");
}

#[test]
fn missing_privileges_are_told_with_the_remedy() {
    let without = r#"exec setpriv --bounding-set=-net_admin --inh-caps=-net_admin "$0" "$@""#;
    let Some(outcome) = outcome_under("missing_privileges_are_told_with_the_remedy", without) else { return };
    assert!(outcome.starts_with("not allowed to create a TUN: run as root or with CAP_NET_ADMIN"), "{outcome}");
}
