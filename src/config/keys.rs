//! The one list of keys. The reader checks a file against it, `config schema` prints it.
//!
//! A key or value of the contract that waits for later work stands here as [`Kind::Later`] or in [`Word::later`]; to
//! enable it, give it its kind and read it in `raw`.

use self::Absent::{Default, Depends, Refused};
use self::Kind::{Flag, Integer, IntegerOr, Rate, Table, Tables, Text, TextList, TextOrInteger, TextOrList};

/// One key of a table.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// What holds when the key is absent.
    pub(super) absent: Absent,
    /// One or two sentences, for editors.
    pub(super) about: &'static str,
}

/// What a key takes.
#[derive(Debug)]
pub(super) enum Kind {
    Text,
    Flag,
    /// Within these limits, both included.
    Integer(i64, i64),
    /// A duration as `"300s"`.
    Duration,
    /// A rate as `"5k/s"`.
    Rate,
    /// One of a few words.
    Word(&'static [Word]),
    /// A number within these limits, or this word.
    IntegerOr(i64, i64, &'static str),
    TextList,
    /// One string, or a list of them.
    TextOrList,
    /// A string, or a number, which is taken as if it were one.
    TextOrInteger,
    /// A table: what messages call it.
    Table {
        keys: &'static [Key],
        place: &'static str,
    },
    /// An array of tables: what messages call one of them, and an example for who writes something else.
    Tables {
        keys: &'static [Key],
        place: &'static str,
        example: &'static str,
    },
    /// Not in this version; this is what to do meanwhile.
    Later(&'static str),
}

/// What holds when a key is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// It has to be there; the text is an example.
    Refused(&'static str),
    /// This value, as TOML.
    Default(&'static str),
    /// Something that depends: `about` says what.
    Depends,
}

/// One of the words that a key takes.
#[derive(Debug)]
pub(super) struct Word {
    pub(super) word: &'static str,
    /// Not in this version; this is what to do meanwhile.
    pub(super) later: Option<&'static str>,
}

impl Key {
    const fn new(name: &'static str, kind: Kind, absent: Absent, about: &'static str) -> Self {
        Self { name, kind, absent, about }
    }

    const fn later(name: &'static str, meanwhile: &'static str) -> Self {
        Self::new(name, Kind::Later(meanwhile), Absent::Depends, "")
    }

    const fn timeout(name: &'static str, default: &'static str, about: &'static str) -> Self {
        Self::new(name, Kind::Duration, Absent::Default(default), about)
    }
}

const fn now(word: &'static str) -> Word {
    Word { word, later: None }
}

const fn later(word: &'static str, meanwhile: &'static str) -> Word {
    Word { word, later: Some(meanwhile) }
}

/// The whole file.
pub(super) const FILE: &[Key] = &[
    Key::new("gateway", Table { keys: GATEWAY, place: "`[gateway]`" }, Depends, "The machine and its TUN."),
    Key::new(
        "timeouts",
        Table { keys: TIMEOUTS, place: "`[timeouts]`" },
        Depends,
        "Idle times after which a flow of each state is forgotten.",
    ),
    Key::new(
        "service",
        Tables { keys: SERVICE, place: "`[[service]]`", example: "[[service]]" },
        Depends,
        "What clients connect to, and who serves them.",
    ),
    Key::new(
        "ha",
        Table { keys: HA, place: "`[ha]`" },
        Depends,
        "The other gateway of a pair. Without the table: there is none.",
    ),
];

const MOST_FLOWS: i64 = 100_000_000;
const MOST_CLIENTS: i64 = 10_000_000;

/// `[gateway]`.
pub(super) const GATEWAY: &[Key] = &[
    Key::new("name", Text, Depends, "Name shown in listings. Default: the host name."),
    Key::new("interface", Text, Default("\"tungate0\""), "Name of the TUN that `run` creates; at most 15 characters."),
    Key::new("mtu", Integer(576, 65_535), Default("1500"), "MTU of the TUN in bytes; at least 1280 with IPv6."),
    Key::new(
        "workers",
        IntegerOr(1, 64, "auto"),
        Default("\"auto\""),
        "Packet workers, one TUN queue each. \"auto\": one a CPU up to two, else half as many as CPUs.",
    ),
    Key::new(
        "source-addresses",
        TextList,
        Default("[]"),
        "Addresses that full NAT (source-nat = true) and tunnels (mode = \"dsr\") send from; routed to the TUN, never local \
         to the machine.",
    ),
    Key::new(
        "announce-on",
        TextList,
        Default("[]"),
        "Interfaces on which ARP and neighbour discovery for VIPs and source addresses are answered.",
    ),
    Key::new("routes", Flag, Default("true"), "Add the routes of VIPs and source addresses to the TUN."),
    Key::new(
        "admin-socket",
        Text,
        Default("\"/run/tungate/tungate.sock\""),
        "Unix socket for the verbs that talk to a running daemon.",
    ),
    Key::new(
        "state-dir",
        Text,
        Default("\"/var/lib/tungate\""),
        "Where overrides, found backends and applied configurations are kept over a restart.",
    ),
    Key::new("max-flows", Integer(1, MOST_FLOWS), Default("1_000_000"), "Most flows held at once."),
    Key::new("metrics-listen", Text, Depends, "Address and port for metrics and probes over HTTP. Default: none."),
];

/// `[timeouts]`.
pub(super) const TIMEOUTS: &[Key] = &[
    Key::timeout("tcp-syn-sent", "\"60s\"", "TCP: SYN seen, no answer yet."),
    Key::timeout("tcp-syn-received", "\"60s\"", "TCP: SYN-ACK seen, handshake not finished."),
    Key::timeout("tcp-established", "\"7440s\"", "TCP: open connection. At least 7440s by RFC 5382 REQ-5."),
    Key::timeout("tcp-closing", "\"240s\"", "TCP: one or both sides have sent FIN. At least 240s by RFC 5382 REQ-5."),
    Key::timeout("tcp-time-wait", "\"120s\"", "TCP: both FINs acknowledged."),
    Key::timeout("tcp-close", "\"10s\"", "TCP: after an accepted RST."),
    Key::timeout("udp", "\"300s\"", "UDP with an answer. At least 120s by RFC 4787 REQ-5."),
    Key::timeout("udp-unreplied", "\"120s\"", "UDP without an answer yet. At least 120s by RFC 4787 REQ-5."),
    Key::later("icmp", "remove the key: the gateway answers pings itself, and keeps no flows of them"),
    Key::timeout("fragment-v4", "\"30s\"", "IPv4 datagram waiting for its fragments."),
    Key::timeout("fragment-v6", "\"60s\"", "IPv6 datagram waiting for its fragments (RFC 8200 4.5)."),
];

/// `[[service]]`.
pub(super) const SERVICE: &[Key] = &[
    Key::new("name", Text, Refused("name = \"web\""), "Unique name."),
    Key::new(
        "listen",
        TextOrList,
        Refused("listen = \"192.0.2.10:80\""),
        "Where clients connect: \"192.0.2.10:80\", \"[2001:db8::10]:80\", a range of ports \"192.0.2.10:8000-8099\", all \
         ports \"192.0.2.10:*\", a prefix \"192.0.2.0/28:443\"; one, or a list.",
    ),
    Key::new(
        "protocol",
        Kind::Word(PROTOCOL),
        Default("\"tcp\""),
        "What the service carries; \"any\" only with mode = \"dsr\".",
    ),
    Key::new(
        "mode",
        Kind::Word(MODE),
        Default("\"nat\""),
        "How a flow reaches its backend: rewritten, or (dsr) wrapped as it is; then the backend answers the client itself.",
    ),
    Key::new(
        "source-nat",
        Flag,
        Default("true"),
        "True: backends see one of the gateway's source-addresses. False: they see the client's address, and their \
         replies must be routed back through the gateway.",
    ),
    Key::new("balance", Kind::Word(BALANCE), Default("\"maglev\""), "How a backend is chosen for a new flow."),
    Key::new(
        "backends",
        Tables { keys: BACKEND, place: "a backend", example: "backends = [{ address = \"10.0.0.1:8080\" }]" },
        Refused("backends = [{ address = \"10.0.0.1:8080\" }]"),
        "Who serves the flows.",
    ),
    Key::new(
        "encapsulation",
        Kind::Word(ENCAPSULATION),
        Depends,
        "dsr: how packets are wrapped for their backend. Default: \"gre\".",
    ),
    Key::new(
        "gre-key",
        Integer(0, u32::MAX as i64),
        Depends,
        "dsr by gre: the key in each packet (RFC 2890), for backends that tell tunnels apart by it. Default: no key.",
    ),
    Key::new(
        "affinity",
        Kind::Word(AFFINITY),
        Default("\"none\""),
        "client-ip: all flows of a client's address go to the backend that took its first, as long as it takes new ones.",
    ),
    Key::new(
        "affinity-timeout",
        Kind::Duration,
        Default("\"10m\""),
        "How long a client's backend is remembered after its last flow has ended.",
    ),
    Key::new(
        "affinity-max-clients",
        Integer(1, MOST_CLIENTS),
        Default("100_000"),
        "Most clients remembered at once, some 150 bytes each; where there is no room, the oldest is forgotten.",
    ),
    Key::new(
        "health",
        Table { keys: HEALTH, place: "`[service.health]`" },
        Depends,
        "How the backends are asked how they are, and what follows from it.",
    ),
    Key::new(
        "passive",
        Table { keys: PASSIVE, place: "`[service.passive]`" },
        Depends,
        "Eject a backend on what its flows do. Without the table: never.",
    ),
    Key::new(
        "discovery",
        Table { keys: DISCOVERY, place: "`[service.discovery]`" },
        Depends,
        "Where more backends are found, besides those that are listed.",
    ),
    Key::new(
        "limits",
        Table { keys: LIMITS, place: "`[service.limits]`" },
        Depends,
        "How many flows the service takes; what is beyond is dropped.",
    ),
];

/// `[service.discovery]`.
pub(super) const DISCOVERY: &[Key] = &[
    Key::new("source", Kind::Word(SOURCE), Depends, "What is asked for backends. Default: nothing."),
    Key::new(
        "path",
        Text,
        Depends,
        "file: a list of backends, as `backends = [{ address = \"10.0.0.1:8080\" }]`; JSON if its name ends in .json, \
         else TOML.",
    ),
    Key::new("name", Text, Depends, "dns: the name that stands for the backends."),
    Key::new("type", Kind::Word(RECORDS), Depends, "dns: which records are asked for. Default: \"a\"."),
    Key::new(
        "port",
        Integer(1, 65_535),
        Depends,
        "dns with \"a\" or \"aaaa\": the backends' port. Default: the packet's is kept.",
    ),
    Key::new(
        "resolver",
        Text,
        Depends,
        "dns: who is asked, as \"10.0.0.53\" or \"10.0.0.53:5353\". Default: those of /etc/resolv.conf.",
    ),
    Key::new(
        "url",
        Text,
        Depends,
        "http: what answers with a list of backends in JSON, as \"http://10.0.0.5:8500/v1/kv/web?raw\".",
    ),
    Key::new(
        "wait",
        Kind::Duration,
        Depends,
        "http: how long the server may wait for a change before it answers. Default: \"30s\".",
    ),
    Key::new(
        "interval",
        Kind::Duration,
        Depends,
        "How often the source is asked. Default: a file each second, a name when its records' time to live is over, a \
         server at once if it waits for changes, and else after 5s.",
    ),
];

/// `[service.limits]`.
pub(super) const LIMITS: &[Key] = &[
    Key::new(
        "new-flows",
        Rate,
        Depends,
        "New flows of all clients together, as \"5k/s\"; a second's worth may come at once. Default: no limit.",
    ),
    Key::new(
        "new-flows-per-client",
        Rate,
        Depends,
        "New flows of one client, as \"100/s\": an IPv4 address, or the /64 of an IPv6 address. Default: no limit.",
    ),
    Key::new("max-flows", Integer(1, MOST_FLOWS), Depends, "Most flows at once. Default: that of the gateway."),
];

/// `[service.health]`.
pub(super) const HEALTH: &[Key] = &[
    Key::new(
        "check",
        Kind::Word(CHECK),
        Depends,
        "What a backend is asked. Default: \"tcp\" for services of TCP with a port to ask, else \"none\"; with \
         mode = \"dsr\" else \"icmp\". Of a dsr service it goes by the tunnel to the VIP.",
    ),
    Key::new("interval", Kind::Duration, Default("\"2s\""), "From one question to the next."),
    Key::new("timeout", Kind::Duration, Default("\"1s\""), "How long an answer may take."),
    Key::new(
        "rise",
        Integer(1, 1000),
        Default("2"),
        "Good answers in a row after which a backend that was down is up.",
    ),
    Key::new("fall", Integer(1, 1000), Default("3"), "Bad ones after which one that was up is down."),
    Key::new(
        "port",
        Integer(1, 65_535),
        Depends,
        "Where to ask. Default: the backend's port, else the service's first that stands alone.",
    ),
    Key::new("path", Text, Depends, "http: path and query. Default: \"/\"."),
    Key::new("host", Text, Depends, "http: the Host header. Default: address and port."),
    Key::new(
        "expect",
        TextOrInteger,
        Depends,
        "http: the status, as 200 or \"200-299\"; default: \"200-399\". udp: what the answer contains; default: any \
         answer, or none.",
    ),
    Key::new("body", Text, Depends, "http: what the body contains, within its first 64 KiB. Default: anything."),
    Key::new("send", Text, Depends, "udp: what to send. Default: an empty datagram."),
    Key::new(
        "on-down",
        Kind::Word(ON_DOWN),
        Default("\"keep\""),
        "What becomes of the TCP connections of a backend that goes down: they go on if they can, or both ends get a RST.",
    ),
    Key::new(
        "slow-start",
        Kind::Duration,
        Default("\"0s\""),
        "How long a backend that comes up takes to get its whole share of new flows.",
    ),
    Key::new(
        "panic-threshold",
        Integer(0, 100),
        Default("0"),
        "With fewer of the backends up than this, in percent, all get flows as if they were up; 0: never.",
    ),
];

/// `[service.passive]`.
pub(super) const PASSIVE: &[Key] = &[
    Key::new(
        "failures",
        Integer(1, 1000),
        Default("5"),
        "Flows in a row that fail before their backend has sent any data: SYN not answered, refused, reset, unreachable.",
    ),
    Key::new("eject-for", Kind::Duration, Default("\"30s\""), "How long the backend then gets no new flows."),
    Key::new(
        "max-ejected",
        Integer(1, 100),
        Default("50"),
        "Most backends of the service that are ejected at once, in percent; always one, never all.",
    ),
];

/// `[ha]`.
pub(super) const HA: &[Key] = &[
    Key::new(
        "role",
        Kind::Word(ROLE),
        Default("\"auto\""),
        "What the gateway is at its start, if both start at once: whichever has the higher priority, the active one, or \
         the standby.",
    ),
    Key::new("priority", Integer(1, 255), Default("100"), "Who goes first if both start at once: the higher one."),
    Key::new(
        "listen",
        TextOrList,
        Refused("listen = \"10.0.5.1:7946\""),
        "This gateway's ends of the heartbeat paths: an address and a UDP port each; one, or a list of up to four.",
    ),
    Key::new(
        "peer",
        TextOrList,
        Refused("peer = \"10.0.5.2:7946\""),
        "The other gateway's ends of the same paths, in the same order.",
    ),
    Key::new(
        "key-file",
        Text,
        Refused("key-file = \"/etc/tungate/ha.key\""),
        "The key that both share, made by `tungate ha keygen`; refused if others than its owner can open it.",
    ),
    Key::new(
        "profile",
        Kind::Word(PROFILE),
        Default("\"auto\""),
        "Heartbeat interval and dead time: fast 5/20 ms (needs real-time priority), normal 25/100, vm 50/250, wan \
         250/1500. The slower of the two gateways' holds. \"auto\": fast where the kernel allows it, else normal.",
    ),
    Key::new(
        "split-brain",
        Kind::Word(SPLIT_BRAIN),
        Default("\"pair\""),
        "What it means that the active is silent on all paths. pair: it is dead, the standby takes over. manual: nothing, \
         until the operator says so.",
    ),
    Key::later("witness", "remove the key: no version has a witness yet"),
    Key::later("commit", "remove the key: new connections always wait for the standby, up to 10 ms"),
];

/// An entry of `backends`.
pub(super) const BACKEND: &[Key] = &[
    Key::new("name", Text, Depends, "Unique within the service. Default: the address as written."),
    Key::new(
        "address",
        Text,
        Refused("address = \"10.0.0.1:8080\""),
        "Where flows go: \"10.0.0.1:8080\"; without a port, the packet's port is kept.",
    ),
    Key::new("weight", Integer(0, 65_535), Default("1"), "Share of new flows; 0 takes none."),
    Key::new("backup", Flag, Default("false"), "Used only when no other backend is available."),
];

const ROLE: &[Word] = &[now("auto"), now("active"), now("standby")];
const PROFILE: &[Word] = &[now("auto"), now("fast"), now("normal"), now("vm"), now("wan")];
const SPLIT_BRAIN: &[Word] =
    &[now("pair"), later("witness", "use split-brain = \"pair\" with several heartbeat paths"), now("manual")];
const SOURCE: &[Word] = &[now("file"), now("dns"), now("http")];
const RECORDS: &[Word] = &[now("a"), now("aaaa"), now("srv")];
const PROTOCOL: &[Word] = &[now("tcp"), now("udp"), now("any")];
const MODE: &[Word] = &[now("nat"), now("dsr"), later("terminate", "use mode = \"nat\"")];
const AFFINITY: &[Word] = &[now("none"), now("client-ip")];
const CHECK: &[Word] = &[now("tcp"), now("http"), now("udp"), now("icmp"), now("none")];
const ON_DOWN: &[Word] = &[now("keep"), now("reset")];
const ENCAPSULATION: &[Word] = &[now("gre"), now("ipip"), now("gue")];
const BALANCE: &[Word] = &[
    now("maglev"),
    now("round-robin"),
    now("random"),
    now("least-connections"),
    now("power-of-two"),
    now("source-hash"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Code, Report, Snapshot, example, load};

    fn load_text(text: &str) -> Result<Snapshot, Report> {
        load(text, "tungate.toml", None, "gw")
    }

    /// A good file with one more key in a table.
    fn file_with(table: &str, line: &str) -> String {
        let service = "[[service]]\nname = 's'\nlisten = '192.0.2.1:1'";
        match table {
            "" => line.to_string(),
            "service" => format!("{service}\nbackends = []\n{line}\n"),
            "backend" => {
                let sources = "[gateway]\nsource-addresses = ['10.99.0.10']";
                format!("{sources}\n{service}\nbackends = [{{ address = '10.0.0.1', {line} }}]\n")
            }
            "discovery" => format!("{service}\nbackends = []\n[service.discovery]\n{line}\n"),
            "limits" | "health" | "passive" => format!("{service}\nbackends = []\n[service.{table}]\n{line}\n"),
            "ha" => {
                let given = ["listen = '10.0.5.1:7946'", "peer = '10.0.5.2:7946'", "key-file = '/etc/tungate/ha.key'"];
                let key = line.split(' ').next().unwrap();
                let others: Vec<_> = given.into_iter().filter(|given| !given.starts_with(&format!("{key} "))).collect();
                format!("[gateway]\nannounce-on = ['eth0']\n[ha]\n{}\n{line}\n", others.join("\n"))
            }
            other => format!("[{other}]\n{line}\n"),
        }
    }

    const TABLES: &[(&str, &[Key])] = &[
        ("", FILE),
        ("gateway", GATEWAY),
        ("timeouts", TIMEOUTS),
        ("service", SERVICE),
        ("discovery", DISCOVERY),
        ("limits", LIMITS),
        ("health", HEALTH),
        ("passive", PASSIVE),
        ("backend", BACKEND),
        ("ha", HA),
    ];

    /// Lines that this version has to refuse, as `affinity = 1` or `mode = "dsr"`.
    fn later_lines(key: &Key) -> Vec<String> {
        if matches!(key.kind, Kind::Later(_)) {
            return vec![format!("{} = 1", key.name)];
        }
        let Kind::Word(words) = &key.kind else { return Vec::new() };
        let later = words.iter().filter(|word| word.later.is_some());
        later.map(|word| format!("{} = \"{}\"", key.name, word.word)).collect()
    }

    #[test]
    fn what_belongs_to_later_work_is_refused_as_that() {
        let mut refused = 0;
        for (table, keys) in TABLES {
            for line in keys.iter().flat_map(later_lines) {
                let report = load_text(&file_with(table, &line)).unwrap_err();
                let errors = report.diagnostics().iter().map(|d| d.code).filter(|code| *code != Code::NoBackends);
                assert_eq!(errors.collect::<Vec<_>>(), [Code::NotAvailable], "{line}: {report}");
                refused += 1;
            }
        }
        assert!(refused > 1, "{refused}");
    }

    #[test]
    fn every_default_can_be_written_and_changes_nothing() {
        let facts = |text: &str| {
            let snapshot = load_text(text).unwrap_or_else(|report| panic!("{report}"));
            (snapshot.gateway, snapshot.timeouts, snapshot.services, snapshot.backends)
        };
        for (table, keys) in TABLES {
            for key in *keys {
                let Absent::Default(value) = key.absent else { continue };
                let line = format!("{} = {value}", key.name);
                assert_eq!(facts(&file_with(table, &line)), facts(&file_with(table, "")), "{line}");
            }
        }
    }

    #[test]
    fn the_example_names_every_key_and_its_comments_are_the_defaults() {
        for key in TABLES[1..].iter().flat_map(|(_, keys)| *keys) {
            let mut lines = example().lines();
            let named = if let Table { place, .. } = key.kind {
                lines.any(|line| line.starts_with(place.trim_matches('`')))
            } else {
                lines.any(|line| line.contains(&format!("{} = ", key.name)))
            };
            assert_eq!(named, !matches!(key.kind, Kind::Later(_)), "{}", key.name);
        }
        let known =
            |line: &str| TABLES.iter().flat_map(|(_, keys)| *keys).any(|k| line.starts_with(&format!("{} = ", k.name)));
        let uncommented =
            example().lines().map(|line| line.strip_prefix("# ").filter(|rest| known(rest)).unwrap_or(line));
        let text = uncommented.collect::<Vec<_>>().join("\n").replace("\"gw-a\"", "\"gw\"");
        let (written, short) = (load_text(&text).unwrap_or_else(|r| panic!("{r}")), load_text(example()).unwrap());
        assert_eq!(written.gateway, short.gateway);
        assert_eq!(written.timeouts, short.timeouts);
        assert_eq!(written.services, short.services);
    }
}
