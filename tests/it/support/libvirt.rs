//! A libvirt of the tests' own: a daemon with private folders, a private
//! socket and no KVM, so that the host's own one, if any, stays as it is.
#![expect(
    clippy::disallowed_types,
    reason = "the tests start a daemon and ask it through virsh"
)]

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::{
    TestFolder, find_program, is_root, must_run, program, run, skip, temp_folder, text_of,
};

/// Binds the private folders over the host's in a mount namespace of its own,
/// then becomes the daemon. A `/dev` without kvm: one that is there and does
/// not work would be probed at every call.
const START: &str = include_str!("libvirt.sh");

/// A running libvirt; it ends, with its guests, when nobody uses it any more.
#[derive(Debug)]
pub(crate) struct Libvirt {
    daemon: Child,
    folder: TestFolder,
    /// The connection.
    pub(crate) uri: String,
}

/// Those that run, if any test uses them: one for guests of a boot sector,
/// one for whole machines, which take their time.
static SMALL: Mutex<Weak<Libvirt>> = Mutex::new(Weak::new());
static LARGE: Mutex<Weak<Libvirt>> = Mutex::new(Weak::new());

/// A libvirt that nobody else uses at the moment.
#[derive(Debug)]
pub(crate) struct Alone {
    libvirt: Arc<Libvirt>,
    _turn: MutexGuard<'static, ()>,
}

impl Deref for Alone {
    type Target = Libvirt;

    fn deref(&self) -> &Libvirt {
        &self.libvirt
    }
}

impl Libvirt {
    /// One that nobody else uses meanwhile, so that everything in it can be
    /// counted. `None`, said loudly, where there is none to start.
    pub(crate) fn alone() -> Option<Alone> {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Alone {
            libvirt: Self::shared(&SMALL)?,
            _turn: turn,
        })
    }

    /// One for whole machines.
    pub(crate) fn for_boots() -> Option<Arc<Self>> {
        Self::shared(&LARGE)
    }

    fn shared(running: &Mutex<Weak<Self>>) -> Option<Arc<Self>> {
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(libvirt) = running.upgrade() {
            return Some(libvirt);
        }
        let libvirt = Arc::new(Self::start()?);
        *running = Arc::downgrade(&libvirt);
        Some(libvirt)
    }

    fn start() -> Option<Self> {
        if !is_root() {
            skip("a libvirt of its own needs root");
            return None;
        }
        for (name, package) in [
            ("libvirtd", "libvirt-daemon-system"),
            ("virtlogd", "libvirt-daemon-system"),
            ("virsh", "libvirt-clients"),
        ] {
            if find_program(name).is_none() {
                skip(&format!("no `{name}`: apt-get install {package}"));
                return None;
            }
        }
        let folder = temp_folder();
        let log = std::fs::File::create(folder.path().join("daemon.txt")).expect("a log");
        let mut unshare = program("unshare", "util-linux")?;
        let daemon = unshare
            .args(["-m", "--propagation", "private", "sh", "-c", START, "sh"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("unshare starts");
        let socket = folder.path().join("sock/libvirt-sock");
        let libvirt = Self {
            daemon,
            uri: format!("qemu+unix:///system?socket={}", socket.display()),
            folder,
        };
        let deadline = Instant::now() + Duration::from_mins(1);
        while !run(&mut libvirt.virsh(&["uri"])).status.success() {
            let log = libvirt.folder.path().join("daemon.txt");
            assert!(
                Instant::now() < deadline,
                "libvirtd does not answer:\n{}",
                std::fs::read_to_string(log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(libvirt)
    }

    /// A shell's script in a place where this libvirt is the system's own
    /// one, at `qemu:///system`, and KVM does not work.
    pub(crate) fn as_the_systems(&self, script: &str) -> Command {
        const PLACE: &str = r#"
set -e
mkdir -p /run/libvirt /var/lib/libvirt
mount --bind "$1/sock" /run/libvirt
mount --bind "$1/lib" /var/lib/libvirt
if [ -e /dev/kvm ]; then mount --bind /dev/null /dev/kvm; fi
exec sh -ec "$2"
"#;
        let mut unshare = program("unshare", "util-linux").expect("looked for at the start");
        unshare
            .args(["-m", "--propagation", "private", "sh", "-c", PLACE, "sh"])
            .arg(self.folder.path())
            .arg(script);
        unshare
    }

    /// The folder that is `/var/lib/libvirt` to it.
    pub(crate) fn state_folder(&self) -> PathBuf {
        self.folder.path().join("lib")
    }

    /// A call of virsh.
    pub(crate) fn virsh(&self, args: &[&str]) -> Command {
        let mut virsh = program("virsh", "libvirt-clients").expect("looked for at the start");
        virsh.args(["--quiet", "--connect", &self.uri]).args(args);
        virsh
    }

    /// What virsh prints.
    #[track_caller]
    pub(crate) fn ask(&self, args: &[&str]) -> String {
        let output = must_run(&mut self.virsh(args));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// What virsh says when it refuses.
    #[track_caller]
    pub(crate) fn refuses(&self, args: &[&str]) -> String {
        let output = run(&mut self.virsh(args));
        assert!(!output.status.success(), "{args:?}: {}", text_of(&output));
        text_of(&output)
    }

    /// A folder of the daemon's, `lib/qemu/nvram` for example.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Everything that an import could leave behind: pools, networks, guests
    /// and firmware variables.
    pub(crate) fn inventory(&self) -> String {
        let mut text = ["pool-list", "net-list", "list"]
            .map(|what| self.ask(&[what, "--all", "--name"]))
            .join("\n--\n");
        for entry in consign::tree::list_folder(&self.folder("lib/qemu/nvram")).unwrap_or_default()
        {
            text.push('\n');
            text.push_str(&entry.path.display().to_string());
        }
        text
    }

    /// The part of the inventory that names `name`, and all pools.
    pub(crate) fn inventory_of(&self, name: &str) -> String {
        let all = self.inventory();
        let lines = all.lines().filter(|line| line.contains(name));
        let pools = self.ask(&["pool-list", "--all", "--name"]);
        // virt-install makes a pool of the folder that another test tells it of.
        let pools = pools.lines().filter(|pool| pool.trim() != "installed");
        let all: Vec<&str> = pools.chain(lines).collect();
        all.join("\n")
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        let listed = run(&mut self.virsh(&["list", "--name"]));
        for name in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
            run(&mut self.virsh(&["destroy", name]));
        }
        end(&self.folder("libvirtd.pid"));
        let _ended = self.daemon.wait();
        end(&self.folder("virtlogd.pid"));
    }
}

/// Ends the process that wrote its number there.
fn end(file: &Path) {
    let number = std::fs::read_to_string(file).ok();
    let number = number.and_then(|text| text.trim().parse().ok());
    if let Some(process) = number.and_then(rustix::process::Pid::from_raw) {
        // It may have ended by itself.
        let _sent = rustix::process::kill_process(process, rustix::process::Signal::TERM);
    }
}
