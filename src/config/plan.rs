//! From one configuration to the next: what changes, and what becomes of the flows.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use super::{
    Affinity, Backend, BackendId, Gateway, Ha, Limits, Mode, Rate, Service, ServiceId, Snapshot, Timeouts, Workers,
};

mod health;

/// All changes, in the order of the new file; what is removed last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// One line each.
    pub changes: Vec<Change>,
}

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When it takes effect, and for whom.
    pub effect: Effect,
    /// What changes: `service web`, `backend web/b1`, `timeouts`, `gateway`.
    pub subject: String,
    /// How: `weight 1 -> 5`.
    pub text: String,
}

/// When a change takes effect, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Something new.
    Added,
    /// Something is gone: no new flows, those there are go on to their end.
    Drained,
    /// At once, for all flows.
    InPlace,
    /// New flows go by it; those there are keep their way.
    NewFlows,
    /// When the daemon is started again: until then the old value holds.
    Restart,
}

impl Effect {
    /// `+`, `-` or `~`.
    pub const fn sign(self) -> char {
        match self {
            Self::Added => '+',
            Self::Drained => '-',
            Self::InPlace | Self::NewFlows | Self::Restart => '~',
        }
    }

    /// The name in listings and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Drained => "drained",
            Self::InPlace => "in-place",
            Self::NewFlows => "new-flows",
            Self::Restart => "restart",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { effect, subject, text } = self;
        write!(f, "{} {subject}{}{text}", effect.sign(), if text.is_empty() { "" } else { ": " })
    }
}

/// What it takes to go from `old` to `new`, which was loaded after it.
pub fn plan(old: &Snapshot, new: &Snapshot) -> Plan {
    let mut plan = Plan::default();
    plan.compare("gateway", &gateway(&old.gateway), &gateway(&new.gateway));
    plan.compare("ha", &ha(old.ha.as_ref()), &ha(new.ha.as_ref()));
    plan.compare("timeouts", &timeouts(&old.timeouts), &timeouts(&new.timeouts));
    for service in &new.services {
        match old.services.iter().find(|known| known.id == service.id) {
            None => plan.add_service(new, service),
            Some(known) => plan.change_service((old, known), (new, service)),
        }
    }
    let kept: HashSet<ServiceId> = new.services.iter().map(|service| service.id).collect();
    for service in old.services.iter().filter(|service| !kept.contains(&service.id)) {
        plan.push(Effect::Drained, format!("service {}", service.name), String::new());
    }
    plan
}

