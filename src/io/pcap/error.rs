//! Why a capture cannot be read on, each with what to do about it.

use std::fmt;
use std::io;

use crate::io::words::in_words;

/// Why a capture cannot be read on.
#[derive(Debug)]
pub enum CaptureError {
    /// The source refused.
    Read(io::Error),
    /// The first bytes are those of no capture format that we read.
    NotACapture {
        /// The first bytes, up to four.
        start: Vec<u8>,
    },
    /// The file ends within a record.
    Cut {
        /// Where the record begins, bytes from the start of the file.
        offset: u64,
    },
    /// A field has an impossible value.
    Nonsense {
        /// Where the record begins, bytes from the start of the file.
        offset: u64,
        /// The field.
        what: &'static str,
    },
    /// Packets of this link type cannot be taken out of their frames.
    LinkType(u16),
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "cannot be read: {}", in_words(error)),
            Self::NotACapture { start } => write!(f, "is not a capture: {}", what_it_may_be(start)),
            Self::Cut { offset } => write!(
                f,
                "is cut: it ends within the record that begins at byte {offset}; \
                 capture it again, or let `editcap IN OUT` keep what is whole"
            ),
            Self::Nonsense { offset, what } => {
                write!(f, "is damaged: {what} makes no sense in the record that begins at byte {offset}")
            }
            Self::LinkType(number) => write!(
                f,
                "has link type {number}, which is not read; tungate reads RAW, IPV4, IPV6, ETHERNET, LINUX_SLL, \
                 LINUX_SLL2, NULL and LOOP: capture with `tcpdump -i any` or on the interface itself"
            ),
        }
    }
}

impl std::error::Error for CaptureError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(error) => Some(error),
            Self::NotACapture { .. } | Self::Cut { .. } | Self::Nonsense { .. } | Self::LinkType(_) => None,
        }
    }
}

fn what_it_may_be(start: &[u8]) -> &'static str {
    match start {
        [] => "it is empty",
        [0x1f, 0x8b, ..] => "it is compressed with gzip; unpack it with `gunzip` first",
        [0x28, 0xb5, 0x2f, 0xfd] => "it is compressed with zstd; unpack it with `unzstd` first",
        [0xfd, b'7', b'z', b'X'] => "it is compressed with xz; unpack it with `unxz` first",
        b"snoo" => "it is a snoop file; convert it with `editcap -F pcap IN OUT` first",
        _ => "it begins with the mark of neither pcap nor pcapng; `file IN` may know what it is",
    }
}
