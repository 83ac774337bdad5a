//! A running guest.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use super::arguments::{HOT_PORT, captured_console, machine, terminal_console};
use super::console::{Console, Waited};
use super::firmware;
use super::kvm::{self, Accelerator, Probe};
use super::qmp::Qmp;
use super::state::{GuestState, StateLine};
use super::{Chipset, Disk, GuestSpec, MachineError, Writes};
use crate::exec::{Call, Tool, escape, read_tail};
use crate::report::Reporter;

/// QEMU as this host has it.
#[derive(Debug, Clone)]
pub struct Qemu {
    call: Call,
    accelerator: Accelerator,
}

impl Qemu {
    /// Finds QEMU and tries whether KVM works. Says so when it does not.
    ///
    /// # Errors
    ///
    /// [`MachineError::Qemu`].
    pub fn find(search_path: &OsStr, reporter: &dyn Reporter) -> Result<Self, MachineError> {
        let call = Call::find(Tool::QemuX86, search_path)?;
        let accelerator = match kvm::probe(&call)? {
            Probe::Works => Accelerator::Kvm,
            Probe::Broken(reason) => {
                reporter.warn(
                    format!(
                        "KVM does not work here ({}); the guest is emulated and slow",
                        escape(&reason)
                    ),
                    Some("run on a machine with KVM, as a user who may open /dev/kvm"),
                );
                Accelerator::Tcg
            }
        };
        Ok(Self::emulated_at(call, search_path).with(accelerator))
    }

    /// QEMU that emulates the processor, whether KVM works or not.
    ///
    /// # Errors
    ///
    /// [`MachineError::Qemu`].
    pub fn find_emulated(search_path: &OsStr) -> Result<Self, MachineError> {
        Ok(Self::emulated_at(
            Call::find(Tool::QemuX86, search_path)?,
            search_path,
        ))
    }

    fn emulated_at(call: Call, search_path: &OsStr) -> Self {
        Self {
            call: call.tied_to_us(search_path),
            accelerator: Accelerator::Tcg,
        }
    }

    fn with(self, accelerator: Accelerator) -> Self {
        Self {
            accelerator,
            ..self
        }
    }

    /// What runs the guest's instructions.
    #[must_use]
    pub fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    /// The call with the machine's arguments, after what can be checked was.
    fn prepare(&self, spec: &GuestSpec) -> Result<Call, MachineError> {
        let ovmf = firmware::find(spec.firmware, Path::new("/"))?;
        let kernel = spec.kernel.iter();
        let given = (spec.disks.iter().map(|disk| &disk.path)).chain(
            kernel
                .flat_map(|direct| [Some(&direct.kernel), direct.initrd.as_ref()])
                .flatten(),
        );
        for path in given {
            // QEMU's own message would name its option, not the reader's file.
            File::open(path).map_err(|source| MachineError::Open {
                path: path.clone(),
                source,
            })?;
        }
        let args = machine(spec, ovmf.as_ref(), self.accelerator)?;
        Ok(self.call.clone().args(args))
    }

    /// Runs a guest whose console is the terminal, until it goes off or the
    /// user ends it. The console is kept in `log` too.
    ///
    /// # Errors
    ///
    /// Any [`MachineError`] of starting, and `Ended`.
    pub fn run_on_terminal(
        &self,
        spec: &GuestSpec,
        log: Option<&Path>,
    ) -> Result<(), MachineError> {
        let call = self.prepare(spec)?.args(terminal_console(log)?);
        let mut child = call.spawn(Stdio::inherit(), Stdio::inherit(), Stdio::inherit())?;
        let status = child
            .wait()
            .map_err(|source| MachineError::Talk { source })?;
        if status.success() {
            Ok(())
        } else {
            Err(MachineError::Ended {
                status,
                stderr: String::new(),
            })
        }
    }

