//! Network namespaces without the `ip` program and without names: each lives as long as its descriptor, and everything
//! in it (veth ends, addresses, routes, TUNs) vanishes with it, however the process ends.
//!
//! A namespace is entered by threads, not by the process: [`Namespace::run`] and [`Namespace::spawn`] move a fresh thread
//! into it for good. A program started from such a thread runs there too.
//!
//! Without root, [`enter_user_namespace`] first makes the process root of a user namespace of its own, where the system
//! allows that.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread::{self, JoinHandle};

use super::netlink::{LinkChange, Netlink, NetlinkError};
use super::sys;
use super::words::{in_words, with_remedy};

/// A network namespace of our own: nothing in it but a loopback, which is up, and no way out.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// Makes a new one.
    ///
    /// # Errors
    /// [`NamespaceError::Forbidden`] without root (see [`enter_user_namespace`]).
    pub fn new() -> Result<Self, NamespaceError> {
        // A thread of its own, so that the caller stays where it is.
        let maker = sys::spawn("namespace", || {
            sys::unshare(libc::CLONE_NEWNET).map_err(NamespaceError::forbidden)?;
            raise_loopback()?;
            File::open("/proc/thread-self/ns/net").map_err(NamespaceError::Unavailable)
        });
        joined(maker.map_err(NamespaceError::Unavailable)?.join()).map(Self)
    }

    /// The namespace that the calling thread is in.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn current() -> Result<Self, NamespaceError> {
        File::open("/proc/thread-self/ns/net").map(Self).map_err(NamespaceError::Unavailable)
    }

    /// Runs a closure on a thread inside and waits for it. Its panic becomes ours.
    ///
    /// # Errors
    /// The thread could not be started or moved.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
        thread::scope(|scope| {
            let inside = || self.enter().map(|()| f());
            let visitor = thread::Builder::new().name("visitor".to_owned()).spawn_scoped(scope, inside);
            joined(visitor.map_err(NamespaceError::Unavailable)?.join())
        })
    }

    /// Starts a thread inside under this name.
    ///
    /// # Errors
    /// The thread could not be started. That it could not be moved is told by its result.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<Result<T, NamespaceError>>, NamespaceError> {
        let namespace = Self(self.0.try_clone().map_err(NamespaceError::Unavailable)?);
        sys::spawn(name, move || namespace.enter().map(|()| f())).map_err(NamespaceError::Unavailable)
    }

    fn enter(&self) -> Result<(), NamespaceError> {
        sys::enter_network_namespace(self.0.as_fd()).map_err(NamespaceError::forbidden)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes the process root of a new user namespace, and of a new network namespace in it, so that an ordinary user can
/// make TUNs, veths and further namespaces there. Nothing outside is touched or reachable.
///
/// To be called before any other thread exists; there is no way back.
///
/// # Errors
/// [`NamespaceError::Forbidden`] with the setting that forbids it.
pub fn enter_user_namespace() -> Result<(), NamespaceError> {
    let (user, group) = (sys::effective_user(), sys::effective_group());
    sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET).map_err(NamespaceError::forbidden)?;
    // user_namespaces(7): a group map without privilege needs setgroups(2) given up first.
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {user} 1")),
        ("/proc/self/gid_map", format!("0 {group} 1")),
    ];
    for (file, text) in maps {
        fs::write(file, text).map_err(NamespaceError::forbidden)?;
    }
    // Where AppArmor restricts user namespaces, all of the above succeeds, and the first privileged act fails.
    raise_loopback()
}

/// Why there is no namespace.
#[derive(Debug)]
pub enum NamespaceError {
    /// The system does not let this user make or enter one; with what would allow it.
    Forbidden(io::Error, &'static str),
    /// The system ran out of something, or lacks `/proc`.
    Unavailable(io::Error),
    /// It was made, but could not be set up.
    Setup(NetlinkError),
}

impl NamespaceError {
    fn forbidden(error: io::Error) -> Self {
        let holds = |file: &str, value: &str| fs::read_to_string(file).is_ok_and(|text| text.trim() == value);
        if holds("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
            return Self::Forbidden(
                error,
                "run as root, or allow it with `sysctl kernel.apparmor_restrict_unprivileged_userns=0`",
            );
        }
        if holds("/proc/sys/kernel/unprivileged_userns_clone", "0") {
            return Self::Forbidden(error, "run as root, or allow it with `sysctl kernel.unprivileged_userns_clone=1`");
        }
        if error.raw_os_error() == Some(libc::ENOSPC) {
            return Self::Forbidden(
                error,
                "raise `user.max_user_namespaces` and `user.max_net_namespaces` with sysctl (a limit of 0 forbids them)",
            );
        }
        if sys::effective_user() == 0 {
            return Self::Forbidden(
                error,
                "root needs CAP_SYS_ADMIN and CAP_NET_ADMIN for it (a container: `--privileged`)",
            );
        }
        Self::Forbidden(error, "run as root (a container's security profile may forbid namespaces altogether)")
    }
}

impl fmt::Display for NamespaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden(error, remedy) => {
                write!(f, "no network namespace of our own: {}; {remedy}", in_words(error))
            }
            Self::Unavailable(error) => write!(f, "no network namespace of our own: {}", with_remedy(error)),
            Self::Setup(error) => write!(f, "a new network namespace cannot be set up: {error}"),
        }
    }
}

impl std::error::Error for NamespaceError {}

fn raise_loopback() -> Result<(), NamespaceError> {
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    let raise = || {
        let mut netlink = Netlink::open()?;
        let loopback = netlink.link("lo")?.index;
        netlink.change_link(loopback, &up)
    };
    raise().map_err(|error| match error.errno() {
        Some(errno @ libc::EPERM) => NamespaceError::forbidden(io::Error::from_raw_os_error(errno)),
        _ => NamespaceError::Setup(error),
    })
}

/// The result of a thread; its panic goes on in the caller.
fn joined<T>(result: thread::Result<T>) -> T {
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
