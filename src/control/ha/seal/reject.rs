//! Why datagrams are refused, in the order in which it is looked at, and how many were.

/// Why a datagram is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// Shorter than header, boot id and tag, or not as long as its header says.
    Length,
    /// It does not begin as ours do.
    Magic,
    /// Of another major version.
    Version,
    /// Of a kind that this version does not know.
    Kind,
    /// Of another pair.
    Cluster,
    /// Not from the other node of the pair: our own, come back.
    Node,
    /// It was sent on another path than it came on.
    Path,
    /// Sealed with a key that is not in the file.
    Key,
    /// From a start of the peer that no session is with.
    Boot,
    /// Seen already, or too old to know.
    Replay,
    /// Not sealed by who has the key, not for this start of ours, or changed on its way.
    Forged,
    /// It names another start of ours than this one.
    Echo,
    /// It answers nothing that was asked within the last second.
    Unasked,
    /// A greeting beyond the number that is answered.
    Busy,
    /// Authentic, but its text is not understood.
    Content,
}

impl Reject {
    /// All of them, in the order in which they are looked at.
    pub const ALL: [Self; 15] = [
        Self::Length,
        Self::Magic,
        Self::Version,
        Self::Kind,
        Self::Cluster,
        Self::Node,
        Self::Path,
        Self::Key,
        Self::Boot,
        Self::Replay,
        Self::Forged,
        Self::Echo,
        Self::Unasked,
        Self::Busy,
        Self::Content,
    ];

    /// Its name in counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Magic => "magic",
            Self::Version => "version",
            Self::Kind => "kind",
            Self::Cluster => "cluster",
            Self::Node => "node",
            Self::Path => "path",
            Self::Key => "key",
            Self::Boot => "boot",
            Self::Replay => "replay",
            Self::Forged => "forged",
            Self::Echo => "echo",
            Self::Unasked => "unasked",
            Self::Busy => "busy",
            Self::Content => "content",
        }
    }
}
