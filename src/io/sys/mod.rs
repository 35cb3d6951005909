//! The only `unsafe`, the only clock, and the system calls that the standard library does not offer.
//!
//! Everything here is a thin, safe call: no policy, no retry, errors as the kernel gave them. Whatever the standard
//! library can do safely (reading and writing any file descriptor through [`File`], multicast membership) is done with
//! it by the callers.

#![allow(unsafe_code, reason = "system calls without a safe wrapper; each block says why it is sound")]

mod datagram;
mod process;
mod socket;

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, SystemTime};

use crate::engine::Instant;

pub use datagram::{receive_with_age, tell_times};
pub use process::{become_important, become_real_time, fill_with_random, lock_memory, raise_descriptor_limit};
pub use socket::{
    Received, packet_socket, ping_socket, raw_socket, receive_all_multicast, receive_from, reset_on_close,
    tell_traffic_class, udp_socket,
};

/// Microseconds since boot, never set back. About 20 ns (vDSO); called once a batch, not once a packet.
///
/// `CLOCK_MONOTONIC`, not `_COARSE`: a coarse tick is 1-10 ms, as long as a heartbeat interval.
#[inline]
pub fn now() -> Instant {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid, writable timespec; the call keeps no pointer to it. It cannot fail: the clock exists
    // on every kernel and the pointer is good.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Instant::from_micros(time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000)
}

/// Hints that memory will soon be read; the address need not be valid. Nothing, where stable Rust has no such hint.
#[inline]
pub fn prefetch(address: *const u8) {
    // SAFETY: a prefetch reads nothing that the program sees and faults on no address; SSE is part of x86-64.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Time of day as the span since 1970-01-01 00:00 UTC, for logs and for people. It may jump; nothing is timed by it.
#[expect(clippy::disallowed_methods, reason = "the one place that may ask for the time of day")]
pub fn wall_clock() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The host's name, `localhost` if it has none.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".to_owned() } else { name.trim().to_owned() }
}

/// Starts a thread under this name (the kernel shows its first 15 bytes).
///
/// # Errors
/// The system has no more threads or memory to give.
pub fn spawn<T: Send + 'static>(name: &str, f: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(f)
}

/// Whether this process was started deaf to a signal, as by nohup(1).
pub fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only writes the present one to `action`, which is large enough.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all zeros are a valid `sigaction`, so it is initialised whether the kernel has written it or not.
    let action = unsafe { action.assume_init() };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Most descriptors that one [`wait`] can watch.
pub const MAX_WAIT: usize = 64;

/// Which of the descriptors given to [`wait`] have something to tell: data, an end, or an error that a read will name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready(u64);

impl Ready {
    /// Whether the descriptor at this index of the list is ready.
    pub fn contains(self, index: usize) -> bool {
        self.0 >> index & 1 == 1
    }

