//! Whether a machine on the same link answers, by ARP or neighbour discovery.
//!
//! Source: rtnetlink(7), `linux/neighbour.h`. The kernel asks when somebody
//! sends a datagram there; its table says what came back, and when. What it
//! knew before is forgotten first, since an answer from before a change says
//! nothing about what the change did.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use crate::netlink;

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_CACHEINFO: u16 = 3;
/// `NUD_REACHABLE`: it answered a moment ago.
const REACHABLE: u16 = 0x02;
/// `NUD_NOARP | NUD_PERMANENT`: somebody wrote it down.
const WRITTEN: u16 = 0x40 | 0x80;
/// The kernel counts the age of an answer in hundredths of a second
/// (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);
/// The discard service: nobody minds a datagram there.
const DISCARD: u16 = 9;

/// An entry of the kernel's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Neighbour {
    link: u32,
    address: IpAddr,
    state: u16,
    has_hardware: bool,
    /// Since it answered last.
    age: Option<Duration>,
}

impl Neighbour {
    /// Whether it has answered within that time, and is there still.
    fn has_answered_within(&self, time: Duration) -> bool {
        self.state & REACHABLE != 0 && self.has_hardware && self.age.is_some_and(|age| age <= time)
    }
}

/// Has the kernel forget that it answered once. What goes wrong does no harm:
/// the age of an answer tells it from a new one.
pub fn forget(address: IpAddr) {
    let is_it = |it: &Neighbour| it.address == address && it.state & WRITTEN == 0;
    for entry in table().into_iter().filter(is_it) {
        let _ = netlink::ask(RTM_DELNEIGH, &entry_of(entry.link, entry.address));
    }
}

/// Has the kernel look for the neighbour; on which link matters for an address
/// that every link may have (`fe80::1`). What goes wrong shows in the table.
pub fn poke(link: u32, address: IpAddr) {
    let (any, there): (SocketAddr, SocketAddr) = match address {
        IpAddr::V4(_) => ((Ipv4Addr::UNSPECIFIED, 0).into(), (address, DISCARD).into()),
        IpAddr::V6(address) => (
            (Ipv6Addr::UNSPECIFIED, 0).into(),
            SocketAddrV6::new(address, DISCARD, 0, link).into(),
        ),
    };
    if let Ok(socket) = UdpSocket::bind(any) {
        let _ = socket.send_to(&[], there);
    }
}

/// Who has answered within `time`, each with the number of its link.
pub fn answered_within(time: Duration) -> Vec<(u32, IpAddr)> {
    let table = table().into_iter();
    table
        .filter(|it| it.has_answered_within(time))
        .map(|it| (it.link, it.address))
        .collect()
}

fn table() -> Vec<Neighbour> {
    let mut found = Vec::new();
    // An empty `ndmsg`.
    let done = netlink::dump(RTM_GETNEIGH, &[0; 12], &mut |kind, message| {
        if kind == RTM_NEWNEIGH {
            found.extend(read_neighbour(message));
        }
    });
    if done.is_ok() { found } else { Vec::new() }
}

/// An `ndmsg` that names one entry.
fn entry_of(link: u32, address: IpAddr) -> Vec<u8> {
    let (family, bytes) = match address {
        IpAddr::V4(address) => (2, address.octets().to_vec()),
        IpAddr::V6(address) => (10, address.octets().to_vec()),
    };
    let mut message = vec![family, 0, 0, 0];
    message.extend_from_slice(&link.to_ne_bytes());
    message.extend_from_slice(&[0; 4]);
    let length = u16::try_from(4 + bytes.len()).unwrap_or(u16::MAX);
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&NDA_DST.to_ne_bytes());
    message.extend_from_slice(&bytes);
    message
}

/// What an `ndmsg` with its attributes says.
fn read_neighbour(message: &[u8]) -> Option<Neighbour> {
    let link = netlink::u32_at(message, 4)?;
    let state = netlink::u16_at(message, 8)?;
    let (mut address, mut has_hardware, mut age) = (None, false, None);
    netlink::attributes(message.get(12..)?, &mut |kind, value| {
        match (kind, value.len()) {
            (NDA_DST, 4) => address = value.first_chunk::<4>().map(|it| IpAddr::from(*it)),
            (NDA_DST, 16) => address = value.first_chunk::<16>().map(|it| IpAddr::from(*it)),
            (NDA_LLADDR, 1..) => has_hardware = true,
            // `ndm_confirmed` comes first.
            (NDA_CACHEINFO, 4..) => {
                age = netlink::u32_at(value, 0).and_then(|ticks| TICK.checked_mul(ticks));
            }
            _ => {}
        }
    })?;
    Some(Neighbour {
        link,
        address: address?,
        state,
        has_hardware,
        age,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: [u8; 4] = [10, 1, 2, 1];

    fn push(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).expect("short");
        body.extend_from_slice(&length.to_ne_bytes());
        body.extend_from_slice(&kind.to_ne_bytes());
        body.extend_from_slice(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }

    fn message(state: u16, hardware: &[u8], ticks: u32) -> Vec<u8> {
        let mut body = vec![2, 0, 0, 0];
        body.extend_from_slice(&7_u32.to_ne_bytes());
        body.extend_from_slice(&state.to_ne_bytes());
        body.extend_from_slice(&[0, 1]);
        push(&mut body, NDA_DST, &GATEWAY);
        if !hardware.is_empty() {
            push(&mut body, NDA_LLADDR, hardware);
        }
        let mut times = ticks.to_ne_bytes().to_vec();
        times.extend_from_slice(&[0; 12]);
        push(&mut body, NDA_CACHEINFO, &times);
        body
    }

    fn counts(state: u16, hardware: &[u8], ticks: u32) -> bool {
        let found = read_neighbour(&message(state, hardware, ticks)).expect("a neighbour");
        assert_eq!((found.link, found.address), (7, IpAddr::from(GATEWAY)));
        found.has_answered_within(Duration::from_secs(3))
    }

    #[test]
    fn only_an_answer_after_the_change_counts() {
        assert!(counts(REACHABLE, &[1; 6], 299) && counts(REACHABLE, &[1; 6], 300));
        // It answered before.
        assert!(!counts(REACHABLE, &[1; 6], 301));
        // Incomplete, stale, delay, probe, failed, written down by somebody.
        for state in [0x01, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80] {
            assert!(!counts(state, &[1; 6], 0), "{state:#x}");
        }
        assert!(!counts(REACHABLE, &[], 0));
    }

    #[test]
    fn what_is_cut_is_no_neighbour() {
        let bytes = message(REACHABLE, &[1; 6], 0);
        for end in 0..bytes.len() {
            let found = read_neighbour(&bytes[..end]);
            let counts = found.is_some_and(|it| it.has_answered_within(Duration::from_secs(3)));
            assert!(!counts, "{end}");
        }
    }

    #[test]
    fn the_kernel_answers_and_nobody_else() {
        let done = netlink::dump(RTM_GETNEIGH, &[0; 12], &mut |_, _| ());
        assert!(done.is_ok());
        let nobody = IpAddr::from([203, 0, 113, 77]);
        forget(nobody);
        let answered = answered_within(Duration::from_secs(1));
        assert!(answered.iter().all(|(_, address)| *address != nobody));
        assert_eq!(entry_of(7, IpAddr::from(GATEWAY)).len(), 12 + 8);
    }
}
