//! Whether a machine on the same link answers, by ARP or neighbour discovery.
//!
//! Source: rtnetlink(7), `linux/neighbour.h`. The kernel asks when somebody
//! sends a datagram there; its table says what came back. Nothing else is
//! needed of the other side, and no privilege here.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::io::{self, Errno};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
};

const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x301;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// `NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT`: it
/// answered once.
const ANSWERED: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x80;
const HEADER: usize = 16;
/// The discard service: nobody minds a datagram there.
const DISCARD: u16 = 9;
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(500);

/// Those of `addresses` that have not answered when `patience` ends.
pub fn silent(addresses: &[IpAddr], patience: Duration) -> Vec<IpAddr> {
    let end = Instant::now() + patience;
    let mut silent = addresses.to_vec();
    loop {
        for address in &silent {
            poke(*address);
        }
        let known = answered().unwrap_or_default();
        silent.retain(|address| !known.contains(address));
        if silent.is_empty() || Instant::now() >= end {
            return silent;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Has the kernel look for the neighbour. What goes wrong shows in the table.
fn poke(address: IpAddr) {
    let any: SocketAddr = match address {
        IpAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    if let Ok(socket) = UdpSocket::bind(any) {
        let _ = socket.send_to(&[], (address, DISCARD));
    }
}

/// Neighbours with a hardware address.
fn answered() -> io::Result<Vec<IpAddr>> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    let mut request = Vec::with_capacity(HEADER + 12);
    request.extend_from_slice(&28_u32.to_ne_bytes());
    request.extend_from_slice(&RTM_GETNEIGH.to_ne_bytes());
    request.extend_from_slice(&DUMP.to_ne_bytes());
    // Sequence number, port, and an empty `ndmsg`.
    request.extend_from_slice(&1_u32.to_ne_bytes());
    request.extend_from_slice(&[0; 16]);
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(&socket, &request, SendFlags::empty(), &kernel)?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let size = match recv(&socket, &mut *buffer, RecvFlags::empty()) {
            Ok((_, size)) => size,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        };
        if !read_messages(buffer.get(..size).unwrap_or_default(), &mut found) {
            return Ok(found);
        }
    }
}

/// Takes the neighbours out of one datagram; whether more will come.
fn read_messages(mut bytes: &[u8], found: &mut Vec<IpAddr>) -> bool {
    while let Some(length) = bytes.first_chunk().map(|field| u32::from_ne_bytes(*field)) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(message) = bytes.get(..length).filter(|it| it.len() >= HEADER) else {
            return false;
        };
        match u16_at(message, 4) {
            Some(NLMSG_DONE | NLMSG_ERROR) => return false,
            Some(RTM_NEWNEIGH) => found.extend(message.get(HEADER..).and_then(read_neighbour)),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    true
}

/// The address of an `ndmsg` whose neighbour answered.
fn read_neighbour(message: &[u8]) -> Option<IpAddr> {
    if u16_at(message, 8)? & ANSWERED == 0 {
        return None;
    }
    let mut attributes = message.get(12..)?;
    let (mut address, mut is_known) = (None, false);
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        let length = usize::from(length);
        let value = attributes.get(4..length)?;
        match (kind, value.len()) {
            (NDA_DST, 4) => address = value.first_chunk::<4>().map(|it| IpAddr::from(*it)),
            (NDA_DST, 16) => address = value.first_chunk::<16>().map(|it| IpAddr::from(*it)),
            (NDA_LLADDR, 1..) => is_known = true,
            _ => {}
        }
        attributes = attributes
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    address.filter(|_| is_known)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|field| u16::from_ne_bytes(*field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(state: u16, with_hardware: bool) -> Vec<u8> {
        let mut body = vec![2, 0, 0, 0, 2, 0, 0, 0];
        body.extend_from_slice(&state.to_ne_bytes());
        body.extend_from_slice(&[0, 1]);
        for (kind, value) in [(NDA_DST, &[10, 1, 2, 1][..]), (NDA_LLADDR, &[1; 6])] {
            if kind == NDA_LLADDR && !with_hardware {
                continue;
            }
            let length = u16::try_from(4 + value.len()).expect("short");
            body.extend_from_slice(&length.to_ne_bytes());
            body.extend_from_slice(&kind.to_ne_bytes());
            body.extend_from_slice(value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let length = u32::try_from(HEADER + body.len()).expect("short");
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&RTM_NEWNEIGH.to_ne_bytes());
        bytes.extend_from_slice(&[0; 10]);
        bytes.extend_from_slice(&body);
        bytes
    }

    fn read(bytes: &[u8]) -> Vec<IpAddr> {
        let mut found = Vec::new();
        read_messages(bytes, &mut found);
        found
    }

    #[test]
    fn neighbours_that_answered_are_known() {
        let gateway = [IpAddr::from([10, 1, 2, 1])];
        assert_eq!(read(&message(0x02, true)), gateway);
        assert_eq!(read(&message(0x04, true)), gateway);
        // Incomplete, failed, without a hardware address.
        assert_eq!(read(&message(0x01, true)), [] as [IpAddr; 0]);
        assert_eq!(read(&message(0x20, false)), [] as [IpAddr; 0]);
        assert_eq!(read(&message(0x02, false)), [] as [IpAddr; 0]);
    }

    #[test]
    fn cut_messages_end_the_list() {
        let bytes = message(0x02, true);
        for end in 0..bytes.len() - 2 {
            assert_eq!(read(&bytes[..end]), [] as [IpAddr; 0], "{end}");
        }
    }

    #[test]
    fn the_kernel_answers_and_nobody_else() {
        assert!(answered().is_ok());
        let nobody = IpAddr::from([203, 0, 113, 77]);
        assert_eq!(silent(&[nobody], Duration::ZERO), [nobody]);
        assert_eq!(silent(&[], Duration::ZERO), [] as [IpAddr; 0]);
    }
}
