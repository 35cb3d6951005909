//! What becomes of a packet, and the one list of reasons for which it is dropped.

use std::fmt;

use super::WorkerId;
use crate::config::{BackendId, ServiceId};

/// What becomes of a packet. Every packet gets exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Send it: it was rewritten in place.
    Forward,
    /// The gateway answered: the answer is among the effects.
    Reply,
    /// Held (a fragment before its first) or absorbed: nothing leaves now.
    Consume,
    /// It belongs to a flow of another worker: hand it over as it is.
    Handoff(WorkerId),
    /// Nothing leaves, and this is why.
    Drop(DropReason),
}

impl fmt::Display for Verdict {
    /// `forward`, or `drop: no-service, no service listens on this address, port and protocol`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forward => f.write_str("forward"),
            Self::Reply => f.write_str("reply: the gateway answers"),
            Self::Consume => f.write_str("consume: held or absorbed"),
            Self::Handoff(worker) => write!(f, "handoff to worker {}", worker.0),
            Self::Drop(reason) => write!(f, "drop: {}, {}", reason.name(), reason.meaning()),
        }
    }
}

/// Where a packet went: what `replay`, `explain` and `capture` report beside the verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The service, once known.
    pub service: Option<ServiceId>,
    /// The backend, once known.
    pub backend: Option<BackendId>,
}

/// Takes the stages of a packet's way through the engine. The fast path is compiled with [`NoTrace`], which is nothing.
pub trait TraceSink {
    /// Whether anybody listens: the text is only made if so.
    const ENABLED: bool;

    /// One stage: a word from a closed list (`parse`, `guard`, `conntrack`, `service`, `affinity`, `schedule`, `ports`, `rewrite`,
    /// `tunnel`, `icmp`, `fragment`, `verdict`) and a sentence.
    fn stage(&mut self, stage: &'static str, text: impl FnOnce() -> String);

    /// The service and backend, as soon as they are known.
    fn route(&mut self, route: Route);
}

/// Nobody listens.
#[derive(Clone, Copy, Debug)]
pub struct NoTrace;

impl TraceSink for NoTrace {
    const ENABLED: bool = false;

    #[inline]
    fn stage(&mut self, _: &'static str, _: impl FnOnce() -> String) {}

    #[inline]
    fn route(&mut self, _: Route) {}
}

/// Declares the reasons once; counter, metric label, JSON, trace text, manual and capture comment all come from here.
macro_rules! drop_reasons {
    ($($variant:ident $name:literal $meaning:literal)*) => {
        /// Why a packet was dropped. The order is that of the counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $meaning] $variant,)*
        }

        impl DropReason {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in counters, JSON and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One sentence for a person.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

drop_reasons! {
    NotIp "not-ip" "a captured frame that holds no IP packet; a TUN delivers none"
    Truncated "truncated" "fewer bytes arrived than the IP header announces"
    BadIpHeader "bad-ip-header" "IP version, header length or total length make no sense"
    BadIpChecksum "bad-ip-checksum" "the IPv4 header checksum is wrong"
    BadIpOption "bad-ip-option" "an IPv4 option has an impossible length"
    BadExtensionHeader "bad-extension-header" "the IPv6 extension header chain is cut, too long or unordered"
    BadOffload "bad-offload" "the offload header contradicts the packet, or is of a kind never asked for"
    BadTransportHeader "bad-transport-header" "the TCP, UDP or ICMP header is cut or its length field is wrong"
    BadTransportChecksum "bad-transport-checksum" "a packet that would open or close a flow has a wrong checksum"
    BadIcmpChecksum "bad-icmp-checksum" "the ICMP checksum is wrong"
    BadTcpFlags "bad-tcp-flags" "no TCP sends this combination of flags"
    PortZero "port-zero" "source or destination port is 0"
    SourceRouting "source-routing" "the packet asks to be source-routed"
    Martian "martian" "the source or destination cannot be on a network"
    SpoofedSource "spoofed-source" "the source is one of the gateway's own addresses"
    BadFragment "bad-fragment" "a fragment's offset or length is impossible"
    FragmentOverlap "fragment-overlap" "fragments of one datagram overlap"
    FragmentTimeout "fragment-timeout" "the rest of the datagram did not arrive in time"
    FragmentLimit "fragment-limit" "too many fragments are waiting"
    TtlExceeded "ttl-exceeded" "TTL or hop limit ran out here"
    NoService "no-service" "no service listens on this address, port and protocol"
    NoFlow "no-flow" "not the start of a flow, and no flow is known for it"
    Draining "draining" "the gateway is about to stop, and takes no new flows"
    ServiceRate "service-rate" "the service takes no more than its limit of new flows"
    ClientRate "client-rate" "the service takes no more than its limit of new flows of one client"
    ServiceFlows "service-flows" "the service's max-flows is reached, and every flow is in use"
    NoBackend "no-backend" "the service has no backend that may take a new flow"
    FlowTableFull "flow-table-full" "max-flows is reached, and every flow is in use"
    FlowConflict "flow-conflict" "another flow already uses the addresses and ports this one would need"
    PortsExhausted "ports-exhausted" "every source port towards this backend belongs to a flow in use"
    NoSourceAddress "no-source-address" "a backend is its own client, and the gateway has no source address to stand between"
    TcpState "tcp-state" "the segment does not fit the state of its connection"
    TcpWindow "tcp-window" "the segment lies outside its connection's window"
    IcmpNoFlow "icmp-no-flow" "an ICMP error quotes no flow of ours"
    IcmpQuote "icmp-quote" "the packet an ICMP error quotes cannot be read"
    IcmpType "icmp-type" "an ICMP type that a gateway does not forward"
    Protocol "protocol" "the service does not carry this protocol"
    HandoffFull "handoff-full" "the worker that owns the flow could not take the packet"
    TooBig "too-big" "does not fit the tunnel to its backend and may not be cut; its sender is told, or must not be"
    TunnelUnreachable "tunnel-unreachable" "an ICMP error says that a packet in a tunnel did not reach its backend: is decap running there?"
    NotActive "not-active" "the gateway is not the active one of its pair"
    HeldUp "held-up" "the packet waited while the gateway was held up; the other one of the pair may have taken over"
    SendFailed "send-failed" "the kernel refused the packet"
}

impl DropReason {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();
}

impl From<crate::wire::Malformed> for DropReason {
    fn from(malformed: crate::wire::Malformed) -> Self {
        use crate::wire::Malformed;
        match malformed {
            Malformed::NotIp => Self::NotIp,
            Malformed::Truncated => Self::Truncated,
            Malformed::IpHeader => Self::BadIpHeader,
            Malformed::IpChecksum => Self::BadIpChecksum,
            Malformed::IpOption => Self::BadIpOption,
            Malformed::ExtensionHeader => Self::BadExtensionHeader,
            Malformed::Fragment => Self::BadFragment,
            Malformed::Transport => Self::BadTransportHeader,
            Malformed::Offload => Self::BadOffload,
        }
    }
}
