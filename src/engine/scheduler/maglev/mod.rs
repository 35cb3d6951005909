//! Consistent hashing: the same flow, or the same client, goes to the same backend on every node, whatever the node has
//! seen before; and a change of the pool moves few flows beyond those it must: how, see [`filling`].

mod filling;

use siphasher::sip::SipHasher13;

use super::{Candidate, Request, Scheduler};
use crate::config::BackendId;
use crate::engine::random;
use crate::wire::Endpoint;
use filling::table;

/// As the keys of the filling: changing it moves all flows.
const FLOW_KEY: &[u8; 16] = b"tungate flow   1";

/// A Maglev table and what is looked up in it.
#[derive(Debug)]
pub(super) struct Maglev {
    hash_on: HashOn,
    /// All slots; none without candidates.
    table: Box<[BackendId]>,
}

#[derive(Clone, Copy, Debug)]
enum HashOn {
    /// `maglev`: client and listen endpoints, protocol.
    Flow,
    /// `source-hash`: the client's address, whatever its port and the service's.
    Client,
}

impl Maglev {
    pub(super) fn by_flow(candidates: &[&Candidate]) -> Self {
        Self { hash_on: HashOn::Flow, table: table(candidates) }
    }

    pub(super) fn by_client(candidates: &[&Candidate]) -> Self {
        Self { hash_on: HashOn::Client, table: table(candidates) }
    }
}

impl Scheduler for Maglev {
    fn pick(&self, request: &Request<'_>) -> Option<BackendId> {
        let hash = match self.hash_on {
            HashOn::Flow => flow_hash(request),
            HashOn::Client => client_hash(request),
        };
        self.table.get(random::index(hash, self.table.len())).copied()
    }
}

fn flow_hash(request: &Request<'_>) -> u64 {
    let mut bytes = [0; 37];
    put_endpoint(&mut bytes[..18], request.client);
    put_endpoint(&mut bytes[18..36], request.listen);
    bytes[36] = request.protocol.0;
    SipHasher13::new_with_key(FLOW_KEY).hash(&bytes)
}

fn client_hash(request: &Request<'_>) -> u64 {
    SipHasher13::new_with_key(FLOW_KEY).hash(request.client.address.octets())
}

fn put_endpoint(bytes: &mut [u8], endpoint: Endpoint) {
    bytes[..16].copy_from_slice(endpoint.address.octets());
    bytes[16..].copy_from_slice(&endpoint.port.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::engine::scheduler::Loads;
    use crate::engine::scheduler::tests::{candidates, refs, request};

    /// A promise, as the placement of the slots is.
    #[test]
    fn hashes_are_pinned() {
        let loads = Loads::new();
        let flow = request(0xc633_6407, 0, &loads);
        insta::assert_snapshot!(format!("{:016x}", flow_hash(&flow)), @"1cb8ea403d668b44");
        insta::assert_snapshot!(format!("{:016x}", client_hash(&flow)), @"cc278e40e4c4ab00");
    }

    #[test]
    fn a_client_keeps_its_backend_over_ports_and_services() {
        let (owned, loads) = (candidates(&[1; 20]), Loads::new());
        let (by_client, by_flow) = (Maglev::by_client(&refs(&owned)), Maglev::by_flow(&refs(&owned)));
        let mut one = request(7, 0, &loads);
        let backend = by_client.pick(&one);
        let mut by_flow_seen = HashSet::new();
        for port in 1_024..1_124 {
            (one.client.port, one.listen.port) = (port, port);
            assert_eq!(by_client.pick(&one), backend);
            by_flow_seen.insert(by_flow.pick(&one));
        }
        assert!(by_flow_seen.len() > 10, "flows of one client spread");
    }
}
