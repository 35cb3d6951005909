//! Where a flow stands, what it is worth there, and how long it is remembered.

use std::time::Duration;

use crate::config::Timeouts;

/// State of a flow: for TCP that of RFC 9293 as a middlebox sees it (nf_conntrack's names).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// The client has sent a SYN.
    SynSent,
    /// Both have sent a SYN: simultaneous open.
    SynSent2,
    /// The backend has answered SYN-ACK.
    SynReceived,
    /// Open.
    Established,
    /// One side has sent a FIN.
    FinWait,
    /// That FIN is acknowledged: half-closed.
    CloseWait,
    /// Both sides have sent a FIN.
    LastAck,
    /// Both FINs are acknowledged.
    TimeWait,
    /// Reset.
    Close,
    /// UDP, no answer yet.
    Unreplied,
    /// UDP with an answer.
    Replied,
    /// UDP, and the client has gone on after an answer.
    Assured,
}

/// How much a flow is worth when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lifecycle {
    /// Half-open: the client has not shown that it gets what is sent to it; its address may be forged.
    HalfOpen,
    /// Over, kept for late packets.
    Closing,
    /// In use: never evicted.
    Established,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::SynSent,
        Self::SynSent2,
        Self::SynReceived,
        Self::Established,
        Self::FinWait,
        Self::CloseWait,
        Self::LastAck,
        Self::TimeWait,
        Self::Close,
        Self::Unreplied,
        Self::Replied,
        Self::Assured,
    ];

    /// The name in listings and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynSent => "syn-sent",
            Self::SynSent2 => "syn-sent2",
            Self::SynReceived => "syn-received",
            Self::Established => "established",
            Self::FinWait => "fin-wait",
            Self::CloseWait => "close-wait",
            Self::LastAck => "last-ack",
            Self::TimeWait => "time-wait",
            Self::Close => "close",
            Self::Unreplied => "unreplied",
            Self::Replied => "replied",
            Self::Assured => "assured",
        }
    }

    /// Its worth when there is no room. A connection is in use while data may be sent again: half-closed (R50), and
    /// until both FINs are acknowledged.
    pub const fn lifecycle(self) -> Lifecycle {
        match self {
            Self::SynSent | Self::SynSent2 | Self::SynReceived | Self::Unreplied | Self::Replied => Lifecycle::HalfOpen,
            Self::TimeWait | Self::Close => Lifecycle::Closing,
            Self::Established | Self::FinWait | Self::CloseWait | Self::LastAck | Self::Assured => {
                Lifecycle::Established
            }
        }
    }

    /// How long a flow in this state is remembered without a packet.
    pub const fn timeout(self, timeouts: &Timeouts) -> Duration {
        match self {
            Self::SynSent | Self::SynSent2 => timeouts.tcp_syn_sent,
            Self::SynReceived => timeouts.tcp_syn_received,
            Self::Established => timeouts.tcp_established,
            Self::FinWait | Self::CloseWait | Self::LastAck => timeouts.tcp_closing,
            Self::TimeWait => timeouts.tcp_time_wait,
            Self::Close => timeouts.tcp_close,
            Self::Unreplied => timeouts.udp_unreplied,
            Self::Replied | Self::Assured => timeouts.udp,
        }
    }
}
