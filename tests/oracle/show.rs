//! A difference for a person to read.

use std::fmt::Write as _;

use tungate::wire::{Offload, Packet};

use crate::difference::Difference;
use crate::pair::Departure;

/// What came, and what each gateway made of it.
pub(crate) fn describe(difference: &Difference) -> String {
    let mut text = difference.state.map_or_else(String::new, |state| format!("a flow in {}\n", state.name()));
    for (from, packet, verdict) in &difference.sent {
        let _ = writeln!(text, "from {from:?}: {}\n  {verdict}", summary(packet));
    }
    for (who, departures) in [("the kernel", &difference.kernel), ("tungate", &difference.ours)] {
        let _ = writeln!(text, "{who} sends {}", if departures.is_empty() { "nothing" } else { "" });
        for Departure { to, packet } in departures {
            let _ = writeln!(text, "  to {to:?}: {}", summary(packet));
        }
    }
    text
}

fn summary(packet: &[u8]) -> String {
    let mut bytes = packet.to_vec();
    let hex: String = packet.iter().take(64).map(|byte| format!("{byte:02x}")).collect();
    let Ok(parsed) = Packet::parse(&mut bytes, Offload::default()) else { return hex };
    let ends = parsed.endpoints().map_or_else(
        || format!("{:?}", parsed.addresses()),
        |(source, destination)| format!("{source} -> {destination}"),
    );
    let tcp = parsed.tcp().map(|tcp| {
        format!(" {} seq {} ack {} win {} + {} bytes", tcp.flags, tcp.seq, tcp.ack, tcp.window, tcp.payload_len)
    });
    let fragment = parsed.fragment().map(|f| format!(" fragment {} at {}, more: {}", f.id, f.offset, f.more));
    format!(
        "{ends} protocol {}{}{} TTL {} checksum ok: {}\n    {hex}",
        parsed.protocol().0,
        tcp.unwrap_or_default(),
        fragment.unwrap_or_default(),
        parsed.ttl(),
        parsed.transport_checksum_ok()
    )
}
