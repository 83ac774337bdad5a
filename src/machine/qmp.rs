//! QEMU's control line: JSON commands over a socket.
//!
//! Source: QEMU, "QEMU Machine Protocol Specification". Events are skipped.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::MachineError;

/// How long QEMU may take for one answer.
const LIMIT: Duration = Duration::from_secs(30);

/// The longest answer that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// An open control line.
#[derive(Debug)]
pub struct Qmp {
    socket: BufReader<UnixStream>,
}

impl Qmp {
    /// Greets QEMU at the other end of `socket`.
    ///
    /// # Errors
    ///
    /// [`MachineError::Talk`] and [`MachineError::Refused`].
    pub fn open(socket: UnixStream) -> Result<Self, MachineError> {
        socket
            .set_read_timeout(Some(LIMIT))
            .map_err(|source| MachineError::Talk { source })?;
        let mut line = Self {
            socket: BufReader::new(socket),
        };
        line.message()?;
        line.execute("qmp_capabilities", &json!({}))?;
        Ok(line)
    }

    /// Runs one command and gives back its result.
    ///
    /// # Errors
    ///
    /// [`MachineError::Talk`] and [`MachineError::Refused`].
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, MachineError> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.socket.get_mut(), "{request}")
            .map_err(|source| MachineError::Talk { source })?;
        loop {
            let mut answer = self.message()?;
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
            if let Some(error) = answer.get("error") {
                let reason = error.get("desc").and_then(Value::as_str);
                return Err(MachineError::Refused {
                    command: command.to_owned(),
                    reason: reason.unwrap_or("without a reason").to_owned(),
                });
            }
        }
    }

    fn message(&mut self) -> Result<Value, MachineError> {
        use std::io::Read as _;
        let mut line = String::new();
        let talk = |source| MachineError::Talk { source };
        let count = (&mut self.socket)
            .take(LONGEST)
            .read_line(&mut line)
            .map_err(talk)?;
        if count == 0 {
            return Err(talk(std::io::ErrorKind::UnexpectedEof.into()));
        }
        serde_json::from_str(&line).map_err(|error| talk(error.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// A QEMU that says `lines` whatever it hears.
    fn qemu_saying(lines: &'static str) -> UnixStream {
        let (ours, mut theirs) = UnixStream::pair().expect("sockets");
        thread::spawn(move || {
            theirs.write_all(lines.as_bytes()).expect("write");
            let mut heard = BufReader::new(theirs).lines();
            while let Some(Ok(_)) = heard.next() {}
        });
        ours
    }

    #[test]
    fn events_are_skipped_and_reasons_are_kept() {
        let socket = qemu_saying(
            "{\"QMP\": {}}\n{\"return\": {}}\n{\"event\": \"RESUME\"}\n\
             {\"return\": {\"running\": true}}\n{\"error\": {\"desc\": \"no such bus\"}}\n",
        );
        let mut qmp = Qmp::open(socket).expect("open");
        let answer = qmp.execute("query-status", &json!({})).expect("an answer");
        assert_eq!(answer, json!({ "running": true }));
        let error = qmp.execute("device_add", &json!({})).expect_err("refused");
        assert_eq!(error.to_string(), "QEMU refused `device_add`: no such bus");
    }

    #[test]
    fn a_closed_line_is_an_error() {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        drop(theirs);
        let error = Qmp::open(ours).expect_err("closed");
        assert_eq!(error.slug(), "machine-qemu-broken-pipe");
    }
}
