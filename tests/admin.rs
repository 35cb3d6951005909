//! A real daemon in a network namespace of its own, asked by the verbs that people and scripts use.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail that way, and says what it skips")]

mod common;

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tungate::io::namespace::Namespace;
use tungate::io::netlink::{LocalAddress, Netlink};
use tungate::io::sys;

const CONFIG: &str = r#"
[gateway]
name = "gw-test"
source-addresses = ["10.99.0.10"]
admin-socket = "SOCKET"
state-dir = "STATE"
metrics-listen = "127.0.0.1:9464"

[[service]]
name = "dns"
listen = "192.0.2.10:53"
protocol = "udp"
backends = [{ name = "b1", address = "10.0.0.1:5353" }]

[[service]]
name = "web"
listen = "192.0.2.10:80"
backends = [{ name = "b1", address = "10.0.0.1:8080" }, { name = "b2", address = "10.0.0.2:8080" }]
"#;

/// The address that the namespace's own clients have.
const CLIENT: &str = "198.51.100.7";

/// A network namespace with a client's address, and a folder with a configuration; both go at the end of the test.
struct Place {
    namespace: Namespace,
    folder: PathBuf,
}

impl Place {
    /// Makes it, or says why that cannot be done here.
    fn make(test: &str) -> Option<Self> {
        if sys::effective_user() != 0 || !Path::new("/dev/net/tun").exists() {
            common::skip(test, "needs root and /dev/net/tun", "sudo -E cargo test --test admin");
            return None;
        }
        let folder = std::env::temp_dir().join(format!("tungate-admin-{}-{test}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let socket = folder.join("admin.sock");
        fs::write(
            folder.join("tungate.toml"),
            CONFIG.replace("SOCKET", socket.to_str().unwrap()).replace("STATE", folder.to_str().unwrap()),
        )
        .unwrap();
        let place = Self { namespace: Namespace::new().unwrap(), folder };
        place.address(CLIENT, true);
        Some(place)
    }

    /// Gives the loopback an address, or takes it away.
    fn address(&self, address: &str, there: bool) {
        let change = || {
            let mut netlink = Netlink::open().unwrap();
            let interface = netlink.link("lo").unwrap().index;
            let address = LocalAddress { interface, address: address.parse().unwrap(), prefix_length: 32 };
            if there { netlink.add_address(&address) } else { netlink.delete_address(&address) }
        };
        self.namespace.run(change).unwrap().unwrap();
    }

    /// `tungate run`, not started yet.
    fn run(&self) -> Command {
        let mut command = tungate(&["run", "-c"]);
        command.arg(self.folder.join("tungate.toml"));
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A running `tungate run`; stopped at the end of the test.
struct Daemon {
    process: Child,
    place: Place,
}

impl Daemon {
    /// Starts it, or says why that cannot be done here.
    fn start(test: &str) -> Option<Self> {
        Self::start_with(test, &[])
    }

    /// Starts it with these options.
    fn start_with(test: &str, options: &[&str]) -> Option<Self> {
        let place = Place::make(test)?;
        let mut command = place.run();
        command.args(options);
        let process = place.namespace.run(|| command.stderr(Stdio::null()).spawn().unwrap()).unwrap();
        let mut daemon = Self { process, place };
        daemon.wait_until("it answers", |daemon| daemon.ask(&["show", "services"]).status.success());
        Some(daemon)
    }

    fn socket(&self) -> PathBuf {
        self.place.folder.join("admin.sock")
    }

    fn ask(&self, words: &[&str]) -> Output {
        tungate(words).env("TUNGATE_SOCKET", self.socket()).output().unwrap()
    }

    /// The items of a listing.
    fn items(&self, words: &[&str]) -> Vec<Value> {
        let output = self.ask(&[words, &["-o", "json"]].concat());
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(list["schema"], "tungate/v1");
        list["items"].as_array().unwrap().clone()
    }

    fn told(&self, words: &[&str]) -> String {
        String::from_utf8(self.ask(words).stdout).unwrap()
    }

    /// A client of this port asks the DNS service; the gateway has a flow for it afterwards.
    fn query_from(&mut self, port: u16) {
        let send = || UdpSocket::bind((CLIENT, port)).unwrap().send_to(b"?", "192.0.2.10:53").unwrap();
        self.place.namespace.run(send).unwrap();
        let client = format!("{CLIENT}:{port}");
        self.wait_until("it has a flow", |daemon| {
            daemon.items(&["show", "flows"]).iter().any(|flow| flow["client"] == client.as_str())
        });
    }

    fn terminate(&self) {
        self.signal("TERM");
    }

    fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    fn wait_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..600 {
            if done(self) {
                return;
            }
            assert!(self.process.try_wait().unwrap().is_none(), "the daemon ended before {what}");
            sys::wait(&[], Some(Duration::from_millis(50))).unwrap();
        }
        panic!("waited for 30 s in vain: {what}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn tungate(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tungate"));
    command.args(words).env_remove("TUNGATE_LOG");
    command
}

fn code(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn flows_are_shown_explained_and_killed() {
    let Some(mut daemon) = Daemon::start("flows_are_shown_explained_and_killed") else { return };
    daemon.query_from(40_000);
    daemon.query_from(40_001);

    let flows = daemon.items(&["show", "flows", "--service", "dns", "--client", "198.51.100.0/24"]);
    assert_eq!(flows.len(), 2);
    let first = flows.iter().find(|flow| flow["client"] == "198.51.100.7:40000").unwrap();
    assert_eq!((&first["protocol"], &first["listen"]), (&"udp".into(), &"192.0.2.10:53".into()));
    assert_eq!((&first["backend"], &first["source"]), (&"b1".into(), &"10.99.0.10:40000".into()));
    assert_eq!((&first["state"], &first["packets"]), (&"unreplied".into(), &serde_json::json!([1, 0])));
    assert_eq!(daemon.told(&["show", "flows", "--count"]), "2\n");
    assert_eq!(daemon.items(&["show", "flows", "--count", "--service", "web"])[0]["flows"], 0);

    let way = daemon.told(&["explain", "udp", "198.51.100.7:40000", "192.0.2.10:53"]);
    assert!(way.contains("flow known") && way.contains("10.99.0.10:40000 -> 10.0.0.1:5353"), "{way}");
    let way = daemon.told(&["explain", "udp", "198.51.100.7:50000", "192.0.2.10:53"]);
    assert!(way.contains("no flow") && way.contains("verdict    forward"), "{way}");
    assert_eq!(daemon.told(&["show", "flows", "--count"]), "2\n", "explaining opens no flow");

    assert_eq!(daemon.told(&["flows", "kill", "--client", CLIENT]), "2 flows ended\n");
    daemon.wait_until("the flows are gone", |daemon| daemon.told(&["show", "flows", "--count"]) == "0\n");
    let nothing = daemon.ask(&["flows", "kill", "--backend", "dns/b1"]);
    assert_eq!((nothing.status.code(), &nothing.stdout[..]), (Some(1), &b"0 flows ended\n"[..]));
    daemon.query_from(40_000);
}

impl Daemon {
    /// Changes the daemon's file.
    fn edit(&self, change: impl Fn(String) -> String) {
        let file = self.place.folder.join("tungate.toml");
        fs::write(&file, change(fs::read_to_string(&file).unwrap())).unwrap();
    }

    /// What the kernel would do with a packet for the address.
    fn is_routed(&self, address: &str) -> bool {
        let way = || Netlink::open().unwrap().way_to(address.parse().unwrap());
        self.place.namespace.run(way).unwrap().is_ok_and(|way| way.interface.is_some())
    }

    /// Ends it, and starts another one in its place.
    fn restart(&mut self) {
        self.terminate();
        self.process.wait().unwrap();
        let mut command = self.place.run();
        self.process = self.place.namespace.run(|| command.stderr(Stdio::null()).spawn().unwrap()).unwrap();
        self.wait_until("it answers", |daemon| daemon.ask(&["show", "services"]).status.success());
    }
}

#[test]
fn a_reload_changes_routes_and_keeps_flows_and_a_bad_one_nothing() {
    let Some(mut daemon) = Daemon::start("a_reload_changes_routes") else { return };
    daemon.query_from(40_000);
    daemon.edit(|text| text.replace("192.0.2.10:53", "192.0.2.53:53").replace("192.0.2.10:80", "192.0.2.80:80"));
    let plan = daemon.told(&["plan"]);
    assert!(plan.contains("+ service dns: listen 192.0.2.53:53\n- service dns: listen 192.0.2.10:53\n"), "{plan}");
    assert!(plan.ends_with("flows: 0 kept, 1 drained, 0 lost\n"), "its listen address is gone: {plan}");
    assert!(!daemon.is_routed("192.0.2.53"), "a plan changes nothing");
    assert_eq!(
        daemon.told(&["reload", "--confirm", "1h"]),
        plan + "taken back in 1h unless `tungate confirm` is called\n"
    );
    assert!(daemon.is_routed("192.0.2.53") && daemon.is_routed("192.0.2.80"));
    assert!(daemon.is_routed("192.0.2.10"), "a flow still has it");
    assert_eq!(daemon.ask(&["confirm"]).status.code(), Some(0));
    assert_eq!(daemon.ask(&["confirm"]).status.code(), Some(1));
    daemon.ask(&["flows", "kill", "--all"]);
    daemon.wait_until("the old route is gone", |daemon| !daemon.is_routed("192.0.2.10"));

    daemon.edit(|text| text.replace("protocol = ", "protocoll = "));
    let (exit, said) = code(&daemon.ask(&["reload"]));
    assert!(exit == Some(1) && said.contains("error[E002]") && said.contains("tungate.toml:12:1"), "{said}");
    assert!(daemon.is_routed("192.0.2.53"));
    assert!(daemon.told(&["show", "config", "--rejected"]).contains("protocoll"));
    assert_eq!(daemon.told(&["rollback"]).lines().count(), 5, "two addresses there and back, and the flows");
    assert!(daemon.is_routed("192.0.2.10"));
    let causes: Vec<_> = daemon.items(&["history"]).iter().map(|row| row["cause"].clone()).collect();
    assert_eq!(causes, ["rollback", "reload", "start"]);

    daemon.edit(|text| text.replace("protocoll = ", "protocol = "));
    daemon.signal("HUP");
    daemon.wait_until("it has reloaded", |daemon| daemon.is_routed("192.0.2.53"));
}

impl Daemon {
    /// The answer to a GET of this path.
    fn gets(&self, path: &str) -> String {
        let get = || {
            let mut stream = TcpStream::connect("127.0.0.1:9464").unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: gateway\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        self.place.namespace.run(get).unwrap()
    }
}

#[test]
fn metrics_and_probes_are_served_over_http() {
    let Some(mut daemon) = Daemon::start("metrics_and_probes") else { return };
    daemon.query_from(40_000);
    let page = daemon.gets("/metrics");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text"), "{page}");
    assert!(page.contains("\ntungate_service_flows_opened_total{service=\"dns\"} 1.0\n") && page.ends_with("# EOF\n"));
    let is =
        |path: &str, status: &str| assert!(daemon.gets(path).starts_with(&format!("HTTP/1.1 {status} ")), "{path}");
    for (path, status) in [("/livez", "200"), ("/readyz", "200"), ("/healthz?service=dns", "200"), ("/", "404")] {
        is(path, status);
    }
    is("/healthz?service=dsn", "404");
    daemon.ask(&["drain", "dns/b1"]);
    is("/healthz?service=dns", "503");
}

#[test]
fn what_the_operator_says_outlives_a_reload_and_a_restart() {
    let Some(mut daemon) = Daemon::start("what_the_operator_says") else { return };
    assert_eq!(daemon.ask(&["drain", "web/b1", "--for", "1h", "--reason", "disk"]).status.code(), Some(0));
    assert_eq!(daemon.ask(&["weight", "web/b2", "7"]).status.code(), Some(0));
    let shown = |daemon: &Daemon| {
        let rows = daemon.items(&["show", "backends", "--service", "web"]);
        let of = |row: &Value| (row["admin"].clone(), row["admin_reason"].clone(), row["weight"].clone());
        rows.iter().filter(|row| row["config"] == "present").map(of).collect::<Vec<_>>()
    };
    let expected: Vec<(Value, Value, Value)> =
        vec![("drain".into(), "disk".into(), 1.into()), ("enabled".into(), Value::Null, 7.into())];
    assert_eq!(shown(&daemon), expected);
    daemon.edit(|text| {
        text.replace("name = \"b1\", address = \"10.0.0.1:8080\"", "name = \"one\", address = \"10.0.0.1:8080\"")
    });
    assert_eq!(daemon.ask(&["reload"]).status.code(), Some(0));
    assert_eq!(shown(&daemon), expected);
    daemon.restart();
    assert_eq!(shown(&daemon), expected);
    assert_eq!(daemon.ask(&["enable", "web/one"]).status.code(), Some(0));
    assert_eq!(daemon.ask(&["weight", "web/b2", "configured"]).status.code(), Some(0));
    assert!(shown(&daemon).iter().all(|row| row.0 == "enabled" && row.2 == 1));
    assert_eq!(code(&daemon.ask(&["drain", "web/b3"])).0, Some(1));
}

#[test]
fn listings_have_the_fields_of_the_interface() {
    let Some(mut daemon) = Daemon::start("listings_have_the_fields_of_the_interface") else { return };
    daemon.query_from(40_000);
    let fields = |words: &[&str], expected: &[&str]| {
        for item in daemon.items(words) {
            let mut found: Vec<_> = item.as_object().unwrap().keys().map(String::as_str).collect();
            let mut expected = expected.to_vec();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{words:?}");
        }
    };
    let traffic = ["packets_in", "bytes_in", "packets_out", "bytes_out"];
    let service = ["name", "listen", "protocol", "mode", "balance", "backends_up", "backends_total", "flows"];
    fields(
        &["show", "services"],
        &[&service[..], &traffic, &["flows_opened", "flows_refused", "affinity_clients"]].concat(),
    );
    let backend = ["service", "name", "address", "weight", "weight_configured", "backup", "config", "health"];
    let admin = ["admin", "admin_reason", "admin_age_s", "admin_left_s", "health_age_s"];
    let seen = ["health_reason", "flows", "flows_opened", "unreachable"];
    let way = ["last_icmp", "last_icmp_age_s", "path_mtu", "path_mtu_left_s"];
    fields(&["show", "backends"], &[&backend[..], &admin, &traffic, &seen, &way].concat());
    let flow = ["protocol", "client", "listen", "service", "backend", "source", "state", "age_s", "idle_s"];
    fields(&["show", "flows"], &[&flow[..], &["packets", "bytes", "synced", "one_way"]].concat());
    fields(&["show", "drops"], &["reason", "packets", "meaning"]);
    let worker = ["worker", "batches", "busy_ratio", "handed_over", "forwarded", "replied", "consumed", "segmented"];
    fields(&["show", "workers"], &[&traffic[..], &worker].concat());

    assert_eq!(daemon.items(&["show", "backends", "--service", "web"]).len(), 2);
    assert!(daemon.told(&["show", "config"]).contains("name = \"gw-test\""));
    assert!(daemon.told(&["show", "services"]).starts_with("NAME"));
    assert_eq!(daemon.told(&["show", "services", "-o", "jsonl"]).lines().count(), 2);
}

#[test]
fn what_is_not_there_or_not_allowed_is_told_by_sentence_and_exit_code() {
    let Some(mut daemon) = Daemon::start("what_is_not_there_or_not_allowed") else { return };
    let (exit, said) = code(&daemon.ask(&["show", "flows", "--service", "wbe"]));
    assert_eq!((exit, said.as_str()), (Some(1), "error: there is no service `wbe`; there are dns, web\n"));

    // A program that nobody may run from the build folder is copied to where he may.
    let program = daemon.place.folder.join("tungate");
    fs::copy(env!("CARGO_BIN_EXE_tungate"), &program).unwrap();
    let as_user = |user: u32, group: u32| {
        let mut command = Command::new(&program);
        command.args(["show", "services"]).env("TUNGATE_SOCKET", daemon.socket()).uid(user).gid(group);
        code(&command.current_dir("/").output().unwrap())
    };
    let (exit, said) = as_user(65_534, 65_534);
    assert!(exit == Some(4) && said.contains("no permission"), "{exit:?} {said}");
    fs::set_permissions(daemon.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let (exit, said) = as_user(65_534, 65_534);
    assert!(exit == Some(4) && said.contains("may not ask"), "the mode alone opens nothing: {exit:?} {said}");
    chown(daemon.socket(), None, Some(65_533)).unwrap();
    assert_eq!(as_user(65_534, 65_533).0, Some(0), "a member of the socket's group");

    let file = daemon.place.folder.join("tungate.toml");
    let (exit, said) = code(&daemon.ask(&["run", "-c", file.to_str().unwrap()]));
    assert!(exit == Some(4) && said.contains("another tungate answers"), "{exit:?} {said}");

    daemon.terminate();
    assert!(daemon.process.wait().unwrap().success(), "SIGTERM ends it with 0");
    assert!(!daemon.socket().exists(), "its socket goes with it");
    assert_eq!(code(&daemon.ask(&["show", "services"])).0, Some(3));
}

/// With such an address everything would look well, and the kernel keep the packets.
#[test]
fn an_address_of_the_machine_is_refused_with_the_command_that_removes_it() {
    let Some(place) = Place::make("an_address_of_the_machine") else { return };
    let refused = |found: &str, remedy: &str| {
        let (exit, said) = code(&place.namespace.run(|| place.run().output().unwrap()).unwrap());
        let expected =
            format!("error: {found}: the kernel would keep its packets, and the gateway see none; `{remedy}`\n");
        assert_eq!((exit, said), (Some(4), expected));
        assert!(place.namespace.run(|| Netlink::open().unwrap().link("tungate0").is_err()).unwrap());
    };
    place.address("10.99.0.10", true);
    let (source, remedy) = ("10.99.0.10 (a source address) is an address of lo", "ip address del 10.99.0.10/32 dev lo");
    refused(source, remedy);
    place.address("192.0.2.10", true);
    let both = format!("192.0.2.10 (a VIP) is an address of lo, {source}");
    refused(&both, &format!("ip address del 192.0.2.10/32 dev lo; {remedy}"));
}

#[test]
fn a_draining_gateway_refuses_newcomers_at_once_and_ends_with_its_last_flow() {
    let Some(mut daemon) = Daemon::start_with("a_draining_gateway", &["--drain", "1h"]) else { return };
    daemon.query_from(40_000);
    daemon.terminate();
    let explain = ["explain", "udp", "198.51.100.7:50000", "192.0.2.10:53"];
    daemon.wait_until("it drains", |daemon| daemon.told(&explain).contains("answer     icmp port unreachable"));
    let refused = || {
        let tcp = TcpStream::connect("192.0.2.10:80").map_err(|error| error.kind());
        let udp = UdpSocket::bind((CLIENT, 40_001)).unwrap();
        udp.connect("192.0.2.10:53").unwrap();
        udp.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        udp.send(b"?").unwrap();
        (tcp.err(), udp.recv(&mut [0; 9]).map_err(|error| error.kind()).err())
    };
    let refusals = daemon.place.namespace.run(refused).unwrap();
    assert_eq!(refusals, (Some(ErrorKind::ConnectionRefused), Some(ErrorKind::ConnectionRefused)));
    daemon.query_from(40_000);
    assert_eq!(daemon.told(&["flows", "kill", "--client", CLIENT]), "1 flow ended\n");
    assert!(daemon.process.wait().unwrap().success());
}
