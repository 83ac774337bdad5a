//! What the kernel command line asks for.

use super::gpt::Guid;
use super::problem::Problem;

/// The kernel cuts its command line here on x86.
const LONGEST: usize = 4096;

/// What to mount and start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The root partition (`root=PARTUUID=`).
    pub root: Guid,
    /// The partition of `/var` (`consign.var=PARTUUID=`); without, `/var` is on the root.
    pub var: Option<Guid>,
    /// Name of the slot (`consign.slot=`), for messages only.
    pub slot: String,
    /// Whether the slot must prove itself (`consign.try=1`).
    pub is_try: bool,
    /// The program to start (`init=`).
    pub init: String,
}

/// Reads the command line of the running kernel.
///
/// # Errors
///
/// [`Problem`] when it cannot be read or does not name a root.
pub fn read() -> Result<Wanted, Problem> {
    let text =
        std::fs::read_to_string("/proc/cmdline").map_err(Problem::io("read /proc/cmdline"))?;
    parse(text.get(..LONGEST).unwrap_or(&text))
}

/// The last of several equal parameters counts, as in the kernel.
fn parse(text: &str) -> Result<Wanted, Problem> {
    let mut root = None;
    let mut wanted = Wanted {
        root: Guid::default(),
        var: None,
        slot: "a".into(),
        is_try: false,
        init: "/sbin/init".into(),
    };
    for word in text.split_ascii_whitespace() {
        // Words after `--` are for init.
        if word == "--" {
            break;
        }
        match word.split_once('=') {
            Some(("root", value)) => root = Some(partition("root", value)?),
            Some(("consign.var", value)) => wanted.var = Some(partition("consign.var", value)?),
            Some(("consign.slot", value)) => value.clone_into(&mut wanted.slot),
            Some(("consign.try", value)) => wanted.is_try = value == "1",
            Some(("init", value)) if value.starts_with('/') => value.clone_into(&mut wanted.init),
            _ => {}
        }
    }
    wanted.root = root.ok_or_else(|| unexpected("root", ""))?;
    Ok(wanted)
}

fn partition(name: &'static str, value: &str) -> Result<Guid, Problem> {
    value
        .strip_prefix("PARTUUID=")
        .and_then(Guid::parse)
        .ok_or_else(|| unexpected(name, value))
}

fn unexpected(name: &'static str, found: &str) -> Problem {
    Problem::Parameter {
        name,
        found: found.into(),
        expected: "PARTUUID= and a GPT partition identifier",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "root=PARTUUID=0fc63daf-8483-4772-8e79-3d69d8477de4";

    #[test]
    fn everything_has_a_place_but_unknown_words() {
        let wanted = parse(&format!(
            "BOOT_IMAGE=/slot-b/vmlinuz {ROOT} consign.var=PARTUUID=4D21B016-B534-45C2-A9FB-5C16E091FD2D \
             consign.slot=b consign.try=1 quiet init=/bin/other init=relative -- init=/no"
        ))
        .expect("a good line");
        assert_eq!(
            wanted.root.to_string(),
            "0fc63daf-8483-4772-8e79-3d69d8477de4"
        );
        assert_eq!(
            wanted.var.map(|var| var.to_string()).as_deref(),
            Some("4d21b016-b534-45c2-a9fb-5c16e091fd2d")
        );
        assert_eq!(
            (wanted.slot.as_str(), wanted.is_try, wanted.init.as_str()),
            ("b", true, "/bin/other")
        );
    }

    #[test]
    fn a_root_by_device_name_is_refused() {
        let problem = parse("root=/dev/vda3").expect_err("not understood");
        assert_eq!(
            problem.to_string(),
            "This system cannot start: kernel parameter `root` is `/dev/vda3`, \
             expected PARTUUID= and a GPT partition identifier.\n\
             Correct the boot entry, or write the image to the disk again."
        );
        assert!(parse("quiet").is_err());
        assert!(parse("root=PARTUUID=0fc63daf").is_err());
    }
}
