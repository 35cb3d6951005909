//! Discovery: the pool follows a file, and survives what happens to files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::in_setups;
use crate::gateway::{Engine, Family, Nat, Setup, Tungate};
use crate::lab::Lab;
use crate::process::{Running, wait_for};
use crate::runner::Case;
use crate::servers::{self, HTTP};

pub(super) fn cases() -> Vec<Case> {
    let one = [Setup { engine: Engine::Tungate { workers: 2 }, family: Family::V4, nat: Nat::Full }];
    let mut cases = in_setups("a_pool_follows_a_file_and_survives_its_loss", &["curl", "nginx"], one, file);
    cases.extend(in_setups("a_pool_follows_the_dns_and_survives_its_loss", &["curl", "dnsmasq", "nginx"], one, dns));
    cases.extend(in_setups("a_pool_follows_a_registry_and_survives_its_loss", &["curl", "nginx"], one, http));
    cases.extend(in_setups("found_backends_outlive_a_restart_without_their_source", &["curl", "nginx"], one, restart));
    cases
}

/// The file with these backends, put into place as a whole.
fn put(path: &Path, setup: &Setup, names: &[&str]) {
    let entry = |name: &&str| format!("{{ name = \"{name}\", address = \"{}:{HTTP}\" }}", setup.backend(name));
    let list = names.iter().map(entry).collect::<Vec<_>>().join(", ");
    let next = path.with_extension("next");
    fs::write(&next, format!("backends = [{list}]\n")).expect("the lab's folder takes files");
    fs::rename(&next, path).expect("both are in one folder");
}

/// What the source says of itself, once it is so.
fn becomes(gateway: &Tungate<'_>, state: &str, backends: u64) -> serde_json::Value {
    wait_for(&format!("the source is {state} with {backends} backends"), || {
        let source = gateway.items("show sources").swap_remove(0);
        (source["state"] == state && source["backends"] == backends).then_some(source)
    })
}

/// Who answers six requests.
fn served_by(lab: &Lab, setup: &Setup) -> BTreeSet<String> {
    let url = format!("http://{}/", setup.vip_with(80));
    let fetch = |_| lab.client().run(&format!("curl -sS --max-time 5 {url}")).succeeded();
    (0..6).map(fetch).map(|text| text[..2].to_owned()).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn start<'a>(lab: &'a Lab, setup: &Setup, discovery: &str) -> Tungate<'a> {
    let configuration = format!(
        "[gateway]\nworkers = 2\nsource-addresses = [\"{}\"]\n\
         [[service]]\nname = \"web\"\nlisten = \"{}:80\"\nbalance = \"round-robin\"\nbackends = []\n\
         [service.discovery]\n{discovery}\n",
        setup.seen_source(),
        setup.vip(),
    );
    Tungate::start(lab, &configuration)
}

fn file(lab: &Lab, setup: &Setup) {
    let _servers = servers::nginx(lab, setup);
    let path = lab.folder().join("web.toml");
    put(&path, setup, &["b1"]);
    let gateway = start(lab, setup, &format!("source = \"file\"\npath = \"{}\"", path.display()));
    let has = |state, backends| becomes(&gateway, state, backends);
    let served_by = || served_by(lab, setup);
    has("fresh", 1);
    assert_eq!(served_by(), names(&["b1"]));
    put(&path, setup, &["b1", "b2"]);
    has("fresh", 2);
    assert_eq!(served_by(), names(&["b1", "b2"]));

    let whole = fs::read_to_string(&path).expect("it is there");
    for broken in ["", "\0\0\0\0", &whole[..whole.len() / 2]] {
        fs::write(&path, broken).expect("the lab's folder takes files");
        let source = has("stale", 2);
        assert!(source["last_error"].is_string(), "{source}");
        assert_eq!(served_by(), names(&["b1", "b2"]), "{broken:?}");
        put(&path, setup, &["b1", "b2"]);
        has("fresh", 2);
    }
    fs::remove_file(&path).expect("it is there");
    has("stale", 2);
    assert_eq!(served_by(), names(&["b1", "b2"]));

    // An empty list for a moment is a slip; one that lasts is meant.
    put(&path, setup, &[]);
    wait_for("the empty list is seen", || gateway.said().contains("most backends are gone").then_some(()));
    assert_eq!(served_by(), names(&["b1", "b2"]));
    has("fresh", 0);
    put(&path, setup, &["b2"]);
    has("fresh", 1);
    assert_eq!(served_by(), names(&["b2"]));
}

/// A server on the gateway that knows these backends as `web.test`, for so many seconds.
fn resolver(lab: &Lab, options: &str) -> Running {
    let server = lab.gateway().start(&format!(
        "dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --listen-address={LOOPBACK} --bind-interfaces \
         --port=5353 --user=root --pid-file= --local-ttl=2 {options}"
    ));
    lab.gateway().listens("-u", 5353);
    server
}

const LOOPBACK: &str = "127.0.0.1";

