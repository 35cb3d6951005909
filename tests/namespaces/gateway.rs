//! The gateway under test: `tungate`, or the kernel's NAT as the control.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::lab::{Host, Lab};
use crate::process::{Output, PATIENCE, Running, wait_for};
use crate::servers::IPERF;

/// What stands between the clients and the backends of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Tungate { workers: u8 },
    Kernel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// Both kinds of NAT: the backend sees a gateway address (`source-nat = true`), or the client's (`false`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nat {
    Full,
    Destination,
}

/// One of the ways to run a case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) engine: Engine,
    pub(crate) family: Family,
    pub(crate) nat: Nat,
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.family == Family::V4 { "v4" } else { "v6" };
        let nat = if self.nat == Nat::Full { "full-nat" } else { "destination-nat" };
        match self.engine {
            Engine::Tungate { workers } => write!(f, "{family}/{nat}/workers-{workers}"),
            Engine::Kernel => write!(f, "{family}/{nat}/kernel"),
        }
    }
}

impl Setup {
    pub(crate) fn vip(&self) -> &'static str {
        self.pick("192.0.2.10", "2001:db8::10")
    }

    /// `ADDRESS:PORT` as in a URL.
    pub(crate) fn vip_with(&self, port: u16) -> String {
        match self.family {
            Family::V4 => format!("{}:{port}", self.vip()),
            Family::V6 => format!("[{}]:{port}", self.vip()),
        }
    }

    /// `ADDRESS:PORT` of backend `b1` or `b2`.
    pub(crate) fn at(&self, backend: &str, port: u16) -> String {
        let address = self.backend(backend);
        self.pick(format!("{address}:{port}"), format!("[{address}]:{port}"))
    }

    /// The address that a backend sees as the source of a client's packets.
    pub(crate) fn seen_source(&self) -> &'static str {
        match self.nat {
            Nat::Full => self.pick("10.99.0.10", "fd00:99::10"),
            Nat::Destination => self.pick("198.51.100.2", "2001:db8:1::2"),
        }
    }

    /// The address of backend `b1` or `b2`.
    pub(crate) fn backend(&self, name: &str) -> &'static str {
        match name {
            "b1" => self.pick("10.0.0.1", "fd00::1"),
            "b2" => self.pick("10.0.0.2", "fd00::2"),
            other => panic!("the lab has no backend {other}"),
        }
    }

    pub(crate) fn pick<T>(&self, v4: T, v6: T) -> T {
        if self.family == Family::V4 { v4 } else { v6 }
    }
}

/// A service of a case: the VIP's `port` goes to `to_port` of the backends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Service {
    pub(crate) protocol: &'static str,
    pub(crate) port: u16,
    pub(crate) to_port: u16,
    pub(crate) backends: &'static [&'static str],
}

/// Serves until it is dropped.
#[derive(Debug)]
pub(crate) enum Gateway<'a> {
    Tungate(Tungate<'a>),
    Kernel,
}

impl<'a> Gateway<'a> {
    /// Puts the engine of `setup` between the lab's client and the backends of the services.
    #[track_caller]
    pub(crate) fn start(lab: &'a Lab, setup: &Setup, services: &[Service]) -> Self {
        match setup.engine {
            Engine::Tungate { workers } => {
                let gateway = Tungate::start(lab, &tungate_toml(setup, workers, services));
                if setup.nat == Nat::Destination {
                    route_replies_through_the_gateway(lab, setup);
                }
                Self::Tungate(gateway)
            }
            Engine::Kernel => {
                start_kernel_nat(lab, setup, services);
                Self::Kernel
            }
        }
    }
}

/// A running `tungate run`.
#[derive(Debug)]
pub(crate) struct Tungate<'a> {
    host: Host<'a>,
    daemon: Running,
    socket: PathBuf,
}

impl<'a> Tungate<'a> {
    /// Starts the daemon with a configuration to which the lab's folders are added, and waits until it serves.
    #[track_caller]
    pub(crate) fn start(lab: &'a Lab, configuration: &str) -> Self {
        let mut gateway = Self::launch(lab, configuration);
        gateway.serves();
        gateway
    }

