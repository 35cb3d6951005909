//! The columns of each kind of item.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::output::{Column, View, size, span};
use crate::admin::{
    BackendRow, ConfigRow, CountRow, DropRow, FlowRow, HaRow, HistoryRow, PlanRow, RejectedRow, ServiceRow, SourceRow,
    WorkerRow,
};

pub(super) static SERVICES: View<ServiceRow> = View {
    kind: "ServiceList",
    columns: &[
        Column { title: "NAME", cell: |s| s.name.clone() },
        Column { title: "LISTEN", cell: |s| s.listen.join(" ") },
        Column { title: "PROTOCOL", cell: |s| s.protocol.clone() },
        Column { title: "+MODE", cell: |s| s.mode.clone() },
        Column { title: "BALANCE", cell: |s| s.balance.clone() },
        Column { title: ">BACKENDS", cell: |s| format!("{}/{}", s.backends_up, s.backends_total) },
        Column { title: ">FLOWS", cell: |s| s.flows.to_string() },
        Column { title: "+>OPENED", cell: |s| s.flows_opened.to_string() },
        Column { title: "+>REFUSED", cell: |s| s.flows_refused.to_string() },
        Column { title: "+>PACKETS IN", cell: |s| s.packets_in.to_string() },
        Column { title: "+>PACKETS OUT", cell: |s| unless(s.mode == "dsr", s.packets_out.to_string()) },
        Column { title: ">IN", cell: |s| size(s.bytes_in) },
        Column { title: ">OUT", cell: |s| unless(s.mode == "dsr", size(s.bytes_out)) },
    ],
};

pub(super) static BACKENDS: View<BackendRow> = View {
    kind: "BackendList",
    columns: &[
        Column { title: "SERVICE", cell: |b| b.service.clone() },
        Column { title: "NAME", cell: |b| b.name.clone() },
        Column { title: "ADDRESS", cell: |b| b.address.clone() },
        Column { title: ">WEIGHT", cell: |b| b.weight.to_string() },
        Column { title: "BACKUP", cell: |b| if b.backup { "yes" } else { "no" }.to_owned() },
        Column { title: "+CONFIG", cell: |b| word(b.config) },
        Column { title: "ADMIN", cell: |b| word(b.admin) },
        Column { title: "+>ADMIN AGE", cell: |b| b.admin_age_s.map(span).unwrap_or_default() },
        Column { title: "+>ADMIN LEFT", cell: |b| b.admin_left_s.map(span).unwrap_or_default() },
        Column { title: "HEALTH", cell: |b| word(b.health) },
        Column { title: ">FLOWS", cell: |b| b.flows.to_string() },
        Column { title: "+>OPENED", cell: |b| b.flows_opened.to_string() },
        Column { title: "+>PACKETS IN", cell: |b| b.packets_in.to_string() },
        Column { title: "+>PACKETS OUT", cell: |b| unless(b.path_mtu.is_some(), b.packets_out.to_string()) },
        Column { title: "+>UNREACHABLE", cell: |b| unless(b.path_mtu.is_none(), b.unreachable.to_string()) },
        Column { title: "+LAST ICMP", cell: last_icmp },
        Column { title: "+>PATH MTU", cell: path_mtu },
        Column { title: ">IN", cell: |b| size(b.bytes_in) },
        Column { title: ">OUT", cell: |b| unless(b.path_mtu.is_some(), size(b.bytes_out)) },
        Column { title: "REASON", cell: reasons },
    ],
};

/// Why a backend is not in service: what the operator says, and what is seen of it.
fn reasons(backend: &BackendRow) -> String {
    let reasons = [&backend.admin_reason, &backend.health_reason];
    reasons.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join("; ")
}

pub(super) static FLOWS: View<FlowRow> = View {
    kind: "FlowList",
    columns: &[
        Column { title: "PROTOCOL", cell: |f| f.protocol.clone() },
        Column { title: "CLIENT", cell: |f| f.client.clone() },
        Column { title: "LISTEN", cell: |f| f.listen.clone() },
        Column { title: "SOURCE", cell: |f| f.source.clone().unwrap_or_else(|| "-".to_owned()) },
        Column { title: "BACKEND", cell: |f| format!("{}/{}", f.service, f.backend) },
        Column { title: "STATE", cell: |f| f.state.clone() },
        Column { title: "+>AGE", cell: |f| span(f.age_s) },
        Column { title: ">IDLE", cell: |f| span(f.idle_s) },
        Column { title: "+>PACKETS IN", cell: |f| f.packets[0].to_string() },
        Column { title: "+>PACKETS OUT", cell: |f| unless(f.one_way, f.packets[1].to_string()) },
        Column { title: "+>IN", cell: |f| size(f.bytes[0]) },
        Column { title: "+>OUT", cell: |f| unless(f.one_way, size(f.bytes[1])) },
        Column { title: "+SYNCED", cell: |f| if f.synced { "yes" } else { "no" }.to_owned() },
    ],
};

