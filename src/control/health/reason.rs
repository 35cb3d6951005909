//! Why a backend is down, in the words of listings and logs.

use std::fmt;

/// Why an answer is bad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing came back to a SYN.
    ConnectTimeout,
    /// It refuses connections on this port.
    Refused,
    /// It has ended the connection before it answered.
    Reset,
    /// It has closed the connection before it answered.
    Closed,
    /// It has not answered in time.
    NoAnswer,
    /// An ICMP error: nobody listens on the UDP port.
    PortUnreachable,
    /// An ICMP error, or no route: the host is not reached.
    HostUnreachable,
    /// An ICMP error: its network is not reached.
    NetworkUnreachable,
    /// An ICMP error: a firewall says no.
    Prohibited,
    /// It answered with this status.
    Status(u16),
    /// What it answered is not HTTP.
    NotHttp,
    /// The status is good, but the page lacks what it has to contain.
    BodyLacks,
    /// The datagram that it answered lacks what it has to contain.
    Unexpected,
    /// Its tunnel does not work; what of it, as far as can be told.
    Tunnel(TunnelFault),
}

/// What is wrong on the way by a tunnel to the VIP and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelFault {
    /// An ICMP error about the outer packet: the backend does not take tunnels of this kind.
    NotDecapsulated,
    /// An ICMP error about the outer packet: it does not get there.
    Unreachable,
    /// An ICMP error about the packet inside: the backend has taken it out, and does not know the VIP.
    NoVip,
    /// The VIP answers, but nobody listens there.
    Refused,
    /// No answer by the tunnel, though the backend itself is there.
    NoAnswerButAlive,
    /// No answer by the tunnel, and none from the backend itself.
    NoAnswer,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConnectTimeout => "connect timeout",
            Self::Refused => "connection refused",
            Self::Reset => "connection reset",
            Self::Closed => "connection closed without an answer",
            Self::NoAnswer => "no answer",
            Self::PortUnreachable => "port unreachable",
            Self::HostUnreachable => "host unreachable",
            Self::NetworkUnreachable => "network unreachable",
            Self::Prohibited => "prohibited by a firewall",
            Self::Status(status) => return write!(f, "HTTP {status}"),
            Self::NotHttp => "the answer is not HTTP",
            Self::BodyLacks => "the page lacks what is expected",
            Self::Unexpected => "the answer lacks what is expected",
            Self::Tunnel(fault) => return write!(f, "tunnel: {fault}"),
        })
    }
}

impl fmt::Display for TunnelFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotDecapsulated => "the backend takes none of this kind (is decap running there?)",
            Self::Unreachable => "the backend is not reached",
            Self::NoVip => "the backend has no way to the VIP (is it on its lo?)",
            Self::Refused => "the VIP is there, but refuses connections",
            Self::NoAnswerButAlive => {
                "no answer from VIP, though the backend answers itself (is the VIP on its lo? rp_filter? the right tunnel?)"
            }
            Self::NoAnswer => "no answer from VIP, nor from the backend itself",
        })
    }
}
