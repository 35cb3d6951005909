//! The items of listings: exactly the fields that the JSON interface promises, in base units (bytes, seconds, packets).

use serde::{Deserialize, Serialize};

use crate::control::{Administration, Health, Presence};

/// Item of a `ServiceList`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// Name.
    pub name: String,
    /// Listen addresses as in the configuration.
    pub listen: Vec<String>,
    /// `tcp`, `udp` or `any`.
    pub protocol: String,
    /// `nat` or `dsr`.
    pub mode: String,
    /// The scheduler's name as in the configuration.
    pub balance: String,
    /// Backends that may take new flows.
    pub backends_up: u64,
    /// Backends of the configuration.
    pub backends_total: u64,
    /// Flows now.
    pub flows: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Flows opened since the start.
    pub flows_opened: u64,
    /// Flows refused since the start: limits, no backend, no port, table full.
    pub flows_refused: u64,
    /// Clients whose backend is remembered; 0 without affinity.
    #[serde(default)]
    pub affinity_clients: u64,
}

/// Item of a `SourceList`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRow {
    /// What is asked: `file /etc/tungate/web.toml`.
    pub name: String,
    /// For which service.
    pub service: String,
    /// `fresh`: its last answer was good; `stale`: one before was; `failed`: none yet.
    pub state: String,
    /// Seconds since the last good answer.
    pub age_s: Option<u64>,
    /// Backends that the service has from it.
    pub backends: u64,
    /// Why it has no answer, or why something that it has found is not used.
    pub last_error: Option<String>,
}

/// Item of a `BackendList`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendRow {
    /// The service it belongs to.
    pub service: String,
    /// Name.
    pub name: String,
    /// Address, and port unless the packet's is kept.
    pub address: String,
    /// Share of new flows relative to the others that take some.
    pub weight: u16,
    /// That of the configuration, which the operator may have overridden.
    #[serde(default)]
    pub weight_configured: u16,
    /// Whether it is only used when no other can be.
    #[serde(default)]
    pub backup: bool,
    /// Whether the configuration has it.
    pub config: Presence,
    /// What the operator says.
    pub admin: Administration,
    /// Why, if he said.
    pub admin_reason: Option<String>,
    /// Seconds since he said it; `null` if he has said nothing, of the weight neither.
    #[serde(default)]
    pub admin_age_s: Option<u64>,
    /// Seconds until it is over by itself, if it is.
    #[serde(default)]
    pub admin_left_s: Option<u64>,
    /// What health checks say.
    pub health: Health,
    /// Why.
    pub health_reason: Option<String>,
    /// Seconds since that changed; `null` if nobody looks.
    #[serde(default)]
    pub health_age_s: Option<u64>,
    /// Flows now.
    pub flows: u64,
    /// Flows opened since the start.
    pub flows_opened: u64,
    /// Packets to the backend.
    pub packets_in: u64,
    /// Bytes to the backend.
    pub bytes_in: u64,
    /// Packets from the backend.
    pub packets_out: u64,
    /// Bytes from the backend.
    pub bytes_out: u64,
    /// ICMP errors that say that packets in its tunnel did not reach it.
    #[serde(default)]
    pub unreachable: u64,
    /// The last of them, in words.
    #[serde(default)]
    pub last_icmp: Option<String>,
    /// Seconds since that came.
    #[serde(default)]
    pub last_icmp_age_s: Option<u64>,
    /// Largest packet that its tunnel's way takes, as far as is known; `null` without tunnel.
    #[serde(default)]
    pub path_mtu: Option<u16>,
    /// Seconds for which that is believed still, if an ICMP error has told it.
    #[serde(default)]
    pub path_mtu_left_s: Option<u64>,
}

/// Item of a `FlowList`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRow {
    /// `tcp`, `udp`, `icmp` or `icmpv6`.
    pub protocol: String,
    /// The client's endpoint.
    pub client: String,
    /// The endpoint that the client spoke to.
    pub listen: String,
    /// Service.
    pub service: String,
    /// Backend.
    pub backend: String,
    /// Full NAT: the endpoint that the backend sees. `null` when the client's own is kept.
    pub source: Option<String>,
    /// State of the connection tracker.
    pub state: String,
    /// Seconds since the first packet.
    pub age_s: u64,
    /// Seconds since the last packet.
    pub idle_s: u64,
    /// Packets from the client, packets to it.
    pub packets: [u64; 2],
    /// Bytes from the client, bytes to it.
    pub bytes: [u64; 2],
    /// Whether answers go past the gateway, which counts none of them then.
    #[serde(default)]
    pub one_way: bool,
    /// Whether the standby has it.
    pub synced: bool,
}

