//! Whatever comes in whatever order, for a table that is too small for it.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use tungate::engine::conntrack::{Direction, FlowKey, Lifecycle};

use super::world::{DNS, Flow, WEB, World, client, limited};

const ROOM: u32 = 8;
const CLIENTS: u32 = 24;

#[derive(Clone, Copy, Debug)]
enum Event {
    Syn(u32),
    SynAck(u32),
    Ack(u32),
    Close(u32),
    Datagram(u32),
    Answer(u32),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let n = 0..CLIENTS;
    prop_oneof![
        3 => n.clone().prop_map(Event::Syn),
        3 => n.clone().prop_map(Event::SynAck),
        3 => n.clone().prop_map(Event::Ack),
        1 => n.clone().prop_map(Event::Close),
        3 => n.clone().prop_map(Event::Datagram),
        2 => n.prop_map(Event::Answer),
        1 => (0_u64..70_000).prop_map(Event::Wait),
    ]
}

/// What was opened last by each client, for each service.
#[derive(Default)]
struct Opened {
    tcp: BTreeMap<u32, Flow>,
    udp: BTreeMap<u32, Flow>,
}

impl Opened {
    fn step(&mut self, event: Event, world: &mut World) {
        match event {
            Event::Syn(n) => self.tcp.extend(world.syn(client(n), WEB).ok().map(|flow| (n, flow))),
            Event::Datagram(n) => self.udp.extend(world.datagram(client(n), DNS).ok().map(|flow| (n, flow))),
            Event::SynAck(n) => drop(self.tcp.get(&n).map(|flow| world.syn_ack(flow))),
            Event::Ack(n) => drop(self.tcp.get(&n).map(|flow| world.ack(flow))),
            Event::Close(n) => drop(self.tcp.get(&n).map(|flow| world.try_close(flow))),
            Event::Answer(n) => drop(self.udp.get(&n).map(|flow| world.udp_answer(flow))),
            Event::Wait(millis) => world.wait(Duration::from_millis(millis)),
        }
    }
}

/// The keys of all flows, and of those in use.
fn flows(world: &World) -> (Vec<FlowKey>, Vec<FlowKey>) {
    let (mut all, mut in_use) = (Vec::new(), Vec::new());
    world.shared.table.for_each(|flow| {
        let key = flow.key(Direction::Original);
        all.push(key);
        in_use.extend((flow.state().lifecycle() == Lifecycle::Established).then_some(key));
    });
    (all, in_use)
}

fn assert_all_is_counted(world: &World) {
    let len = world.shared.table.len();
    assert!(len <= ROOM, "{len}");
    let mut listed = 0;
    world.shared.table.for_each(|_| listed += 1);
    assert_eq!(listed, len);
    assert_eq!(world.leases(), len, "a lease lives exactly as long as its flow");
    assert_eq!(world.loads(), len);
    for (name, now) in [("web", world.open_flows("web")), ("dns", world.open_flows("dns"))] {
        assert!(now <= u64::from(len), "{name}: {now}");
    }
    assert_eq!(world.open_flows("web") + world.open_flows("dns"), u64::from(len));
    assert_eq!(world.will_look_again(), len > 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn r39_no_flow_in_use_is_lost_and_everything_is_counted(
        workers in 1_u16..4,
        web in 1_u32..=ROOM,
        events in prop::collection::vec(event(), 1..150),
    ) {
        let mut world = World::new(&limited(ROOM, &format!("max-flows = {web}")), workers);
        let mut opened = Opened::default();
        let mut idle = 0;
        for event in events {
            let (_, in_use) = flows(&world);
            opened.step(event, &mut world);
            let ends = matches!(event, Event::Close(_));
            if let Event::Wait(millis) = event {
                idle += millis;
            }
            // The shortest timeout of a flow in use is that of UDP.
            if !ends && idle < 240_000 {
                let (all, _) = flows(&world);
                prop_assert!(in_use.iter().all(|flow| all.contains(flow)), "{event:?}: {in_use:?} {all:?}");
            }
            assert_all_is_counted(&world);
            prop_assert!(world.open_flows("web") <= u64::from(web));
        }
        world.wait(Duration::from_secs(3 * 3600));
        assert!(world.shared.table.is_empty());
        assert_all_is_counted(&world);
    }
}
