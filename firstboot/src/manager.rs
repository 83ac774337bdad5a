//! What the service manager says of itself, asked at its own socket.
//!
//! `systemctl` would say the same, and costs as much as all that the agent
//! does at a start. One property is read, by one message of D-Bus.
//!
//! Source: D-Bus Specification 0.41, "Message Protocol" and "Authentication
//! Protocol"; org.freedesktop.systemd1(5), `SystemState`.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const SOCKET: &str = "/run/systemd/private";
/// Root is who the kernel says it is; `30` is `0`, in hex.
const HELLO: &[u8] = b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n";
const ACCEPTED: &[u8] = b"OK ";
/// The manager answers at once, or not at all.
const PATIENCE: Duration = Duration::from_secs(10);
/// No line and no message that is awaited is longer.
const LIMIT: usize = 64 << 10;
/// Kinds of messages.
const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;

/// A connection to the manager.
#[derive(Debug)]
pub struct Manager<S> {
    stream: S,
    serial: u32,
}

impl Manager<UnixStream> {
    /// Connects as root.
    ///
    /// # Errors
    ///
    /// Where there is no manager, or it does not want us.
    pub fn connect() -> io::Result<Self> {
        let stream = UnixStream::connect(SOCKET)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Self::begin(stream)
    }
}

impl<S: Read + Write> Manager<S> {
    fn begin(mut stream: S) -> io::Result<Self> {
        stream.write_all(HELLO)?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            line.extend_from_slice(&byte);
            if line.len() > LIMIT {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        if !line.starts_with(ACCEPTED) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(Self { stream, serial: 0 })
    }

    /// `running`, `starting`, `degraded` or another.
    ///
    /// # Errors
    ///
    /// What the socket says, and `InvalidData` for what is no answer.
    pub fn state(&mut self) -> io::Result<String> {
        self.serial += 1;
        self.stream.write_all(&call(self.serial))?;
        loop {
            let (kind, body) = self.message()?;
            match kind {
                RETURN => {
                    return variant(&body).ok_or_else(|| io::ErrorKind::InvalidData.into());
                }
                ERROR => return Err(io::ErrorKind::InvalidData.into()),
                // A signal.
                _ => {}
            }
        }
    }

    /// The kind and the body of the next message.
    fn message(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head)?;
        let [b'l', kind, ..] = head else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let number = |at: usize| {
            let field = head.get(at..).and_then(<[u8]>::first_chunk);
            field.map_or(usize::MAX, |field| {
                usize::try_from(u32::from_le_bytes(*field)).unwrap_or(usize::MAX)
            })
        };
        let (body, fields) = (number(4), number(12));
        if body > LIMIT || fields > LIMIT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let fields = fields.next_multiple_of(8);
        let mut bytes = vec![0; fields + body];
        self.stream.read_exact(&mut bytes)?;
        Ok((kind, bytes.split_off(fields)))
    }
}

/// `Get("org.freedesktop.systemd1.Manager", "SystemState")`.
fn call(serial: u32) -> Vec<u8> {
    let mut body = Vec::new();
    for text in ["org.freedesktop.systemd1.Manager", "SystemState"] {
        put_text(&mut body, text);
    }
    let mut fields = Vec::new();
    for (code, kind, text) in [
        (1, b'o', "/org/freedesktop/systemd1"),
        (2, b's', "org.freedesktop.DBus.Properties"),
        (3, b's', "Get"),
        (6, b's', "org.freedesktop.systemd1"),
    ] {
        pad(&mut fields, 8);
        fields.extend_from_slice(&[code, 1, kind, 0]);
        put_text(&mut fields, text);
    }
    pad(&mut fields, 8);
    // The body's signature: two strings.
    fields.extend_from_slice(&[8, 1, b'g', 0, 2, b's', b's', 0]);
    let mut message = vec![b'l', CALL, 0, 1];
    for number in [length(&body), serial, length(&fields)] {
        message.extend_from_slice(&number.to_le_bytes());
    }
    message.extend_from_slice(&fields);
    pad(&mut message, 8);
    message.extend_from_slice(&body);
    message
}

/// Nothing here is longer than a few hundred bytes.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    pad(bytes, 4);
    bytes.extend_from_slice(&length(text.as_bytes()).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
}

/// The text in a variant: its signature, a length, the text and a zero.
fn variant(body: &[u8]) -> Option<String> {
    let rest = body.strip_prefix(&[1, b's', 0, 0])?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let text = rest.get(..length)?;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read comes from here; what is written is kept.
    struct Socket {
        says: io::Cursor<Vec<u8>>,
        heard: Vec<u8>,
    }

    impl Read for Socket {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.says.read(buffer)
        }
    }

    impl Write for Socket {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.heard.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn answer(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![b'l', kind, 1, 1];
        for number in [length(body), 7, 8] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        // REPLY_SERIAL, 1.
        bytes.extend_from_slice(&[5, 1, b'u', 0, 1, 0, 0, 0]);
        bytes.extend_from_slice(body);
        bytes
    }

    fn ask(says: Vec<u8>) -> io::Result<(String, Vec<u8>)> {
        let mut manager = Manager::begin(Socket {
            says: io::Cursor::new(says),
            heard: Vec::new(),
        })?;
        Ok((manager.state()?, manager.stream.heard))
    }

    const OK: &[u8] = b"OK 0123456789abcdef0123456789abcdef\r\n";
    const BODY: &[u8] = b"\x01s\0\0\x07\0\0\0running\0";

    #[test]
    fn one_property_is_asked_for() {
        let signal = answer(4, b"\x01\0\0\0x\0\0\0");
        let says = [OK, &signal, &answer(RETURN, BODY)].concat();
        let (state, heard) = ask(says).expect("an answer");
        assert_eq!(state, "running");
        // The body: 4 + 32 + 1 bytes, 3 to the next multiple of 4, 4 + 11 + 1.
        let call = heard.strip_prefix(HELLO).expect("first who we are");
        assert!(call.starts_with(b"l\x01\0\x01\x38\0\0\0\x01\0\0\0"));
        assert!(call.ends_with(b"\x0b\0\0\0SystemState\0"));
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let whole = [OK, &answer(RETURN, BODY)].concat();
        for length in 0..whole.len() {
            assert!(ask(whole[..length].to_vec()).is_err(), "{length}");
        }
        for says in [
            b"REJECTED EXTERNAL\r\n".to_vec(),
            [OK, &answer(ERROR, BODY)].concat(),
            [OK, &answer(RETURN, b"\x01u\0\0\x07\0\0\0")].concat(),
            [OK, b"l\x02\x01\x01\xff\xff\xff\xff\0\0\0\0\x08\0\0\0"].concat(),
            [OK, b"B\x02\x01\x01\0\0\0\0\0\0\0\0\0\0\0\x08"].concat(),
        ] {
            assert!(ask(says.clone()).is_err(), "{says:?}");
        }
    }
}
