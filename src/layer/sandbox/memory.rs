//! Whether a root in the making fits into memory.
//!
//! A root is written, read once and thrown away, so the disk only slows it
//! down: writing back takes longer than making it, and dpkg syncs after every
//! step. Where memory is plentiful the root is a tmpfs, which also goes away
//! with its process. The layer has the same bytes either way.

use std::fs;
use std::path::Path;

/// Times that unpacked packages are larger than their .debs, and some more.
const GROWTH: u64 = 8;

/// The size of a tmpfs for packages of `debs` bytes: half of what is
/// available, when that is enough.
pub(crate) fn room_for(debs: u64) -> Option<u64> {
    let half = available()? / 2;
    (debs.checked_mul(GROWTH)? <= half).then_some(half)
}

/// Bytes that this process may use without pressing anybody.
pub(super) fn available() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let host = mem_available(&meminfo)?;
    Some(cgroup_left().map_or(host, |left| left.min(host)))
}

fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// What the control group's limit leaves; `None` without a limit.
fn cgroup_left() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mut folder = Some(Path::new("/sys/fs/cgroup").join(path));
    let mut least: Option<u64> = None;
    // A limit of any group above counts as well.
    while let Some(at) = folder.filter(|at| at.starts_with("/sys/fs/cgroup")) {
        let number = |name: &str| -> Option<u64> {
            fs::read_to_string(at.join(name)).ok()?.trim().parse().ok()
        };
        if let (Some(limit), Some(used)) = (number("memory.max"), number("memory.current")) {
            let left = limit.saturating_sub(used);
            least = Some(least.map_or(left, |least| least.min(left)));
        }
        folder = at.parent().map(Path::to_path_buf);
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_estimate_counts() {
        let text = "MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable:   24000 kB\n";
        assert_eq!(mem_available(text), Some(24_576_000));
        assert_eq!(mem_available("MemTotal: 100 kB\n"), None);
    }

    #[test]
    fn what_is_too_large_for_memory_goes_to_the_disk() {
        assert_eq!(room_for(u64::MAX), None);
    }
}
