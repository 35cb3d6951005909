//! Affinity: a client of a real server comes back to the backend it was at.

use super::in_setups;
use crate::gateway::{Engine, Family, Nat, Setup, Tungate};
use crate::lab::Lab;
use crate::runner::Case;
use crate::servers;

pub(super) fn cases() -> Vec<Case> {
    let setups =
        [1, 2].map(|workers| Setup { engine: Engine::Tungate { workers }, family: Family::V4, nat: Nat::Full });
    in_setups("a_client_stays_at_its_backend", &["curl", "nginx"], setups, stays)
}

fn stays(lab: &Lab, setup: &Setup) {
    let _servers = servers::nginx(lab, setup);
    let Engine::Tungate { workers } = setup.engine else { unreachable!("not asked of the kernel") };
    let gateway = Tungate::start(
        lab,
        &format!(
            "[gateway]\nworkers = {workers}\nsource-addresses = [\"{source}\"]\n\
             [[service]]\nname = \"web\"\nlisten = [\"{vip}:80\", \"{vip}:81\"]\nbalance = \"round-robin\"\n\
             affinity = \"client-ip\"\n\
             backends = [{{ name = \"b1\", address = \"{b1}:8080\" }}, {{ name = \"b2\", address = \"{b2}:8080\" }}]\n",
            source = setup.seen_source(),
            vip = setup.vip(),
            b1 = setup.backend("b1"),
            b2 = setup.backend("b2"),
        ),
    );
    let fetch = |port| lab.client().run(&format!("curl -sS --max-time 5 http://{}:{port}/", setup.vip())).succeeded();
    let first = fetch(80);
    for port in [80, 81, 80, 81, 80, 81] {
        assert_eq!(fetch(port), first);
    }
    let services = gateway.items("show services");
    assert_eq!(services[0]["affinity_clients"], 1);
    let explained = gateway.ask(&format!("explain tcp 198.51.100.99:4000 {}:80", setup.vip())).succeeded();
    assert!(explained.contains("affinity   198.51.100.99 is new here"), "{explained}");
}
