//! User-space instructions per request, as callgrind counts them: the difference of two runs, so that starting and
//! stopping cancel out.

use std::io;
use std::path::Path;

/// Instructions of all processes that left their counts in the folder.
pub fn total(dir: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("callgrind.")) {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let counts = text.lines().filter_map(|line| line.strip_prefix("totals:").or(line.strip_prefix("summary:")));
        sum += counts.filter_map(|count| count.trim().parse::<u64>().ok()).max().unwrap_or(0);
    }
    match sum {
        0 => Err(io::Error::other("callgrind has counted nothing")),
        sum => Ok(sum),
    }
}
