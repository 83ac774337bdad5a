//! The kernel command line.
//!
//! Source: Linux `Documentation/admin-guide/kernel-parameters.rst`.

use super::error::BootError;
use super::spec::{BootSpec, Slots};
use crate::units::Guid;

/// The longest command line x86 takes, with its NUL (`COMMAND_LINE_SIZE`).
const COMMAND_LINE_SIZE: usize = 2048;

/// Our own parameters for consoles and noise, in order. The last console is
/// `/dev/console`.
const COMMON: [&str; 5] = [
    "console=tty0",
    "console=hvc0",
    "console=ttyS0,115200",
    "quiet",
    // Where a host emulates the processor and is busy, ticks come late, and the
    // kernel's test of the timer ends in a panic.
    "no_timer_check",
];

/// What a hung or broken kernel does: reboot, so that the loader counts a try.
const PANIC: &str = "panic=30";

/// Why a slot is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// It is known to work, or there is no other.
    Normal,
    /// It has tries left and must prove itself: `/init` reboots instead of
    /// waiting for ever.
    Try,
    /// No slot has tries left: services stay down, and no panic reboots.
    Fenced,
}

/// The command line that starts the root with the identifier `root` as slot `slot`.
pub(super) fn render(spec: &BootSpec, slot: &str, root: Guid, start: Start) -> String {
    let mut words = vec![format!("root=PARTUUID={root}")];
    if let Some(var) = spec.slots.var() {
        words.push(format!("consign.var=PARTUUID={var}"));
    }
    words.push(format!("consign.slot={slot}"));
    match start {
        Start::Normal => words.push(PANIC.into()),
        Start::Try => words.extend([PANIC.into(), "consign.try=1".into()]),
        Start::Fenced => words.push("consign.fenced=1".into()),
    }
    words.extend(COMMON.map(String::from));
    words.extend(spec.kernel_parameters.iter().cloned());
    words.join(" ")
}

/// The command line of the slot that ships, for hosts that load the kernel
/// themselves.
pub(super) fn direct(spec: &BootSpec) -> String {
    render(spec, "a", spec.slots.root(), Start::Normal)
}

/// Checks that every extra parameter arrives as it is written, in the kernel
/// and through GRUB's own quoting.
///
/// # Errors
///
/// [`BootError::Parameter`].
pub(super) fn check(spec: &BootSpec) -> Result<(), BootError> {
    let wrong = |parameter: &String, problem| BootError::Parameter {
        parameter: parameter.clone(),
        problem,
    };
    for parameter in &spec.kernel_parameters {
        let problem = match parameter {
            p if p.is_empty() => "no characters",
            p if p.contains(|c: char| c.is_whitespace()) => "a space",
            p if p.contains(|c: char| !c.is_ascii_graphic()) => {
                "a character that is not printable ASCII"
            }
            p if p.contains(['\'', '"', '\\', '$']) => "a quote, a backslash or a dollar sign",
            p if OURS.iter().any(|ours| p.starts_with(ours)) => {
                "a name that consign itself decides"
            }
            _ => continue,
        };
        return Err(wrong(parameter, problem));
    }
    let longest = render(spec, "a", spec.slots.root(), Start::Try);
    match spec.kernel_parameters.last() {
        Some(last) if longest.len() >= COMMAND_LINE_SIZE => {
            Err(wrong(last, "no room: the line is longer than 2047 bytes"))
        }
        _ => Ok(()),
    }
}

/// Parameters that the slots depend on.
const OURS: [&str; 4] = ["root=", "consign.", "rdinit=", "initrd="];

/// Every slot with its root, in the order of the table.
pub(super) fn slots(slots: &Slots) -> Vec<(&'static str, Guid)> {
    match slots {
        Slots::Ab { root_a, root_b, .. } => vec![("a", *root_a), ("b", *root_b)],
        Slots::Single { root, .. } => vec![("a", *root)],
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::ab_spec;
    use super::*;

    #[test]
    fn the_shipped_slot_is_found_by_identifier_and_reboots_on_panic() {
        assert_eq!(
            direct(&ab_spec()),
            "root=PARTUUID=00000000-0000-0000-0000-00000000000a \
             consign.var=PARTUUID=00000000-0000-0000-0000-00000000000f consign.slot=a panic=30 \
             console=tty0 console=hvc0 console=ttyS0,115200 quiet no_timer_check"
        );
    }

    #[test]
    fn a_fenced_start_never_reboots_on_panic() {
        let line = render(&ab_spec(), "a", Guid::from_u128(1), Start::Fenced);
        assert!(line.contains("consign.fenced=1") && !line.contains("panic="));
    }

    #[test]
    fn parameters_that_would_not_arrive_are_refused() {
        let with = |parameter: &str| {
            let mut spec = ab_spec();
            spec.kernel_parameters = vec![parameter.into()];
            check(&spec).map_err(|error| error.to_string())
        };
        assert_eq!(with("net.ifnames=0"), Ok(()));
        assert_eq!(
            with("a b"),
            Err("kernel parameter `a b` has a space".into())
        );
        assert!(with("$x").is_err() && with("").is_err() && with("ü").is_err());
        assert!(with("root=/dev/vda1").is_err() && with("consign.fenced=0").is_err());
        assert!(with(&"x".repeat(2000)).is_err());
    }
}
