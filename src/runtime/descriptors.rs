//! File descriptors of the process: every connection is one, and systems allow fewer by default than a router needs.

use std::io;

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More than a router ever has. Some systems allow a billion, which children that close them all one by one do not survive.
const ENOUGH: u64 = 1 << 20;
/// As many have room in the system's table from the start, at 8 bytes each.
const ROOM: u64 = 1 << 16;

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

/// Makes room for many, up to `limit`, before there is a second thread. Linux makes a table that is full twice as large, and
/// where threads share it, whoever needs the descriptor sleeps until no core can be reading the old one: 8 to 30 ms, in which
/// a worker serves nobody.
pub fn make_room(limit: Option<u64>) {
    let last = limit.unwrap_or(ROOM).min(ROOM).saturating_sub(1);
    // Closed at once. What cannot be had now comes when it is needed.
    let _room = fcntl_dupfd_cloexec(io::stderr(), last as i32);
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
    #[cfg(target_os = "linux")]
    fn there_is_room_for_many() {
        make_room(raise_limit());
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        let wanted = getrlimit(Resource::Nofile).current.unwrap_or(ROOM).min(ROOM);
        assert!(size.trim().parse::<u64>().unwrap() >= wanted);
    }

    #[test]
    fn other_errors_are_other_errors() {
        assert!(are_exhausted(&Errno::MFILE.into()) && are_exhausted(&Errno::NFILE.into()));
        assert!(!are_exhausted(&Errno::CONNREFUSED.into()) && !are_exhausted(&io::Error::other("x")));
    }
}