fn dns(lab: &Lab, setup: &Setup) {
    let _servers = servers::nginx(lab, setup);
    let (b1, b2) = (setup.backend("b1"), setup.backend("b2"));
    let first = resolver(lab, &format!("--host-record=web.test,{b1},2"));
    let asked = format!("source = \"dns\"\nname = \"web.test\"\nport = {HTTP}\nresolver = \"{LOOPBACK}:5353\"");
    let gateway = start(lab, setup, &asked);
    becomes(&gateway, "fresh", 1);
    assert_eq!(served_by(lab, setup), names(&["b1"]));

    drop(first);
    becomes(&gateway, "stale", 1);
    assert_eq!(served_by(lab, setup), names(&["b1"]), "the server is dead");

    let both = format!("--host-record=web.test,{b1},2 --host-record=web.test,{b2},2");
    let second = resolver(lab, &both);
    becomes(&gateway, "fresh", 2);
    assert_eq!(served_by(lab, setup), names(&["b1", "b2"]), "a changed record");

    drop(second);
    let third = resolver(lab, "--local=/test/");
    let source = becomes(&gateway, "stale", 2);
    wait_for("the name is gone", || {
        let source = gateway.items("show sources").swap_remove(0);
        source["last_error"].as_str().is_some_and(|why| why.contains("no such name")).then_some(())
    });
    assert_eq!(served_by(lab, setup), names(&["b1", "b2"]), "{source}");

    drop(third);
    // There is such a name, and no address of this family: an empty answer, once and again.
    let _fourth = resolver(lab, "--local=/test/ --host-record=web.test,fd00::1,2");
    wait_for("the empty answer is seen", || gateway.said().contains("most backends are gone").then_some(()));
    assert_eq!(served_by(lab, setup), names(&["b1", "b2"]), "an empty answer");
    becomes(&gateway, "fresh", 0);
}

/// A registry of ours on the gateway, which has the file's text for an answer.
fn registry(lab: &Lab, path: &Path) -> Running {
    let server = lab.gateway().start_helper(&format!("registry {LOOPBACK}:8500 {}", path.display()));
    lab.gateway().listens("-t", 8500);
    server
}

/// The file with these backends as JSON, put into place as a whole.
fn put_json(path: &Path, setup: &Setup, names: &[&str]) {
    let entry = |name: &&str| format!("{{\"name\":\"{name}\",\"address\":\"{}:{HTTP}\"}}", setup.backend(name));
    let next = path.with_extension("next");
    let list = names.iter().map(entry).collect::<Vec<_>>().join(",");
    fs::write(&next, format!("{{\"backends\":[{list}]}}")).expect("the lab's folder takes files");
    fs::rename(&next, path).expect("both are in one folder");
}

fn http(lab: &Lab, setup: &Setup) {
    let _servers = servers::nginx(lab, setup);
    let path = lab.folder().join("web.json");
    put_json(&path, setup, &["b1"]);
    let mut first = registry(lab, &path);
    let gateway = start(lab, setup, &format!("source = \"http\"\nurl = \"http://{LOOPBACK}:8500/web?raw\""));
    becomes(&gateway, "fresh", 1);
    assert_eq!(served_by(lab, setup), names(&["b1"]));
    first.has_printed("GET /web?raw&index=1&wait=30s");
    put_json(&path, setup, &["b1", "b2"]);
    // Sooner than the question would have been answered without a change: it waits no longer than that.
    becomes(&gateway, "fresh", 2);
    assert_eq!(served_by(lab, setup), names(&["b1", "b2"]), "a change");

    for broken in ["", "<html>busy</html>", "{\"backends\":[{\"addr", "{\"backends\":[{\"address\":\"b1\"}]}"] {
        fs::write(&path, broken).expect("the lab's folder takes files");
        let source = becomes(&gateway, "stale", 2);
        assert!(source["last_error"].is_string(), "{source}");
        assert_eq!(served_by(lab, setup), names(&["b1", "b2"]), "{broken:?}");
        put_json(&path, setup, &["b1", "b2"]);
        becomes(&gateway, "fresh", 2);
    }

    drop(first);
    becomes(&gateway, "stale", 2);
    assert_eq!(served_by(lab, setup), names(&["b1", "b2"]), "the server is dead");
    put_json(&path, setup, &[]);
    let second = registry(lab, &path);
    wait_for("the empty list is seen", || gateway.said().contains("most backends are gone").then_some(()));
    assert_eq!(served_by(lab, setup), names(&["b1", "b2"]), "an empty list");
    becomes(&gateway, "fresh", 0);
    put_json(&path, setup, &["b2"]);
    becomes(&gateway, "fresh", 1);
    assert_eq!(served_by(lab, setup), names(&["b2"]));
    second.signal("STOP");
    put_json(&path, setup, &["b1"]);
    assert_eq!(served_by(lab, setup), names(&["b2"]), "the server hangs");
}

fn restart(lab: &Lab, setup: &Setup) {
    let _servers = servers::nginx(lab, setup);
    let path = lab.folder().join("web.toml");
    put(&path, setup, &["b1", "b2"]);
    let discovery = format!("source = \"file\"\npath = \"{}\"", path.display());
    let mut gateway = start(lab, setup, &discovery);
    becomes(&gateway, "fresh", 2);
    wait_for("it is kept", || lab.folder().join("discovered.json").exists().then_some(()));
    gateway.signal("TERM");
    gateway.ended().succeeded();
    drop(gateway);
    fs::remove_file(&path).expect("it is there");

    let gateway = start(lab, setup, &discovery);
    let source = becomes(&gateway, "stale", 2);
    assert!(source["age_s"].as_u64().is_some_and(|age| age < 600), "{source}");
    assert_eq!(served_by(lab, setup), names(&["b1", "b2"]), "nobody has answered since the start");
    put(&path, setup, &["b2"]);
    becomes(&gateway, "fresh", 1);
    assert_eq!(served_by(lab, setup), names(&["b2"]));
}
