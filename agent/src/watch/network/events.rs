//! rtnetlink as an alarm: something of links, addresses or routes has changed. What, is read anew from `/proc` and `/sys`, so that a lost
//! event costs nothing but time, and none of netlink's formats has to be understood.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram as StdDatagram;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
use tokio::net::UnixDatagram;

/// Larger than any message that is read at once; what does not fit is cut off, which is no matter.
const BUFFER: usize = 32 << 10;

/// A socket on which the kernel tells of changes.
#[derive(Debug)]
pub(super) struct Events {
    /// Read as a datagram socket is, which it is in all but its addresses: tokio takes only sockets that it knows.
    socket: UnixDatagram,
}

impl Events {
    /// Of the network namespace that the calling thread is in.
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub(super) fn open() -> io::Result<Self> {
        let groups = [
            libc::RTMGRP_LINK,
            libc::RTMGRP_IPV4_IFADDR,
            libc::RTMGRP_IPV4_ROUTE,
            libc::RTMGRP_IPV6_IFADDR,
            libc::RTMGRP_IPV6_ROUTE,
        ];
        let groups = groups.iter().fold(0, |all, group| all | group.cast_unsigned());
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Self {
            socket: UnixDatagram::from_std(StdDatagram::from(socket))?,
        })
    }

    /// Returns after a change, with everything read that the kernel had to say of it.
    ///
    /// # Errors
    /// The socket is of no use any more.
    pub(super) async fn changed(&self) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        let mut any = false;
        while !any {
            self.socket.readable().await?;
            loop {
                match self.socket.try_recv(&mut buffer) {
                    Ok(_) => any = true,
                    // More happened than the kernel could keep for us. That something did is all we need.
                    Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => any = true,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}
