//! What a proxy costs: CPU time and memory of all its processes, from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::ops::Sub;

/// Ticks per second in `/proc`; the kernel's promise to programs since ever.
const TICKS: f64 = 100.0;

/// CPU seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    pub user: f64,
    pub system: f64,
}

impl Sub for Cpu {
    type Output = Cpu;

    fn sub(self, before: Cpu) -> Cpu {
        Cpu { user: self.user - before.user, system: self.system - before.system }
    }
}

/// Bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    pub resident: f64,
    /// Shared pages count in part.
    pub proportional: f64,
}

/// A process and all its descendants.
pub fn family(of: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if let Some(parent) = stat(pid).and_then(|fields| fields.get(1)?.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut family = vec![of];
    let mut next = 0;
    while let Some(pid) = family.get(next) {
        family.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    family
}

/// CPU time used so far, all threads included.
pub fn cpu(family: &[u32]) -> Cpu {
    let mut sum = Cpu::default();
    for fields in family.iter().filter_map(|pid| stat(*pid)) {
        let seconds = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0) / TICKS;
        sum.user += seconds(11);
        sum.system += seconds(12);
    }
    sum
}

/// Memory in use now.
pub fn memory(family: &[u32]) -> Memory {
    let mut sum = Memory::default();
    for pid in family {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let bytes = |key: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
        };
        sum.resident += bytes("Rss:");
        sum.proportional += bytes("Pss:");
    }
    sum
}

/// Fields of `/proc/PID/stat` from the state on: what comes before may hold blanks.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}
