//! When to announce: often at first, while neighbours may still be busy or deaf, then now and then. Sans-IO.

use crate::control::ha::{BURST, REFRESH};
use crate::engine::Instant;

/// When the next announcement is due.
#[derive(Debug)]
pub(super) struct Schedule {
    start: Instant,
    next: Instant,
}

impl Schedule {
    /// A schedule whose first announcement is due now.
    pub(super) fn new(now: Instant) -> Self {
        Self { start: now, next: now }
    }

    /// Whether to announce now. However late we are, once: what was missed is not made up for.
    pub(super) fn due(&mut self, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        let burst = BURST.iter().map(|after| self.start + *after).find(|at| *at > now);
        self.next = burst.unwrap_or(now + REFRESH);
        true
    }

    /// When to ask again.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1_000)
    }

    #[test]
    fn announcements_come_in_a_burst_and_then_every_minute() {
        let mut schedule = Schedule::new(at(1_000));
        let mut times = Vec::new();
        while times.len() < 9 {
            let now = schedule.poll_timeout();
            assert!(schedule.due(now) && !schedule.due(now));
            times.push(now.since(at(1_000)).as_millis());
        }
        assert_eq!(times, [0, 2, 10, 50, 200, 1_000, 5_000, 65_000, 125_000]);
    }

    #[test]
    fn whoever_comes_late_announces_once() {
        let mut schedule = Schedule::new(at(0));
        assert!(schedule.due(at(300)));
        assert!(!schedule.due(at(300)));
        assert_eq!(schedule.poll_timeout(), at(1_000));
    }
}
