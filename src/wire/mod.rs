//! Bytes: addresses, headers, checksums, the offload header. Imports nothing of the crate.
//!
//! [`Packet`] is parsed once, at the door; from then on reads cannot fail, and setters keep every checksum right, be it
//! complete or partial (left for a later device to finish, [`Checksum::Partial`]).

mod address;
pub mod build;
pub mod checksum;
pub mod gather;
pub mod icmp;
mod ip;
mod mss;
mod offload;
mod packet;
mod prefix;
mod problem;
pub mod segment;
mod transport;
pub mod tunnel;
mod tuple;

pub use address::{Address, Endpoint, Protocol};
pub use ip::{Family, Fragment, IpHeader, Malformed};
pub use offload::{Checksum, Gso, HEADER_LEN as OFFLOAD_LEN, Offload, UnknownGso};
pub use packet::{Packet, Translation};
pub use prefix::Prefix;
pub use problem::Problem;
pub use transport::{TcpFlags, TcpSegment, tcp_options};
pub use tuple::Tuple;
