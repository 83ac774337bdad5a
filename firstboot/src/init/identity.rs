//! The machine's identity: made once, kept on `/var`, the same in every slot.
//!
//! Source: `machine-id(5)`: 32 lower-case hex digits and a newline, not all
//! zero; systemd wants a version 4 identifier of RFC 9562.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::rand::GetRandomFlags;

use super::problem::Problem;
use super::root::SYSROOT;

/// Where it is kept.
const KEPT: &str = "var/lib/consign/machine-id";
/// Where the system reads it; empty in the image.
const READ: &str = "etc/machine-id";
/// Length with the newline.
const SIZE: usize = 33;

/// Makes the identity at the first start, and shows it to this root.
///
/// # Errors
///
/// [`Problem`] when it cannot be written; the system starts without, and
/// gets one that lasts until the next start.
pub fn settle() -> Result<(), Problem> {
    settle_in(Path::new(SYSROOT), fresh)
}

/// Whether the kernel gives random bytes at once. Without hardware that makes
/// them it may think for a second.
pub fn has_randomness() -> bool {
    rustix::rand::getrandom(&mut [0_u8; 1], GetRandomFlags::NONBLOCK).is_ok()
}

fn settle_in(root: &Path, fresh: impl FnOnce() -> io::Result<[u8; 16]>) -> Result<(), Problem> {
    let kept = root.join(KEPT);
    let known = read(&kept).map_err(Problem::io(format!("read /{KEPT}")))?;
    let id = if let Some(id) = known {
        id
    } else {
        let id = text(fresh().map_err(Problem::io("make a machine id"))?);
        replace(&kept, &id).map_err(Problem::io(format!("write /{KEPT}")))?;
        id
    };
    let shown = root.join(READ);
    let is_shown = read(&shown).is_ok_and(|shown| shown.as_ref() == Some(&id));
    if !is_shown {
        replace(&shown, &id).map_err(Problem::io(format!("write /{READ}")))?;
    }
    Ok(())
}

/// What `path` holds, when that is a machine id. One that cannot be read now is
/// not made anew.
fn read(path: &Path) -> io::Result<Option<String>> {
    let mut text = Vec::new();
    let limit = SIZE as u64 + 1;
    match File::open(path) {
        Ok(file) => file.take(limit).read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let text = String::from_utf8(text).unwrap_or_default();
    let id = text.strip_suffix('\n').unwrap_or(&text);
    let is_hex = id.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = id.len() == SIZE - 1 && is_hex && id.bytes().any(|c| c != b'0');
    Ok(is_id.then(|| format!("{id}\n")))
}

/// Whole, or not at all, even when the power fails.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)?;
    let new = path.with_extension("new");
    // Left behind by a start that was cut off.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

fn fresh() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

/// Version 4, RFC variant, as text.
fn text(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> std::path::PathBuf {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root =
            std::env::temp_dir().join(format!("consign-identity-{}-{number}", std::process::id()));
        fs::create_dir_all(root.join("etc")).expect("a folder");
        fs::write(root.join(READ), "").expect("an empty file");
        root
    }

    fn shown(root: &Path) -> String {
        fs::read_to_string(root.join(READ)).expect("readable")
    }

    #[test]
    fn an_identity_is_made_once_and_shown_to_every_root() {
        let root = root();
        settle_in(&root, || Ok([0xff; 16])).expect("settled");
        let id = "ffffffffffff4fffbfffffffffffffff\n";
        assert_eq!(shown(&root), id);
        fs::remove_file(root.join(READ)).expect("removed");
        fs::write(root.join(READ), "00000000000000000000000000000001\n").expect("written");
        settle_in(&root, || panic!("made twice")).expect("settled");
        assert_eq!(shown(&root), id);
        fs::remove_dir_all(root).expect("removed");
    }

    #[test]
    fn one_that_cannot_be_read_is_not_made_anew() {
        let root = root();
        fs::create_dir_all(root.join(KEPT)).expect("what nobody reads");
        settle_in(&root, || panic!("made twice")).expect_err("unread");
        assert_eq!(shown(&root), "");
        fs::remove_dir_all(root).expect("removed");
    }

    #[test]
    fn what_is_no_identity_is_made_anew() {
        let root = root();
        fs::create_dir_all(root.join("var/lib/consign")).expect("a folder");
        let zero = "0".repeat(32);
        for bad in [
            "",
            "uninitialized\n",
            zero.as_str(),
            "FFFFFFFFFFFF4FFFBFFFFFFFFFFFFFFF\n",
        ] {
            fs::write(root.join(KEPT), bad).expect("written");
            settle_in(&root, || Ok([1; 16])).expect("settled");
            assert_eq!(shown(&root), "01010101010141018101010101010101\n", "{bad}");
            fs::remove_file(root.join(KEPT)).expect("removed");
        }
        fs::remove_dir_all(root).expect("removed");
    }

    #[test]
    fn a_cut_off_write_does_no_harm() {
        let root = root();
        fs::create_dir_all(root.join("var/lib/consign")).expect("a folder");
        fs::write(root.join("var/lib/consign/machine-id.new"), "0101").expect("written");
        settle_in(&root, || Ok([2; 16])).expect("settled");
        assert_eq!(shown(&root).len(), SIZE);
        fs::remove_dir_all(root).expect("removed");
    }
}
