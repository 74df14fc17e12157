//! How many segments the kernel had to send again, asked of the kernel itself.
//!
//! `TCP_INFO` is a socket option for which there is no safe interface in use here. The same structure
//! comes out of the kernel's socket diagnostics (`sock_diag(7)`, `NETLINK_SOCK_DIAG`), which is a
//! plain exchange of bytes: ask for the one socket with these two ends, find the attribute
//! `INET_DIAG_INFO` in the answer. Where the kernel has no such diagnostics the number is unknown.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use tokio::net::TcpStream;

/// Header of a netlink message (`struct nlmsghdr`), in bytes.
const HEADER_BYTES: usize = 16;
/// `struct inet_diag_req_v2`, in bytes.
const REQUEST_BYTES: usize = 56;
/// `struct inet_diag_msg`, in bytes.
const MESSAGE_BYTES: usize = 72;
/// `SOCK_DIAG_BY_FAMILY`
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`
const FLAG_REQUEST: u16 = 1;
/// `INET_DIAG_INFO`, whose bit in a request is one lower.
const ATTRIBUTE_INFO: u16 = 2;
/// Place of `tcpi_total_retrans` in `struct tcp_info`: 8 bytes, then 23 numbers of 4 bytes.
const TOTAL_RETRANSMITTED_AT: usize = 8 + 23 * 4;
/// The kernel's answer about one socket is far shorter.
const ANSWER_MAX_BYTES: usize = 8192;

const FAMILY_INET: u8 = 2;
const FAMILY_INET6: u8 = 10;
const PROTOCOL_TCP: u8 = 6;

/// The segments that were sent again over the life of this connection.
pub(super) fn retransmitted_segments(stream: &TcpStream) -> Option<u32> {
    let (local, remote) = (stream.local_addr().ok()?, stream.peer_addr().ok()?);
    let socket = diagnostics()?;
    let to = SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(&socket, &request(local, remote), SendFlags::empty(), &to).ok()?;
    let mut answer = vec![0; ANSWER_MAX_BYTES];
    let (length, _) =
        rustix::net::recv(&socket, answer.as_mut_slice(), RecvFlags::DONTWAIT).ok()?;
    find(answer.get(..length)?)
}

fn diagnostics() -> Option<OwnedFd> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the egress, and the socket ends in the kernel"
    )]
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    );
    socket.ok()
}

/// A request for the socket with these two ends.
fn request(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + REQUEST_BYTES);
    out.extend_from_slice(&((HEADER_BYTES + REQUEST_BYTES) as u32).to_ne_bytes());
    out.extend_from_slice(&BY_FAMILY.to_ne_bytes());
    out.extend_from_slice(&FLAG_REQUEST.to_ne_bytes());
    out.extend_from_slice(&[0; 8]); // sequence, port id
    let family = if local.is_ipv4() {
        FAMILY_INET
    } else {
        FAMILY_INET6
    };
    out.extend_from_slice(&[family, PROTOCOL_TCP, 1 << (ATTRIBUTE_INFO - 1), 0]);
    out.extend_from_slice(&u32::MAX.to_ne_bytes()); // in any state
    out.extend_from_slice(&local.port().to_be_bytes());
    out.extend_from_slice(&remote.port().to_be_bytes());
    out.extend_from_slice(&sixteen(local.ip()));
    out.extend_from_slice(&sixteen(remote.ip()));
    out.extend_from_slice(&[0; 4]); // any interface
    out.extend_from_slice(&[0xff; 8]); // any cookie
    out
}

fn sixteen(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => {
            let mut out = [0; 16];
            out[..4].copy_from_slice(&address.octets());
            out
        }
    }
}

/// Finds the number in an answer.
fn find(answer: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    if kind != BY_FAMILY {
        return None;
    }
    let mut attributes = answer.get(HEADER_BYTES + MESSAGE_BYTES..)?;
    while attributes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([attributes[0], attributes[1]]));
        let kind = u16::from_ne_bytes([attributes[2], attributes[3]]);
        let content = attributes.get(4..length)?;
        if kind == ATTRIBUTE_INFO {
            let number = content.get(TOTAL_RETRANSMITTED_AT..TOTAL_RETRANSMITTED_AT + 4)?;
            return Some(u32::from_ne_bytes(number.try_into().ok()?));
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}
