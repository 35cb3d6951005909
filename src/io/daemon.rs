//! The daemon put together: the TUN, its routes, the packet workers, the announcer.

mod events;
mod pair;
mod start;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use mio::{Registry, Token};

use super::addresses::{Watched, own_addresses};
use super::announce::{Announcer, Presence};
use super::discovery::{Discoverer, Heard};
use super::duty::Duty;
use super::key_file;
use super::netlink::Prefix;
use super::peer::Pair;
use super::probe::Prober;
use super::replication::Replication;
use super::routes::Routes;
use super::segmenting::Segmenting;
use super::serve::http::{self, Http};
use super::state::StateDir;
use super::steering::Steering;
use super::sys;
use super::tun::{Offloads, Tun, TunConfig};
use super::tun_port::TunPort;
use super::unreachable::Unreachable;
use super::words::{in_words, with_remedy};
use super::worker::{Mailbox, Worker};
use crate::config::Snapshot;
use crate::control::discovery::Kept;
use crate::control::ha::Epoch;
use crate::control::ha::keys::KeyRing;
use crate::control::health::Change;
use crate::control::history::{History, Source};
use crate::control::overrides::Overrides;
use crate::control::{Controller, Health};
use crate::engine::conntrack::FlowRef;
use crate::engine::{Engine, Instant, Shared, WorkerId};
use pair::{TEXT_ROOM, random_boot};
use start::{random_seed, refuse_kept, warn_of_closed_doors, worker_count};

pub use start::{StartError, admit};

/// Files of the state folder.
const OVERRIDES: &str = "overrides.json";
const HISTORY: &str = "history.json";
const FOUND: &str = "discovered.json";

/// A running gateway. Dropping it stops the workers and removes the TUN, and with it the routes.
#[derive(Debug)]
pub struct Daemon {
    controller: Controller,
    /// Talks to the other gateway, if there is one. Ends while workers still do what it says.
    pair: Option<Pair>,
    /// Before it begins to.
    keys: Option<KeyRing>,
    /// Another number for each start; not 0, which stands for one that is not known.
    boot: u64,
    replication: Option<Replication>,
    duty: Option<Arc<Duty>>,
    presence: Arc<Presence>,
    kept_epoch: Epoch,
    /// Of the configuration that the peer was told of.
    told_generation: u64,
    /// Asks the backends how they are, as long as it lives.
    prober: Prober,
    mailboxes: Arc<[Mailbox]>,
    workers: Vec<JoinHandle<io::Result<()>>>,
    /// Answers for our addresses as long as it lives.
    announcer: Option<Announcer>,
    state: StateDir,
    discoverer: Discoverer,
    http: Option<Http>,
    routes: Option<Routes>,
    /// If there are several workers.
    steering: Option<Steering>,
    addresses: Watched,
    unreachable: Unreachable,
    tun: Tun,
}

impl Daemon {
    /// Creates the TUN, adds the routes and starts the workers, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind.
    pub fn start(snapshot: Snapshot, offloads: Offloads) -> Result<Self, StartError> {
        refuse_kept(&snapshot)?;
        warn_of_closed_doors(&snapshot);
        let keys = snapshot.ha.as_ref().map(|ha| key_file::load(&ha.key_file)).transpose().map_err(StartError::Keys)?;
        let presence = Arc::new(Presence::new(keys.is_none()).map_err(StartError::System)?);
        let count = worker_count(snapshot.gateway.workers);
        let gateway = &snapshot.gateway;
        let config = TunConfig { name: &gateway.interface, mtu: gateway.mtu, queues: count, offloads };
        let (tun, queues) = Tun::create(&config).map_err(StartError::Tun)?;
        let steering = Steering::of(&queues).map_err(StartError::System)?;
        steer(steering.as_ref(), &snapshot);
        let addresses = own_addresses(&snapshot);
        let routes = gateway.routes.then(|| Routes::add(&tun, addresses.clone()));
        let routes = routes.transpose().map_err(StartError::Route)?;
        let announcer = match gateway.announce_on.as_slice() {
            [] => None,
            interfaces => {
                let announcer = Announcer::start(interfaces, &addresses, Arc::clone(&presence));
                Some(announcer.map_err(StartError::Announce)?)
            }
        };
        let watched = Watched::start(&snapshot).map_err(StartError::Addresses)?;
        let duty = keys.as_ref().map(|_| Duty::new(count).map(Arc::new)).transpose().map_err(StartError::System)?;
        let shared = Shared::new(snapshot, count, random_seed());
        let mailboxes: Result<Arc<[Mailbox]>, _> = (0..count).map(|_| Mailbox::new()).collect();
        let mailboxes = mailboxes.map_err(StartError::System)?;
        let epoch = sys::wall_clock().saturating_sub(sys::now().since(Instant::ZERO));
        let controller = Controller::new(Arc::clone(&shared), epoch);
        let record = Arc::clone(controller.checks());
        let prober = Prober::start(Arc::clone(&shared), Arc::clone(&mailboxes), record).map_err(StartError::System)?;
        let discoverer = Discoverer::new().map_err(StartError::System)?;
        let boot = random_boot().map_err(StartError::System)?;
        let (replication, lanes) = keys.as_ref().map(|_| Replication::new(count, TEXT_ROOM, boot)).unzip();
        let mut lanes = lanes.into_iter().flatten();
        let mut daemon = Self {
            controller,
            pair: None,
            keys,
            boot,
            replication,
            duty,
            presence,
            kept_epoch: Epoch::ZERO,
            told_generation: 0,
            prober,
            mailboxes,
            workers: Vec::new(),
            announcer,
            state: StateDir::none(),
            discoverer,
            http: None,
            routes,
            steering,
            addresses: watched,
            unreachable: Unreachable::default(),
            tun,
        };
        for (id, queue) in (0..count).map(WorkerId).zip(queues) {
            let engine = Engine::new(&shared, id, sys::now());
            let port = Segmenting::new(TunPort::new(queue, daemon.tun.offloads()));
            let worker = Worker::new(id, port, engine, Arc::clone(&daemon.mailboxes));
            let worker = match (&daemon.duty, lanes.next()) {
                (Some(duty), Some(lane)) => worker.on_duty(Arc::clone(duty), lane),
                _ => worker,
            };
            let thread = sys::spawn(&format!("worker-{}", id.0), move || worker.run());
            daemon.workers.push(thread.map_err(StartError::System)?);
        }
        log::info!("serving on {}: {count} worker(s), offloads: {}", daemon.tun.name(), daemon.tun.offloads());
        Ok(daemon)
    }