/// Something that can be changed: its name, its value in words, and when another one takes effect.
type Field = (&'static str, String, Effect);

impl Plan {
    /// Whether something waits for a restart.
    pub fn needs_restart(&self) -> bool {
        self.changes.iter().any(|change| change.effect == Effect::Restart)
    }

    fn push(&mut self, effect: Effect, subject: String, text: String) {
        self.changes.push(Change { effect, subject, text });
    }

    /// The fields of both are the same ones.
    fn compare(&mut self, subject: &str, old: &[Field], new: &[Field]) {
        for ((name, before, _), (_, after, effect)) in old.iter().zip(new).filter(|(old, new)| old.1 != new.1) {
            self.push(*effect, subject.to_owned(), format!("{name} {before} -> {after}"));
        }
    }

    fn add_service(&mut self, new: &Snapshot, added: &Service) {
        let listen: Vec<_> = added.listen.iter().map(ToString::to_string).collect();
        self.push(Effect::Added, format!("service {}", added.name), listen.join(", "));
        for (_, backend) in new.backends_of(added.id) {
            self.add_backend(added, backend);
        }
    }

    fn add_backend(&mut self, service: &Service, backend: &Backend) {
        self.push(Effect::Added, format!("backend {}/{}", service.name, backend.name), backend.place());
    }

    fn change_service(&mut self, (old, before): (&Snapshot, &Service), (new, after): (&Snapshot, &Service)) {
        let (said, subject) = (self.changes.len(), format!("service {}", after.name));
        for listen in after.listen.iter().filter(|listen| !before.listen.contains(listen)) {
            self.push(Effect::Added, subject.clone(), format!("listen {listen}"));
        }
        for listen in before.listen.iter().filter(|listen| !after.listen.contains(listen)) {
            self.push(Effect::Drained, subject.clone(), format!("listen {listen}"));
        }
        self.compare(&subject, &service(before), &service(after));
        let unmoved = Service { backends: before.backends.clone(), ..after.clone() };
        if unmoved != *before && self.changes.len() == said {
            // All else is among the fields.
            self.push(Effect::InPlace, subject, "listen in another order".to_owned());
        }
        let known: HashSet<BackendId> = before.backends.iter().copied().collect();
        for (id, backend) in new.backends_of(after.id) {
            if !known.contains(&id) {
                self.add_backend(after, backend);
                continue;
            }
            let subject = format!("backend {}/{}", after.name, backend.name);
            self.compare(&subject, &fields(old.backend(id)), &fields(backend));
        }
        let kept: HashSet<BackendId> = after.backends.iter().copied().collect();
        for (_, backend) in old.backends_of(before.id).filter(|(id, _)| !kept.contains(id)) {
            self.push(Effect::Drained, format!("backend {}/{}", before.name, backend.name), backend.place());
        }
    }
}

/// What is said between the two gateways holds from the start to the end. Only the keys are read again by every reload.
fn ha(ha: Option<&Ha>) -> Vec<Field> {
    let Some(Ha { role, priority, paths, key_file, profile, split_brain }) = ha else {
        return vec![("peer", "none".to_owned(), Effect::Restart)];
    };
    let paths: Vec<_> = paths.iter().map(|path| format!("{} - {}", path.listen, path.peer)).collect();
    vec![
        ("peer", paths.join(", "), Effect::Restart),
        ("role", format!("{role:?}").to_lowercase(), Effect::Restart),
        ("priority", priority.to_string(), Effect::Restart),
        ("key-file", key_file.display().to_string(), Effect::Restart),
        ("profile", format!("{profile:?}").to_lowercase(), Effect::Restart),
        ("split-brain", format!("{split_brain:?}").to_lowercase(), Effect::Restart),
    ]
}

fn service(service: &Service) -> Vec<Field> {
    // What is not here is the service's identity, or has lines of its own.
    let Service {
        id: _,
        name: _,
        listen: _,
        protocol: _,
        backends: _,
        mode,
        balance,
        limits,
        affinity: by,
        discovery,
        health,
        passive,
    } = service;
    let Limits { new_flows, new_flows_per_client, max_flows } = limits;
    let mut fields = vec![
        ("mode", way(*mode), Effect::NewFlows),
        ("balance", balance.name().to_owned(), Effect::NewFlows),
        ("affinity", affinity(*by), Effect::NewFlows),
        ("discovery", health::discovery(discovery.as_ref()), Effect::InPlace),
        ("new-flows", rate(*new_flows), Effect::InPlace),
        ("new-flows-per-client", rate(*new_flows_per_client), Effect::InPlace),
        ("max-flows", number(*max_flows), Effect::InPlace),
        ("passive", health::passive(*passive), Effect::InPlace),
    ];
    fields.extend(health::fields(health));
    fields
}

fn fields(backend: &Backend) -> Vec<Field> {
    vec![
        ("weight", backend.weight.to_string(), Effect::NewFlows),
        ("backup", backend.backup.to_string(), Effect::NewFlows),
    ]
}

fn gateway(gateway: &Gateway) -> Vec<Field> {
    let sources: Vec<_> = gateway.source_addresses.iter().map(ToString::to_string).collect();
    let listen = gateway.metrics_listen.map_or_else(|| "none".to_owned(), |address| address.to_string());
    let workers = match gateway.workers {
        Workers::Auto => "auto".to_owned(),
        Workers::Count(count) => count.to_string(),
    };
    vec![
        ("name", gateway.name.clone(), Effect::InPlace),
        ("source-addresses", sources.join(", "), Effect::NewFlows),
        ("interface", gateway.interface.clone(), Effect::Restart),
        ("mtu", gateway.mtu.to_string(), Effect::Restart),
        ("workers", workers, Effect::Restart),
        ("announce-on", gateway.announce_on.join(", "), Effect::InPlace),
        ("routes", gateway.routes.to_string(), Effect::Restart),
        ("admin-socket", gateway.admin_socket.display().to_string(), Effect::Restart),
        ("state-dir", gateway.state_dir.display().to_string(), Effect::Restart),
        ("metrics-listen", listen, Effect::Restart),
        ("max-flows", gateway.max_flows.to_string(), Effect::Restart),
    ]
}

fn timeouts(timeouts: &Timeouts) -> Vec<Field> {
    let of = |name, timeout: Duration| (name, format!("{timeout:?}"), Effect::InPlace);
    vec![
        of("tcp-syn-sent", timeouts.tcp_syn_sent),
        of("tcp-syn-received", timeouts.tcp_syn_received),
        of("tcp-established", timeouts.tcp_established),
        of("tcp-closing", timeouts.tcp_closing),
        of("tcp-time-wait", timeouts.tcp_time_wait),
        of("tcp-close", timeouts.tcp_close),
        of("udp", timeouts.udp),
        of("udp-unreplied", timeouts.udp_unreplied),
        of("fragment-v4", timeouts.fragment_v4),
        of("fragment-v6", timeouts.fragment_v6),
    ]
}

fn way(mode: Mode) -> String {
    match mode {
        Mode::Nat { source_nat } => format!("nat, source-nat = {source_nat}"),
        Mode::Dsr { encapsulation } => format!("dsr, encapsulation = {encapsulation:?}").to_lowercase(),
    }
}

fn affinity(affinity: Option<Affinity>) -> String {
    affinity.map_or_else(
        || "none".to_owned(),
        |Affinity { timeout, max_clients }| format!("client-ip, for {timeout:?}, of {max_clients} clients"),
    )
}

fn rate(rate: Option<Rate>) -> String {
    rate.map_or_else(|| "none".to_owned(), |Rate { events, seconds }| format!("{events} in {seconds} s"))
}

fn number(number: Option<u32>) -> String {
    number.map_or_else(|| "none".to_owned(), |number| number.to_string())
}

impl Snapshot {
    /// Keeps what a running gateway cannot change: [`Effect::Restart`].
    #[must_use]
    pub fn restrained_by(mut self, running: &Self) -> Self {
        let Gateway { name, source_addresses, announce_on, .. } = self.gateway;
        self.gateway = Gateway { name, source_addresses, announce_on, ..running.gateway.clone() };
        self.ha = running.ha.clone();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    const OLD: &str = "
        [gateway]
        source-addresses = ['10.99.0.10']
        [[service]]
        name = 'web'
        listen = ['192.0.2.1:80', '192.0.2.2:80']
        backends = [{ name = 'b1', address = '10.0.0.1:8080' }, { name = 'b2', address = '10.0.0.2:8080', weight = 2 }]
        [service.limits]
        new-flows = '5k/s'
        [[service]]
        name = 'dns'
        listen = '192.0.2.1:53'
        protocol = 'udp'
        backends = [{ address = '10.0.0.3' }]
    ";

    fn lines(new: &str) -> Vec<String> {
        let old = load(OLD, "old.toml", None, "gw").unwrap();
        let new = load(new, "new.toml", Some(&old), "gw").unwrap_or_else(|report| panic!("{report}"));
        plan(&old, &new).changes.iter().map(|change| format!("{change} ({})", change.effect.name())).collect()
    }

    #[test]
    fn the_same_again_changes_nothing() {
        assert_eq!(lines(OLD), [""; 0]);
        assert_eq!(lines(&OLD.replace("'web'", "\"web\"")), [""; 0]);
    }

    #[test]
    fn every_change_is_a_line() {
        let new = OLD
            .replace("10.0.0.1:8080", "10.0.0.9:8080")
            .replace("weight = 2", "weight = 5, backup = true")
            .replace("'192.0.2.2:80'", "'192.0.2.3:80'")
            .replace("5k/s", "30/m")
            .replace("'web'", "'web'\nbalance = 'random'")
            .replace("[gateway]", "[timeouts]\nudp = '200s'\n[gateway]\nmtu = 1400\nmax-flows = 7");
        assert_eq!(
            lines(&new),
            [
                "~ gateway: mtu 1500 -> 1400 (restart)",
                "~ gateway: max-flows 1000000 -> 7 (restart)",
                "~ timeouts: udp 300s -> 200s (in-place)",
                "+ service web: listen 192.0.2.3:80 (added)",
                "- service web: listen 192.0.2.2:80 (drained)",
                "~ service web: balance maglev -> random (new-flows)",
                "~ service web: new-flows 5000 in 1 s -> 30 in 60 s (in-place)",
                "+ backend web/b1: 10.0.0.9:8080 (added)",
                "~ backend web/b2: weight 2 -> 5 (new-flows)",
                "~ backend web/b2: backup false -> true (new-flows)",
                "- backend web/b1: 10.0.0.1:8080 (drained)",
            ]
        );
    }

    #[test]
    fn another_protocol_is_another_service() {
        assert_eq!(
            lines(&OLD.replace("protocol = 'udp'", "")),
            [
                "+ service dns: 192.0.2.1:53 (added)",
                "+ backend dns/10.0.0.3: 10.0.0.3 (added)",
                "- service dns (drained)"
            ]
        );
    }

    #[test]
    fn how_backends_are_found_and_asked_is_said_key_by_key() {
        let new = OLD.replace(
            "[service.limits]",
            "[service.health]
             check = 'http'
             path = '/ok'
             expect = 204
             interval = '5s'
             fall = 1
             port = 81
             on-down = 'reset'
             slow-start = '30s'
             panic-threshold = 40
             [service.passive]
             eject-for = '10s'
             [service.discovery]
             source = 'dns'
             name = 'web.test'
             port = 8080
             resolver = '10.0.0.53'
             [service.limits]",
        );
        let expected = [
            "discovery none -> dns A web.test, port 8080, from 10.0.0.53:53",
            "passive none -> after 5 failures for 10s, 50 % at most",
            "health check tcp -> http /ok, status 204",
            "health interval 2s -> 5s",
            "health fall 3 -> 1",
            "health port none -> 81",
            "health on-down keep -> reset",
            "health slow-start 0ns -> 30s",
            "health panic-threshold 0 -> 40",
        ];
        assert_eq!(lines(&new), expected.map(|line| format!("~ service web: {line} (in-place)")));
    }

    #[test]
    fn no_difference_goes_unsaid() {
        let swapped = OLD.replace("['192.0.2.1:80', '192.0.2.2:80']", "['192.0.2.2:80', '192.0.2.1:80']");
        assert_eq!(lines(&swapped), ["~ service web: listen in another order (in-place)"]);
    }

    #[test]
    fn what_needs_a_restart_waits_for_it() {
        let old = load(OLD, "old.toml", None, "gw").unwrap();
        let text = OLD.replace("[gateway]", "[gateway]\nname = 'b'\nmtu = 1400\nannounce-on = ['eth1']");
        let new = load(&text, "new.toml", Some(&old), "gw").unwrap();
        assert!(plan(&old, &new).needs_restart());
        let applied = new.restrained_by(&old);
        assert_eq!((applied.gateway.mtu, applied.gateway.name.as_str()), (1500, "b"));
        assert_eq!(applied.gateway.announce_on, ["eth1"]);
        let again = load(&text, "new.toml", Some(&applied), "gw").unwrap();
        assert_eq!(plan(&applied, &again).changes.len(), 1, "the file still has another MTU");
    }
}