    /// The same on one of two gateways, with a folder of its own in the lab's, which may be there already.
    #[track_caller]
    pub(crate) fn start_on(host: Host<'a>, configuration: &str) -> Self {
        let folder = host.lab.folder().join(host.name);
        fs::create_dir_all(&folder).expect("the lab's folder takes folders");
        let mut gateway = Self::launch_in(host, &folder, configuration);
        gateway.serves();
        gateway
    }

    #[track_caller]
    fn serves(&mut self) {
        wait_for("tungate serves", || {
            assert!(!self.daemon.has_ended(), "tungate ended at its start\n{}", self.said());
            self.ask("show services").status.success().then_some(())
        });
    }

    /// Starts the daemon and waits for nothing.
    #[track_caller]
    pub(crate) fn launch(lab: &'a Lab, configuration: &str) -> Self {
        Self::launch_in(lab.gateway(), lab.folder(), configuration)
    }

    #[track_caller]
    fn launch_in(host: Host<'a>, folder: &Path, configuration: &str) -> Self {
        let socket = folder.join("tungate.sock");
        let file = folder.join("tungate.toml");
        fs::write(&file, placed(folder, configuration)).expect("the lab's folder takes files");
        let daemon = host.start_words(&[env!("CARGO_BIN_EXE_tungate"), "run", "-c", path(&file)]);
        Self { host, daemon, socket }
    }

    /// A configuration with the lab's folders.
    pub(crate) fn placed(&self, configuration: &str) -> String {
        placed(self.socket.parent().expect("it has a folder"), configuration)
    }

    /// Runs `tungate WORDS` against this daemon.
    #[track_caller]
    pub(crate) fn ask(&self, words: &str) -> Output {
        self.host.run(&format!("{} {words} --socket {}", env!("CARGO_BIN_EXE_tungate"), self.socket.display()))
    }

    pub(crate) fn socket(&self) -> &PathBuf {
        &self.socket
    }

    pub(crate) fn signal(&self, name: &str) {
        self.daemon.signal(name);
    }

    /// Memory of the daemon that lies in RAM, bytes.
    #[track_caller]
    pub(crate) fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.id())).expect("the daemon runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of KiB") << 10
    }

    /// CPU time that each of the daemon's threads has had, by its name.
    pub(crate) fn busy(&self) -> BTreeMap<String, Duration> {
        let mut busy = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.daemon.id())).expect("the daemon runs").flatten() {
            let (Ok(name), Ok(stat)) =
                (fs::read_to_string(task.path().join("comm")), fs::read_to_string(task.path().join("stat")))
            else {
                continue; // It has just ended.
            };
            // User and system time, in hundredths of a second (proc_pid_stat(5)); the name before may have spaces.
            let numbers: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let ticks: u64 = [11, 12].map(|n: usize| numbers[n].parse::<u64>().expect("a number")).iter().sum();
            *busy.entry(name.trim().to_owned()).or_default() += Duration::from_millis(ticks * 10);
        }
        busy
    }

    /// Items of a listing.
    #[track_caller]
    pub(crate) fn items(&self, words: &str) -> Vec<serde_json::Value> {
        let text = self.ask(&format!("{words} -o jsonl")).succeeded();
        text.lines().map(|line| serde_json::from_str(line).expect(&text)).collect()
    }

    /// Waits for the daemon's end.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> Output {
        self.daemon.finish(PATIENCE)
    }

    pub(crate) fn said(&self) -> String {
        format!("{}{}", self.daemon.stdout(), self.daemon.stderr())
    }

    /// What helps to understand a failure.
    fn confess(&mut self) -> String {
        let mut text = format!("\n-- what tungate said\n{}", self.said());
        if self.daemon.has_ended() {
            text.push_str("-- and then it ended\n");
            return text;
        }
        for words in ["show services", "show drops", "show workers"] {
            let _ = write!(text, "-- {words}\n{}", self.ask(words).stdout);
        }
        text
    }
}

impl Drop for Tungate<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        // A daemon that does not answer must not turn the failure into an abort that leaves the lab behind.
        if let Ok(text) = catch_unwind(AssertUnwindSafe(|| self.confess())) {
            crate::runner::add_to_failure(&text);
        }
    }
}

