//! Capture files: the port that `replay` reads packets from and writes them to.
//!
//! [`Reader`] takes pcap and pcapng of either byte order and yields IP packets, link headers stripped;
//! [`Writer`] makes pcap files that depend on nothing but the packets. Framing is done here, record by record with
//! `read`, so that memory is bounded by one record and an error names its offset; what is inside a record is read by
//! the `pcap-parser` crate.

mod error;
mod link;
mod write;

use std::io::{BufReader, Read};

use pcap_parser::traits::PcapNGPacketBlock as _;
use pcap_parser::{PcapHeader, pcap, pcapng};

use crate::engine::Instant;

pub use error::CaptureError;
pub use write::Writer;

/// One record of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// When it was captured, microseconds since 1970. Not necessarily later than the record before.
    pub at: Instant,
    /// What it holds.
    pub content: Content<'a>,
}

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// An IP packet from its first header byte on, as captured: unchecked, perhaps cut, perhaps with trailing bytes.
    Ip(&'a [u8]),
    /// Something that is not IP (ARP, a bridge's hello), in the link layer's numbering where it says.
    Other(Option<u16>),
}

/// Reads a capture record by record.
#[derive(Debug)]
pub struct Reader<R> {
    source: BufReader<R>,
    format: Format,
    /// The record at hand, its header included.
    record: Vec<u8>,
    /// Where in the file the record at hand begins.
    offset: u64,
}

impl<R: Read> Reader<R> {
    /// Reads as much of the source as it takes to know the format.
    ///
    /// # Errors
    /// When the source cannot be read or is not a capture.
    pub fn new(source: R) -> Result<Self, CaptureError> {
        let mut source = BufReader::with_capacity(1 << 16, source);
        let mut record = Vec::new();
        append(&mut source, &mut record, 4)?;
        if record == PCAPNG_MAGIC {
            let format = Format::PcapNg(Section { big_endian: false, interfaces: Vec::new(), last: Instant::ZERO });
            return Ok(Self { source, format, record, offset: 0 });
        }
        append(&mut source, &mut record, PCAP_HEADER - 4)?;
        let format = match pcap::parse_pcap_header(&record) {
            Ok((_, header)) => Format::Pcap(Legacy::new(&header)),
            Err(_) => return Err(CaptureError::NotACapture { start: record.iter().copied().take(4).collect() }),
        };
        record.clear();
        Ok(Self { source, format, record, offset: PCAP_HEADER as u64 })
    }

    /// The next record; `None` at the end of the file.
    ///
    /// # Errors
    /// When the source cannot be read, ends within a record, holds nonsense, or has a link type that cannot be
    /// stripped. No record follows an error.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        let located = match &mut self.format {
            Format::Pcap(legacy) => legacy.next(&mut self.source, &mut self.record, &mut self.offset)?,
            Format::PcapNg(section) => section.next(&mut self.source, &mut self.record, &mut self.offset)?,
        };
        let Some(Located { at, link, start, length }) = located else { return Ok(None) };
        let bytes = self.record.get(start..start + length).unwrap_or_default();
        Ok(Some(Frame { at, content: link::strip(link, bytes)? }))
    }
}

const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const PCAP_HEADER: usize = 24;

/// The most a record may hold. A capture's largest packet is 256 KiB (libpcap's `MAXIMUM_SNAPLEN`), its largest block
/// 16 MiB (Wireshark's limit): a greater length is nonsense, and believing it would take its memory.
const RECORD_LIMIT: usize = 16 << 20;

#[derive(Debug)]
enum Format {
    Pcap(Legacy),
    PcapNg(Section),
}

/// A packet in the record at hand.
struct Located {
    at: Instant,
    link: u16,
    start: usize,
    length: usize,
}

/// What the header of a pcap file says of all its records.
#[derive(Debug)]
struct Legacy {
    link: u16,
    big_endian: bool,
    nanoseconds: bool,
    /// Bytes before each packet: 16, or 24 in the "modified" format of old Linux libpcaps.
    header: usize,
}

