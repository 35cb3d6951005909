//! No reload loses a flow: of every kind of change, what is open before goes on after it, at its backend.

use super::*;
use crate::engine::conntrack::FlowKey;

const BEFORE: &str = "
[gateway]
source-addresses = ['10.99.0.10']

[[service]]
name = 'full'
protocol = 'udp'
balance = 'round-robin'
listen = ['192.0.2.1:80', '192.0.2.2:80']
backends = [{ name = 'b1', address = '10.0.0.1:8080' }, { name = 'b2', address = '10.0.0.2:8080' }]

[[service]]
name = 'half'
protocol = 'udp'
source-nat = false
listen = '192.0.2.3:80'
backends = [{ name = 'b1', address = '10.0.0.3:80' }]

[[service]]
name = 'wrapped'
protocol = 'udp'
mode = 'dsr'
listen = '192.0.2.4:80'
backends = [{ name = 'b1', address = '10.0.0.1' }]
";
const VIPS: [[u8; 4]; 4] = [[192, 0, 2, 1], [192, 0, 2, 2], [192, 0, 2, 3], [192, 0, 2, 4]];

/// A change, and how many of the sixteen flows it drains.
const CHANGES: &[(&str, &str, u64)] = &[
    ("name = 'b2', address = '10.0.0.2:8080'", "name = 'b2', address = '10.0.0.9:8080'", 4),
    ("name = 'b2'", "name = 'renamed'", 4),
    ("name = 'b2'", "weight = 0, name = 'b2'", 0),
    ("name = 'b2'", "backup = true, name = 'b2'", 0),
    (", '192.0.2.2:80'", "", 4),
    ("'192.0.2.2:80'", "'192.0.2.7:80'", 4),
    ("'192.0.2.2:80'", "'192.0.2.2:8080-8089'", 4),
    ("'192.0.2.2:80'", "'192.0.2.0/28:80'", 0),
    ("name = 'full'", "name = 'other'", 8),
    ("name = 'half'\nprotocol = 'udp'\n", "name = 'half'\n", 4),
    ("source-nat = false", "source-nat = true", 0),
    ("source-nat = false", "mode = 'dsr'", 4),
    ("'10.0.0.3:80'", "'10.0.0.3'", 4),
    ("mode = 'dsr'", "mode = 'nat'", 4),
    ("mode = 'dsr'", "mode = 'dsr'\nencapsulation = 'gue'", 0),
    ("balance = 'round-robin'", "balance = 'least-connections'\naffinity = 'client-ip'", 0),
    ("['10.99.0.10']", "['10.99.0.11']", 0),
    ("['10.99.0.10']", "['192.0.2.9', '10.99.0.12']", 0),
    ("192.0.2.3:80", "10.99.0.99:80", 4),
    ("[gateway]", "[timeouts]\nudp = '120s'\n[gateway]\nmax-flows = 10\nmtu = 1400", 0),
    (
        "\n[[service]]\nname = 'half'",
        "[service.limits]\nmax-flows = 1\nnew-flows = '1/h'\n[[service]]\nname = 'half'",
        0,
    ),
    (
        "\n[[service]]\nname = 'half'",
        "[service.health]\ncheck = 'icmp'\non-down = 'reset'\n[[service]]\nname = 'half'",
        0,
    ),
];

fn swapped() -> String {
    BEFORE.replace("192.0.2.3", "192.0.2.44").replace("192.0.2.4:80", "192.0.2.3:80").replace("192.0.2.44", "192.0.2.4")
}

impl World {
    /// Where each flow goes, as its packets tell: one of the client, and one of the backend where it answers this way.
    fn go_on(&mut self) -> Vec<(FlowKey, BackendId)> {
        let mut flows = Vec::new();
        self.controller.shared().table.for_each(|flow| {
            let keys = [Direction::Original, Direction::Reply].map(|direction| flow.key(direction));
            flows.push((keys, flow.is_tunnelled(), flow.backend()));
        });
        for (keys, is_tunnelled, _) in &flows {
            for key in &keys[..if *is_tunnelled { 1 } else { 2 }] {
                let mut bytes = build::udp(key.source, key.destination, b"more");
                let mut packet = Packet::parse(&mut bytes, Offload::default()).unwrap();
                assert_eq!(self.engine.handle(&mut packet, self.now, &mut NoTrace), Verdict::Forward, "{key:?}");
            }
        }
        let mut flows: Vec<_> = flows.into_iter().map(|([key, _], _, backend)| (key, backend)).collect();
        flows.sort_unstable_by_key(|(key, _)| (key.destination.address, key.source.port));
        flows
    }
}

#[test]
fn no_change_of_the_configuration_loses_a_flow() {
    let edited = |from, to| {
        let text = BEFORE.replacen(from, to, 1);
        assert_ne!(text, BEFORE, "{from}");
        text
    };
    let changed = CHANGES.iter().map(|(from, to, drained)| (edited(from, to), *drained));
    for (text, drained) in changed.chain([(swapped(), 8), ("[gateway]\n".to_owned(), 16)]) {
        let mut world = World::with_history(BEFORE);
        for vip in VIPS {
            for port in 4_000..4_004 {
                assert_eq!(world.receives(port, at(vip, 80)), Verdict::Forward);
            }
        }
        let before = world.go_on();
        let outlook = world.reloads(&text, None).unwrap();
        assert_eq!((outlook.kept, outlook.drained), (16 - drained, drained), "{text}");
        for _ in 0..3 {
            world.waits(100);
            assert_eq!(world.go_on(), before, "{text}");
        }
        // A second one says of those that drain what the first has said.
        assert_eq!(world.reloads(&text, None).unwrap().drained, drained, "{text}");
    }
}
