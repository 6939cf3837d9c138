//! File descriptors of the process: every connection is one, and systems allow fewer by default than a router needs.

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More than a router ever has. Some systems allow a billion, which children that close them all one by one do not survive.
const ENOUGH: u64 = 1 << 20;

/// Raises the limit to what the system allows without asking anybody, and tells what it is then; `None` is no limit.
pub fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let present = limit.current?;
    let wanted = limit.maximum.map_or(ENOUGH, |most| most.min(ENOUGH));
    if wanted > present && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).is_ok() {
        return Some(wanted);
    }
    Some(present)
}

/// Whether there was no descriptor left, of the process or of the whole system.
pub fn are_exhausted(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
    exhausted.contains(&error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_never_lowered() {
        let before = getrlimit(Resource::Nofile).current;
        let raised = raise_limit();
        assert!(raised.is_none() || raised >= before);
    }

    #[test]
    fn other_errors_are_other_errors() {
        assert!(are_exhausted(&Errno::MFILE.into()) && are_exhausted(&Errno::NFILE.into()));
        assert!(!are_exhausted(&Errno::CONNREFUSED.into()) && !are_exhausted(&io::Error::other("x")));
    }
}
