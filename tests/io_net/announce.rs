use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tungate::io::announce::{Announcer, Presence};
use tungate::io::netlink::{LinkChange, LocalAddress, Netlink, Prefix};
use tungate::io::sys;
use tungate::io::tun::Offloads;

use crate::mirror::{Mirror, VIPS, reach_on_link};
use crate::world::{World, ip};

const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
/// Both VIPs, and a prefix.
const OURS: [(&str, u8); 3] = [(VIPS[0], 32), (VIPS[1], 128), ("198.51.100.16", 28)];

/// Prefixes around the VIPs, too wide to be announced: whoever wants to know has to ask.
const WIDE: [(&str, u8); 2] = [("192.0.2.0", 23), ("2001:db8::", 64)];

fn announcer(world: &World, ours: &[(&str, u8)]) -> Announcer {
    announcer_on(world, &["left"], ours)
}

fn announcer_on(world: &World, interfaces: &[&str], ours: &[(&str, u8)]) -> Announcer {
    let interfaces: Vec<_> = interfaces.iter().map(|name| (*name).to_owned()).collect();
    let addresses: Vec<_> = ours.iter().map(|(address, length)| Prefix::new(ip(address), *length)).collect();
    world.a.run(|| Announcer::start(&interfaces, &addresses, here()).unwrap()).unwrap()
}

/// The addresses are here, as those of a single gateway are.
fn here() -> Arc<Presence> {
    Arc::new(Presence::new(true).unwrap())
}

/// The MAC address of `a`'s end of the cable.
fn mac_of_a(world: &World) -> [u8; 6] {
    mac_of(world, "left")
}

fn mac_of(world: &World, interface: &str) -> [u8; 6] {
    world.a.run(|| Netlink::open().unwrap().link(interface).unwrap().hardware_address.unwrap()).unwrap()
}

/// Hears and speaks Ethernet at `b`'s end of the cable.
struct Ethernet(File);

