//! Notices that a medium came, went or was exchanged.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Roots, devices, size_of};
use crate::init::devices::{Events, value};

/// Without the kernel's messages, or when one is lost, look this often.
const POLL: Duration = Duration::from_secs(2);

/// Waits for changes among the block devices: told by the kernel's uevents,
/// and by a look every two seconds, since a drive may change its medium
/// without a word.
#[derive(Debug)]
pub struct Watcher {
    roots: Roots,
    events: Option<Events>,
    last: Fingerprint,
}

/// Devices with their length and the kernel's `diskseq`, which no two media
/// share, not even under one name.
type Fingerprint = BTreeMap<String, (u64, String)>;

impl Watcher {
    /// Watches from the present state on.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        Self {
            roots: roots.clone(),
            events: Events::listen().ok(),
            last: fingerprint(roots),
        }
    }

    /// Waits until something changed or `patience` ends; says whether it did.
    pub fn wait(&mut self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        loop {
            let now = fingerprint(&self.roots);
            if now != self.last {
                self.last = now;
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.doze(left.min(POLL));
        }
    }

    fn doze(&mut self, patience: Duration) {
        match self.events.as_ref().map(|events| events.wait(patience)) {
            Some(Ok(_)) => {}
            // The socket broke: from now on only the clock tells.
            Some(Err(_)) => self.events = None,
            None => std::thread::sleep(patience),
        }
    }
}

fn fingerprint(roots: &Roots) -> Fingerprint {
    let of = |name: String| {
        let sequence = roots.sys.join(&name).join("diskseq");
        let sequence = sequence.to_str().and_then(value).unwrap_or_default();
        let size = size_of(roots, &name);
        (name, (size, sequence))
    };
    devices(roots).into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_new_an_exchanged_and_a_gone_medium_are_noticed() {
        let folder = tempfile::tempdir().expect("folder");
        let roots = Roots {
            sys: folder.path().join("sys"),
            dev: folder.path().join("dev"),
            ..Roots::default()
        };
        let device = roots.sys.join("vdb");
        fs::create_dir_all(&roots.sys).expect("sysfs");
        let mut watcher = Watcher::new(&roots);
        assert!(!watcher.wait(Duration::ZERO));
        fs::create_dir(&device).expect("device");
        fs::write(device.join("size"), "2048\n").expect("size");
        fs::write(device.join("diskseq"), "7\n").expect("sequence");
        assert!(watcher.wait(Duration::ZERO));
        assert!(!watcher.wait(Duration::ZERO));
        fs::write(device.join("diskseq"), "8\n").expect("sequence");
        assert!(watcher.wait(Duration::ZERO));
        fs::remove_dir_all(&device).expect("remove");
        assert!(watcher.wait(Duration::ZERO));
    }
}
