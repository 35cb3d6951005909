//! How long each thing may take.

use std::time::Duration;

/// Heartbeats in a row that may be lost, over all paths together, without harm.
pub const LOSSES: u32 = 2;

/// The times that a network and a machine call for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// 5/20 ms, for a heartbeat thread with real-time priority.
    Fast,
    /// 25/100 ms: a thread without priority was up to 27 ms late.
    Normal,
    /// 50/250 ms, where a hypervisor takes the processor away.
    Vm,
    /// 250/1500 ms, between places.
    Wan,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Fast, Self::Normal, Self::Vm, Self::Wan];

    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Normal => "normal",
            Self::Vm => "vm",
            Self::Wan => "wan",
        }
    }

    /// Its times.
    pub const fn timers(self) -> Timers {
        let ms = Duration::from_millis;
        match self {
            Self::Fast => Timers::new(ms(5), ms(20)),
            Self::Normal => Timers::new(ms(25), ms(100)),
            Self::Vm => Timers::new(ms(50), ms(250)),
            Self::Wan => Timers::new(ms(250), ms(1500)),
        }
    }
}

/// A peer that asks for more is not right.
const LONGEST: Duration = Duration::from_secs(10);

/// The times of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// Silence of the active on all paths after which the standby takes over.
    pub dead: Duration,
    /// How late a thread may be: an active forwards for no longer after its last heartbeat, if nothing proves that the
    /// standby has heard it. The standby may not have heard the last [`LOSSES`], so this is what is left of `dead`.
    pub stall: Duration,
    /// Silence after which one that was held up may assume that nobody has taken over. A peer that has is heard after
    /// [`LOSSES`] + 1 heartbeats, if they take less than one to arrive.
    pub confirm: Duration,
}

impl Timers {
    /// After a cold start, the time to hear a peer; also what a held node waits before it takes over.
    pub const LISTEN: Duration = Duration::from_secs(1);
    /// How long one that has handed over relays stragglers, for neighbours that are slow to learn.
    pub const DRAIN: Duration = Duration::from_secs(2);
    /// How long digests may differ before the copy is made anew.
    pub const REPAIR: Duration = Duration::from_secs(1);

    /// The times that follow from two.
    pub const fn new(heartbeat: Duration, dead: Duration) -> Self {
        let stall = dead.saturating_sub(heartbeat.saturating_mul(LOSSES));
        Self { heartbeat, dead, stall, confirm: dead }
    }

    /// What holds between two that may be set differently: the slower wins, as with VRRPv3's advertised interval.
    #[must_use]
    pub fn slower(self, heartbeat: Duration, dead: Duration) -> Self {
        let (heartbeat, dead) = (heartbeat.min(LONGEST), dead.min(LONGEST));
        if heartbeat <= self.heartbeat && dead <= self.dead {
            return self;
        }
        Self::new(self.heartbeat.max(heartbeat), self.dead.max(dead))
    }

    /// From the request to hand over until the last record has to be here. Ends before [`Timers::hand_out`] does.
    pub const fn hand_in(&self) -> Duration {
        self.heartbeat.saturating_mul(6)
    }

    /// How long one that hands over waits for the other to take the role.
    pub const fn hand_out(&self) -> Duration {
        self.heartbeat.saturating_mul(10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_profile_leaves_time_for_lost_heartbeats() {
        for timers in Profile::ALL.map(Profile::timers) {
            assert!(timers.stall + timers.heartbeat * LOSSES <= timers.dead, "{timers:?}");
            assert!(timers.stall >= timers.heartbeat * 2, "a late heartbeat fences nobody: {timers:?}");
            assert!(timers.confirm >= timers.heartbeat * (LOSSES + 2), "{timers:?}");
            assert!(timers.hand_in() < timers.hand_out(), "{timers:?}");
        }
    }

    #[test]
    fn the_slower_of_two_wins() {
        let (fast, vm) = (Profile::Fast.timers(), Profile::Vm.timers());
        assert_eq!(fast.slower(vm.heartbeat, vm.dead), vm);
        assert_eq!(vm.slower(fast.heartbeat, fast.dead), vm);
    }
}
