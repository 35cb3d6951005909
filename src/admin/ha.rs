//! The pair, as listings have it.

use serde::{Deserialize, Serialize};

use super::Response;
use super::answer::State;
use crate::control::Controller;
use crate::control::ha::seal::Reject;
use crate::control::ha::{Command, Report};
use crate::engine::Instant;

/// What an operator may want of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Hand over to the standby, without loss unless it is forced.
    Flip,
    /// Take over.
    Promote,
    /// Give up the role, and stay passive.
    Standby,
    /// End that.
    Resume,
}

/// The item of a `HaStatus`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HaRow {
    /// The gateway's name.
    pub name: String,
    /// `active`, `standby` or `none`.
    pub role: String,
    /// The state by which that is so.
    pub state: String,
    /// Grows with each change of the active; its own, if it is active.
    pub epoch: u64,
    /// Whether the passive one of the two could take over without loss.
    pub ready: bool,
    /// Why not.
    pub ready_reason: Option<String>,
    /// The other gateway.
    pub peer: PeerRow,
    /// The heartbeat paths.
    pub paths: Vec<PathRow>,
    /// Flows that the other one has confirmed, or, of a passive one, that are here.
    pub flows_synced: u64,
    /// Flows that only the active one has.
    pub flows_unsynced: u64,
    /// Age of the oldest of them, seconds.
    pub oldest_unsynced_s: f64,
    /// The last changes of state, the newest first.
    pub transitions: Vec<TransitionRow>,
    /// What silence of the active means: `pair` or `manual`.
    pub split_brain: String,
    /// Between two heartbeats, seconds: of the two gateways, the slower one's.
    pub heartbeat_s: f64,
    /// Silence after which the active counts as dead, seconds.
    pub dead_s: f64,
    /// Whether the heartbeat thread has real-time priority.
    pub real_time: bool,
    /// It changed its role too often, and takes over only in need.
    pub held: bool,
    /// Datagrams refused, by reason; those that never occurred are not listed.
    pub rejected: Vec<RejectRow>,
}

/// The other gateway of a pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerRow {
    /// The address that it is spoken to by.
    pub name: String,
    /// Its state, once it was heard.
    pub state: Option<String>,
    /// Seconds since it was heard.
    pub last_seen_s: Option<f64>,
}

/// A heartbeat path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathRow {
    /// This gateway's end.
    pub listen: String,
    /// The other's.
    pub peer: String,
    /// Seconds since the peer was heard by it.
    pub heard_s: Option<f64>,
    /// Seconds since the peer has heard us by it, as it says.
    pub peer_heard_s: Option<f64>,
    /// There and back, seconds.
    pub round_trip_s: Option<f64>,
    /// Datagrams sent.
    pub sent: u64,
    /// Heartbeats received.
    pub received: u64,
    /// Heartbeats missing between those.
    pub lost: u64,
}

/// A change of state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransitionRow {
    /// When, seconds since 1970.
    pub at: f64,
    /// What it was.
    pub from: String,
    /// What it became.
    pub to: String,
    /// Why.
    pub cause: String,
}

/// Datagrams refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectRow {
    /// Why.
    pub reason: String,
    /// How many.
    pub packets: u64,
}

/// How the pair is.
pub(super) fn show(controller: &Controller) -> Response {
    match controller.pair() {
        Some(report) => Response::Ha(Box::new(row(controller, report))),
        None => Response::NotFound("this gateway has no peer: there is no [ha] in its configuration".to_owned()),
    }
}

/// Passes an order on.
pub(super) fn order(state: &State<'_>, request: Order, force: bool) -> Response {
    let command = match request {
        Order::Flip => Command::Flip { force },
        Order::Promote => Command::Promote { force },
        Order::Standby => Command::Standby { force },
        Order::Resume => Command::Resume,
    };
    match (state.order_pair)(command) {
        Ok(()) => Response::Done,
        Err(why) => Response::Refused(why),
    }
}

fn row(controller: &Controller, report: &Report) -> HaRow {
    let Report { at, status, .. } = report;
    let since = |then: Instant| at.since(then).as_secs_f64();
    let peer_addresses: Vec<_> = report.paths.iter().map(|path| path.peer.ip().to_string()).collect();
    let rejects = Reject::ALL.iter().zip(report.rejects).filter(|(_, packets)| *packets > 0);
    let flows = u64::from(controller.shared().table.len());
    let unsynced = u64::from(status.sync.progress.unshared);
    HaRow {
        name: controller.snapshot().gateway.name.clone(),
        role: status.state.role().to_owned(),
        state: status.state.name().to_owned(),
        epoch: status.epoch.to_bits(),
        ready: status.unready.is_none(),
        ready_reason: status.unready.map(|why| why.to_string()),
        peer: PeerRow {
            name: peer_addresses.first().cloned().unwrap_or_default(),
            state: status.peer.map(|peer| peer.state.name().to_owned()),
            last_seen_s: status.peer.map(|peer| since(peer.heard_at)),
        },
        paths: paths(report),
        flows_synced: flows.saturating_sub(unsynced),
        flows_unsynced: unsynced,
        oldest_unsynced_s: report.oldest_unsynced.as_secs_f64(),
        transitions: report
            .transitions
            .iter()
            .map(|transition| TransitionRow {
                at: controller.time_of(transition.at).as_secs_f64(),
                from: transition.from.name().to_owned(),
                to: transition.to.name().to_owned(),
                cause: transition.cause.text().to_owned(),
            })
            .collect(),
        split_brain: status.mode.name().to_owned(),
        heartbeat_s: status.timers.heartbeat.as_secs_f64(),
        dead_s: status.timers.dead.as_secs_f64(),
        real_time: status.real_time,
        held: status.held,
        rejected: rejects.map(|(why, packets)| RejectRow { reason: why.name().to_owned(), packets }).collect(),
    }
}

fn paths(report: &Report) -> Vec<PathRow> {
    let row = |(path, seen): (&crate::control::ha::PathReport, &crate::control::ha::PathStatus)| PathRow {
        listen: path.listen.to_string(),
        peer: path.peer.to_string(),
        heard_s: seen.heard_at.map(|then| report.at.since(then).as_secs_f64()),
        peer_heard_s: seen.peer_heard.map(|age| age.as_secs_f64()),
        round_trip_s: seen.rtt.map(|rtt| rtt.as_secs_f64()),
        sent: path.sent,
        received: seen.received,
        lost: seen.lost,
    };
    report.paths.iter().zip(&report.status.paths).map(row).collect()
}
