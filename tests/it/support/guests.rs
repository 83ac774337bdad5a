//! Guests for tests: at most two at a time, always emulated, so that the
//! same thing is tested everywhere.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use consign::machine::guest::{Guest, Qemu};
use consign::machine::{Forward, GuestSpec, Network};

use super::{must_run, program, run, search_path, text_of};

/// How long a guest may take for anything. Generous: a slow machine is not a
/// wrong image.
pub(crate) const PATIENCE: Duration = Duration::from_mins(5);

/// How many guests run at a time; more only slow each other down.
const GUESTS: usize = 2;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ONE_LESS: Condvar = Condvar::new();

/// The right to run one guest.
#[derive(Debug)]
pub(crate) struct Turn;

impl Turn {
    /// Waits for it.
    pub(crate) fn wait() -> Self {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        while *running >= GUESTS {
            running = ONE_LESS
                .wait(running)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *running += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ONE_LESS.notify_one();
    }
}

/// A running guest of a test. Ended when dropped.
#[derive(Debug)]
pub(crate) struct TestGuest {
    // Before the turn, so that it is gone when the next one starts.
    pub(crate) guest: Guest,
    forwards: Vec<Forward>,
    started: Instant,
    _turn: Turn,
}

impl TestGuest {
    /// Waits for its turn and starts a guest. `None`, said loudly, without QEMU.
    pub(crate) fn start(spec: &GuestSpec) -> Option<Self> {
        Self::start_logged(spec, None)
    }

    /// As [`start`](Self::start), keeping the console in `log`.
    pub(crate) fn start_logged(spec: &GuestSpec, log: Option<&Path>) -> Option<Self> {
        program("qemu-system-x86_64", "qemu-system-x86")?;
        let turn = Turn::wait();
        let qemu = Qemu::find_emulated(&search_path()).expect("QEMU is there");
        let guest = qemu
            .start(spec, log)
            .unwrap_or_else(|error| panic!("the guest does not start: {error}"));
        let network = spec.network.clone().unwrap_or_default();
        Some(Self {
            guest,
            forwards: network.forwards,
            started: Instant::now(),
            _turn: turn,
        })
    }

    /// Waits for `words` on the console; panics with the console without them.
    #[track_caller]
    pub(crate) fn says(&mut self, words: &str) {
        if let Err(error) = self.guest.wait_text(words, PATIENCE) {
            panic!("no `{words}`: {error}\n{}", self.console());
        }
    }

    /// All that it said so far.
    pub(crate) fn console(&self) -> String {
        self.guest.console().text()
    }

    /// The port of this host that leads to the guest's `port`.
    fn port(&self, port: u16) -> u16 {
        self.forwards
            .iter()
            .find(|forward| forward.guest == port)
            .unwrap_or_else(|| panic!("port {port} is not forwarded"))
            .host
    }

    /// What its web server answers to `GET path`, head and body. Asks again
    /// while there is no answer.
    pub(crate) fn http_get(&self, port: u16, path: &str) -> String {
        let port = self.port(port);
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            match http_get(port, path) {
                Ok(answer) if !answer.is_empty() => return answer,
                result => assert!(
                    Instant::now() < deadline,
                    "no answer to GET {path}: {result:?}\n{}",
                    self.console()
                ),
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Runs `command` in it as `user` with the private `key`; `None`, said
    /// loudly, without an ssh client. Gives back standard output.
    #[track_caller]
    pub(crate) fn ssh(&self, key: &Path, user: &str, command: &str) -> Option<String> {
        let deadline = Instant::now() + Duration::from_mins(1);
        let output = loop {
            let mut ssh = program("ssh", "openssh-client")?;
            ssh.args(["-F", "/dev/null", "-T", "-o", "BatchMode=yes"])
                .args(["-o", "StrictHostKeyChecking=no"])
                .args(["-o", "UserKnownHostsFile=/dev/null"])
                .args(["-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=60"])
                .args(["-o", "LogLevel=ERROR"])
                .arg("-i")
                .arg(key)
                .args(["-p", &self.port(22).to_string()])
                .arg(format!("{user}@127.0.0.1"))
                .arg(command);
            let output = run(&mut ssh);
            // Nobody listens yet: a machine says what it is before the last of
            // its services is up. Nothing was run then.
            let is_early = output.status.code() == Some(255)
                && text_of(&output).contains("kex_exchange_identification");
            if !is_early || Instant::now() > deadline {
                break output;
            }
            std::thread::sleep(Duration::from_millis(500));
        };
        assert!(
            output.status.success(),
            "`{command}` ended with {}:\n{}\n{}",
            output.status,
            text_of(&output),
            self.console()
        );
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Says on the test's standard error what it took to get here.
    pub(crate) fn report(&self, what: &str) {
        let used = self.guest.cpu_time().expect("QEMU runs");
        let line = format!(
            "boot: {what}: {:.1} s, QEMU {:.1} cpu-s\n",
            self.started.elapsed().as_secs_f64(),
            used.as_secs_f64()
        );
        // Not eprintln, which the test runner captures.
        let _written = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
    }
}

fn http_get(port: u16, path: &str) -> std::io::Result<String> {
    let limit = Some(Duration::from_secs(20));
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: appliance.test\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A network with `ports` of the guest forwarded from free ones.
pub(crate) fn network(ports: &[u16]) -> Network {
    let forward = |guest| Forward {
        host: consign::machine::guest::free_port().expect("a free port"),
        address: None,
        guest,
    };
    Network {
        subnet: None,
        forwards: ports.iter().copied().map(forward).collect(),
    }
}

/// A new ssh key in `folder`: the private file, and the public line.
pub(crate) fn ssh_key(folder: &Path) -> Option<(std::path::PathBuf, String)> {
    let key = folder.join("key");
    let mut keygen = program("ssh-keygen", "openssh-client")?;
    must_run(
        keygen
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
            .arg(&key),
    );
    let public = std::fs::read_to_string(folder.join("key.pub")).expect("the public key");
    Some((key, public.trim().to_owned()))
}
