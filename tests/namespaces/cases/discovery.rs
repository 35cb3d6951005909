//! Discovery: the pool follows a file, and survives what happens to files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::in_setups;
use crate::gateway::{Engine, Family, Nat, Setup, Tungate};
use crate::lab::Lab;
use crate::process::wait_for;
use crate::runner::Case;
use crate::servers::{self, HTTP};

pub(super) fn cases() -> Vec<Case> {
    let one = [Setup { engine: Engine::Tungate { workers: 2 }, family: Family::V4, nat: Nat::Full }];
    in_setups("a_pool_follows_a_file_and_survives_its_loss", &["curl", "nginx"], one, file)
}

/// The file with these backends, put into place as a whole.
fn put(path: &Path, setup: &Setup, names: &[&str]) {
    let entry = |name: &&str| format!("{{ name = \"{name}\", address = \"{}:{HTTP}\" }}", setup.backend(name));
    let list = names.iter().map(entry).collect::<Vec<_>>().join(", ");
    let next = path.with_extension("next");
    fs::write(&next, format!("backends = [{list}]\n")).expect("the lab's folder takes files");
    fs::rename(&next, path).expect("both are in one folder");
}

fn file(lab: &Lab, setup: &Setup) {
    let _servers = servers::nginx(lab, setup);
    let path = lab.folder().join("web.toml");
    put(&path, setup, &["b1"]);
    let gateway = Tungate::start(
        lab,
        &format!(
            "[gateway]\nworkers = 2\nsource-addresses = [\"{}\"]\n\
             [[service]]\nname = \"web\"\nlisten = \"{}:80\"\nbalance = \"round-robin\"\nbackends = []\n\
             [service.discovery]\nsource = \"file\"\npath = \"{}\"\n",
            setup.seen_source(),
            setup.vip(),
            path.display(),
        ),
    );
    let source = || gateway.items("show sources").swap_remove(0);
    let has = |state: &str, backends: u64| {
        wait_for(&format!("the source is {state} with {backends} backends"), || {
            let source = source();
            (source["state"] == state && source["backends"] == backends).then_some(source)
        })
    };
    let served_by = || -> BTreeSet<String> {
        let url = format!("http://{}/", setup.vip_with(80));
        let fetch = |_| lab.client().run(&format!("curl -sS --max-time 5 {url}")).succeeded();
        (0..6).map(fetch).map(|text| text[..2].to_owned()).collect()
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
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