    /// Starts a guest whose console is captured, and copied to `log`.
    ///
    /// The guest ends with its value, and with the thread that called this.
    ///
    /// # Errors
    ///
    /// Any [`MachineError`] of starting.
    pub fn start(&self, spec: &GuestSpec, log: Option<&Path>) -> Result<Guest, MachineError> {
        let talk = |source| MachineError::Talk { source };
        let log = log.map(create_log).transpose()?;
        let call = self.prepare(spec)?.args(captured_console());
        let (console, guest_console) = UnixStream::pair().map_err(talk)?;
        let (monitor, guest_monitor) = UnixStream::pair().map_err(talk)?;
        let mut child = call.spawn(
            Stdio::from(OwnedFd::from(guest_console)),
            Stdio::from(OwnedFd::from(guest_monitor)),
            Stdio::piped(),
        )?;
        let mut stderr = child.stderr.take().expect("piped above");
        let words = std::thread::spawn(move || read_tail(&mut stderr));
        let input = console.try_clone().map_err(talk)?;
        let mut guest = Guest {
            child,
            words: Some(words),
            console: Console::listen(console, log),
            input,
            qmp: None,
            chipset: spec.chipset,
            heard: 0,
            plugged: 0,
        };
        match Qmp::open(monitor) {
            Ok(qmp) => guest.qmp = Some(qmp),
            Err(error) => return Err(guest.why_it_ended().unwrap_or(error)),
        }
        Ok(guest)
    }
}

fn create_log(path: &Path) -> Result<File, MachineError> {
    File::create(path).map_err(|source| MachineError::Open {
        path: path.to_owned(),
        source,
    })
}

/// A free TCP port on 127.0.0.1. Another program may take it before QEMU does;
/// QEMU then says so.
///
/// # Errors
///
/// [`MachineError::NoPort`].
pub fn free_port() -> Result<u16, MachineError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|source| MachineError::NoPort { source })
}

/// A guest whose console is captured. Dropped, it is gone.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    words: Option<JoinHandle<io::Result<String>>>,
    console: Console,
    input: UnixStream,
    qmp: Option<Qmp>,
    chipset: Chipset,
    /// How much of the console's text was searched for state lines.
    heard: usize,
    /// How many disks were attached while it ran.
    plugged: u32,
}

impl Guest {
    /// Its console.
    #[must_use]
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Types on its serial console.
    ///
    /// # Errors
    ///
    /// [`MachineError::Talk`].
    pub fn type_text(&mut self, text: &str) -> Result<(), MachineError> {
        use std::io::Write as _;
        self.input
            .write_all(text.as_bytes())
            .map_err(|source| MachineError::Talk { source })
    }

