//! `secret NAME`: a secret that the configuration wants from somebody at the
//! machine. It is read from the terminal without an echo, or from a pipe; it
//! never stands on a command line.

use std::io::{self, BufRead, IsTerminal as _, Read as _};
use std::process::ExitCode;

use consign_schema::Secret;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};

use super::Place;
use super::arguments::USAGE;
use crate::boot::LOCK;
use crate::generation::Generation;
use crate::root::Root;
use crate::secrets;
use crate::state::State;
use crate::status::code;
use crate::step::role::SERVICES;
use crate::systemd::{self, Request};

/// A secret is at most this long, in bytes.
const MAX_SIZE: u64 = 64 << 10;
/// Ctrl-C, Ctrl-\ and Ctrl-Z: who types one of them wants out.
const ENDS: [u8; 3] = [0x03, 0x1c, 0x1a];
/// The exit code of a program that Ctrl-C ended.
pub const ABORTED: u8 = 130;

/// What somebody entered.
#[derive(Debug)]
pub enum Entered {
    /// This.
    Secret(Secret),
    /// Nothing, too much, or no text.
    Wrong,
    /// They want out.
    Aborted,
}

/// Takes the secret `name`, and lets the services that wait for it start.
pub fn run(place: &Place, name: &str) -> ExitCode {
    let root = &place.root;
    if let Err(exit) = asking(root, name) {
        return exit;
    }
    let secret = match read(name) {
        Ok(Entered::Secret(secret)) => secret,
        Ok(Entered::Wrong) => {
            complain!(
                "appliance: it is empty, longer than {MAX_SIZE} bytes or no text; nothing was kept"
            );
            return ExitCode::from(USAGE);
        }
        Ok(Entered::Aborted) => {
            complain!("appliance: nothing was kept");
            return ExitCode::from(ABORTED);
        }
        Err(error) => return super::no_input("the terminal", &error),
    };
    if let Err(exit) = keep(root, name, &secret) {
        return exit;
    }
    tell!("the secret `{name}` is kept");
    if !place.is_system {
        return ExitCode::SUCCESS;
    }
    let units = root.list(SERVICES).unwrap_or_default();
    let requests = units
        .iter()
        .flat_map(|unit| [Request::TryRestart(unit), Request::Start(unit)]);
    for request in requests {
        if let Err(error) = systemd::ask(request) {
            complain!("appliance: {error}");
            return ExitCode::from(code::DEGRADED);
        }
    }
    ExitCode::SUCCESS
}

/// The generation that counts, which asks for the secret `name`.
fn asking(root: &Root, name: &str) -> Result<Generation, ExitCode> {
    let state = State::load(root).ok().flatten();
    let Some(generation) = state.and_then(|state| Generation::load(root, &state).ok()) else {
        complain!("appliance: the machine has no configuration that asks for secrets");
        return Err(ExitCode::from(code::WAITING));
    };
    let asked = generation.credentials.iter();
    let asked = asked.filter(|(_, entry)| entry.is_empty());
    let asked: Vec<&str> = asked.map(|(name, _)| name.as_str()).collect();
    if !asked.contains(&name) {
        let list = if asked.is_empty() {
            "none".to_owned()
        } else {
            asked.join(", ")
        };
        complain!(
            "appliance: no secret of this name is to be entered here; those that are: {list}"
        );
        return Err(ExitCode::from(USAGE));
    }
    Ok(generation)
}

/// Keeps it for the configuration that counts now: while somebody typed,
/// another may have come.
fn keep(root: &Root, name: &str, secret: &Secret) -> Result<(), ExitCode> {
    let fail = |error: io::Error| {
        complain!("appliance: the secret cannot be kept: {error}");
        ExitCode::from(code::INTERNAL)
    };
    let _lock = root.lock(LOCK).map_err(fail)?;
    let generation = asking(root, name)?;
    secrets::enter(root, name, secret)
        .and_then(|()| secrets::put(root, &generation.credentials, generation.secrets.as_deref()))
        .map_err(fail)?;
    Ok(())
}

/// One line of a terminal, or all of a pipe but for its last line end.
pub fn read(name: &str) -> io::Result<Entered> {
    let input = io::stdin();
    if !input.is_terminal() {
        let mut bytes = Vec::new();
        input.lock().take(MAX_SIZE + 2).read_to_end(&mut bytes)?;
        return Ok(judged(bytes));
    }
    complain!("{name}:");
    let before = tcgetattr(&input)?;
    let mut silent = before.clone();
    // A signal would end this without the echo being put back; instead these
    // keys end the line.
    silent
        .local_modes
        .remove(LocalModes::ECHO | LocalModes::ISIG);
    silent.special_codes[SpecialCodeIndex::VEOL] = ENDS[0];
    silent.special_codes[SpecialCodeIndex::VEOL2] = ENDS[1];
    tcsetattr(&input, OptionalActions::Flush, &silent)?;
    let taken = line(input.lock());
    tcsetattr(&input, OptionalActions::Flush, &before)?;
    taken
}

/// What was typed up to the end of the line.
fn line(input: impl BufRead) -> io::Result<Entered> {
    let mut bytes = Vec::new();
    for byte in input.take(MAX_SIZE + 2).bytes() {
        match byte? {
            b'\n' => break,
            byte if ENDS.contains(&byte) => return Ok(Entered::Aborted),
            byte => bytes.push(byte),
        }
    }
    Ok(judged(bytes))
}

fn judged(bytes: Vec<u8>) -> Entered {
    let Ok(text) = String::from_utf8(bytes) else {
        return Entered::Wrong;
    };
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.len() as u64 > MAX_SIZE {
        return Entered::Wrong;
    }
    Entered::Secret(Secret::new(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::testing::Folder;
    use crate::state::Then;

    #[test]
    fn only_what_is_still_asked_for_is_kept() {
        let folder = Folder::new();
        let root = &folder.root;
        let mut one = Generation {
            credentials: [("pin".to_owned(), String::new())].into(),
            ..Generation::default()
        };
        let state = one.commit(root, None, Then::Stay).expect("committed");
        let secret = Secret::new("CANARY".into());
        assert!(asking(root, "pin").is_ok());
        // Another comes while somebody types.
        Generation::default()
            .commit(root, Some((&state, &one)), Then::Stay)
            .expect("committed");
        assert!(keep(root, "pin", &secret).is_err());
        for path in [secrets::ENTERED, secrets::STORE] {
            assert!(!root.exists(&format!("{path}/pin")), "{path}");
        }
    }

    #[test]
    fn a_line_ends_with_its_end_or_is_given_up() {
        let line = |typed: &[u8]| line(typed).expect("read");
        let is_pin = |entered| matches!(entered, Entered::Secret(text) if text.expose() == "pin");
        assert!(is_pin(line(b"pin\nmore")));
        assert!(is_pin(line(b"pin\r\n")));
        assert!(is_pin(line(b"pin")));
        for typed in [b"\x03".as_slice(), b"pi\x03n\n", b"\x1c", b"p\x1a\n"] {
            assert!(matches!(line(typed), Entered::Aborted), "{typed:?}");
        }
        assert!(matches!(line(b"\n"), Entered::Wrong));
        assert!(matches!(line(b"\xff\n"), Entered::Wrong));
        let long = vec![b'x'; 70_000];
        assert!(matches!(line(&long), Entered::Wrong));
    }
}