    /// True when the time ran out first (or a signal came).
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Sleeps until one of the descriptors is readable or in error, a signal comes, or the timeout (`None` = never) is over.
///
/// # Errors
/// As `ppoll(2)`, `EINTR` excepted: that is an empty answer.
///
/// # Panics
/// More than [`MAX_WAIT`] descriptors.
pub fn wait(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<Ready> {
    assert!(fds.len() <= MAX_WAIT, "a thread watches {} descriptors, {MAX_WAIT} are possible", fds.len());
    let mut polled = [libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; MAX_WAIT];
    for (slot, fd) in polled.iter_mut().zip(fds) {
        slot.fd = fd.as_raw_fd();
    }
    let timeout = timeout.map(|t| libc::timespec {
        tv_sec: libc::time_t::try_from(t.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(t.subsec_nanos().cast_signed()),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the array has at least `fds.len()` entries, the timeout is null or a live timespec, the mask is null.
    let result = unsafe { libc::ppoll(polled.as_mut_ptr(), fds.len() as libc::nfds_t, timeout, std::ptr::null()) };
    match check(result) {
        Ok(_) => Ok(Ready(polled.iter().enumerate().fold(0, |set, (n, p)| set | u64::from(p.revents != 0) << n))),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Ready(0)),
        Err(error) => Err(error),
    }
}

/// Wakes a thread that sits in [`wait`]: an eventfd that is readable from the first [`wake`](Self::wake) until
/// [`clear`](Self::clear).
#[derive(Debug)]
pub struct Waker(File);

impl Waker {
    /// A waker that has not been woken.
    ///
    /// # Errors
    /// No descriptor or memory left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; a non-negative result is a new descriptor that nobody else owns.
        unsafe { new_file(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) }.map(Self)
    }

    /// Wakes the sleeper, now or at its next [`wait`].
    pub fn wake(&self) {
        // The one possible error is a counter at its end, 2^64 - 2 wakes unseen: it is readable then, all the same.
        let _ = (&self.0).write(&1u64.to_ne_bytes());
    }

    /// Takes note of all wakes so far.
    pub fn clear(&self) {
        // Nothing to read is fine: somebody cleared it already.
        let _ = (&self.0).read(&mut [0; 8]);
    }

    /// Sleeps until the descriptor has something to tell, this is woken, of which it takes note, or the timeout is over.
    ///
    /// # Errors
    /// As [`wait`].
    pub fn wait_beside(&self, descriptor: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<()> {
        if wait(&[descriptor, self.as_fd()], timeout)?.contains(1) {
            self.clear();
        }
        Ok(())
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Who sits at the other end of a unix socket, as of its `connect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Process, 0 if it lies outside our PID namespace.
    pub pid: i32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// The credentials of the peer of a unix socket (`SO_PEERCRED`).
///
/// # Errors
/// The socket is not connected.
pub fn peer_credentials(socket: &UnixStream) -> io::Result<Credentials> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = socklen::<libc::ucred>();
    let place = (&raw mut found).cast();
    // SAFETY: `place` points to `length` writable bytes, and a ucred is plain integers.
    check(unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, place, &raw mut length)
    })?;
    Ok(Credentials { pid: found.pid, uid: found.uid, gid: found.gid })
}

/// The supplementary groups of the peer of a unix socket (`SO_PEERGROUPS`), as of its `connect`.
///
/// # Errors
/// The socket is not connected.
pub fn peer_groups(socket: &UnixStream) -> io::Result<Vec<u32>> {
    // The kernel's NGROUPS_MAX: no process has more.
    let mut groups: Vec<libc::gid_t> = vec![0; 65_536];
    let mut length = libc::socklen_t::try_from(groups.len() * size_of::<libc::gid_t>()).expect("256 KiB");
    let place = groups.as_mut_ptr().cast();
    // SAFETY: `place` points to `length` writable bytes, and the kernel writes at most that many.
    check(unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERGROUPS, place, &raw mut length)
    })?;
    groups.truncate(length as usize / size_of::<libc::gid_t>());
    Ok(groups)
}

/// Our effective user.
pub fn effective_user() -> u32 {
    // SAFETY: no arguments, no memory, cannot fail.
    unsafe { libc::geteuid() }
}

/// Our effective group.
pub fn effective_group() -> u32 {
    // SAFETY: no arguments, no failure.
    unsafe { libc::getegid() }
}

/// `TUNSETIFF`: creates or joins the TUN interface `name` through an open `/dev/net/tun`. `flags` are `IFF_*` of
/// `linux/if_tun.h`.
///
/// # Errors
/// As the kernel's: `EPERM` without CAP_NET_ADMIN, `EBUSY` if the name is taken and `IFF_TUN_EXCL` is set, `EINVAL` for
/// a bad name or flags. A name of more than 15 bytes is `InvalidInput`.
pub fn tun_attach(tun: &File, name: &str, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: an ifreq is integers and arrays of them; all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = short(flags).cast_signed();
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives until the call returns.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) }).map(drop)
}

/// `TUNSETOFFLOAD`: which packets (`TUN_F_*`) the reader of this TUN can digest. Device-wide; the argument goes by value.
///
/// # Errors
/// `EINVAL` if one of the bits is unknown to this kernel.
pub fn tun_set_offload(tun: &File, bits: libc::c_uint) -> io::Result<()> {
    // SAFETY: the argument is an integer, no memory is touched.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(bits)) }).map(drop)
}

/// `TUNSETSTEERINGEBPF`: the program of [`load_socket_filter`] says which queue of the TUN a packet goes to. The kernel
/// keeps it for as long as the TUN exists.
///
/// # Errors
/// `EINVAL` for a program of another type.
pub fn tun_set_steering(tun: &File, program: &File) -> io::Result<()> {
    let mut program = program.as_raw_fd();
    // SAFETY: the call reads one int through the pointer, which lives until it returns.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETSTEERINGEBPF, &raw mut program) }).map(drop)
}

/// `_IOR('T', 224, int)` of linux/if_tun.h.
const TUNSETSTEERINGEBPF: libc::Ioctl = 0x8004_54e0_u32 as libc::Ioctl;

/// Loads an eBPF program of type `SOCKET_FILTER`, an instruction a word as linux/bpf.h has them.
///
/// # Errors
/// `EPERM` without CAP_BPF where unprivileged programs are forbidden, `EINVAL` or `EACCES` from the verifier, `ENOSYS`.
pub fn load_socket_filter(program: &[u64]) -> io::Result<File> {
    /// The beginning of `union bpf_attr` as `BPF_PROG_LOAD` reads it; what is missing counts as zero.
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log: [u32; 2],
        log_buffer: u64,
        kernel_version: u32,
        flags: u32,
    }
    const LOAD: libc::c_int = 5;
    const SOCKET_FILTER: u32 = 1;
    let count = u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let (instructions, license) = (program.as_ptr() as u64, c"Apache-2.0".as_ptr() as u64);
    let (log, log_buffer, kernel_version, flags) = ([0; 2], 0, 0, 0);
    let load = Load { kind: SOCKET_FILTER, count, instructions, license, log, log_buffer, kernel_version, flags };
    // SAFETY: the attributes are as long as said, and point to `count` instructions of eight bytes and to a string that
    // ends with zero, all alive until the call returns; the kernel only reads them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, LOAD, &raw const load, size_of::<Load>()) };
    let result = RawFd::try_from(result).expect("a descriptor or -1");
    // SAFETY: a result of the call that is not negative is a new descriptor that nobody else owns.
    unsafe { new_file(result) }
}

/// Moves the calling thread (for `CLONE_NEWUSER`: the process, which must have no other thread) into new namespaces.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN or where the system forbids it, `ENOSPC` at a limit of `user.max_*_namespaces`.
pub fn unshare(namespaces: libc::c_int) -> io::Result<()> {
    // SAFETY: no pointers. Only CLONE_NEW* flags are passed, which leave memory and descriptors shared as Rust expects.
    check(unsafe { libc::unshare(namespaces) }).map(drop)
}

/// Moves the calling thread into the network namespace that the descriptor stands for.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN over that namespace, `EINVAL` if the descriptor is of another kind.
pub fn enter_network_namespace(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers; the descriptor is borrowed and thus open.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// `-1` becomes the error that the kernel left in `errno`.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Takes a descriptor that a call just returned into ownership.
///
/// # Safety
/// `result` must be -1 or a descriptor that nothing else owns.
unsafe fn new_file(result: RawFd) -> io::Result<File> {
    let fd = check(result)?;
    // SAFETY: the caller vouches that the descriptor is new and ours.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn socklen<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).expect("socket structures are small")
}

/// Constants that libc declares wider than the field they are for.
fn short(constant: libc::c_int) -> u16 {
    u16::try_from(constant).expect("constants of 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_runs_backwards() {
        let earlier = now();
        assert!(now() >= earlier);
        assert!(wall_clock() > Duration::from_secs(1_500_000_000), "before 2017");
    }

    #[test]
    fn a_wake_is_seen_once_by_a_wait_that_starts_later() {
        let (idle, woken) = (Waker::new().unwrap(), Waker::new().unwrap());
        let fds = [idle.as_fd(), woken.as_fd()];
        assert!(wait(&fds, Some(Duration::ZERO)).unwrap().is_empty());

        woken.wake();
        woken.wake();
        let ready = wait(&fds, None).unwrap();
        assert!(ready.contains(1) && !ready.contains(0), "{ready:?}");

        woken.clear();
        assert!(wait(&fds, Some(Duration::ZERO)).unwrap().is_empty());
    }

    #[test]
    fn a_sleeper_is_woken_by_another_thread() {
        let waker = std::sync::Arc::new(Waker::new().unwrap());
        let sleeper = spawn("sleeper", {
            let waker = waker.clone();
            move || wait(&[waker.as_fd()], None).map(|ready| ready.contains(0))
        });
        waker.wake();
        assert!(sleeper.unwrap().join().unwrap().unwrap());
    }

    #[test]
    fn the_peer_of_a_socket_pair_is_this_process() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let pid = std::process::id().cast_signed();
        assert_eq!(peer_credentials(&ours).unwrap().pid, pid);
    }

    #[test]
    fn what_is_not_a_tun_is_refused_with_the_kernels_error() {
        let file = File::open("/dev/null").unwrap();
        assert_eq!(tun_attach(&file, "x", 1).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        assert_eq!(tun_attach(&file, "a-name-of-16-byt", 1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
