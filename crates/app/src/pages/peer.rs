//! Whose program is at the other end of a loopback connection.
//!
//! On Linux the system lists every TCP socket of the network namespace with its owner (proc_net(5), `/proc/net/tcp`). So
//! a program of another person on this machine is let go before a byte of it is read, whatever it knows: cookies of a
//! browser are not bound to a port, and must not be all that stands between two people who share a machine. Where there is
//! no such list, the key in the cookie alone decides. What this cannot prevent is said in `docs/formats/pages.md`.

use std::net::SocketAddrV4;

/// The list.
const TABLE: &str = "/proc/net/tcp";

/// The state of a connection that stands, as the kernel numbers it (`TCP_ESTABLISHED`).
const ESTABLISHED: &str = "01";

/// Whether the other end may be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// A program of the same person.
    Same,
    /// Somebody else's, or one that is gone already.
    Other,
    /// The system does not tell.
    Unknown,
}

/// Looks up who holds the other end of a connection from `peer` to `here`.
pub(super) async fn owner(peer: SocketAddrV4, here: SocketAddrV4) -> Owner {
    match tokio::fs::read_to_string(TABLE).await {
        Ok(table) => owner_in(&table, peer, here, rustix::process::geteuid().as_raw()),
        Err(_) => Owner::Unknown,
    }
}

fn owner_in(table: &str, peer: SocketAddrV4, here: SocketAddrV4, me: u32) -> Owner {
    let (peer, here) = (kernel_text(peer), kernel_text(here));
    let end = |from: &str, to: &str| {
        table.lines().find_map(|line| {
            let mut words = line.split_ascii_whitespace().skip(1);
            let is_it = words.next() == Some(from)
                && words.next() == Some(to)
                && words.next() == Some(ESTABLISHED);
            // After the state: queues, timer, retransmissions, and then the owner.
            is_it.then(|| words.nth(3).and_then(|uid| uid.parse::<u32>().ok()))
        })
    };
    match end(&peer, &here) {
        Some(Some(uid)) if uid == me => Owner::Same,
        Some(_) => Owner::Other,
        // A list that does not have this end either is none.
        None if end(&here, &peer).is_none() => Owner::Unknown,
        None => Owner::Other,
    }
}

/// An address as the kernel prints it: the four bytes as one number of this machine's order, and the port.
fn kernel_text(address: SocketAddrV4) -> String {
    let number = u32::from_ne_bytes(address.ip().octets());
    format!("{number:08X}:{:04X}", address.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::Ipv4Addr;

    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 41 1 0000000000000000 100 0 0 10 0
   1: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 42 1 0000000000000000 20 4 30 10 -1
   2: 0100007F:C351 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1001        0 43 1 0000000000000000 20 4 30 10 -1
   3: 0100007F:1F90 0100007F:C352 01 00000000:00000000 00:00000000 00000000  1000        0 45 1 0000000000000000 20 4 30 10 -1
   4: 0100007F:1F90 0100007F:C353 01 00000000:00000000 00:00000000 00000000  1000        0 46 1 0000000000000000 20 4 30 10 -1
   5: 0100007F:C352 0100007F:1F90 06 00000000:00000000 03:00000000 00000000  1000        0 44 1 0000000000000000 20 4 30 10 -1
";

    fn at(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn c05_only_programs_of_the_same_person_are_answered() {
        let of = |port| owner_in(TABLE, at(port), at(8080), 1000);
        assert_eq!(of(50_000), Owner::Same);
        assert_eq!(of(50_001), Owner::Other, "another person's");
        assert_eq!(of(50_002), Owner::Other, "one that is closing");
        assert_eq!(of(50_003), Owner::Other, "one that is not there");
        // A list that does not even have this process' own end is not the one of this machine.
        assert_eq!(of(50_004), Owner::Unknown);
        assert_eq!(owner_in("", at(50_000), at(8080), 1000), Owner::Unknown);
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    #[expect(
        clippy::disallowed_methods,
        reason = "a connection of the test to itself"
    )]
    async fn c05_a_connection_of_this_process_is_its_own() {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let here = listener.local_addr().unwrap();
        let _connection = tokio::net::TcpStream::connect(here).await.unwrap();
        let (_accepted, peer) = listener.accept().await.unwrap();
        let (std::net::SocketAddr::V4(peer), std::net::SocketAddr::V4(here)) = (peer, here) else {
            unreachable!("both are of the fourth version");
        };
        assert_eq!(owner(peer, here).await, Owner::Same);
        assert_eq!(owner(here, peer).await, Owner::Same, "the other end, too");
    }
}
