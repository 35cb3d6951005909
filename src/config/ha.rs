//! `[ha]`: the pair, as it is configured.

use std::net::SocketAddr;
use std::path::PathBuf;

use siphasher::sip::SipHasher24;
use std::hash::Hasher as _;

use super::Snapshot;

/// Most heartbeat paths.
pub const MOST_PATHS: usize = 4;

/// `[ha]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ha {
    /// What it is at the start.
    pub role: Role,
    /// Who goes first if both start at once: the higher one.
    pub priority: u8,
    /// At least one, at most [`MOST_PATHS`].
    pub paths: Vec<Path>,
    /// Where the keys are.
    pub key_file: PathBuf,
    /// How long things may take.
    pub profile: Profile,
    /// What silence of the active means.
    pub split_brain: SplitBrain,
}

/// One heartbeat path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    /// This gateway's end.
    pub listen: SocketAddr,
    /// The other's.
    pub peer: SocketAddr,
}

/// What a gateway is at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What the pair calls for.
    Auto,
    /// The one that goes first, whatever the priorities.
    Active,
    /// Passive until the operator, or the other's death, says otherwise.
    Standby,
}

/// `profile`: heartbeat interval and dead time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The fastest that this machine allows.
    Auto,
    /// 5 and 20 ms: needs real-time priority.
    Fast,
    /// 25 and 100 ms.
    Normal,
    /// 50 and 250 ms.
    Vm,
    /// 250 and 1500 ms.
    Wan,
}

/// `split-brain`: what total silence of the active means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitBrain {
    /// It is dead.
    Pair,
    /// Nothing, until the operator says so.
    Manual,
}

impl Ha {
    /// Which of the two this gateway is, 0 or 1: the one whose addresses are lower is 0. Both come to different answers,
    /// since what one listens on is the other's peer.
    pub fn node(&self) -> u8 {
        let [ours, theirs] = self.ends();
        u8::from(ours > theirs)
    }

    /// A number of this pair, the same on both gateways, and likely to be another for another pair.
    pub fn cluster(&self) -> u32 {
        let mut ends = self.ends();
        ends.sort();
        let hash = hash(&format!("{ends:?}"));
        u32::try_from(hash >> 32).expect("32 bits")
    }

    /// All addresses of this gateway, and all of the other one, each in order.
    fn ends(&self) -> [Vec<SocketAddr>; 2] {
        [|path: &Path| path.listen, |path: &Path| path.peer].map(|end| {
            let mut ends: Vec<_> = self.paths.iter().map(end).collect();
            ends.sort_unstable();
            ends
        })
    }
}

impl Snapshot {
    /// A number of all that decides where packets go, the same on both gateways of a pair if they would decide alike.
    /// What was found, and is not configured, is left out: the two may find it at different times.
    pub fn translation_hash(&self) -> u64 {
        let mut text = format!("{:?} {:?}", self.timeouts, self.gateway.source_addresses);
        for service in &self.services {
            let listen: Vec<_> = service.listen.iter().map(ToString::to_string).collect();
            text += &format!("{} {listen:?} {:?} {:?} ", service.name, service.protocol, service.mode);
            text += &format!("{:?} {:?}", service.balance, service.affinity);
            for (_, backend) in self.backends_of(service.id).filter(|(_, backend)| !backend.discovered) {
                text += &format!(" {} {} {} {}", backend.name, backend.place(), backend.weight, backend.backup);
            }
        }
        hash(&text)
    }
}

/// The same on every machine.
fn hash(text: &str) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn pair(listen: &str, peer: &str) -> Ha {
        let text = format!("[ha]\nlisten = {listen}\npeer = {peer}\nkey-file = '/etc/tungate/ha.key'");
        load(&text, "tungate.toml", None, "gw").unwrap_or_else(|report| panic!("{report}")).ha.unwrap()
    }

    #[test]
    fn the_two_gateways_of_a_pair_are_different_nodes_of_one_cluster() {
        let one = pair("['10.0.5.1:7946', '192.0.2.9:7946']", "['10.0.5.2:7946', '192.0.2.8:7946']");
        let other = pair("['10.0.5.2:7946', '192.0.2.8:7946']", "['10.0.5.1:7946', '192.0.2.9:7946']");
        let swapped = pair("['192.0.2.8:7946', '10.0.5.2:7946']", "['192.0.2.9:7946', '10.0.5.1:7946']");
        assert_eq!((one.node(), other.node(), swapped.node()), (0, 1, 1));
        assert_eq!([one.cluster(), other.cluster()], [swapped.cluster(); 2]);
        let stranger = pair("'10.0.5.1:7946'", "'10.0.5.2:7946'");
        assert_ne!(one.cluster(), stranger.cluster());
    }

    #[test]
    fn what_the_file_leaves_out_has_defaults() {
        let ha = pair("'10.0.5.1:7946'", "'10.0.5.2:7946'");
        assert_eq!((ha.role, ha.priority, ha.profile), (Role::Auto, 100, Profile::Auto));
        assert_eq!(ha.split_brain, SplitBrain::Pair);
        assert_eq!(load("", "tungate.toml", None, "gw").unwrap().ha, None);
    }

    #[test]
    fn what_decides_where_packets_go_changes_the_hash_and_nothing_else_does() {
        let text = "[gateway]\nname = 'a'\nsource-addresses = ['10.99.0.10']\n\
                    [[service]]\nname = 's'\nlisten = '192.0.2.1:1'\n\
                    backends = [{ name = 'b', address = '10.0.0.1', weight = 2 }]\n";
        let hash = |text: &str| load(text, "tungate.toml", None, "gw").unwrap().translation_hash();
        let before = hash(text);
        assert_eq!(before, hash(&text.replace("'a'", "'b'").replace("[gateway]", "[gateway]\nmtu = 1400")));
        for (from, to) in
            [("weight = 2", "weight = 3"), ("10.0.0.1", "10.0.0.2"), ("'s'", "'t'"), ("99.0.10", "99.0.11")]
        {
            assert_ne!(before, hash(&text.replace(from, to)), "{to}");
        }
        let reloaded = load(text, "tungate.toml", None, "gw").unwrap();
        let moved = load(&text.replace("'s'", "'t'"), "tungate.toml", Some(&reloaded), "gw").unwrap();
        let back = load(text, "tungate.toml", Some(&moved), "gw").unwrap();
        assert_eq!(before, back.translation_hash(), "whatever was in force before");
    }
}