impl Ethernet {
    fn open(world: &World, ethertype: u16) -> Self {
        let all = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: u32::MAX }]; // ret -1: the whole frame
        let open = || sys::packet_socket(Netlink::open().unwrap().link("right").unwrap().index, ethertype, &all);
        Self(world.b.run(open).unwrap().unwrap())
    }

    /// The next frame for which the condition holds.
    fn hear(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut frame = [0; 2048];
        loop {
            let ready = sys::wait(&[self.0.as_fd()], Some(Duration::from_secs(10))).unwrap();
            assert!(!ready.is_empty(), "ten seconds of silence");
            while let Ok(length) = (&self.0).read(&mut frame) {
                if wanted(&frame[..length]) {
                    return frame[..length].to_vec();
                }
            }
        }
    }

    /// Listens until there is nothing more to hear: longer than the longest pause of the first announcements.
    fn hear_out(&self) {
        while !sys::wait(&[self.0.as_fd()], Some(Duration::from_secs(7))).unwrap().is_empty() {
            while (&self.0).read(&mut [0; 2048]).is_ok() {}
        }
    }

    fn ask(&self, mac: [u8; 6], sender: [u8; 4], asked: [u8; 4]) {
        let head = [0xff; 6].into_iter().chain(mac).chain([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        let frame: Vec<u8> = head.chain(mac).chain(sender).chain([0; 6]).chain(asked).collect();
        (&self.0).write_all(&frame).unwrap();
    }
}

fn is_arp(operation: u8, sender: [u8; 4]) -> impl Fn(&[u8]) -> bool {
    move |frame| frame[20..22] == [0, operation] && frame[28..32] == sender
}

/// Of the IPv6 VIP.
fn is_advertisement(frame: &[u8]) -> bool {
    frame[54] == 136 && frame[62..78] == VIP6
}

#[test]
fn neighbours_find_the_vips_and_their_traffic_passes() {
    let Some(world) = World::build("neighbours_find_the_vips_and_their_traffic_passes") else { return };
    let mirror = Mirror::build(&world, 1, Offloads::All);
    reach_on_link(&world);
    let _announcer = announcer(&world, &WIDE);
    let echo = |vip: &str| {
        let any = if vip.contains(':') { "::" } else { "0.0.0.0" };
        let socket = UdpSocket::bind(SocketAddr::new(ip(any), 5000)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.connect(SocketAddr::new(ip(vip), 5000)).unwrap();
        socket.send(b"hello").unwrap();
        let mut answer = [0; 8];
        assert_eq!(socket.recv(&mut answer).unwrap(), 5);
    };
    world.b.run(|| VIPS.into_iter().for_each(echo)).unwrap();
    mirror.stop();
}

#[test]
fn the_start_is_announced_in_the_form_that_linux_believes() {
    let Some(world) = World::build("the_start_is_announced_in_the_form_that_linux_believes") else { return };
    let (arp, ipv6) = (Ethernet::open(&world, ARP), Ethernet::open(&world, IPV6));
    let announcer = announcer(&world, &OURS);
    let mac = mac_of_a(&world);

    let gratuitous = arp.hear(is_arp(1, [192, 0, 2, 10]));
    assert_eq!((&gratuitous[..6], &gratuitous[22..28]), ([0xff; 6].as_slice(), mac.as_slice()));
    assert_eq!(gratuitous[38..42], [192, 0, 2, 10], "the target is the sender");
    arp.hear(is_arp(1, [198, 51, 100, 16]));
    arp.hear(is_arp(1, [198, 51, 100, 31]));

    let advertisement = ipv6.hear(is_advertisement);
    assert_eq!(advertisement[80..86], mac);
    assert_eq!(advertisement[58], 0x20, "override, not solicited");

    let groups = || std::fs::read_to_string("/proc/thread-self/net/igmp6").unwrap();
    let joined = || world.a.run(groups).unwrap().contains("ff0200000000000000000001ff000010");
    assert!(joined(), "switches that snoop MLD would keep solicitations from us");
    drop(announcer);
    assert!(!joined());
}

const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];

#[test]
fn a_stale_neighbour_entry_is_corrected() {
    const TEST: &str = "a_stale_neighbour_entry_is_corrected";
    let Some(world) = World::build(TEST) else { return };
    reach_on_link(&world);
    let neighbour = |args: &[&str]| {
        let run = || Command::new("ip").args(["neighbour"]).args(args).output();
        world.b.run(run).unwrap().map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for vip in VIPS {
        let stale = ["replace", vip, "lladdr", "02:00:00:00:00:99", "dev", "right", "nud", "reachable"];
        if neighbour(&stale).is_err() {
            return crate::common::skip(TEST, "`ip` is missing", "apt-get install iproute2");
        }
    }
    let _announcer = announcer(&world, &OURS);
    let mac = mac_of_a(&world).map(|byte| format!("{byte:02x}")).join(":");
    for vip in VIPS {
        // The burst lasts five seconds; when it works, no try after the first few is needed.
        let corrected = (0..500).any(|_| {
            let nothing: [std::os::fd::BorrowedFd<'_>; 0] = [];
            sys::wait(&nothing, Some(Duration::from_millis(20))).unwrap();
            neighbour(&["show", vip]).unwrap().contains(&mac)
        });
        assert!(corrected, "{}", neighbour(&["show", vip]).unwrap());
    }
}

#[test]
fn duplicate_address_detection_of_a_vip_fails_at_the_neighbour() {
    const TEST: &str = "duplicate_address_detection_of_a_vip_fails_at_the_neighbour";
    let Some(world) = World::build(TEST) else { return };
    let _announcer = announcer(&world, &WIDE);
    let run = |program: &str, args: &[&str]| world.b.run(|| Command::new(program).args(args).output()).unwrap();
    let v6 = format!("{}/64", VIPS[1]);
    if run("ip", &["address", "add", &v6, "dev", "right"]).is_err() {
        return crate::common::skip(TEST, "`ip` is missing", "apt-get install iproute2");
    }
    let failed = (0..500).any(|_| {
        let nothing: [std::os::fd::BorrowedFd<'_>; 0] = [];
        sys::wait(&nothing, Some(Duration::from_millis(20))).unwrap();
        let shown = run("ip", &["address", "show", "dev", "right"]).unwrap();
        String::from_utf8_lossy(&shown.stdout).contains("dadfailed")
    });
    assert!(failed, "the neighbour took our address");
}

#[test]
fn an_address_that_the_kernel_holds_is_left_to_the_kernel() {
    let Some(world) = World::build("an_address_that_the_kernel_holds_is_left_to_the_kernel") else { return };
    let _announcer = announcer(&world, &OURS);
    let held = [198, 51, 100, 17];
    let take = || {
        let mut netlink = Netlink::open().unwrap();
        let interface = netlink.link("left").unwrap().index;
        let address = LocalAddress { interface, address: held.into(), prefix_length: 32 };
        netlink.add_address(&address).unwrap();
    };
    world.a.run(take).unwrap();

    let arp = Ethernet::open(&world, ARP);
    let client = [2, 0, 0, 0, 0, 9];
    // Ours is answered after we have dealt with what was asked before it: two answers for the held one, the kernel's and
    // ours, would both be here by then.
    arp.ask(client, [198, 51, 100, 99], held);
    arp.ask(client, [198, 51, 100, 99], [198, 51, 100, 18]);
    let answers = std::cell::Cell::new(0);
    arp.hear(|frame| {
        let is = |ip| is_arp(2, ip)(frame);
        answers.set(answers.get() + u32::from(is(held)));
        is([198, 51, 100, 18])
    });
    assert_eq!(answers.get(), 1, "the kernel answers, and nobody else");
}

/// Two interfaces of a gateway may be in one network, and hear each other's announcements.
#[test]
fn another_interface_of_ours_is_no_rival() {
    let Some(world) = World::build("another_interface_of_ours_is_no_rival") else { return };
    let second = || {
        let mut netlink = Netlink::open().unwrap();
        netlink.create_veth("second", "elsewhere", None).unwrap();
        let index = netlink.link("second").unwrap().index;
        netlink.change_link(index, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
    };
    world.a.run(second).unwrap();
    let _announcer = announcer_on(&world, &["left", "second"], &WIDE);
    let arp = Ethernet::open(&world, ARP);
    let vip = [192, 0, 2, 10];
    arp.ask(mac_of(&world, "second"), vip, vip);
    let defended = std::cell::Cell::new(false);
    // A defence would follow the first answer, if not precede it, and precede the second.
    for asked in [[192, 0, 2, 18], [192, 0, 2, 19]] {
        arp.ask([2, 0, 0, 0, 0, 9], [198, 51, 100, 99], asked);
        arp.hear(|frame| {
            defended.set(defended.get() || is_arp(1, vip)(frame) && frame[22..28] == mac_of_a(&world));
            is_arp(2, asked)(frame)
        });
    }
    assert!(!defended.get(), "it defends the address against itself");
}

#[test]
fn a_rival_is_told_whose_address_it_is() {
    let Some(world) = World::build("a_rival_is_told_whose_address_it_is") else { return };
    let arp = Ethernet::open(&world, ARP);
    // The prefix is too wide to be announced: all that is heard is the defence.
    let _announcer = announcer(&world, &WIDE);
    let vip = [192, 0, 2, 20];
    let mac = mac_of_a(&world);
    arp.ask([2, 0, 0, 0, 0, 66], vip, vip);
    let defence = arp.hear(|frame| is_arp(1, vip)(frame) && frame[22..28] == mac);
    assert_eq!(defence[38..42], vip);
}

/// Announcements begin anew when this end of the cable has been down for a moment, too short for anybody to see.
fn flap_is_answered_by_announcements(test: &str, name: &str) {
    let Some(world) = World::build(test) else { return };
    let (arp, ipv6) = (Ethernet::open(&world, ARP), Ethernet::open(&world, IPV6));
    let _announcer = announcer(&world, &OURS);
    arp.hear(is_arp(1, [192, 0, 2, 10]));
    arp.hear_out();
    ipv6.hear_out();
    let flap = || {
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.link(name).unwrap().index;
        for up in [false, true] {
            netlink.change_link(index, &LinkChange { up: Some(up), ..LinkChange::default() }).unwrap();
        }
    };
    let end = if name == "left" { &world.a } else { &world.b };
    end.run(flap).unwrap();
    arp.hear(is_arp(1, [192, 0, 2, 10]));
    ipv6.hear(is_advertisement);
    let groups = || std::fs::read_to_string("/proc/thread-self/net/igmp6").unwrap();
    assert!(world.a.run(groups).unwrap().contains("ff0200000000000000000001ff000010"), "solicitations are heard");
}

#[test]
fn a_link_that_was_set_down_is_announced_on_when_it_is_up() {
    flap_is_answered_by_announcements("a_link_that_was_set_down_is_announced_on_when_it_is_up", "left");
}

#[test]
fn a_cable_that_was_pulled_is_announced_on_when_it_is_plugged_in() {
    flap_is_answered_by_announcements("a_cable_that_was_pulled_is_announced_on_when_it_is_plugged_in", "right");
}

#[test]
fn another_hardware_address_is_in_what_is_said_from_then_on() {
    const TEST: &str = "another_hardware_address_is_in_what_is_said_from_then_on";
    let Some(world) = World::build(TEST) else { return };
    let arp = Ethernet::open(&world, ARP);
    let _announcer = announcer(&world, &OURS);
    let change = || Command::new("ip").args(["link", "set", "left", "address", "02:00:00:00:00:77"]).status();
    match world.a.run(change).unwrap() {
        Ok(status) => assert!(status.success()),
        Err(_) => return crate::common::skip(TEST, "`ip` is missing", "apt-get install iproute2"),
    }
    arp.hear(|frame| is_arp(1, [192, 0, 2, 10])(frame) && frame[22..28] == [2, 0, 0, 0, 0, 0x77]);
}

#[test]
fn an_interface_that_is_made_again_is_heard_again() {
    let Some(world) = World::build("an_interface_that_is_made_again_is_heard_again") else { return };
    let announcer = announcer(&world, &OURS);
    world.cut();
    world.connect();
    assert_is_answered(&world);

    world.cut();
    let (interfaces, addresses) = (["left".to_owned()], [Prefix::host(ip(VIPS[0])), Prefix::host(ip(VIPS[1]))]);
    let refused = world.a.run(|| Announcer::check(&interfaces).unwrap_err().to_string()).unwrap();
    assert!(refused.starts_with("cannot find the interface left"), "{refused}");
    drop(announcer);
    let _other = world.a.run(|| Announcer::start_again(&interfaces, &addresses, here()).unwrap()).unwrap();
    world.connect();
    assert_is_answered(&world);
}

/// An address is announced, and who asks for it is answered.
fn assert_is_answered(world: &World) {
    let (arp, ipv6) = (Ethernet::open(world, ARP), Ethernet::open(world, IPV6));
    let vip = [192, 0, 2, 10];
    arp.hear(is_arp(1, vip));
    ipv6.hear(is_advertisement);
    arp.ask([2, 0, 0, 0, 0, 9], [10, 0, 0, 99], vip);
    arp.hear(|frame| is_arp(2, vip)(frame) && frame[22..28] == mac_of_a(world));
}

#[test]
fn nobody_answers_any_more_once_the_announcer_is_gone() {
    let Some(world) = World::build("nobody_answers_any_more_once_the_announcer_is_gone") else { return };
    let arp = Ethernet::open(&world, ARP);
    drop(announcer(&world, &OURS));
    let client = [2, 0, 0, 0, 0, 9];
    arp.ask(client, [10, 0, 0, 99], [192, 0, 2, 10]);
    // The kernel's own address, asked for later, is answered: the cable is in order.
    arp.ask(client, [10, 0, 0, 99], [10, 0, 0, 1]);
    arp.hear(|frame| {
        assert!(!is_arp(2, [192, 0, 2, 10])(frame), "an answer from the dead");
        is_arp(2, [10, 0, 0, 1])(frame)
    });
}

#[test]
fn an_interface_without_neighbours_or_without_existence_is_refused() {
    let Some(world) = World::build("an_interface_without_neighbours_or_without_existence_is_refused") else { return };
    let refusal = |name: &str| {
        let start =
            || Announcer::start(&[name.to_owned()], &[Prefix::host(ip(VIPS[0]))], here()).unwrap_err().to_string();
        world.a.run(start).unwrap()
    };
    assert_eq!(refusal("lo"), "cannot announce on lo: it is no Ethernet; take it out of `announce-on`");
    assert!(refusal("eth7").starts_with("cannot find the interface eth7"), "{}", refusal("eth7"));
}
