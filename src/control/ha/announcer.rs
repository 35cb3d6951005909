//! When neighbours are told where the VIPs are.

use std::time::Duration;

use crate::engine::Instant;

/// After taking over, and wherever else addresses are new: the first frame may be lost, a port may take a moment to forward, a
/// neighbour may ignore a change within a second of its last one.
pub const BURST: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(2),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
];
/// Afterwards, so that no switch forgets: they do after 300 s.
pub const REFRESH: Duration = Duration::from_secs(60);
/// A burst that has just begun serves a new reason, too.
const YOUNG: Duration = Duration::from_millis(10);

/// The schedule of announcements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Announcer {
    /// The VIPs are not here.
    #[default]
    Off,
    /// They are, as soon as the data plane forwards: a route must not move before.
    Armed,
    /// A burst, or the refreshes after it.
    Running { began: Instant, due: Instant, sent: u8 },
}

impl Announcer {
    /// The data plane forwards.
    pub(super) const fn confirm(&mut self, now: Instant) {
        if matches!(self, Self::Armed) {
            *self = Self::Running { began: now, due: now, sent: 0 };
        }
    }

    /// Another burst: somebody else has said that he has them.
    pub(super) fn again(&mut self, now: Instant) {
        if let Self::Running { began, .. } = *self
            && now.since(began) >= YOUNG
        {
            *self = Self::Running { began: now, due: now, sent: 0 };
        }
    }

    /// When the next one is due.
    pub(super) const fn due(&self) -> Option<Instant> {
        match self {
            Self::Off | Self::Armed => None,
            Self::Running { due, .. } => Some(*due),
        }
    }

    /// Whether one is due now; then the next is scheduled.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let Self::Running { began, due, sent } = self else { return false };
        if now < *due {
            return false;
        }
        *sent = sent.saturating_add(1);
        *due = match BURST.get(usize::from(*sent)) {
            Some(after) => (*began + *after).max(now + Duration::from_millis(1)),
            None => now + REFRESH,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    fn announcements(announcer: &mut Announcer, until: u64) -> Vec<u64> {
        (0..until).filter(|ms| announcer.is_due(at(*ms))).collect()
    }

    #[test]
    fn nothing_is_announced_before_the_data_plane_forwards() {
        let mut announcer = Announcer::Armed;
        assert!(announcements(&mut announcer, 100).is_empty());
        announcer.again(at(100));
        assert_eq!(announcer, Announcer::Armed);
    }

    #[test]
    fn a_burst_thins_out_into_refreshes() {
        let mut announcer = Announcer::Armed;
        announcer.confirm(at(0));
        assert_eq!(announcements(&mut announcer, 130_000), [0, 2, 10, 50, 200, 1000, 5000, 65_000, 125_000]);
    }

    #[test]
    fn a_rival_starts_another_burst_but_not_with_each_of_his_heartbeats() {
        let mut announcer = Announcer::Armed;
        announcer.confirm(at(0));
        for ms in 0..30 {
            announcer.again(at(ms));
        }
        let began = |a: &Announcer| match a {
            Announcer::Running { began, .. } => *began,
            Announcer::Off | Announcer::Armed => unreachable!("it runs"),
        };
        assert_eq!(began(&announcer), at(20), "a burst is left to its first frames");
    }
}