impl Legacy {
    fn new(header: &PcapHeader) -> Self {
        Self {
            // The upper half says how long the frame check sequence is; ours is the link type alone.
            link: low_half(header.network.0.cast_unsigned()),
            big_endian: header.is_bigendian(),
            nanoseconds: header.is_nanosecond_precision(),
            header: if header.is_modified_format() { 24 } else { 16 },
        }
    }

    fn next(
        &self,
        source: &mut impl Read,
        record: &mut Vec<u8>,
        offset: &mut u64,
    ) -> Result<Option<Located>, CaptureError> {
        *offset += record.len() as u64;
        record.clear();
        if !complete(append(source, record, self.header)?, record.is_empty(), *offset)? {
            return Ok(None);
        }
        let length = word(record, 8, self.big_endian);
        if length > RECORD_LIMIT {
            return Err(CaptureError::Nonsense { offset: *offset, what: "a packet's length" });
        }
        complete(append(source, record, length)?, false, *offset)?;
        let parse = match (self.header, self.big_endian) {
            (24, _) => pcap::parse_pcap_frame_modified,
            (_, true) => pcap::parse_pcap_frame_be,
            (_, false) => pcap::parse_pcap_frame,
        };
        let (_, frame) =
            parse(record).map_err(|_| CaptureError::Nonsense { offset: *offset, what: "a packet record" })?;
        let fraction = u64::from(frame.ts_usec) / if self.nanoseconds { 1000 } else { 1 };
        let at = Instant::from_micros(u64::from(frame.ts_sec) * 1_000_000 + fraction);
        Ok(Some(Located { at, link: self.link, start: self.header, length }))
    }
}

/// What the blocks of a pcapng section have said so far.
#[derive(Debug)]
struct Section {
    big_endian: bool,
    interfaces: Vec<Interface>,
    /// Time of the last packet: simple packet blocks have none of their own.
    last: Instant,
}

#[derive(Debug)]
struct Interface {
    link: u16,
    /// Ticks a second.
    resolution: u128,
    /// Seconds to add.
    offset: i64,
}

/// Block types, draft-ietf-opsawg-pcapng.
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

impl Section {
    fn next(
        &mut self,
        source: &mut impl Read,
        record: &mut Vec<u8>,
        offset: &mut u64,
    ) -> Result<Option<Located>, CaptureError> {
        loop {
            // The first block's first four bytes are here already: they told the format.
            let at_start = *offset == 0 && record.len() == PCAPNG_MAGIC.len();
            if !at_start {
                *offset += record.len() as u64;
                record.clear();
            }
            if !complete(append(source, record, 8 - record.len())?, record.is_empty(), *offset)? {
                return Ok(None);
            }
            let kind = self.read_block(source, record, *offset)?;
            let found = match kind {
                SECTION_HEADER => {
                    self.interfaces.clear();
                    None
                }
                INTERFACE_DESCRIPTION => {
                    self.interfaces.push(self.interface(record, *offset)?);
                    None
                }
                ENHANCED_PACKET => Some(self.enhanced(record, *offset)?),
                SIMPLE_PACKET => Some(self.simple(record, *offset)?),
                _ => None,
            };
            if let Some(located) = found {
                self.last = located.at;
                return Ok(Some(located));
            }
        }
    }

    /// Completes the block of which the first eight bytes are in `record`; its type.
    fn read_block(&mut self, source: &mut impl Read, record: &mut Vec<u8>, offset: u64) -> Result<u32, CaptureError> {
        if record.starts_with(&PCAPNG_MAGIC) {
            complete(append(source, record, 4)?, false, offset)?;
            self.big_endian = match record[8..12] {
                [0x1a, 0x2b, 0x3c, 0x4d] => true,
                [0x4d, 0x3c, 0x2b, 0x1a] => false,
                _ => return Err(CaptureError::Nonsense { offset, what: "a section's byte order" }),
            };
        }
        let kind = word(record, 0, self.big_endian);
        let length = word(record, 4, self.big_endian);
        if length < record.len() + 4 || length > RECORD_LIMIT || !length.is_multiple_of(4) {
            return Err(CaptureError::Nonsense { offset, what: "a block's length" });
        }
        complete(append(source, record, length - record.len())?, false, offset)?;
        Ok(u32::try_from(kind).expect("four bytes fit"))
    }

