//! Chance: for new keys, never for anything that goes into an image.

use rustix::rand::{GetRandomFlags, getrandom};

/// Bytes that nobody can guess.
///
/// # Errors
///
/// What the system reports; there is no weaker source.
pub fn random_bytes<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(bytes)
}
