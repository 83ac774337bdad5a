//! The machine's addresses, as the kernel has them.
//!
//! Source: rtnetlink(7), `linux/if_addr.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io;
use rustix::net::{RecvFlags, recv};

use crate::netlink;

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
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

/// Global addresses, IPv4 first, each family in the kernel's order.
pub fn addresses() -> Vec<IpAddr> {
    let found = on_links().into_iter().map(|(_, address)| address);
    let (mut found, others): (Vec<IpAddr>, Vec<IpAddr>) = found.partition(IpAddr::is_ipv4);
    found.extend(others);
    found
}

/// Global addresses, each with the number of its link.
pub fn on_links() -> Vec<(u32, IpAddr)> {
    dump().unwrap_or_default()
}

/// Waits until there is an address, at most `patience`; returns them.
pub fn wait_for_one(patience: Duration) -> Vec<IpAddr> {
    let end = Instant::now() + patience;
    let socket = netlink::open(ADDRESS_GROUPS);
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

fn dump() -> io::Result<Vec<(u32, IpAddr)>> {
    let mut found = Vec::new();
    // An empty `ifaddrmsg`.
    netlink::dump(RTM_GETADDR, &[0; 8], &mut |kind, message| {
        if kind == RTM_NEWADDR {
            found.extend(read_address(message));
        }
    })?;
    Ok(found)
}

/// The link and the global address of an `ifaddrmsg` with its attributes.
fn read_address(message: &[u8]) -> Option<(u32, IpAddr)> {
    let (family, flags, scope) = (*message.first()?, *message.get(2)?, *message.get(3)?);
    if scope != GLOBAL || flags & TENTATIVE != 0 {
        return None;
    }
    let link = netlink::u32_at(message, 4)?;
    let mut address = None;
    netlink::attributes(message.get(8..)?, &mut |kind, value| {
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
    })?;
    let address = address.filter(|address: &IpAddr| !address.is_loopback());
    address.map(|address| (link, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(family: u8, scope: u8, address: &[u8]) -> Vec<u8> {
        let mut body = vec![family, 24, 0, scope, 2, 0, 0, 0];
        let length = u16::try_from(4 + address.len()).expect("short");
        body.extend_from_slice(&length.to_ne_bytes());
        body.extend_from_slice(&IFA_ADDRESS.to_ne_bytes());
        body.extend_from_slice(address);
        body
    }

    #[test]
    fn global_addresses_are_taken_and_others_are_not() {
        let link = u32::from_ne_bytes([2, 0, 0, 0]);
        let found = read_address(&message(AF_INET, GLOBAL, &[10, 1, 2, 10]));
        assert_eq!(found, Some((link, IpAddr::from([10, 1, 2, 10]))));
        for (family, scope, address) in [
            (AF_INET, 254, &[127, 0, 0, 1][..]),
            (AF_INET6, 253, &[0xfe; 16]),
            (AF_INET6, GLOBAL, &[10, 1, 2, 10]),
        ] {
            assert_eq!(read_address(&message(family, scope, address)), None);
        }
    }

    #[test]
    fn what_is_cut_is_no_address() {
        let bytes = message(AF_INET, GLOBAL, &[10, 1, 2, 10]);
        for end in 0..bytes.len() {
            assert_eq!(read_address(&bytes[..end]), None, "{end}");
        }
    }

    #[test]
    fn the_kernel_answers() {
        assert!(dump().is_ok());
    }
}
