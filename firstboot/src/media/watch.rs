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
    heard: Instant,
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
            heard: Instant::now(),
        }
    }

    /// When it was last noticed that a device came or changed; at first, when
    /// the watch began.
    #[must_use]
    pub const fn heard(&self) -> Instant {
        self.heard
    }

    /// Waits until something changed or `patience` ends; says whether it did.
    pub fn wait(&mut self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        loop {
            let now = fingerprint(&self.roots);
            if now != self.last {
                self.last = now;
                self.heard = Instant::now();
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.doze(left.min(POLL));
        }
    }

    /// Hears what happened while nobody waited. The next wait still tells of
    /// what changed.
    pub fn catch_up(&mut self) {
        if self.events.is_some() {
            self.doze(Duration::ZERO);
        }
        if fingerprint(&self.roots) != self.last {
            self.heard = Instant::now();
        }
    }

    fn doze(&mut self, patience: Duration) {
        match self.events.as_ref().map(|events| events.came(patience)) {
            // It also returns without any, or when a signal comes.
            Some(Ok(is_new)) => {
                if is_new {
                    self.heard = Instant::now();
                }
            }
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

    use super::super::channel::FW_CFG;
    use super::super::find;
    use super::super::matrix::{Format, volume};
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
        let before = watcher.heard();
        watcher.catch_up();
        let noticed = watcher.heard();
        assert!(noticed > before);
        assert!(watcher.wait(Duration::ZERO));
        assert!(watcher.heard() > noticed);
        assert!(!watcher.wait(Duration::ZERO));
        fs::write(device.join("diskseq"), "8\n").expect("sequence");
        assert!(watcher.wait(Duration::ZERO));
        fs::remove_dir_all(&device).expect("remove");
        assert!(watcher.wait(Duration::ZERO));
    }

    /// A machine without disks yet.
    struct Machine {
        roots: Roots,
        _folder: tempfile::TempDir,
    }

    impl Machine {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("folder");
            let roots = Roots {
                sys: folder.path().join("sys"),
                dev: folder.path().join("dev"),
                firmware: folder.path().join("firmware"),
                ..Roots::default()
            };
            fs::create_dir_all(&roots.sys).expect("sysfs");
            fs::create_dir_all(&roots.dev).expect("devices");
            Self {
                roots,
                _folder: folder,
            }
        }

        fn add(&self, name: &str, bytes: &[u8]) {
            fs::write(self.roots.dev.join(name), bytes).expect("device");
            let device = self.roots.sys.join(name);
            fs::create_dir(&device).expect("device");
            let size = format!("{}\n", bytes.len() / 512);
            fs::write(device.join("size"), size).expect("size");
        }
    }

    /// A controller comes, and behind it, later than anybody would have
    /// waited without it, the medium.
    #[test]
    fn a_medium_that_comes_behind_a_late_device_is_waited_for() {
        let Some(volume) = volume(Format::Fat("12", 1440), "VACONFIG") else {
            return;
        };
        let machine = Machine::new();
        let patience = Duration::from_secs(1);
        let begin = Instant::now();
        let found = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(patience / 2);
                machine.add("sda", &[0; 4096]);
                std::thread::sleep(patience);
                machine.add("sr0", &volume);
            });
            find(&machine.roots, patience)
        });
        assert_eq!(found.candidates.len(), 1, "{found:?}");
        assert!(begin.elapsed() > patience);
        assert_eq!(found.candidates[0].device, "sr0");
    }

    /// A medium that comes a little later than a credential outranks it.
    #[test]
    fn a_credential_does_not_count_before_media_had_their_time() {
        let Some(volume) = volume(Format::Fat("12", 1440), "VACONFIG") else {
            return;
        };
        let machine = Machine::new();
        let firmware = machine.roots.firmware.join(FW_CFG);
        fs::create_dir_all(firmware.parent().expect("a folder")).expect("folders");
        fs::write(&firmware, "schema = 1\n").expect("a credential");
        let patience = Duration::from_secs(3);
        let found = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(patience / 10);
                machine.add("sr0", &volume);
            });
            find(&machine.roots, patience)
        });
        let devices = found.candidates.iter().map(|found| found.device.as_str());
        assert_eq!(devices.collect::<Vec<_>>(), ["sr0", "fw_cfg"]);
        fs::remove_dir_all(machine.roots.sys.join("sr0")).expect("gone");
        let found = find(&machine.roots, Duration::ZERO);
        assert_eq!(found.candidates[0].device, "fw_cfg");
    }
}
