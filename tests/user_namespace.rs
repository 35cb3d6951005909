//! An ordinary user makes namespaces, a cable and a TUN of his own, in a user namespace.
//!
//! A user namespace can only be entered while the process has one thread, so this test has no harness: it is a `main`.
//! Run as root, it runs itself again as nobody.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail that way, and says what it skips")]

mod common;

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};
use std::time::Duration;
use std::{env, fs, process};

use tungate::io::namespace::{Namespace, NamespaceError, enter_user_namespace};
use tungate::io::netlink::{LinkChange, LocalAddress, Netlink};
use tungate::io::sys;
use tungate::io::tun::{Offloads, Tun, TunConfig, TunError};

const NAME: &str = "an_ordinary_user_makes_namespaces_a_cable_and_a_tun";

fn main() -> ExitCode {
    let filters: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let asked_for = filters.is_empty() || filters.iter().any(|filter| NAME.contains(filter.as_str()));
    if !asked_for || env::args().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    if sys::effective_user() == 0 {
        return as_nobody();
    }
    if let Err(error) = enter_user_namespace() {
        common::skip(NAME, &error.to_string(), "see the message");
        return ExitCode::SUCCESS;
    }
    assert_eq!((sys::effective_user(), sys::effective_group()), (0, 0), "root of the namespace");
    a_limit_is_told_with_its_setting();
    a_cable_carries_datagrams();
    let config = TunConfig { name: "gate", mtu: 1500, queues: 2, offloads: Offloads::All };
    match Namespace::new().unwrap().run(|| Tun::create(&config).map(drop)).unwrap() {
        Err(error @ (TunError::DeviceForbidden(_) | TunError::NoDevice)) => {
            common::skip(NAME, &error.to_string(), "chmod 666 /dev/net/tun");
        }
        created => created.unwrap(),
    }
    println!("test {NAME} ... ok");
    ExitCode::SUCCESS
}

/// Runs a copy of this program as nobody, who need not be able to reach the original.
fn as_nobody() -> ExitCode {
    let copy = env::temp_dir().join(format!("tungate-user-namespace-{}", process::id()));
    fs::copy(env::current_exe().unwrap(), &copy).unwrap();
    // Most systems let everybody open /dev/net/tun; make this one such a system, in a mount namespace.
    let script = "mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200; \
                  exec setpriv --reuid=65534 --regid=65534 --clear-groups -- \"$0\"";
    let status = Command::new("unshare").args(["-m", "sh", "-c", script]).arg(&copy).current_dir("/").status();
    fs::remove_file(&copy).unwrap();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            println!("test {NAME} ... FAILED ({:?}, signal {:?})", status.code(), status.signal());
            ExitCode::FAILURE
        }
        Err(error) => {
            common::skip(NAME, &format!("unshare: {error}"), "apt-get install util-linux");
            ExitCode::SUCCESS
        }
    }
}

fn a_limit_is_told_with_its_setting() {
    const LIMIT: &str = "/proc/sys/user/max_user_namespaces";
    let before = fs::read_to_string(LIMIT).unwrap();
    fs::write(LIMIT, "0").unwrap(); // this namespace's own limit
    let error = enter_user_namespace().unwrap_err();
    assert!(matches!(error, NamespaceError::Forbidden(..)), "{error}");
    assert!(error.to_string().contains("user.max_user_namespaces"), "{error}");
    fs::write(LIMIT, before).unwrap();
}

fn a_cable_carries_datagrams() {
    let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    a.run(|| Netlink::open().unwrap().create_veth("left", "right", Some(b.as_fd())).unwrap()).unwrap();
    let configure = |name, address| {
        let mut netlink = Netlink::open().unwrap();
        let interface = netlink.link(name).unwrap().index;
        netlink.change_link(interface, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
        netlink.add_address(&LocalAddress { interface, address, prefix_length: 24 }).unwrap();
    };
    a.run(|| configure("left", [10, 0, 0, 1].into())).unwrap();
    b.run(|| configure("right", [10, 0, 0, 2].into())).unwrap();
    let receiver = b.run(|| UdpSocket::bind("10.0.0.2:0").unwrap()).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let to = receiver.local_addr().unwrap();
    let send = || UdpSocket::bind("10.0.0.1:0").unwrap().send_to(b"hello", to).unwrap();
    assert_eq!(a.run(send).unwrap(), 5);
    let mut buffer = [0; 16];
    assert_eq!(receiver.recv(&mut buffer).unwrap(), 5);
}
