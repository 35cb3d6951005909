//! The manual.
//!
//! In the order in which one needs it:
//!
//! 1. [`overview`]: what tungate does with a packet, and the words used here
//! 2. [`configuration`]: every key, its default, and why that is the default
//! 3. [`operating`]: preparing a machine, running, signals, privileges, a systemd unit
//! 4. [`nat`]: full NAT and keeping the client's address, source ports, hairpins
//! 5. [`dsr`]: direct server return: tunnels to backends that answer the clients themselves
//! 6. [`schedulers`]: which backend a new flow goes to
//! 7. [`timeouts`]: how long a flow is remembered, and which RFC says so
//! 8. [`limits`]: how many flows a gateway and its services take, and what a flood does
//! 9. [`packets`]: what happens to odd packets, and our choice where the references disagree
//! 10. [`kernel`]: what differs from the kernel's own NAT, and how that is known
//! 11. [`drops`]: all reasons for which a packet is dropped
//! 12. [`troubleshooting`]: from what one sees to what to do
//! 13. [`json`]: what programs can read
//! 14. [`exit_codes`]: what scripts can rely on
//! 15. [`requirements`]: the rules for packets, and the tests that show each of them
//!
//! Each verb has a manual page, too: `tungate man DIR` writes them.

pub mod configuration {
    #![doc = include_str!("configuration.md")]
}

pub mod drops {
    #![doc = include_str!("drops.md")]
}

pub mod dsr {
    #![doc = include_str!("dsr.md")]
}

pub mod exit_codes {
    #![doc = include_str!("exit_codes.md")]
}

pub mod json {
    #![doc = include_str!("json.md")]
}

pub mod kernel {
    #![doc = include_str!("kernel.md")]
}

pub mod limits {
    #![doc = include_str!("limits.md")]
}

pub mod nat {
    #![doc = include_str!("nat.md")]
}

pub mod operating {
    #![doc = include_str!("operating.md")]
}

pub mod overview {
    #![doc = include_str!("overview.md")]
}

pub mod packets {
    #![doc = include_str!("packets.md")]
}

pub mod requirements {
    #![doc = include_str!("requirements.md")]
}

pub mod schedulers {
    #![doc = include_str!("schedulers.md")]
}

pub mod timeouts {
    #![doc = include_str!("timeouts.md")]
}

pub mod troubleshooting {
    #![doc = include_str!("troubleshooting.md")]
}
