//! `[service.limits]`: how many flows a service takes.

/// What a service takes; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// New flows of all clients together.
    pub new_flows: Option<Rate>,
    /// New flows of one client: an IPv4 address, or the /64 of an IPv6 address.
    pub new_flows_per_client: Option<Rate>,
    /// Most flows at once, half-open ones included.
    pub max_flows: Option<u32>,
}

/// So many events in a time, as `"5k/s"`: on average. One second's worth may come at once, or one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Events, 1 to [`Rate::MOST_EVENTS`].
    pub events: u32,
    /// In this many seconds, 1 to 3600.
    pub seconds: u32,
}

impl Rate {
    /// Above this, a limit costs more than it could keep away.
    pub const MOST_EVENTS: u32 = 10_000_000;

    /// Nanoseconds for each event.
    pub const fn interval(self) -> u64 {
        self.seconds as u64 * 1_000_000_000 / self.events as u64
    }

    /// Events that may come at once.
    pub const fn burst(self) -> u32 {
        let a_second = self.events / self.seconds;
        if a_second == 0 { 1 } else { a_second }
    }
}
