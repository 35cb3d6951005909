//! What the peer has said, and who is to hear it.

use super::copies::Copies;
use crate::control::ha::message::Message;
use crate::control::ha::{Action, Core, Event, PathId};
use crate::engine::{Instant, WorkerId};
use crate::io::worker::Mailbox;

/// What the peer has said.
pub(super) struct Said<'a> {
    pub(super) boot: u64,
    pub(super) path: PathId,
    /// When it came.
    pub(super) at: Instant,
    pub(super) now: Instant,
    pub(super) message: Message<'a>,
}

/// Hears it; false if it is not understood.
pub(super) fn hear(
    Said { boot, path, at, now, message }: &Said<'_>,
    core: &mut Core,
    copies: &mut Copies,
    mailboxes: &[Mailbox],
    actions: &mut Vec<Action>,
) -> bool {
    copies.meet(*boot);
    let wake = |worker: WorkerId| mailboxes[usize::from(worker.0)].wake();
    match message {
        Message::Heartbeat(heartbeat) => {
            core.step(Event::Heartbeat { boot: *boot, path: *path, at: *at, heartbeat }, *now, actions);
        }
        Message::Handoff(handoff) => core.step(Event::Handoff(*handoff), *now, actions),
        Message::Goodbye(goodbye) => core.step(Event::Goodbye(*goodbye), *now, actions),
        Message::Relay(packet) => copies.relay(packet, core.state()),
        Message::Sync(text) => return core.state().claims() || copies.replication.hear(text, wake).is_ok(),
        Message::Ack(text) => {
            let Copies { replication, texts, .. } = copies;
            return replication.hear_ack(text, *now, |text| texts.push(text.to_vec()), wake).is_ok();
        }
        Message::Bulk(text) => {
            let Some(has) = text.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)) else { return false };
            if core.state().claims() && copies.replication.asked_for_all(*boot, has) {
                mailboxes.iter().for_each(Mailbox::wake);
            }
        }
        // Marks among the changes do what this was meant for.
        Message::Digest(_) => return false,
    }
    true
}