    /// What the workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        self.controller.shared()
    }

    /// Who decides what each backend is for new flows.
    pub const fn controller(&mut self) -> &mut Controller {
        &mut self.controller
    }

    /// Serves metrics and probes where the configuration says, if it does.
    ///
    /// # Errors
    /// The address is taken, or not this machine's; a sentence.
    pub fn serve_http(&mut self) -> Result<(), String> {
        let Some(address) = self.controller.snapshot().gateway.metrics_listen else { return Ok(()) };
        let http = Http::bind(address);
        self.http = Some(http.map_err(|error| format!("cannot serve metrics on {address}: {}", in_words(&error)))?);
        Ok(())
    }

    /// Puts what serves metrics under the eyes of a poll.
    ///
    /// # Errors
    /// No memory or watches left.
    pub fn register_http(&mut self, registry: &Registry, first: Token) -> io::Result<()> {
        self.http.as_mut().map_or(Ok(()), |http| http.register(registry, first))
    }

    /// Answers who asks for metrics.
    pub fn handle_http(&mut self, registry: &Registry, token: Token) {
        self.look_at_pair();
        if let Some(http) = &mut self.http {
            http.handle(registry, token, sys::now(), &mut |path| http::page(&self.controller, path, sys::now()));
        }
    }

    /// Goes on where the gateway was when it ended, as far as the folder tells, and keeps there what is to outlive it.
    pub fn remember(&mut self, state: StateDir, source: Source) {
        let now = sys::now();
        let history = read(&state, HISTORY, History::from_text);
        self.controller.begin(source, &sys::host_name(), history, now);
        self.controller.restore(read(&state, OVERRIDES, Overrides::from_text), now);
        self.controller.restore_found(read(&state, FOUND, Kept::from_text), now);
        self.state = state;
        self.handle_timeout();
    }

    /// When [`Self::handle_timeout`] wants to be called, if at all.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.controller.poll_timeout()
    }

    /// Does what has become due in the slow state.
    pub fn handle_timeout(&mut self) {
        let now = sys::now();
        for Heard { service, asked, answer } in self.discoverer.answers() {
            self.controller.hear(service, &asked, answer, now);
        }
        for Change { backend, up, reason } in self.prober.changes() {
            let health = up.map_or(Health::Unknown, |up| if up { Health::Up } else { Health::Down });
            self.controller.observe(backend, health, reason.map(|reason| reason.to_string()), now);
        }
        self.controller.handle_timeout(now);
        let effects = self.controller.effects();
        if effects.policy {
            self.mailboxes.iter().for_each(Mailbox::wake);
            self.prober.adopt(self.controller.snapshot());
        }
        if effects.addresses {
            self.follow_addresses();
        }
        if effects.overrides {
            self.state.write(OVERRIDES, &self.controller.overrides().to_text());
        }
        if effects.history {
            self.state.write(HISTORY, &self.controller.history().to_text());
        }
        if effects.found {
            let kept = self.controller.sources().to_keep(&self.controller.snapshot());
            self.state.write(FOUND, &kept.to_text());
        }
        if effects.sources {
            self.discoverer.follow(self.controller.sources().wanted());
        }
        let events = self.controller.events();
        if !events.is_empty() {
            self.follow(&events);
        }
        self.follow_pair();
    }

    /// Readable when something is to be told: that a backend is another than it was, or what a source has answered. Then
    /// [`Self::handle_timeout`] takes it.
    pub fn news(&self) -> [BorrowedFd<'_>; 2] {
        [self.prober.as_fd(), self.discoverer.as_fd()]
    }

    /// Steering, routes and announcements are those of the snapshot in force.
    fn follow_addresses(&mut self) {
        let snapshot = self.controller.snapshot();
        steer(self.steering.as_ref(), &snapshot);
        let addresses = own_addresses(&snapshot);
        if let Some(routes) = &mut self.routes
            && let Err(error) = routes.set(addresses.clone())
        {
            log::error!("the routes to the TUN are not those of the configuration: {error}");
        }
        self.announce(&snapshot.gateway.announce_on, &addresses);
    }

    fn announce(&mut self, interfaces: &[String], addresses: &[Prefix]) {
        if interfaces.is_empty() {
            self.announcer = None;
        } else if !self.announcer.as_ref().is_some_and(|announcer| announcer.is_for(interfaces, addresses)) {
            match Announcer::start_again(interfaces, addresses, Arc::clone(&self.presence)) {
                Ok(announcer) => self.announcer = Some(announcer),
                Err(error) => log::error!("addresses are announced as before, not as configured: {error}"),
            }
        }
    }

    /// What ends a flow: its owner does, a moment later.
    pub fn flow_ender(&self) -> impl Fn(FlowRef) + use<> {
        let mailboxes = Arc::clone(&self.mailboxes);
        move |flow| {
            mailboxes[usize::from(flow.owner().0)].end_flow(flow);
        }
    }

    /// From now on no new flow is taken; those there are go on.
    pub fn stop_new_flows(&mut self) {
        self.controller.close();
        self.handle_timeout();
    }

    /// Whether a flow still carries something.
    pub fn has_flows_in_use(&self) -> bool {
        let now = sys::now();
        self.shared().table.any(|flow| flow.carries(now))
    }

    /// How many flows still carry something.
    pub fn flows_in_use(&self) -> u32 {
        let (now, mut count) = (sys::now(), 0);
        self.shared().table.for_each(|flow| count += u32::from(flow.carries(now)));
        count
    }

    /// The routes to the TUN, if they are ours to keep.
    pub fn routes(&mut self) -> Option<&mut Routes> {
        self.routes.as_mut()
    }

    /// Readable when an address of this machine has come or gone: then look at it.
    pub fn addresses(&self) -> &Watched {
        &self.addresses
    }

    /// Tells the log which of the gateway's addresses have become the machine's own, or are so no more.
    pub fn look_at_addresses(&mut self) {
        self.addresses.look(&self.controller.shared().policy.load().snapshot);
    }

    /// Tells the log of backends whose tunnels lead nowhere.
    pub fn look_at_tunnels(&mut self) {
        self.unreachable.look(self.controller.shared(), sys::now());
    }

    /// A worker that has stopped by itself, and why: the TUN was taken away.
    pub fn failure(&mut self) -> Option<io::Error> {
        let ended = self.workers.iter().position(JoinHandle::is_finished)?;
        match self.workers.swap_remove(ended).join() {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(io::Error::other("a packet worker panicked: this is a bug of tungate")),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // First of all, so that the other one serves before this one does no more.
        self.pair = None;
        for mailbox in self.mailboxes.iter() {
            mailbox.stop();
        }
        for worker in self.workers.drain(..) {
            if let Ok(Err(error)) = worker.join() {
                log::warn!("a packet worker ended: {}", in_words(&error));
            }
        }
    }
}

fn steer(steering: Option<&Steering>, snapshot: &Snapshot) {
    if let Some(Err(error)) = steering.map(|steering| steering.follow(snapshot)) {
        log::warn!(
            "the kernel takes no steering program ({}): packets are handed from worker to worker, which is slower",
            with_remedy(&error)
        );
    }
}

/// What was kept under this name; nothing if it cannot be understood, which is told.
fn read<T: Default>(state: &StateDir, name: &str, parse: fn(&str) -> Result<T, String>) -> T {
    let Some(text) = state.read(name) else { return T::default() };
    parse(&text).unwrap_or_else(|why| {
        log::warn!(name; "what was kept is not used: {why}");
        T::default()
    })
}