    fn interface(&self, block: &[u8], offset: u64) -> Result<Interface, CaptureError> {
        let nonsense = |_| CaptureError::Nonsense { offset, what: "an interface description" };
        let (_, block) = if self.big_endian {
            pcapng::parse_interfacedescriptionblock_be(block).map_err(nonsense)?
        } else {
            pcapng::parse_interfacedescriptionblock_le(block).map_err(nonsense)?
        };
        if self.interfaces.len() > usize::from(u16::MAX) {
            return Err(CaptureError::Nonsense { offset, what: "the number of interfaces" });
        }
        let exponent = u32::from(block.if_tsresol & 0x7f);
        let base: u128 = if block.if_tsresol & 0x80 == 0 { 10 } else { 2 };
        Ok(Interface {
            link: low_half(block.linktype.0.cast_unsigned()),
            resolution: base.checked_pow(exponent).unwrap_or(u128::MAX),
            // pcap-parser 0.17 reads this one option as little-endian in either byte order.
            offset: if self.big_endian { block.if_tsoffset.swap_bytes() } else { block.if_tsoffset },
        })
    }

    fn enhanced(&self, block: &[u8], offset: u64) -> Result<Located, CaptureError> {
        let nonsense = |_| CaptureError::Nonsense { offset, what: "a packet block" };
        let (_, block) = if self.big_endian {
            pcapng::parse_enhancedpacketblock_be(block).map_err(nonsense)?
        } else {
            pcapng::parse_enhancedpacketblock_le(block).map_err(nonsense)?
        };
        let interface = usize::try_from(block.if_id).ok().and_then(|n| self.interfaces.get(n));
        let Some(interface) = interface else {
            return Err(CaptureError::Nonsense { offset, what: "a packet's interface number" });
        };
        let ticks = u128::from(block.ts_high) << 32 | u128::from(block.ts_low);
        // Below 2^64 x 2^20: the product fits.
        let micros = u64::try_from(ticks * 1_000_000 / interface.resolution).unwrap_or(u64::MAX);
        let at = micros.saturating_add_signed(interface.offset.saturating_mul(1_000_000));
        let length = block.packet_data().len();
        Ok(Located { at: Instant::from_micros(at), link: interface.link, start: 28, length })
    }

    fn simple(&self, block: &[u8], offset: u64) -> Result<Located, CaptureError> {
        let nonsense = |_| CaptureError::Nonsense { offset, what: "a simple packet block" };
        let (_, block) = if self.big_endian {
            pcapng::parse_simplepacketblock_be(block).map_err(nonsense)?
        } else {
            pcapng::parse_simplepacketblock_le(block).map_err(nonsense)?
        };
        let Some(interface) = self.interfaces.first() else {
            return Err(CaptureError::Nonsense { offset, what: "a packet's interface number" });
        };
        Ok(Located { at: self.last, link: interface.link, start: 12, length: block.packet_data().len() })
    }
}

/// Reads `wanted` more bytes onto `record`; how many are missing at the end of the source.
fn append(source: &mut impl Read, record: &mut Vec<u8>, wanted: usize) -> Result<usize, CaptureError> {
    let read = source.take(wanted as u64).read_to_end(record).map_err(CaptureError::Read)?;
    Ok(wanted - read)
}

/// True if nothing is missing, false at a clean end, an error in between.
fn complete(missing: usize, nothing_read: bool, offset: u64) -> Result<bool, CaptureError> {
    match missing {
        0 => Ok(true),
        _ if nothing_read => Ok(false),
        _ => Err(CaptureError::Cut { offset }),
    }
}

/// The four-byte number at `at`.
fn word(record: &[u8], at: usize, big_endian: bool) -> usize {
    let bytes = record[at..at + 4].try_into().expect("four bytes were read");
    let number = if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
    usize::try_from(number).expect("a 32-bit number fits on every target that has a TUN device")
}

fn low_half(number: u32) -> u16 {
    u16::try_from(number & 0xffff).expect("masked to sixteen bits")
}

#[cfg(test)]
mod tests;
