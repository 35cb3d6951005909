//! The manual.
//!
//! In the order in which one needs it:
//!
//! 1. [`overview`]: what tungate does with a packet, and the words used here
//! 2. [`configuration`]: every key, its default, and why that is the default
//! 3. [`operating`]: preparing a machine, running, signals, privileges, a systemd unit
//! 4. [`reload`]: another configuration in the same process, backends in maintenance
//! 5. [`nat`]: full NAT and keeping the client's address, source ports, hairpins
//! 6. [`dsr`]: direct server return: tunnels to backends that answer the clients themselves
//! 7. [`schedulers`]: which backend a new flow goes to
//! 8. [`discovery`]: backends that the configuration does not list
//! 9. [`ha`]: two gateways, of which one takes over when the other fails
//! 10. [`health`]: how tungate knows which backends serve, and what follows
//! 11. [`timeouts`]: how long a flow is remembered, and which RFC says so
//! 12. [`limits`]: how many flows a gateway and its services take, and what a flood does
//! 13. [`packets`]: what happens to odd packets, and our choice where the references disagree
//! 14. [`kernel`]: what differs from the kernel's own NAT, and how that is known
//! 15. [`drops`]: all reasons for which a packet is dropped
//! 16. [`troubleshooting`]: from what one sees to what to do
//! 17. [`json`]: what programs can read
//! 18. [`exit_codes`]: what scripts can rely on
//! 19. [`performance`]: what a packet costs, where that goes, and what was tried
//! 20. [`metrics`]: what Prometheus can read, and probes for other load balancers and orchestrators
//! 21. [`requirements`]: the rules for packets, and the tests that show each of them
//!
//! `tungate manual CHAPTER` prints one. Each verb has a manual page, too: `tungate man DIR` writes them.

/// A chapter, for who has the program and not its source.
#[derive(Clone, Copy, Debug)]
pub struct Chapter {
    /// Its name, that of its module.
    pub name: &'static str,
    /// What it is about, in a line.
    pub about: &'static str,
    /// Markdown.
    pub text: &'static str,
}

/// All chapters, in the order in which one needs them.
pub const CHAPTERS: &[Chapter] = &[
    Chapter {
        name: "overview",
        about: "what tungate does with a packet, and the words used here",
        text: include_str!("overview.md"),
    },
    Chapter {
        name: "configuration",
        about: "every key, its default, and why that is the default",
        text: include_str!("configuration.md"),
    },
    Chapter {
        name: "operating",
        about: "preparing a machine, running, signals, privileges, a systemd unit",
        text: include_str!("operating.md"),
    },
    Chapter {
        name: "reload",
        about: "another configuration in the same process, backends in maintenance",
        text: include_str!("reload.md"),
    },
    Chapter {
        name: "nat",
        about: "full NAT and keeping the client's address, source ports, hairpins",
        text: include_str!("nat.md"),
    },
    Chapter {
        name: "dsr",
        about: "direct server return: tunnels to backends that answer the clients themselves",
        text: include_str!("dsr.md"),
    },
    Chapter { name: "schedulers", about: "which backend a new flow goes to", text: include_str!("schedulers.md") },
    Chapter {
        name: "discovery",
        about: "backends that the configuration does not list",
        text: include_str!("discovery.md"),
    },
    Chapter {
        name: "ha",
        about: "two gateways, of which one takes over when the other fails",
        text: include_str!("ha.md"),
    },
    Chapter {
        name: "health",
        about: "how tungate knows which backends serve, and what follows",
        text: include_str!("health.md"),
    },
    Chapter {
        name: "timeouts",
        about: "how long a flow is remembered, and which RFC says so",
        text: include_str!("timeouts.md"),
    },
    Chapter {
        name: "limits",
        about: "how many flows a gateway and its services take, and what a flood does",
        text: include_str!("limits.md"),
    },
    Chapter {
        name: "packets",
        about: "what happens to odd packets, and our choice where the references disagree",
        text: include_str!("packets.md"),
    },
    Chapter {
        name: "kernel",
        about: "what differs from the kernel's own NAT, and how that is known",
        text: include_str!("kernel.md"),
    },
    Chapter { name: "drops", about: "all reasons for which a packet is dropped", text: include_str!("drops.md") },
    Chapter {
        name: "troubleshooting",
        about: "from what one sees to what to do",
        text: include_str!("troubleshooting.md"),
    },
    Chapter { name: "json", about: "what programs can read", text: include_str!("json.md") },
    Chapter { name: "exit_codes", about: "what scripts can rely on", text: include_str!("exit_codes.md") },
    Chapter {
        name: "performance",
        about: "what a packet costs, where that goes, and what was tried",
        text: include_str!("performance.md"),
    },
    Chapter {
        name: "metrics",
        about: "what Prometheus can read, and probes for other load balancers and orchestrators",
        text: include_str!("metrics.md"),
    },
    Chapter {
        name: "requirements",
        about: "the rules for packets, and the tests that show each of them",
        text: include_str!("requirements.md"),
    },
];

pub mod configuration {
    #![doc = include_str!("configuration.md")]
}

pub mod discovery {
    #![doc = include_str!("discovery.md")]
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

pub mod ha {
    #![doc = include_str!("ha.md")]
}

pub mod health {
    #![doc = include_str!("health.md")]
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

pub mod metrics {
    #![doc = include_str!("metrics.md")]
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

pub mod performance {
    #![doc = include_str!("performance.md")]
}

pub mod reload {
    #![doc = include_str!("reload.md")]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chapter_can_be_printed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/manual");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".md")?.to_owned()))
            .collect();
        let mut names: Vec<_> = CHAPTERS.iter().map(|chapter| chapter.name.to_owned()).collect();
        files.sort_unstable();
        names.sort_unstable();
        assert_eq!(names, files);
    }
}
