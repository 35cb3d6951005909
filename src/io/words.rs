//! What the system's errors say to people: words instead of numbers, and what to do.

use std::io;

/// What an error says, without the number that the standard library puts behind it (` (os error 2)`).
pub fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// What an error says, and what helps where that is known: for what any program may be refused. `Too many open files;
/// raise the limit of open files (...)`.
pub fn with_remedy(error: &io::Error) -> String {
    let remedy = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "run as root",
        Some(libc::EMFILE) => "raise the limit of open files (`ulimit -n`, or LimitNOFILE= of the systemd unit)",
        Some(libc::ENFILE) => "raise the system's limit of open files (`sysctl fs.file-max`)",
        Some(libc::EAGAIN) => "raise the limit of threads (`ulimit -u`, or TasksMax= of the systemd unit)",
        Some(libc::ENOMEM | libc::ENOBUFS) => "there has to be more free memory",
        Some(libc::ENOSPC) => "there has to be more free space",
        Some(libc::ENOTDIR) => "something on the way is no folder",
        Some(libc::EROFS) => "choose a place that can be written to",
        Some(_) | None => return in_words(error),
    };
    format!("{}; {remedy}", in_words(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::announce::AnnounceError;
    use crate::io::control::ServeError;
    use crate::io::daemon::StartError;
    use crate::io::namespace::NamespaceError;
    use crate::io::pcap::CaptureError;
    use crate::io::serve::BindError;
    use crate::io::tun::TunError;

    #[test]
    fn an_error_speaks_in_words_and_says_what_helps() {
        let error = io::Error::from_raw_os_error;
        assert_eq!(in_words(&error(libc::ENOENT)), "No such file or directory");
        assert_eq!(with_remedy(&error(libc::ENOENT)), "No such file or directory");
        assert_eq!(with_remedy(&error(libc::EROFS)), "Read-only file system; choose a place that can be written to");
        assert_eq!(with_remedy(&io::Error::other("of our own")), "of our own");
    }
    #[test]
    fn nobody_is_told_the_number_of_an_error() {
        for number in [libc::EMFILE, libc::EBADFD, libc::EIO, libc::EACCES, libc::EPERM] {
            let error = || io::Error::from_raw_os_error(number);
            for told in [
                StartError::System(error()).to_string(),
                ServeError::Worker(error()).to_string(),
                ServeError::System(error()).to_string(),
                TunError::DeviceForbidden(error()).to_string(),
                TunError::Refused(error()).to_string(),
                AnnounceError::Socket("eth0".to_owned(), error()).to_string(),
                AnnounceError::System(error()).to_string(),
                NamespaceError::Forbidden(error(), "run as root").to_string(),
                NamespaceError::Unavailable(error()).to_string(),
                BindError::Folder("/run/tungate".into(), error()).to_string(),
                BindError::System("/run/tungate/tungate.sock".into(), error()).to_string(),
                CaptureError::Read(error()).to_string(),
            ] {
                assert!(!told.contains("os error") && !told.contains(&number.to_string()), "{told}");
            }
        }
    }
}
