//! Connections in use while everything that a network can do to a gateway is done to it (R108).

use std::collections::BTreeMap;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::both_families;
use crate::corpus;
use crate::gateway::{Engine, Nat, Setup, Tungate};
use crate::lab::Lab;
use crate::process::{Running, wait_for};
use crate::runner::{Case, say};
use crate::servers::ECHO;

/// How long, and how many packets a second, if `TUNGATE_ABUSE=SECONDS:RATE` does not say so.
const SECONDS: u64 = 15;
const RATE: u64 = 5_000;
/// Of each family.
const CONNECTIONS: usize = 100;
const LOOKS: u32 = 10;
/// Bytes by which memory may still grow once the table is full: parts of hash tables, whose growth is a matter of chance.
const LEEWAY: u64 = 2 << 20;

const CONFIG: &str = r#"
[gateway]
source-addresses = ["10.99.0.10", "fd00:99::10"]
workers = 2
max-flows = 4_000

[[service]]
name = "echo"
listen = ["192.0.2.10:7", "[2001:db8::10]:7"]
backends = [{ name = "b1", address = "10.0.0.1:9000" }, { name = "b2", address = "10.0.0.2:9000" },
            { name = "b1-v6", address = "[fd00::1]:9000" }, { name = "b2-v6", address = "[fd00::2]:9000" }]

[[service]]
name = "datagrams"
protocol = "udp"
listen = ["192.0.2.10:*", "[2001:db8::10]:*"]
backends = [{ name = "b1", address = "10.0.0.1" }, { name = "b1-v6", address = "[fd00::1]" }]
"#;

pub(super) fn cases() -> Vec<Case> {
    let body = || if corpus::packets().is_some() { r108_no_connection_breaks(&Lab::new()) } else { skip() };
    vec![Case { name: "no_connection_breaks_under_abuse".into(), needs: &[], control: false, body: Box::new(body) }]
}

fn skip() {
    let message = "SKIPPED no_connection_breaks_under_abuse: no ../shared/pcaps; copy the public captures that its \
                   README names there";
    assert!(std::env::var_os("TUNGATE_TEST_ALL").is_none(), "{message}");
    say(&mut io::stdout(), &format!("{message}\n"));
}

fn r108_no_connection_breaks(lab: &Lab) {
    let (seconds, rate) = how_much();
    let setups: Vec<Setup> = both_families(Engine::Tungate { workers: 2 }, Nat::Full).collect();
    let _servers = ["b1", "b2"].map(|name| {
        let server = lab.backend(name).start_helper(&format!("tcp-echo [::]:{ECHO}"));
        lab.backend(name).listens("-t", ECHO);
        server
    });
    let gateway = Tungate::start(lab, CONFIG);
    // So that packets of any length fit; the links beside it keep their 1500 bytes.
    lab.gateway().run("ip link set tungate0 mtu 65535").succeeded();
    let vips: Vec<String> = setups.iter().map(|setup| setup.vip_with(7)).collect();
    let mut talkers = lab.client().start_helper(&format!("talk {CONNECTIONS} {}", vips.join(" ")));
    talkers.has_printed(&format!("open {}\n", setups.len() * CONNECTIONS));

    let mut attacker = lab.gateway().start_helper(&format!("abuse tungate0 {seconds} {rate}"));
    let resident = watch(&gateway, &mut talkers, Duration::from_secs(seconds) / LOOKS);
    let sent = attacker.finish(Duration::from_secs(60)).succeeded();

    talkers.go_on();
    let verified = talkers.finish(Duration::from_secs(60)).succeeded();
    tell(&format!("{sent}{}\n", verified.trim_end().lines().last().unwrap_or_default()));
    assert_every_drop_is_named(lab, &gateway);
    // The table is full after a third of the time at the latest: what comes then takes the place of what was there.
    let (early, late) = (resident[resident.len() / 3], resident[resident.len() - 1]);
    assert!(late <= early + LEEWAY, "resident bytes at intervals: {resident:?}");
    // Who comes now is served as if nothing had been.
    let mut late = lab.client().start_helper(&format!("connections {} 100", vips[0]));
    late.has_printed("open 100\n");
    late.finish(Duration::from_secs(30)).succeeded();
}

fn how_much() -> (u64, u64) {
    let Ok(text) = std::env::var("TUNGATE_ABUSE") else { return (SECONDS, RATE) };
    let both = text.split_once(':').and_then(|(seconds, rate)| Some((seconds.parse().ok()?, rate.parse().ok()?)));
    both.unwrap_or_else(|| panic!("TUNGATE_ABUSE is SECONDS:RATE, not {text}"))
}

/// Looks at memory and counters at intervals; the resident bytes.
fn watch(gateway: &Tungate<'_>, talkers: &mut Running, interval: Duration) -> Vec<u64> {
    let start = Instant::now();
    tell("seconds  resident KiB  flows  packets in  dropped\n");
    let mut resident = Vec::new();
    for n in 1..=LOOKS {
        thread::sleep((interval * n).saturating_sub(start.elapsed()));
        assert!(!talkers.has_ended(), "a connection broke: {}{}", talkers.stdout(), talkers.stderr());
        let bytes = gateway.resident();
        let received: u64 = gateway.items("show workers").iter().map(|worker| number(worker, "packets_in")).sum();
        let flows = gateway.ask("show flows --count").succeeded();
        let dropped: u64 = drops(gateway).values().sum();
        let seconds = start.elapsed().as_secs();
        tell(&format!("{seconds:7}  {:12}  {:>5}  {received:10}  {dropped:7}\n", bytes >> 10, flows.trim()));
        resident.push(bytes);
    }
    resident
}

/// What the kernel has handed to the gateway, less what came out or is held, is the sum of all drop reasons.
fn assert_every_drop_is_named(lab: &Lab, gateway: &Tungate<'_>) {
    // Somebody always sends another one (a retransmission, an announcement): the books have to balance once.
    wait_for("the books balance", || {
        let named = drops(gateway);
        let workers = gateway.items("show workers");
        let sum = |field: &str| workers.iter().map(|worker| number(worker, field)).sum::<u64>();
        let decided = sum("forwarded") + sum("replied") + sum("consumed") + sum("handed_over");
        let dropped = sum("packets_in") - decided;
        // The kernel's count, from outside: what it queued for the TUN and somebody read.
        let delivered = sum("packets_in") - sum("handed_over");
        let read: u64 =
            lab.gateway().run("cat /sys/class/net/tungate0/statistics/tx_packets").succeeded().trim().parse().ok()?;
        let balance = named.values().sum::<u64>() == dropped && delivered == read;
        balance.then(|| tell(&format!("{read} packets read, {dropped} of them dropped: {named:?}\n")))
    });
}

/// Packets by drop reason, those that there are.
fn drops(gateway: &Tungate<'_>) -> BTreeMap<String, u64> {
    let items = gateway.items("show drops");
    let named = items.iter().map(|item| (item["reason"].as_str().expect("a name").to_owned(), number(item, "packets")));
    named.filter(|(_, packets)| *packets > 0).collect()
}

fn number(item: &serde_json::Value, field: &str) -> u64 {
    item[field].as_u64().unwrap_or_else(|| panic!("no number {field} in {item}"))
}

/// For who runs it by itself; a run of all cases needs no figures.
fn tell(text: &str) {
    if std::env::var_os("TUNGATE_ABUSE").is_some() {
        say(&mut io::stdout(), text);
    }
}
