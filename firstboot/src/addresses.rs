//! The machine's addresses, as the kernel has them.
//!
//! Source: rtnetlink(7), `linux/if_addr.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{self, Errno};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
};

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_DONE: u16 = 3;
const NLMSG_ERROR: u16 = 2;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x301;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `RT_SCOPE_UNIVERSE`: valid everywhere.
const GLOBAL: u8 = 0;
/// `IFA_F_TENTATIVE`: not usable yet.
const TENTATIVE: u8 = 0x40;
/// Multicast groups `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR`.
const ADDRESS_GROUPS: u32 = 0x10 | 0x100;
const HEADER: usize = 16;

/// Global addresses, IPv4 first, each family in the kernel's order.
pub fn addresses() -> Vec<IpAddr> {
    let mut found = dump().unwrap_or_default();
    found.sort_by_key(IpAddr::is_ipv6);
    found
}

/// Waits until there is an address, at most `patience`; returns them.
pub fn wait_for_one(patience: Duration) -> Vec<IpAddr> {
    let end = Instant::now() + patience;
    let socket = open(ADDRESS_GROUPS);
    loop {
        let found = addresses();
        let left = end.saturating_duration_since(Instant::now());
        if !found.is_empty() || left.is_zero() {
            return found;
        }
        let Ok(socket) = &socket else {
            std::thread::sleep(left.min(Duration::from_millis(500)));
            continue;
        };
        let timeout = Timespec::try_from(left.min(Duration::from_secs(2))).ok();
        if poll(&mut [PollFd::new(socket, PollFlags::IN)], timeout.as_ref()).is_ok() {
            let mut buffer = [0; 8192];
            while recv(socket, &mut buffer, RecvFlags::DONTWAIT).is_ok() {}
        }
    }
}

/// A socket of `NETLINK_ROUTE`, which is protocol 0.
fn open(groups: u32) -> io::Result<rustix::fd::OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

fn dump() -> io::Result<Vec<IpAddr>> {
    let socket = open(0)?;
    let mut request = Vec::with_capacity(HEADER + 8);
    request.extend_from_slice(&24_u32.to_ne_bytes());
    request.extend_from_slice(&RTM_GETADDR.to_ne_bytes());
    request.extend_from_slice(&DUMP.to_ne_bytes());
    // Sequence number, port, and an empty `ifaddrmsg`.
    request.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    sendto(
        &socket,
        &request,
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
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

/// Takes the addresses out of one datagram; whether more will come.
fn read_messages(mut bytes: &[u8], found: &mut Vec<IpAddr>) -> bool {
    while let Some(length) = u32_at(bytes, 0).and_then(|length| usize::try_from(length).ok()) {
        let Some(message) = bytes
            .get(..length)
            .filter(|message| message.len() >= HEADER)
        else {
            return false;
        };
        match u16_at(message, 4) {
            Some(NLMSG_DONE | NLMSG_ERROR) => return false,
            Some(RTM_NEWADDR) => found.extend(message.get(HEADER..).and_then(read_address)),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    true
}

/// The global address of an `ifaddrmsg` with its attributes.
fn read_address(message: &[u8]) -> Option<IpAddr> {
    let (family, flags, scope) = (*message.first()?, *message.get(2)?, *message.get(3)?);
    if scope != GLOBAL || flags & TENTATIVE != 0 {
        return None;
    }
    let mut attributes = message.get(8..)?;
    let mut address = None;
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        let length = usize::from(length);
        let value = attributes.get(4..length)?;
        // On a point-to-point link the local address is ours.
        if kind == IFA_LOCAL || (kind == IFA_ADDRESS && address.is_none()) {
            address = match family {
                AF_INET => value
                    .first_chunk::<4>()
                    .map(|bytes| Ipv4Addr::from(*bytes).into()),
                AF_INET6 => value
                    .first_chunk::<16>()
                    .map(|bytes| Ipv6Addr::from(*bytes).into()),
                _ => None,
            };
        }
        attributes = attributes
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    address.filter(|address: &IpAddr| !address.is_loopback())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|field| u16::from_ne_bytes(*field))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|field| u32::from_ne_bytes(*field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, family: u8, scope: u8, address: &[u8]) -> Vec<u8> {
        let mut body = vec![family, 24, 0, scope, 2, 0, 0, 0];
        let length = u16::try_from(4 + address.len()).expect("short");
        body.extend_from_slice(&length.to_ne_bytes());
        body.extend_from_slice(&IFA_ADDRESS.to_ne_bytes());
        body.extend_from_slice(address);
        let mut bytes = u32::try_from(HEADER + body.len())
            .expect("short")
            .to_ne_bytes()
            .to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&[0; 10]);
        bytes.extend_from_slice(&body);
        bytes
    }

    #[test]
    fn global_addresses_are_taken_and_others_are_not() {
        let mut bytes = message(RTM_NEWADDR, AF_INET, GLOBAL, &[10, 1, 2, 10]);
        bytes.extend(message(RTM_NEWADDR, AF_INET, 254, &[127, 0, 0, 1]));
        bytes.extend(message(RTM_NEWADDR, AF_INET6, 253, &[0xfe; 16]));
        let mut found = Vec::new();
        assert!(read_messages(&bytes, &mut found));
        assert_eq!(found, [IpAddr::from([10, 1, 2, 10])]);
        assert!(!read_messages(&message(NLMSG_DONE, 0, 0, &[]), &mut found));
    }

    #[test]
    fn cut_messages_end_the_list() {
        let bytes = message(RTM_NEWADDR, AF_INET, GLOBAL, &[10, 1, 2, 10]);
        for end in 0..bytes.len() {
            let mut found = Vec::new();
            read_messages(&bytes[..end], &mut found);
            assert_eq!(found, [] as [IpAddr; 0], "{end}");
        }
    }

    #[test]
    fn the_kernel_answers() {
        assert!(dump().is_ok());
    }
}