    /// Waits until the guest says that it is ready.
    ///
    /// # Errors
    ///
    /// `NotInService` as soon as it says anything else, `NotReady` when
    /// `limit` passes, `WentOff` when it ends before.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<StateLine, MachineError> {
        let line = self.next_state(limit)?;
        match line.state {
            GuestState::Ready => Ok(line),
            _ => Err(MachineError::NotInService { line }),
        }
    }

    /// Waits for the next state line, each of which is given once.
    ///
    /// # Errors
    ///
    /// `NotReady` when `limit` passes, `WentOff` when the guest ends before.
    pub fn next_state(&mut self, limit: Duration) -> Result<StateLine, MachineError> {
        let deadline = Instant::now() + limit;
        match self
            .console
            .wait_line(self.heard, deadline, StateLine::parse)
        {
            Waited::Found((line, after)) => {
                self.heard = after;
                Ok(line)
            }
            Waited::Late => Err(MachineError::NotReady {
                limit,
                console: self.console.text(),
            }),
            Waited::Closed => Err(self.went_off()),
        }
    }

    /// Waits until `words` appear on the console.
    ///
    /// # Errors
    ///
    /// `NotReady` when `limit` passes, `WentOff` when the guest ends before.
    pub fn wait_text(&mut self, words: &str, limit: Duration) -> Result<(), MachineError> {
        let deadline = Instant::now() + limit;
        match self
            .console
            .wait(deadline, |text| text.contains(words).then_some(()))
        {
            Waited::Found(()) => Ok(()),
            Waited::Late => Err(MachineError::NotReady {
                limit,
                console: self.console.text(),
            }),
            Waited::Closed => Err(self.went_off()),
        }
    }

    /// Attaches a disk while the guest runs; the spec must have kept a slot.
    /// One whose writes are to be discarded is attached read-only.
    ///
    /// # Errors
    ///
    /// [`MachineError::Refused`], `Path` and `Talk`.
    pub fn attach(&mut self, disk: &Disk) -> Result<(), MachineError> {
        let path = disk.path.to_str().ok_or_else(|| MachineError::Path {
            path: disk.path.clone(),
        })?;
        let node = format!("hot-disk{}", self.plugged);
        let device = format!("hot-device{}", self.plugged);
        self.plugged += 1;
        let bus = match self.chipset {
            Chipset::Q35 => HOT_PORT,
            Chipset::Pc => "pci.0",
        };
        let qmp = self.qmp()?;
        qmp.execute(
            "blockdev-add",
            &json!({
                "node-name": node,
                "driver": disk.format.name(),
                "read-only": disk.writes == Writes::Discarded,
                "file": { "driver": "file", "filename": path },
            }),
        )?;
        qmp.execute(
            "device_add",
            &json!({
                "driver": "virtio-blk-pci",
                "id": device,
                "drive": node,
                "bus": bus,
            }),
        )?;
        Ok(())
    }

    /// Detaches the disk that was attached last; the guest has to let go of it.
    ///
    /// # Errors
    ///
    /// [`MachineError::Refused`] when it has not within half a minute, and `Talk`.
    pub fn detach(&mut self) -> Result<(), MachineError> {
        const LIMIT: Duration = Duration::from_secs(30);
        let last = self.plugged.saturating_sub(1);
        let device = json!({ "id": format!("hot-device{last}") });
        let node = json!({ "node-name": format!("hot-disk{last}") });
        let deadline = Instant::now() + LIMIT;
        let qmp = self.qmp()?;
        qmp.execute("device_del", &device)?;
        // Its backend is free as soon as the guest has let go of the device.
        while let Err(error) = qmp.execute("blockdev-del", &node) {
            if Instant::now() > deadline {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Presses the power button.
    ///
    /// # Errors
    ///
    /// [`MachineError::Talk`].
    pub fn press_power_button(&mut self) -> Result<(), MachineError> {
        self.qmp()?.execute("system_powerdown", &json!({}))?;
        Ok(())
    }

    /// Waits until the guest goes off by itself; `None` when `limit` passes.
    ///
    /// # Errors
    ///
    /// [`MachineError::Talk`].
    pub fn wait_off(&mut self, limit: Duration) -> Result<Option<ExitStatus>, MachineError> {
        let deadline = Instant::now() + limit;
        loop {
            let ended = self.child.try_wait();
            match ended.map_err(|source| MachineError::Talk { source })? {
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                status => return Ok(status),
            }
        }
    }

    /// Processor time that QEMU has used so far, user and system, all threads.
    ///
    /// # Errors
    ///
    /// What reading `/proc` reports.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let ticks = cpu_ticks(&stat).ok_or(io::ErrorKind::InvalidData)?;
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        Ok(Duration::from_millis(ticks * 1000 / per_second))
    }

    /// Ends the guest as if its power were cut.
    pub fn cut_power(mut self) {
        self.kill();
    }

    fn qmp(&mut self) -> Result<&mut Qmp, MachineError> {
        self.qmp.as_mut().ok_or_else(|| MachineError::Talk {
            source: io::ErrorKind::NotConnected.into(),
        })
    }

    fn kill(&mut self) {
        // Both fail only when QEMU is gone already, which is what is wanted.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }

    /// QEMU's own words when it ended badly, else that the guest went off.
    fn went_off(&mut self) -> MachineError {
        let console = self.console.text();
        self.why_it_ended()
            .unwrap_or(MachineError::WentOff { console })
    }

    /// Why QEMU ended, if it ended badly.
    fn why_it_ended(&mut self) -> Option<MachineError> {
        let status = self.wait_off(Duration::from_secs(5)).ok()??;
        let words = self.words.take()?.join().ok()?.unwrap_or_default();
        (!status.success()).then_some(MachineError::Ended {
            status,
            stderr: words,
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `utime` and `stime`, fields 14 and 15 of `/proc/PID/stat` (proc(5)). The
/// second field, the name, may hold anything but ends at the last `)`.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_does_not_shift_the_fields() {
        let stat = "12 (a ) b) S 1 2 3 4 5 6 7 8 9 10 700 35 0 0 20";
        assert_eq!(cpu_ticks(stat), Some(735));
        assert_eq!(cpu_ticks("12 (a"), None);
    }

    #[test]
    fn a_free_port_can_be_bound() {
        let port = free_port().expect("a port");
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("still free");
    }
}
