//! The network, as programs in the sandbox see it.
//!
//! Source: rtnetlink(7); the numbers are those of `linux/netlink.h` and
//! `linux/rtnetlink.h`.

use std::io;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};

use super::fault::Fault;
use super::root::Root;
use crate::tree::TreePath;

/// `RTM_NEWLINK`.
const NEW_LINK: u16 = 16;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST_WITH_ANSWER: u16 = 1 | 4;
/// `IFF_UP`.
const UP: u32 = 1;
/// The first device of a network namespace is always `lo`.
const LOOPBACK: i32 = 1;
/// `struct nlmsghdr` and `struct ifinfomsg`.
const MESSAGE_LEN: u32 = 32;

/// Switches on the loopback device of this process's network namespace:
/// programs that talk to themselves count on it.
pub(super) fn loopback_up() -> io::Result<()> {
    let mut message = Vec::new();
    message.extend(MESSAGE_LEN.to_ne_bytes());
    message.extend(NEW_LINK.to_ne_bytes());
    message.extend(REQUEST_WITH_ANSWER.to_ne_bytes());
    message.extend(1_u32.to_ne_bytes()); // nlmsg_seq
    message.extend(0_u32.to_ne_bytes()); // nlmsg_pid
    message.extend([0; 4]); // ifi_family, padding, ifi_type
    message.extend(LOOPBACK.to_ne_bytes());
    message.extend(UP.to_ne_bytes()); // ifi_flags
    message.extend(UP.to_ne_bytes()); // ifi_change
    let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0_u8; 256];
    let (_, length) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    // `struct nlmsgerr`: a negative error number, or 0, behind the header.
    let error = answer.get(16..20).filter(|_| length >= 20);
    match error
        .and_then(|bytes| bytes.try_into().ok())
        .map(i32::from_ne_bytes)
    {
        Some(0) => Ok(()),
        Some(number) => Err(io::Error::from_raw_os_error(-number)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The host's `resolv.conf`, in the root while programs with a network run.
/// What the root has in its place waits aside.
#[derive(Debug)]
pub(crate) struct LentResolver {
    /// Where the root's own is meanwhile.
    aside: Option<PathBuf>,
}

impl LentResolver {
    /// Puts it in; `outside` is a folder outside of the root, on its file system.
    #[expect(dead_code, reason = "for layers that declare a network")]
    pub(crate) fn put(root: &mut Root, outside: &Path) -> Result<Self, Fault> {
        let path = place();
        let text = std::fs::read("/etc/resolv.conf").unwrap_or_default();
        let aside = match root.status(&path)? {
            Some(_) => {
                let aside = outside.join("resolv.conf");
                root.take_out(&path, &aside)?;
                Some(aside)
            }
            None => None,
        };
        root.write(&path, &text, 0o644)?;
        Ok(Self { aside })
    }

    /// Takes it out.
    #[expect(dead_code, reason = "for layers that declare a network")]
    pub(crate) fn take_back(self, root: &mut Root) -> Result<(), Fault> {
        let path = place();
        root.remove(&path)?;
        match self.aside {
            Some(aside) => root.put_in(&aside, &path),
            None => Ok(()),
        }
    }
}

fn place() -> TreePath {
    TreePath::parse(b"etc/resolv.conf").expect("a relative path")
}
