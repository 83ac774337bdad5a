//! What root may do here: in a container, less than its name says.

use rustix::thread::CapabilitySet;

use super::refusal::{NEEDED, SandboxRefusal};

/// What unpacking and maintainer scripts cannot do without.
const CAPABILITIES: [(CapabilitySet, &str); 8] = [
    (CapabilitySet::CHOWN, "CAP_CHOWN"),
    (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
    (CapabilitySet::FOWNER, "CAP_FOWNER"),
    (CapabilitySet::FSETID, "CAP_FSETID"),
    (CapabilitySet::SETGID, "CAP_SETGID"),
    (CapabilitySet::SETUID, "CAP_SETUID"),
    (CapabilitySet::SETFCAP, "CAP_SETFCAP"),
    (CapabilitySet::SYS_CHROOT, "CAP_SYS_CHROOT"),
];

/// Whether this process is a root that can own files of every user.
pub(super) fn check_root() -> Result<(), SandboxRefusal> {
    if !rustix::process::geteuid().is_root() {
        return Err(SandboxRefusal::NotRoot);
    }
    let held = rustix::thread::capabilities(None).map_err(|error| SandboxRefusal::Trial {
        reason: error.to_string(),
    })?;
    let missing: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(capability, _)| !held.effective.contains(*capability))
        .map(|(_, name)| *name)
        .collect();
    if !missing.is_empty() {
        return Err(SandboxRefusal::Capabilities { missing });
    }
    for file in ["/proc/self/uid_map", "/proc/self/gid_map"] {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let found = mapped(&text);
        if found <= NEEDED {
            return Err(SandboxRefusal::FewIds { file, found });
        }
    }
    Ok(())
}

/// How many ids from 0 on a map of /proc knows.
fn mapped(text: &str) -> u64 {
    let ranges = text.lines().filter_map(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
        let first = numbers.next()?.ok()?;
        Some((first, numbers.nth(1)?.ok()?))
    });
    let mut ranges: Vec<(u64, u64)> = ranges.collect();
    ranges.sort_unstable();
    ranges.into_iter().fold(0, |end, (first, count)| {
        if first <= end {
            end.max(first.saturating_add(count))
        } else {
            end
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_count_from_zero_without_a_gap() {
        assert_eq!(mapped("         0          0 4294967295\n"), 4_294_967_295);
        assert_eq!(mapped("0 1000 1\n1 100000 65535\n"), 65_536);
        assert_eq!(mapped("0 1000 1\n2 100000 65535\n"), 1);
        assert_eq!(mapped(""), 0);
    }
}