fn placed(folder: &std::path::Path, configuration: &str) -> String {
    let (socket, state) = (folder.join("tungate.sock"), folder.display());
    let places = format!("[gateway]\nadmin-socket = \"{}\"\nstate-dir = \"{state}\"\n", socket.display());
    configuration.replacen("[gateway]\n", &places, 1)
}

fn path(path: &std::path::Path) -> &str {
    path.to_str().expect("the temporary folder's path is UTF-8")
}

/// The configuration for a setup: all services on the VIP of its family.
fn tungate_toml(setup: &Setup, workers: u8, services: &[Service]) -> String {
    let mut text = format!(
        "[gateway]\nname = \"lab\"\nworkers = {workers}\nsource-addresses = [\"10.99.0.10\", \"fd00:99::10\"]\n"
    );
    for service in services {
        let backends: Vec<String> = service
            .backends
            .iter()
            .map(|name| {
                let address = setup.backend(name);
                let address = setup.pick(address.to_string(), format!("[{address}]"));
                format!("{{ name = \"{name}\", address = \"{address}:{}\" }}", service.to_port)
            })
            .collect();
        let _ = write!(
            text,
            "\n[[service]]\nname = \"{protocol}-{port}\"\nlisten = [\"{listen}\"]\nprotocol = \"{protocol}\"\n\
             source-nat = {source_nat}\nbalance = \"round-robin\"\nbackends = [ {backends} ]\n",
            protocol = service.protocol,
            port = service.port,
            listen = setup.vip_with(service.port),
            source_nat = setup.nat == Nat::Full,
            backends = backends.join(", "),
        );
        // It serves one connection, and ends: a check would be that one.
        if service.to_port == IPERF {
            text.push_str("[service.health]\ncheck = \"none\"\n");
        }
    }
    text
}

/// Without source NAT the backends answer to the client's address, so what comes from them goes to the TUN by rule.
fn route_replies_through_the_gateway(lab: &Lab, setup: &Setup) {
    let ip = setup.pick("ip -4", "ip -6");
    let gateway = lab.gateway();
    for port in ["to-b1", "to-b2"] {
        gateway.run(&format!("{ip} rule add iif {port} lookup 100")).succeeded();
    }
    gateway.run(&format!("{ip} route add default dev tungate0 table 100")).succeeded();
}

/// The same service by the kernel: nft DNAT in turn to the backends, and SNAT to the gateway's source address.
fn start_kernel_nat(lab: &Lab, setup: &Setup, services: &[Service]) {
    let (family, ip) = setup.pick(("ip", "ip"), ("ip6", "ip6"));
    let mut rules = String::new();
    for Service { protocol, port, to_port, backends } in services {
        let n = backends.len();
        let map: Vec<String> =
            backends.iter().enumerate().map(|(i, name)| format!("{i} : {} . {to_port}", setup.backend(name))).collect();
        let _ = writeln!(
            rules,
            "{ip} daddr {vip} {protocol} dport {port} dnat {ip} addr . port to numgen inc mod {n} map {{ {map} }}",
            vip = setup.vip(),
            map = map.join(", "),
        );
    }
    let source = match setup.nat {
        Nat::Full => {
            format!("{ip} saddr {} snat to {}", setup.pick("198.51.100.0/24", "2001:db8:1::/64"), setup.seen_source())
        }
        Nat::Destination => String::new(),
    };
    let text = format!(
        "table {family} nat {{\nchain pre {{ type nat hook prerouting priority -100\n{rules}}}\n\
         chain post {{ type nat hook postrouting priority 100\n{source}\n}}\n}}\n"
    );
    let file = lab.folder().join("nat.nft");
    fs::write(&file, text).expect("the lab's folder takes files");
    let gateway = lab.gateway();
    gateway.run(&format!("nft -f {}", file.display())).succeeded();
    // So that a ping to the VIP is answered, as tungate does.
    gateway.run(&format!("ip addr add {} dev lo", setup.vip())).succeeded();
}
