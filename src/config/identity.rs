//! What stays the same from one configuration to the next: flows, counters and limits hold ids, and outlive reloads.
//!
//! A service is the same if its name, its protocol and its mode are; a backend if its service, its name, its address and
//! its port are (the scheduler knows it by the last three). What a configuration no longer has keeps its id, and stays in
//! [`Retired`], for as long as a flow is its: [`Snapshot::without`] says when that is over.

use std::collections::{HashMap, HashSet};

use super::{Backend, BackendId, Carried, Mode, Service, ServiceId, Snapshot};
use crate::wire::{Address, Prefix};

/// What the configuration no longer has, but flows still may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retired {
    /// Services, those with backends that have flows among them.
    pub services: Vec<Service>,
    /// Backends, of these services and of others.
    pub backends: Vec<Backend>,
    /// VIPs and source addresses.
    pub addresses: Vec<Prefix>,
}

impl Retired {
    /// Whether there is nothing.
    pub const fn is_empty(&self) -> bool {
        self.services.is_empty() && self.backends.is_empty() && self.addresses.is_empty()
    }

    /// What `previous` has, or had itself retired, and the new configuration has not.
    pub(super) fn between(
        previous: &Snapshot,
        services: &[Service],
        backends: &[Backend],
        addresses: &HashSet<Prefix>,
    ) -> Self {
        let kept: HashSet<_> = services.iter().map(|service| service.id).collect();
        let gone_services = previous.all_services().filter(|service| !kept.contains(&service.id));
        let kept: HashSet<_> = backends.iter().map(|backend| backend.id).collect();
        let gone_backends = previous.all_backends().filter(|backend| !kept.contains(&backend.id));
        let own = previous.addresses().map(|(prefix, _)| prefix);
        let mut gone: Vec<_> = own.chain(previous.retired.addresses.iter().copied()).collect();
        gone.retain(|prefix| !addresses.contains(prefix));
        gone.sort_unstable_by_key(|prefix| (prefix.address(), prefix.length()));
        gone.dedup();
        Self { services: gone_services.cloned().collect(), backends: gone_backends.cloned().collect(), addresses: gone }
    }
}

/// The modes that tell services apart: flows of the one cannot be the other's.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Way {
    Nat,
    Dsr,
}

impl From<Mode> for Way {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Nat { .. } => Self::Nat,
            Mode::Dsr { .. } => Self::Dsr,
        }
    }
}

/// Gives out ids: the old one to what the previous configuration knows, a free one to what is new.
pub(super) struct Ids<'a> {
    services: HashMap<(&'a str, Carried, Way), ServiceId>,
    backends: HashMap<(ServiceId, &'a str, Address, Option<u16>), BackendId>,
    free_services: Free,
    free_backends: Free,
}

impl<'a> Ids<'a> {
    pub(super) fn after(previous: Option<&'a Snapshot>) -> Self {
        let services = || previous.into_iter().flat_map(Snapshot::all_services);
        let backends = || previous.into_iter().flat_map(Snapshot::all_backends);
        Self {
            services: services().map(|s| ((s.name.as_str(), s.protocol, s.mode.into()), s.id)).collect(),
            backends: backends().map(|b| ((b.service, b.name.as_str(), b.address, b.port), b.id)).collect(),
            free_services: Free::besides(services().map(|service| service.id.0)),
            free_backends: Free::besides(backends().map(|backend| backend.id.0)),
        }
    }

    /// `None` if none is left. The same identity is asked for once: names are unique, or the configuration is refused.
    pub(super) fn service(&mut self, name: &str, protocol: Carried, mode: Mode) -> Option<ServiceId> {
        self.services.get(&(name, protocol, mode.into())).copied().or_else(|| self.free_services.next().map(ServiceId))
    }

    /// `None` if none is left.
    pub(super) fn backend(
        &mut self,
        service: ServiceId,
        name: &str,
        address: Address,
        port: Option<u16>,
    ) -> Option<BackendId> {
        self.backends.get(&(service, name, address, port)).copied().or_else(|| self.free_backends.next().map(BackendId))
    }
}

/// The ids that nothing has, lowest first.
struct Free {
    taken: HashSet<u16>,
    next: u16,
}

impl Free {
    fn besides(taken: impl Iterator<Item = u16>) -> Self {
        Self { taken: taken.collect(), next: 0 }
    }
}

impl Iterator for Free {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        while self.taken.contains(&self.next) {
            self.next = self.next.checked_add(1)?;
        }
        let id = self.next;
        self.next = self.next.checked_add(1)?;
        Some(id)
    }
}

/// Where each id stands: among the present ones, then among the retired.
#[derive(Clone, Debug)]
pub(super) struct Places {
    services: Box<[u16]>,
    backends: Box<[u16]>,
}

/// Stands for an id that is free.
const NOWHERE: u16 = u16::MAX;

impl Places {
    pub(super) fn new(services: &[Service], backends: &[Backend], retired: &Retired) -> Self {
        Self {
            services: places(services.iter().chain(&retired.services).map(|service| service.id.0)),
            backends: places(backends.iter().chain(&retired.backends).map(|backend| backend.id.0)),
        }
    }

    pub(super) fn service(&self, id: ServiceId) -> Option<usize> {
        place(&self.services, id.0)
    }

    pub(super) fn backend(&self, id: BackendId) -> Option<usize> {
        place(&self.backends, id.0)
    }
}

fn places(ids: impl Iterator<Item = u16> + Clone) -> Box<[u16]> {
    let mut places = vec![NOWHERE; ids.clone().max().map_or(0, |highest| usize::from(highest) + 1)];
    for (id, place) in ids.zip(0..) {
        places[usize::from(id)] = place;
    }
    places.into()
}

