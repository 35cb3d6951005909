//! What a process asks of the kernel for itself: random bytes, a place before others, memory that stays, descriptors.

use std::io;

use super::check;

/// Fills the buffer with bytes that nobody can guess.
///
/// # Errors
/// `ENOSYS` on a kernel older than 3.17.
pub fn fill_with_random(buffer: &mut [u8]) -> io::Result<()> {
    let mut rest = buffer;
    while !rest.is_empty() {
        // SAFETY: the pointer and the length are those of a live, writable slice; the call writes no more than that.
        let written = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(written) {
            Ok(written) => rest = &mut rest[written..],
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(io::Error::last_os_error()),
        }
    }
    Ok(())
}

/// Lets this process have as many descriptors open as it may: most systems give 1,024 at first, for programs that use
/// select(2). How many that are now.
pub fn raise_descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes one rlimit, which lives until it returns; it cannot fail for a known resource.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: the call reads one rlimit, which lives until it returns.
    let set = check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) });
    if set.is_ok() { limit.rlim_max } else { limit.rlim_cur }
}

/// Has the calling thread run before all threads without real-time priority, as soon as it has something to do.
///
/// # Errors
/// `EPERM` without CAP_SYS_NICE and with an RLIMIT_RTPRIO below the priority.
pub fn become_real_time(priority: libc::c_int) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // A child shall not inherit it: SCHED_RESET_ON_FORK.
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: 0 is the calling thread; the parameters are alive until the call returns, and only read.
    check(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) }).map(drop)
}

/// Has the calling thread get the CPU before all others that have no real-time priority and are not as important.
///
/// # Errors
/// `EACCES` without CAP_SYS_NICE and with an RLIMIT_NICE that is too low.
pub fn become_important() -> io::Result<()> {
    // SAFETY: no pointers; on Linux 0 is the calling thread.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) }).map(drop)
}

/// Keeps all memory of this process in RAM, that which it will get as soon as it is touched: a page that has to be read
/// from a disk takes longer than a heartbeat.
///
/// # Errors
/// `ENOMEM` or `EPERM` where RLIMIT_MEMLOCK is too low and CAP_IPC_LOCK is missing.
pub fn lock_memory() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_are_others_each_time() {
        let (mut one, mut other) = ([0; 300], [0; 300]);
        fill_with_random(&mut one).unwrap();
        fill_with_random(&mut other).unwrap();
        assert_ne!(one, other);
        assert_ne!(one[268..], [0; 32], "to the end of the buffer");
    }
}