/// Item of a `DropList`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropRow {
    /// Name of the reason.
    pub reason: String,
    /// Packets dropped for it since the start.
    pub packets: u64,
    /// A sentence about it.
    pub meaning: String,
}

/// Item of a `WorkerList`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Number, from 0.
    pub worker: u16,
    /// Packets received.
    pub packets_in: u64,
    /// Packets sent.
    pub packets_out: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Batches received.
    pub batches: u64,
    /// Share of the time since the start that was not spent waiting, 0 to 1.
    pub busy_ratio: f64,
    /// Packets handed to the worker that owns their flow.
    pub handed_over: u64,
    /// Packets forwarded.
    pub forwarded: u64,
    /// Packets that the gateway answered itself.
    pub replied: u64,
    /// Fragments held, or absorbed as copies of others.
    pub consumed: u64,
    /// Super-packets that the kernel refused, and that were cut into the packets they stand for.
    pub segmented: u64,
}

/// Item of a `FlowCount`: an answer that is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountRow {
    /// Flows found, or ended.
    pub flows: u64,
}

/// Item of a `Config`: what runs now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigRow {
    /// Name of the gateway.
    pub name: String,
    /// Grows by one with every applied configuration.
    pub generation: u64,
    /// File it was read from.
    pub file: String,
    /// The text as it was applied.
    pub text: String,
}

/// The item of a `Plan`: from the configuration in force to another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRow {
    /// What changes, in the order of the new configuration; what is removed last.
    pub changes: Vec<ChangeRow>,
    /// Flows that go on as they do.
    pub flows_kept: u64,
    /// Flows of what is removed, by this change or one before: they go on, and no other takes their place.
    pub flows_drained: u64,
    /// Flows that are cut: 0, since no change cuts any. A change that would is one that needs a restart.
    pub flows_lost: u64,
    /// Whether something takes effect only at the next start.
    pub needs_restart: bool,
    /// What is doubtful in the new configuration, for a person.
    pub warnings: Option<String>,
}

/// One change of a [`PlanRow`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRow {
    /// `+`, `-` or `~`.
    pub sign: String,
    /// What changes: `service web`, `backend web/b1`, `timeouts`, `gateway`.
    pub subject: String,
    /// How.
    pub change: String,
    /// `added`, `drained`, `in-place`, `new-flows` or `restart`.
    pub effect: String,
}

/// Item of a `HistoryList`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// How many changes ago it was in force; 0: it is.
    pub steps: u64,
    /// When it was put in force, seconds since 1970.
    pub at: u64,
    /// `start`, `reload`, `rollback` or `unconfirmed`.
    pub cause: String,
    /// File it was read from.
    pub file: String,
    /// The text as it was applied.
    pub text: String,
}

/// The item of a `RejectedConfig`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedRow {
    /// When it was refused, seconds since 1970.
    pub at: u64,
    /// File it was read from.
    pub file: String,
    /// Its text.
    pub text: String,
    /// What is wrong with it, for a person.
    pub report: String,
}

/// Item of a `BenchList`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchRow {
    /// What was measured.
    pub name: String,
    /// Nanoseconds a packet and worker.
    pub ns_per_packet: f64,
    /// Packets a second, all workers together.
    pub packets_per_second: f64,
    /// Flows in the table.
    pub flows: u64,
    /// Workers.
    pub workers: u16,
    /// Longest time that a worker spent on one batch, microseconds.
    pub longest_pause_us: u64,
    /// Memory that the flows have taken.
    pub bytes_per_flow: Option<u64>,
}

/// Item of a `TunBenchList`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TunBenchRow {
    /// What was measured.
    pub name: String,
    /// Who carried it: `tungate`, or the `kernel` alone.
    pub via: String,
    /// Packets delivered a second.
    pub packets_per_second: Option<f64>,
    /// Payload received, Gbit a second.
    pub gbit_per_second: Option<f64>,
    /// Half of the answers took no longer, microseconds.
    pub p50_us: Option<f64>,
    /// All but one answer in a hundred took no longer, microseconds.
    pub p99_us: Option<f64>,
}

/// A packet to explain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The IP packet in hexadecimal digits.
    pub packet: String,
}

/// The item of an `Explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// `forward`, `reply`, `consume`, `handoff` or `drop`.
    pub verdict: String,
    /// Name of the drop reason.
    pub reason: Option<String>,
    /// Service, if one was found.
    pub service: Option<String>,
    /// Backend, if one was picked.
    pub backend: Option<String>,
    /// The way through the engine.
    pub stages: Vec<Stage>,
    /// The packet that leaves, or the first that the gateway answers with, in hexadecimal digits.
    pub packet_out: Option<String>,
}

/// One stage of an [`Explanation`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// A word from a closed list.
    pub stage: String,
    /// A sentence.
    pub text: String,
}
