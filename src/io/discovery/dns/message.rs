//! Questions and answers as they go over the wire.

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

use crate::wire::Address;

/// What is asked of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    A,
    Aaaa,
    Srv,
}

impl Kind {
    const fn wire(self) -> TYPE {
        match self {
            Self::A => TYPE::A,
            Self::Aaaa => TYPE::AAAA,
            Self::Srv => TYPE::SRV,
        }
    }
}

/// A record that was asked for, or that a server has added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Address { name: String, address: Address },
    Server { target: String, port: u16, priority: u16, weight: u16 },
}

/// An answer that can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    /// Of the kind that was asked for.
    pub(super) answers: Vec<Record>,
    /// Addresses that the server has added.
    pub(super) additional: Vec<Record>,
    /// For how long the answers hold, seconds.
    pub(super) ttl: Option<u32>,
}

/// What a message is to who has asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Reply(Reply),
    /// It did not fit: it is to be asked again by TCP.
    Cut,
    /// The server says that it cannot, or that there is no such name.
    Refusal(String),
    /// No answer to this question: of somebody else, too late, or nonsense.
    Stray,
}

/// A question, with recursion desired.
pub(super) fn question(id: u16, name: &str, kind: Kind) -> Result<Vec<u8>, String> {
    let bad = |error| format!("`{}` cannot be asked for: {error}", name.escape_debug());
    let name = Name::new(name).map_err(bad)?;
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind.wire()), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().map_err(bad)
}

/// Reads what has come after a question.
pub(super) fn read(bytes: &[u8], id: u16, name: &str, kind: Kind) -> Message {
    let Ok(packet) = Packet::parse(bytes) else { return Message::Stray };
    let asked = |question: &Question<'_>| {
        question.qtype == QTYPE::TYPE(kind.wire()) && is_same(&question.qname.to_string(), name)
    };
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) || !packet.questions.iter().all(asked) {
        return Message::Stray;
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Message::Cut;
    }
    if packet.rcode() != RCODE::NoError {
        let why = if packet.rcode() == RCODE::NameError {
            "there is no such name".to_owned()
        } else {
            format!("{:?}", packet.rcode())
        };
        return Message::Refusal(format!("the server says: {why}"));
    }
    // Of a chain of aliases, which the resolver has followed, the end counts.
    let of_kind = |record: &&simple_dns::ResourceRecord<'_>| record.rdata.type_code() == kind.wire();
    let answers = packet.answers.iter().filter(of_kind);
    Message::Reply(Reply {
        ttl: packet.answers.iter().map(|record| record.ttl).min(),
        answers: answers.filter_map(record).collect(),
        additional: packet.additional_records.iter().filter_map(record).collect(),
    })
}

fn record(record: &simple_dns::ResourceRecord<'_>) -> Option<Record> {
    let name = record.name.to_string();
    #[expect(clippy::wildcard_enum_match_arm, reason = "some fifty kinds of records are nothing to us")]
    match &record.rdata {
        RData::A(a) => Some(Record::Address { name, address: Address::v4(a.address.to_be_bytes()) }),
        RData::AAAA(aaaa) => Some(Record::Address { name, address: Address::v6(aaaa.address.to_be_bytes()) }),
        RData::SRV(srv) => Some(Record::Server {
            target: srv.target.to_string(),
            port: srv.port,
            priority: srv.priority,
            weight: srv.weight,
        }),
        _ => None,
    }
}

/// Names do not care about capitals, nor whether the root is written.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    one.trim_end_matches('.').eq_ignore_ascii_case(other.trim_end_matches('.'))
}
