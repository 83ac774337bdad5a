//! `secret NAME`: a secret that the configuration wants from somebody at the
//! machine. It is read from the terminal without an echo, or from a pipe; it
//! never stands on a command line.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::process::ExitCode;

use consign_schema::Secret;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::{Place, USAGE};
use crate::boot::LOCK;
use crate::generation::Generation;
use crate::secrets;
use crate::state::State;
use crate::status::code;
use crate::step::role::SERVICES;
use crate::systemd::{self, Request};

/// A secret is at most this long, in bytes.
const MAX_SIZE: u64 = 64 << 10;

/// Takes the secret `name`, and lets the services that wait for it start.
pub fn run(place: &Place, name: &str) -> ExitCode {
    let root = &place.root;
    let state = State::load(root).ok().flatten();
    let Some(generation) = state.and_then(|state| Generation::load(root, &state).ok()) else {
        complain!("appliance: the machine has no configuration that asks for secrets");
        return ExitCode::from(code::WAITING);
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
        return ExitCode::from(USAGE);
    }
    let secret = match read(name) {
        Ok(Some(secret)) => secret,
        Ok(None) => {
            complain!(
                "appliance: it is empty, longer than {MAX_SIZE} bytes or no text; nothing was kept"
            );
            return ExitCode::from(USAGE);
        }
        Err(error) => return super::no_input("the terminal", &error),
    };
    let lock = root.lock(LOCK);
    let kept = secrets::enter(root, name, &secret)
        .and_then(|()| secrets::put(root, &generation.credentials, generation.secrets.as_deref()));
    drop(lock);
    if let Err(error) = kept {
        complain!("appliance: the secret cannot be kept: {error}");
        return ExitCode::from(code::INTERNAL);
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

/// One line of a terminal, or all of a pipe but for its last line end.
fn read(name: &str) -> io::Result<Option<Secret>> {
    let input = io::stdin();
    let mut text = String::new();
    let taken = if input.is_terminal() {
        complain!("{name}:");
        let before = tcgetattr(&input)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&input, OptionalActions::Flush, &silent)?;
        let taken = input.lock().take(MAX_SIZE + 2).read_line(&mut text);
        tcsetattr(&input, OptionalActions::Flush, &before)?;
        taken
    } else {
        input.lock().take(MAX_SIZE + 2).read_to_string(&mut text)
    };
    match taken {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(None),
        Err(error) => return Err(error),
    }
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let is_right = !line.is_empty() && line.len() as u64 <= MAX_SIZE;
    Ok(is_right.then(|| Secret::new(line.to_owned())))
}
