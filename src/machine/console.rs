//! What a guest's console said, and waiting for what it will say.

use std::fs::File;
use std::io::{Read, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A guest that floods its console is heard up to here; the log file, if any,
/// gets everything.
const KEPT: usize = 16 << 20;

/// The text of a console, filled by a thread of its own.
#[derive(Debug, Clone, Default)]
pub struct Console(Arc<(Mutex<Heard>, Condvar)>);

#[derive(Debug, Default)]
struct Heard {
    text: String,
    /// Bytes of a character that has not wholly arrived.
    rest: Vec<u8>,
    closed: bool,
}

/// How waiting ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waited<T> {
    /// It was found.
    Found(T),
    /// The console was closed before.
    Closed,
    /// Time ran out before.
    Late,
}

impl Console {
    /// Reads `source` to its end in a thread, copying all to `log`.
    pub(super) fn listen(mut source: impl Read + Send + 'static, mut log: Option<File>) -> Self {
        let console = Self::default();
        let hearing = console.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count) = source.read(&mut buffer) {
                if count == 0 {
                    break;
                }
                let heard = buffer.get(..count).unwrap_or_default();
                // A log that cannot be written any more does not stop the guest.
                if log
                    .as_mut()
                    .is_some_and(|log| log.write_all(heard).is_err())
                {
                    log = None;
                }
                hearing.hear(heard);
            }
            hearing.close();
        });
        console
    }

    /// All that was heard so far.
    #[must_use]
    pub fn text(&self) -> String {
        self.heard().text.clone()
    }

    /// Waits until `found` sees what it looks for in the whole text so far.
    pub fn wait<T>(
        &self,
        deadline: Instant,
        mut found: impl FnMut(&str) -> Option<T>,
    ) -> Waited<T> {
        let mut heard = self.heard();
        loop {
            if let Some(it) = found(&heard.text) {
                return Waited::Found(it);
            }
            if heard.closed {
                return Waited::Closed;
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return Waited::Late;
            };
            heard = self
                .0
                .1
                .wait_timeout(heard, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits for the first complete line, from byte `from` of the text on,
    /// that `found` accepts. Gives the offset after the line too.
    pub fn wait_line<T>(
        &self,
        from: usize,
        deadline: Instant,
        mut found: impl FnMut(&str) -> Option<T>,
    ) -> Waited<(T, usize)> {
        let mut seen = from;
        self.wait(deadline, |text| {
            while let Some(rest) = text.get(seen..)
                && let Some(end) = rest.find('\n')
            {
                let line = rest.get(..end).unwrap_or_default();
                seen += end + 1;
                if let Some(it) = found(line.trim_end_matches('\r')) {
                    return Some((it, seen));
                }
            }
            None
        })
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, bytes: &[u8]) {
        let mut heard = self.heard();
        if heard.text.len() < KEPT {
            heard.push(bytes);
        }
        drop(heard);
        self.0.1.notify_all();
    }

    fn close(&self) {
        self.heard().closed = true;
        self.0.1.notify_all();
    }
}

impl Heard {
    /// Appends bytes as text. What is no UTF-8 becomes U+FFFD, but not a
    /// character whose last bytes are still to come.
    fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.rest) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.rest.len(),
        };
        let whole: Vec<u8> = self.rest.drain(..whole).collect();
        self.text.push_str(&String::from_utf8_lossy(&whole));
        // A broken byte before an unfinished character: do not wait for ever.
        if self.rest.len() > 3 {
            let rest = std::mem::take(&mut self.rest);
            self.text.push_str(&String::from_utf8_lossy(&rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn a_line_is_found_once_it_is_complete() {
        let (mut guest, host) = UnixStream::pair().expect("sockets");
        let console = Console::listen(host, None);
        guest.write_all(b"boot\r\nVA st").expect("write");
        let late = console.wait_line(0, Instant::now(), |line| {
            line.starts_with("VA").then_some(())
        });
        assert_eq!(late, Waited::Late);
        guest.write_all("ate ä\nnext\n".as_bytes()).expect("write");
        let found = console.wait_line(0, soon(), |line| {
            line.starts_with("VA").then(|| line.to_owned())
        });
        let Waited::Found((line, after)) = found else {
            panic!("{found:?}");
        };
        assert_eq!(line, "VA state ä");
        let next = console.wait_line(after, soon(), |line| Some(line.to_owned()));
        assert!(matches!(next, Waited::Found((line, _)) if line == "next"));
        drop(guest);
        let closed = console.wait(soon(), |text| text.find("never"));
        assert_eq!(closed, Waited::Closed);
    }

    #[test]
    fn a_character_may_arrive_in_two_pieces() {
        let mut heard = Heard::default();
        heard.push(&[b'a', 0xc3]);
        assert_eq!(heard.text, "a");
        heard.push(&[0xa4, 0xff, b'b']);
        assert_eq!(heard.text, "aä\u{fffd}b");
    }
}
