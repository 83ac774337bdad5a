//! Signatures by a key that an SSH agent keeps.
//!
//! Source: draft-miller-ssh-agent, sections 3 and 4.5: each message is its
//! length in 4 bytes, a number for its kind, and fields. An Ed25519 key signs
//! the bytes as they are, so every container can be made this way.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::key::ALGORITHM;
use super::wire::{Reader, put_string, put_u32};
use super::{PublicKey, SignError};

const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
/// Longest answer that is read.
const MAX_ANSWER: u64 = 64 << 10;
/// How long the owner may take to touch a token or to type.
const PATIENCE: Duration = Duration::from_mins(2);

/// Asks the agent at `socket` for an Ed25519 signature over `message`.
pub(super) fn sign(socket: &Path, key: &PublicKey, message: &[u8]) -> Result<[u8; 64], SignError> {
    let mut request = vec![SIGN_REQUEST];
    put_string(&mut request, &key.blob());
    put_string(&mut request, message);
    put_u32(&mut request, 0);
    let answer = ask(socket, &request).map_err(|source| SignError::Agent {
        path: socket.to_owned(),
        source,
    })?;
    let signature = parse(&answer).filter(|signature| key.accepts(message, signature));
    signature.ok_or_else(|| SignError::AgentRefuses {
        fingerprint: key.fingerprint(),
    })
}

fn ask(socket: &Path, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut framed = Vec::new();
    put_string(&mut framed, request);
    stream.write_all(&framed)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u64::from(u32::from_be_bytes(length)).min(MAX_ANSWER);
    let mut answer = Vec::new();
    stream.take(length).read_to_end(&mut answer)?;
    Ok(answer)
}

fn parse(answer: &[u8]) -> Option<[u8; 64]> {
    let (kind, fields) = answer.split_first()?;
    if *kind != SIGN_RESPONSE {
        return None;
    }
    let mut inner = Reader(Reader(fields).string()?);
    if inner.string()? != ALGORITHM.as_bytes() {
        return None;
    }
    inner.string()?.try_into().ok()
}
