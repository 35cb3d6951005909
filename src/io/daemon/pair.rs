//! The daemon as one gateway of a pair.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use super::{Daemon, StartError};
use crate::control::ha::seal::OVERHEAD;
use crate::control::ha::{Command, Epoch, State, Transition};
use crate::io::key_file;
use crate::io::peer::{News, Pair, Setup};
use crate::io::replication::tell_all;
use crate::io::sys;

/// Most bytes of a text that tells of flows: with all that stands around it, it fits into a packet of 1400.
pub(super) const TEXT_ROOM: usize = 1400 - 28 - OVERHEAD;

/// A number for this start of the gateway.
pub(super) fn random_boot() -> io::Result<u64> {
    let mut boot = [0; 8];
    sys::fill_with_random(&mut boot)?;
    Ok(u64::from_ne_bytes(boot).max(1))
}

/// File of the state folder.
const EPOCH: &str = "epoch";

impl Daemon {
    /// Begins to talk to the other gateway, if there is one. Until then, nothing is forwarded; to be called when the state
    /// folder is known.
    ///
    /// # Errors
    /// A path cannot be opened.
    pub fn join_pair(&mut self) -> Result<(), StartError> {
        let snapshot = self.controller.snapshot();
        let (keys, replication) = (self.keys.take(), self.replication.take());
        let (Some(ha), Some(keys), Some(duty), Some(replication)) =
            (snapshot.ha.clone(), keys, self.duty.clone(), replication)
        else {
            return Ok(());
        };
        let kept = self.state.read(EPOCH).and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let setup = Setup {
            ha,
            keys,
            epoch: Epoch::from_bits(kept),
            config_hash: snapshot.translation_hash(),
            boot: self.boot,
            replication,
            shared: std::sync::Arc::clone(self.shared()),
            duty,
            presence: std::sync::Arc::clone(&self.presence),
            mailboxes: std::sync::Arc::clone(&self.mailboxes),
        };
        self.kept_epoch = setup.epoch;
        self.told_generation = snapshot.generation;
        self.pair = Some(Pair::start(setup).map_err(StartError::Pair)?);
        Ok(())
    }

    /// Readable when something has happened to the pair, if there is one.
    pub fn pair_news(&self) -> Option<BorrowedFd<'_>> {
        self.pair.as_ref().map(Pair::as_fd)
    }

    /// Has the pair's state known to who answers questions.
    pub fn look_at_pair(&mut self) {
        if let Some(pair) = &self.pair {
            self.controller.set_pair(pair.report());
        }
    }

    /// What passes an operator's order on to the pair.
    pub fn pair_order(&self) -> impl Fn(Command) -> Result<(), String> + use<> {
        let line = self.pair.as_ref().map(Pair::line);
        move |command| {
            let none = || "this gateway has no peer: there is no [ha] in its configuration".to_owned();
            line.as_ref().ok_or_else(none)?.command(command)
        }
    }

    /// Tells what has happened to the pair, and the pair of what has happened here.
    pub(super) fn follow_pair(&mut self) {
        let Some(pair) = &self.pair else { return };
        for news in pair.news() {
            match news {
                News::TellAll(session) => tell_all(self.controller.shared(), &self.mailboxes, session),
                News::Transition(_) | News::FlipFailed(_) | News::NoRealTime => tell(&news),
            }
        }
        if pair.epoch() != self.kept_epoch {
            self.kept_epoch = pair.epoch();
            self.state.write(EPOCH, &format!("{}\n", self.kept_epoch));
        }
        let snapshot = self.controller.snapshot();
        if snapshot.generation == self.told_generation {
            return;
        }
        self.told_generation = snapshot.generation;
        pair.line().set_config_hash(snapshot.translation_hash());
        if let Some(ha) = &snapshot.ha {
            match key_file::load(&ha.key_file) {
                Ok(keys) => pair.line().set_keys(keys),
                Err(error) => log::error!("the keys of the pair stay as they are: {error}"),
            }
        }
    }
}

fn tell(news: &News) {
    match news {
        News::Transition(Transition { from, to, cause, epoch, .. }) => {
            let (from, to, epoch) = (from.name(), to.name(), epoch.to_bits());
            // Who serves has changed, or nobody stands behind who does.
            if matches!(news, News::Transition(Transition { to: State::Standby | State::Active | State::Syncing, .. }))
            {
                log::info!(from, to, epoch; "pair: {}", cause.text());
            } else {
                log::warn!(from, to, epoch; "pair: {}", cause.text());
            }
        }
        News::TellAll(_) => {}
        News::FlipFailed(refusal) => log::warn!("pair: the handover was not done: {refusal}"),
        News::NoRealTime => log::warn!(
            "pair: the kernel gives the heartbeat thread no real-time priority, so it beats slower (profile normal); grant \
             CAP_SYS_NICE"
        ),
    }
}
