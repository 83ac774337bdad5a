//! Lists that the kernel keeps of the network, asked over netlink.
//!
//! In: a kind of list. Out: its messages, one by one, and their attributes.
//! Never here: what the messages mean.
//!
//! Source: netlink(7), rtnetlink(7).

use rustix::io::{self, Errno};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST`
const REQUEST: u16 = 1;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x301;
const HEADER: usize = 16;

/// A socket of `NETLINK_ROUTE`, which is protocol 0.
///
/// # Errors
///
/// What the system reports.
pub fn open(groups: u32) -> io::Result<rustix::fd::OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// Asks the kernel to do something, and does not wait for what it says.
///
/// # Errors
///
/// What the system reports.
pub fn ask(kind: u16, body: &[u8]) -> io::Result<()> {
    send(&open(0)?, kind, REQUEST, body)
}

/// Has `each` see the kind and the body of every message of a list.
///
/// # Errors
///
/// What the system reports.
pub fn dump(kind: u16, body: &[u8], each: &mut dyn FnMut(u16, &[u8])) -> io::Result<()> {
    let socket = open(0)?;
    send(&socket, kind, DUMP, body)?;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let size = match recv(&socket, &mut *buffer, RecvFlags::empty()) {
            Ok((_, size)) => size,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        };
        if !messages(buffer.get(..size).unwrap_or_default(), each) {
            return Ok(());
        }
    }
}

fn send(socket: &rustix::fd::OwnedFd, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut request = length.to_ne_bytes().to_vec();
    request.extend_from_slice(&kind.to_ne_bytes());
    request.extend_from_slice(&flags.to_ne_bytes());
    // Sequence number and port.
    request.extend_from_slice(&1_u32.to_ne_bytes());
    request.extend_from_slice(&[0; 4]);
    request.extend_from_slice(body);
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(socket, &request, SendFlags::empty(), &kernel)?;
    Ok(())
}

/// Takes the messages out of one datagram; whether more will come.
fn messages(mut bytes: &[u8], each: &mut dyn FnMut(u16, &[u8])) -> bool {
    while let Some(length) = u32_at(bytes, 0).and_then(|length| usize::try_from(length).ok()) {
        let Some(message) = bytes.get(..length) else {
            return false;
        };
        let (Some(kind), Some(body)) = (u16_at(message, 4), message.get(HEADER..)) else {
            return false;
        };
        if matches!(kind, NLMSG_DONE | NLMSG_ERROR) {
            return false;
        }
        each(kind, body);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    true
}

/// Has `each` see the kind and the value of every attribute; nothing when one
/// of them is cut.
pub fn attributes(mut bytes: &[u8], each: &mut dyn FnMut(u16, &[u8])) -> Option<()> {
    while let (Some(length), Some(kind)) = (u16_at(bytes, 0), u16_at(bytes, 2)) {
        let length = usize::from(length);
        each(kind, bytes.get(4..length)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(())
}

/// A number in the machine's byte order.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..)?.first_chunk();
    field.map(|field| u16::from_ne_bytes(*field))
}

/// A number in the machine's byte order.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk();
    field.map(|field| u32::from_ne_bytes(*field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).expect("short");
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&[0; 10]);
        bytes.extend_from_slice(body);
        bytes
    }

    fn read(bytes: &[u8]) -> (bool, Vec<(u16, Vec<u8>)>) {
        let mut found = Vec::new();
        let more = messages(bytes, &mut |kind, body| found.push((kind, body.to_vec())));
        (more, found)
    }

    #[test]
    fn messages_come_until_the_list_ends() {
        let two = [message(20, b"one!"), message(21, b"two!")].concat();
        let both = vec![(20, b"one!".to_vec()), (21, b"two!".to_vec())];
        assert_eq!(read(&two), (true, both.clone()));
        let ended = [&two[..], &message(NLMSG_DONE, &[0; 4]), &two].concat();
        assert_eq!(read(&ended), (false, both));
    }

    #[test]
    fn what_is_cut_ends_the_list() {
        let bytes = message(20, b"body");
        for end in 4..bytes.len() {
            assert_eq!(read(&bytes[..end]), (false, Vec::new()), "{end}");
        }
        // A length that never gets on.
        assert_eq!(read(&[0; 64]), (false, Vec::new()));
        assert_eq!(attributes(&[2, 0, 1, 0, 9], &mut |_, _| ()), None);
        assert_eq!(attributes(&[9, 0, 1, 0, 9], &mut |_, _| ()), None);
        assert_eq!(attributes(&[5, 0, 1, 0, 9], &mut |_, _| ()), Some(()));
    }
}