/// For programs: people are told in sentences.
pub(super) static HA: View<HaRow> = View { kind: "HaStatus", columns: &[] };

pub(super) static COUNT: View<CountRow> =
    View { kind: "FlowCount", columns: &[Column { title: "FLOWS", cell: |c| c.flows.to_string() }] };

pub(super) static WORKERS: View<WorkerRow> = View {
    kind: "WorkerList",
    columns: &[
        Column { title: "WORKER", cell: |w| w.worker.to_string() },
        Column { title: ">BUSY", cell: |w| format!("{:.1} %", w.busy_ratio * 100.0) },
        Column { title: ">PACKETS IN", cell: |w| w.packets_in.to_string() },
        Column { title: ">PACKETS OUT", cell: |w| w.packets_out.to_string() },
        Column { title: ">IN", cell: |w| size(w.bytes_in) },
        Column { title: ">OUT", cell: |w| size(w.bytes_out) },
        Column { title: "+>BATCHES", cell: |w| w.batches.to_string() },
        Column { title: "+>FORWARDED", cell: |w| w.forwarded.to_string() },
        Column { title: "+>REPLIED", cell: |w| w.replied.to_string() },
        Column { title: "+>CONSUMED", cell: |w| w.consumed.to_string() },
        Column { title: "+>HANDED OVER", cell: |w| w.handed_over.to_string() },
        Column { title: "+>SEGMENTED", cell: |w| w.segmented.to_string() },
    ],
};

pub(super) static SOURCES: View<SourceRow> = View {
    kind: "SourceList",
    columns: &[
        Column { title: "NAME", cell: |s| s.name.clone() },
        Column { title: "SERVICE", cell: |s| s.service.clone() },
        Column { title: "STATE", cell: |s| s.state.clone() },
        Column { title: ">AGE", cell: |s| s.age_s.map_or_else(|| "-".to_owned(), span) },
        Column { title: ">BACKENDS", cell: |s| s.backends.to_string() },
        Column { title: "LAST ERROR", cell: |s| s.last_error.clone().unwrap_or_else(|| "-".to_owned()) },
    ],
};

pub(super) static DROPS: View<DropRow> = View {
    kind: "DropList",
    columns: &[
        Column { title: "REASON", cell: |d| d.reason.clone() },
        Column { title: ">PACKETS", cell: |d| d.packets.to_string() },
        Column { title: "MEANING", cell: |d| d.meaning.clone() },
    ],
};

pub(super) static CONFIG: View<ConfigRow> = View {
    kind: "Config",
    columns: &[
        Column { title: "NAME", cell: |c| c.name.clone() },
        Column { title: ">GENERATION", cell: |c| c.generation.to_string() },
        Column { title: "FILE", cell: |c| c.file.clone() },
    ],
};

pub(super) static PLAN: View<PlanRow> =
    View { kind: "Plan", columns: &[Column { title: "CHANGES", cell: |p| p.changes.len().to_string() }] };

pub(super) static HISTORY: View<HistoryRow> = View {
    kind: "HistoryList",
    columns: &[
        Column { title: ">STEPS", cell: |h| h.steps.to_string() },
        Column {
            title: "AT",
            cell: |h| humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(h.at)).to_string(),
        },
        Column { title: "CAUSE", cell: |h| h.cause.clone() },
        Column { title: "FILE", cell: |h| h.file.clone() },
    ],
};

pub(super) static REJECTED: View<RejectedRow> = View {
    kind: "RejectedConfig",
    columns: &[
        Column { title: "FILE", cell: |r| r.file.clone() },
        Column { title: "REPORT", cell: |r| r.report.clone() },
    ],
};

/// A cell, or a dash where nobody can know what would stand there.
fn unless(unknown: bool, cell: String) -> String {
    if unknown { "-".to_owned() } else { cell }
}

/// `port unreachable, 3s ago`.
fn last_icmp(backend: &BackendRow) -> String {
    let told = backend.last_icmp.as_ref().zip(backend.last_icmp_age_s);
    told.map_or_else(|| "-".to_owned(), |(error, age)| format!("{error}, {} ago", span(age)))
}

/// `1500`, or `1400 for 9m` where it has been learned.
fn path_mtu(backend: &BackendRow) -> String {
    let Some(mtu) = backend.path_mtu else { return "-".to_owned() };
    backend.path_mtu_left_s.map_or_else(|| mtu.to_string(), |left| format!("{mtu} for {}", span(left)))
}

/// The word that an enum has in JSON.
fn word(value: impl Serialize) -> String {
    let Ok(serde_json::Value::String(word)) = serde_json::to_value(value) else {
        unreachable!("only enums without fields come here")
    };
    word
}