fn place(places: &[u16], id: u16) -> Option<usize> {
    places.get(usize::from(id)).copied().filter(|place| *place != NOWHERE).map(usize::from)
}

impl Snapshot {
    /// All services, those that are only retired last.
    pub fn all_services(&self) -> impl Iterator<Item = &Service> + Clone {
        self.services.iter().chain(&self.retired.services)
    }

    /// All backends, those that are only retired last.
    pub fn all_backends(&self) -> impl Iterator<Item = &Backend> + Clone {
        self.backends.iter().chain(&self.retired.backends)
    }

    /// The same configuration, of whose retired parts only those are left that are still in use: the other ids are free.
    /// A retired service is in use as long as one of its backends is.
    #[must_use]
    pub fn without(&self, backend_in_use: impl Fn(BackendId) -> bool, address_in_use: impl Fn(Prefix) -> bool) -> Self {
        let mut snapshot = self.clone();
        let retired = &mut snapshot.retired;
        retired.backends.retain(|backend| backend_in_use(backend.id));
        let used: HashSet<_> = retired.backends.iter().map(|backend| backend.service).collect();
        retired.services.retain(|service| used.contains(&service.id));
        retired.addresses.retain(|address| address_in_use(*address));
        snapshot.places = Places::new(&snapshot.services, &snapshot.backends, &snapshot.retired);
        snapshot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn after(previous: Option<&Snapshot>, services: &[(&str, &str, &[&str])]) -> Snapshot {
        let mut text = "[gateway]\nsource-addresses = ['10.99.0.10']\n".to_owned();
        for (n, (name, lines, backends)) in services.iter().enumerate() {
            let backends: Vec<_> = backends.iter().map(|address| format!("{{ address = '{address}' }}")).collect();
            let listen = format!("192.0.2.{}:80", n + 1);
            text += &format!(
                "[[service]]\nname = '{name}'\nlisten = '{listen}'\n{lines}\nbackends = [{}]\n",
                backends.join(", ")
            );
        }
        load(&text, "test.toml", previous, "gw").unwrap_or_else(|report| panic!("{report}"))
    }

    fn ids(snapshot: &Snapshot) -> (Vec<u16>, Vec<u16>) {
        let services = snapshot.all_services().map(|service| service.id.0).collect();
        (services, snapshot.all_backends().map(|backend| backend.id.0).collect())
    }

    #[test]
    fn what_is_the_same_keeps_its_id_wherever_it_stands() {
        let first = after(None, &[("web", "", &["10.0.0.1", "10.0.0.2"]), ("dns", "protocol = 'udp'", &["10.0.0.1"])]);
        assert_eq!(ids(&first), (vec![0, 1], vec![0, 1, 2]));
        let dns = ("dns", "protocol = 'udp'", &["10.0.0.1"][..]);
        let second = after(Some(&first), &[("new", "", &["10.0.0.9"]), dns, ("web", "", &["10.0.0.3", "10.0.0.2"])]);
        assert_eq!(second.generation, 2);
        let (services, backends) = ids(&second);
        assert_eq!(services, [2, 1, 0]);
        assert_eq!(backends, [3, 2, 4, 1, 0], "the removed one is last, and its id is not given away");
        assert_eq!(second.retired.backends[0].address.to_string(), "10.0.0.1");
        assert_eq!(second.backend(BackendId(1)).address.to_string(), "10.0.0.2");
        assert_eq!(second.service(ServiceId(0)).backends, [BackendId(4), BackendId(1)]);
    }

    #[test]
    fn another_protocol_or_mode_is_another_service_and_another_source_nat_is_not() {
        let first = after(None, &[("web", "", &["10.0.0.1"])]);
        for (lines, id) in
            [("source-nat = false", 0), ("balance = 'random'", 0), ("protocol = 'udp'", 1), ("mode = 'dsr'", 1)]
        {
            let second = after(Some(&first), &[("web", lines, &["10.0.0.1"])]);
            assert_eq!(second.services[0].id, ServiceId(id), "{lines}");
            assert_eq!(second.retired.services.len(), usize::from(id), "{lines}");
        }
    }

    #[test]
    fn an_id_is_given_again_only_when_nothing_is_left_of_what_had_it() {
        let first = after(None, &[("web", "", &["10.0.0.1", "10.0.0.2"])]);
        let second = after(Some(&first), &[("api", "", &["10.0.0.3"])]);
        assert_eq!(ids(&second), (vec![1, 0], vec![2, 0, 1]));
        let third = second.without(|id| id == BackendId(1), |_| false);
        assert_eq!(ids(&third), (vec![1, 0], vec![2, 1]));
        let fourth = after(Some(&third), &[("dns", "", &["10.0.0.4"]), ("web", "", &["10.0.0.2", "10.0.0.1"])]);
        assert_eq!(ids(&fourth), (vec![2, 0, 1], vec![0, 1, 3, 2]), "what comes back is what it was");
    }

    #[test]
    fn addresses_are_kept_as_well() {
        let first =
            load("[gateway]\nsource-addresses = ['10.99.0.10', '10.99.0.11']", "test.toml", None, "gw").unwrap();
        let second = after(Some(&first), &[]);
        let [left] = second.retired.addresses[..] else { panic!("one address") };
        assert_eq!(left.to_string(), "10.99.0.11/32");
        assert!(second.is_own(Address::v4([10, 99, 0, 11])));
        let third = second.without(|_| false, |_| false);
        assert!(third.retired.is_empty() && !third.is_own(Address::v4([10, 99, 0, 11])));
    }
}
