//! Backends: real servers, started in a backend's namespace and ready when the function returns.

use std::fs;

use crate::gateway::Setup;
use crate::lab::Lab;
use crate::process::Running;

/// The port on which our backends serve HTTP, echo and DNS: never the port of the VIP.
pub(crate) const HTTP: u16 = 8080;
pub(crate) const ECHO: u16 = 9000;
pub(crate) const DNS: u16 = 5353;
pub(crate) const IPERF: u16 = 5201;

/// nginx on both backends. `/` says `NAME CLIENT-ADDRESS`; `/document` is the file of that name in the lab's folder.
pub(crate) fn nginx(lab: &Lab, setup: &Setup) -> Vec<Running> {
    let listen = |name| {
        let address = setup.backend(name);
        setup.pick(format!("{address}:{HTTP}"), format!("[{address}]:{HTTP}"))
    };
    nginx_at(lab, HTTP, |name| format!("listen {} backlog=4096;", listen(name)))
}

/// The same, listening on a port of all addresses, those that they will have later included.
pub(crate) fn nginx_everywhere(lab: &Lab, port: u16) -> Vec<Running> {
    nginx_at(lab, port, |_| format!("listen {port}; listen [::]:{port} ipv6only=on;"))
}

fn nginx_at(lab: &Lab, port: u16, listen: impl Fn(&'static str) -> String) -> Vec<Running> {
    let start = |name: &'static str| {
        let folder = lab.folder().join(format!("nginx-{name}"));
        fs::create_dir(&folder).expect("the lab's folder takes folders");
        let place = folder.display();
        let text = format!(
            "daemon off; user root; pid {place}/pid; error_log stderr; worker_processes 1;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; sendfile on; default_type text/plain;\n\
             client_body_temp_path {place}/1; proxy_temp_path {place}/2; fastcgi_temp_path {place}/3;\n\
             uwsgi_temp_path {place}/4; scgi_temp_path {place}/5;\n\
             server {{ {listen}\n\
             location = / {{ return 200 \"{name} $remote_addr\\n\"; }}\n\
             location = /document {{ root {root}; }} }} }}\n",
            listen = listen(name),
            root = lab.folder().display(),
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, text).expect("the lab's folder takes files");
        let host = lab.backend(name);
        let server = host.start(&format!("nginx -p {place} -e stderr -c {}", file.display()));
        host.listens("-t", port);
        server
    };
    vec![start("b1"), start("b2")]
}

/// dnsmasq on both backends; the TXT record of `who.test` is the backend's name.
pub(crate) fn dnsmasq(lab: &Lab, setup: &Setup) -> Vec<Running> {
    let start = |name: &'static str| {
        let host = lab.backend(name);
        let server = host.start(&format!(
            "dnsmasq --keep-in-foreground --conf-file=/dev/null --user=root --pid-file= --no-resolv --no-hosts \
             --port={DNS} --bind-interfaces --listen-address={} --txt-record=who.test,{name}",
            setup.backend(name),
        ));
        host.listens("-u", DNS);
        host.listens("-t", DNS);
        server
    };
    vec![start("b1"), start("b2")]
}

/// An iperf3 server on `b1`, for one test: it refuses the next while it waits for the end of the last. One backend only,
/// since the two connections of a test must meet.
pub(crate) fn iperf3(lab: &Lab) -> Running {
    iperf3_at(lab, "")
}

/// The same with another option: an address that it binds to.
pub(crate) fn iperf3_at(lab: &Lab, options: &str) -> Running {
    let host = lab.backend("b1");
    let server = host.start(&format!("iperf3 -s -1 -p {IPERF} {options}"));
    host.listens("-t", IPERF);
    server
}

/// An echo server of our own (`tcp` or `udp`) on both backends.
pub(crate) fn echo(lab: &Lab, setup: &Setup, protocol: &str) -> Vec<Running> {
    let start = |name: &'static str| {
        let host = lab.backend(name);
        let address = setup.backend(name);
        let at = setup.pick(format!("{address}:{ECHO}"), format!("[{address}]:{ECHO}"));
        let server = host.start_helper(&format!("{protocol}-echo {at}"));
        host.listens(if protocol == "tcp" { "-t" } else { "-u" }, ECHO);
        server
    };
    vec![start("b1"), start("b2")]
}
