//! What the operating system knows about this process, from `/proc/self`. Elsewhere than on Linux there is none.

/// Clock ticks per second in `/proc` (`USER_HZ`): 100 on every Linux since 2.6, whatever the kernel's own rate.
const TICKS_PER_SECOND: f64 = 100.0;

/// Facts about the process; each is absent when it cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<f64>,
    pub(super) virtual_bytes: Option<f64>,
    pub(super) open_fds: Option<f64>,
    pub(super) max_fds: Option<f64>,
    pub(super) threads: Option<f64>,
    pub(super) start_seconds: Option<f64>,
}

/// Reads them now.
pub(super) fn read() -> Process {
    let file = |path| std::fs::read_to_string(path).unwrap_or_default();
    let open_fds = std::fs::read_dir("/proc/self/fd").ok().map(|entries| {
        entries.count().saturating_sub(1) as f64 // one of them is this very listing
    });
    Process {
        open_fds,
        ..parse(&file("/proc/self/stat"), &file("/proc/self/status"), &file("/proc/self/limits"), &file("/proc/stat"))
    }
}

fn parse(stat: &str, status: &str, limits: &str, machine: &str) -> Process {
    // The name of the program stands in brackets and may contain anything, brackets and spaces too.
    let after_name: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    // Counted as in proc(5), where the state behind the name is field 3.
    let ticks = |field: usize| after_name.get(field - 3).and_then(|text| text.parse::<f64>().ok());
    let kilobytes = |key| after(status, key).map(|kilobytes| kilobytes * 1024.0);
    let boot = after(machine, "btime ");
    Process {
        cpu_seconds: ticks(14).zip(ticks(15)).map(|(user, system)| (user + system) / TICKS_PER_SECOND),
        resident_bytes: kilobytes("VmRSS:"),
        virtual_bytes: kilobytes("VmSize:"),
        open_fds: None,
        max_fds: after(limits, "Max open files"),
        threads: ticks(20),
        start_seconds: boot.zip(ticks(22)).map(|(boot, since)| boot + since / TICKS_PER_SECOND),
    }
}

/// The number behind `key` at the beginning of a line.
fn after(text: &str, key: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_found_where_the_kernel_writes_them() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 7 0 1000 123 456 789";
        let status = "Name:\tx\nVmSize:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 4096                 files\n";
        let found = parse(stat, status, limits, "cpu 1 2\nbtime 1700000000\n");
        let expected = Process {
            cpu_seconds: Some(3.0),
            resident_bytes: Some(1_048_576.0),
            virtual_bytes: Some(2_097_152.0),
            open_fds: None,
            max_fds: Some(1024.0),
            threads: Some(7.0),
            start_seconds: Some(1_700_000_010.0),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn what_cannot_be_read_is_absent() {
        assert_eq!(parse("", "VmRSS: lots", "Max open files unlimited", "btime"), Process::default());
    }
}
