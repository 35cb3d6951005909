//! How many instructions a packet costs, counted by valgrind: the same on a busy machine and an idle one.
//!
//! What is counted is compared with `tests/instructions.baseline`; more than three in a hundred above it is a failure.
//! `UPDATE_BASELINE=1 cargo test --release --test instructions` writes the file anew: for a change that is worth its
//! price, for one that saves some, and for another compiler.

#![allow(clippy::unwrap_used, reason = "a test may fail that way")]
#![allow(dead_code, unused_macros, unused_imports, reason = "other tests use more of the world")]
#![allow(clippy::print_stdout, reason = "a test without the standard harness says itself how it went")]

#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs};

use support::{World, at, segment};
use tungate::engine::{NoTrace, Verdict};
use tungate::wire::tunnel::{self, Scratch};
use tungate::wire::{Offload, Packet, build};

const CONFIG: &str = r#"
[gateway]
source-addresses = ["10.99.0.10", "fd00:99::10"]
max-flows = 10000

[[service]]
name = "web"
listen = ["192.0.2.10:80", "[2001:db8::10]:80"]
backends = [{ address = "10.0.0.1:8080" }, { address = "10.0.0.2:8080" }, { address = "[fd00::1]:8080" }]

[[service]]
name = "dns"
listen = "192.0.2.10:53"
protocol = "udp"
backends = [{ address = "10.0.0.1:53" }, { address = "10.0.0.2:53" }]

[[service]]
name = "direct"
listen = "192.0.2.30:80"
mode = "dsr"
backends = [{ address = "10.0.0.3" }]
"#;

const SCENES: [(&str, fn()); 6] = [
    ("parse", parse),
    ("established-nat-ipv4-tcp", || established_tcp(false)),
    ("established-nat-ipv4-udp", established_udp),
    ("established-nat-ipv6-tcp", || established_tcp(true)),
    ("established-dsr", established_dsr),
    ("new-flow", new_flow),
];

/// Packets of a scene.
const PACKETS: u64 = 1_000;
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/instructions.baseline");
/// The variable by which this program asks itself for a scene.
const SCENE: &str = "TUNGATE_SCENE";

fn main() -> ExitCode {
    if let Ok(wanted) = env::var(SCENE) {
        SCENES.iter().find(|(name, _)| *name == wanted).unwrap().1();
        return ExitCode::SUCCESS;
    }
    let lacking = if cfg!(debug_assertions) {
        Some("a debug build says nothing; run: cargo test --release --test instructions")
    } else if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        Some("valgrind is not installed; run: apt-get install valgrind")
    } else {
        None
    };
    if let Some(why) = lacking {
        println!("SKIPPED instructions: {why}");
        let all = env::var_os("TUNGATE_TEST_ALL").is_some();
        return if all { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let counted: Vec<(&str, u64)> = SCENES.iter().map(|(name, _)| (*name, count(name))).collect();
    if env::var_os("UPDATE_BASELINE").is_some() {
        let lines: String = counted.iter().map(|(name, count)| format!("{name} {count}\n")).collect();
        fs::write(BASELINE, lines).unwrap();
    }
    if report(&counted) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints what was counted beside what was expected; whether all of it is within the limit.
fn report(counted: &[(&str, u64)]) -> bool {
    let baseline = fs::read_to_string(BASELINE).unwrap();
    let expected: BTreeMap<&str, u64> = baseline
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, n)| (name, n.parse().unwrap()))
        .collect();
    let mut all_well = true;
    println!("instructions a packet");
    for (name, count) in counted {
        let expected = expected.get(name).copied().unwrap_or(0);
        let verdict = if *count * 100 > expected * 103 {
            all_well = false;
            "FAILED: more than 3 % above the baseline"
        } else if *count * 100 < expected * 97 {
            "fewer than expected: write the baseline anew with UPDATE_BASELINE=1"
        } else {
            "ok"
        };
        println!("{name:26} {count:6}, expected {expected:6}  {verdict}");
    }
    all_well
}

/// Instructions for each packet of a scene: all that happens below `measured`.
fn count(scene: &str) -> u64 {
    let out = env::temp_dir().join(format!("tungate-instructions-{}-{scene}", std::process::id()));
    let ran = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*measured*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env::current_exe().unwrap())
        .env(SCENE, scene)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{scene}: {}", String::from_utf8_lossy(&ran.stderr));
    let total = total(&out);
    fs::remove_file(out).unwrap();
    total / PACKETS
}

fn total(profile: &Path) -> u64 {
    let profile = fs::read_to_string(profile).unwrap();
    let line = profile.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    line.expect("callgrind says how many there were").trim().parse().unwrap()
}

/// What is counted is what `act` does with each packet.
#[inline(never)]
fn measured(packets: &mut [Vec<u8>], mut act: impl FnMut(&mut Packet<'_>)) {
    for bytes in packets {
        act(&mut Packet::parse(bytes, Offload::default()).unwrap());
    }
}

fn forwarded(world: &mut World, packets: &mut [Vec<u8>]) {
    let (engine, now) = (&mut world.engines[0], world.now);
    measured(packets, |packet| assert_eq!(engine.handle(packet, now, &mut NoTrace), Verdict::Forward));
}

fn copies(packet: &[u8]) -> Vec<Vec<u8>> {
    (0..PACKETS).map(|_| packet.to_vec()).collect()
}

fn parse() {
    let packet = build::tcp(at("198.51.100.1:40000"), at("192.0.2.10:80"), &segment("ACK", 1, 1));
    measured(&mut copies(&packet), |packet| {
        black_box(packet);
    });
}

fn established_tcp(v6: bool) {
    let mut world = World::new(CONFIG);
    let client = world.client(1);
    let connection = if v6 { client.v6().opens("web") } else { client.opens("web") };
    let packet = build::tcp(connection.client, connection.vip, &connection.client_segment("ACK"));
    forwarded(&mut world, &mut copies(&packet));
}

fn established_udp() {
    let mut world = World::new(CONFIG);
    let (client, vip) = (at("198.51.100.1:40000"), at("192.0.2.10:53"));
    let seen = world.receives(build::udp(client, vip, b"question")).forwarded();
    world.answers(seen.destination, seen.source, b"answer").forwarded();
    let packet = build::udp(client, vip, b"question");
    world.receives(packet.clone()).forwarded();
    forwarded(&mut world, &mut copies(&packet));
}

/// Wrapped, too, as it would be sent.
fn established_dsr() {
    let mut world = World::new(CONFIG);
    let (client, vip) = (at("198.51.100.1:40000"), at("192.0.2.30:80"));
    for flags in ["SYN", "ACK"] {
        world.receives(build::tcp(client, vip, &segment(flags, 1, 1))).forwarded();
    }
    let packet = build::tcp(client, vip, &segment("ACK", 1, 1));
    let (engine, now, mut scratch) = (&mut world.engines[0], world.now, Scratch::default());
    measured(&mut copies(&packet), |packet| {
        assert_eq!(engine.handle(packet, now, &mut NoTrace), Verdict::Forward);
        tunnel::emit(packet, &mut scratch, |headers, payload| {
            black_box((headers, payload));
        });
    });
}

/// Behind others, so that there is memory for them already.
fn new_flow() {
    let mut world = World::new(CONFIG);
    let syn = |n: u64| {
        let client = at(&format!("198.51.{}.{}:40000", n / 200, n % 200 + 1));
        build::tcp(client, at("192.0.2.10:80"), &segment("SYN", 1, 0))
    };
    for n in 0..3 * PACKETS {
        let mut packet = syn(n);
        let mut packet = Packet::parse(&mut packet, Offload::default()).unwrap();
        assert_eq!(world.engines[0].handle(&mut packet, world.now, &mut NoTrace), Verdict::Forward);
    }
    let mut packets: Vec<_> = (3 * PACKETS..4 * PACKETS).map(syn).collect();
    forwarded(&mut world, &mut packets);
}
