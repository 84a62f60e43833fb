//! IPv6 extension headers in every packet of a socket.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use anyhow::{Context, Result};
use nix::setsockopt_impl;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::SetOsString;
use socket2::Socket;

use crate::scenario::ExtensionHeader;

/// The shortest options header: next header (filled in by the kernel), length 0 (8 bytes in total), and one
/// padding option that fills the rest (`PadN`, RFC 8200).
const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

#[derive(Debug, Clone)]
struct HopByHop;
#[derive(Debug, Clone)]
struct Destination;

setsockopt_impl!(
    HopByHop,
    libc::IPPROTO_IPV6,
    libc::IPV6_HOPOPTS,
    OsString,
    SetOsString<'_>
);
setsockopt_impl!(
    Destination,
    libc::IPPROTO_IPV6,
    libc::IPV6_DSTOPTS,
    OsString,
    SetOsString<'_>
);

/// Makes the kernel add these headers to every packet of the socket, in the order recommended by RFC 8200.
pub(super) fn add(socket: &Socket, headers: &[ExtensionHeader]) -> Result<()> {
    let content = OsString::from_vec(PADDING.to_vec());
    for header in headers {
        match header {
            ExtensionHeader::HopByHop => setsockopt(socket, HopByHop, &content),
            ExtensionHeader::Destination => setsockopt(socket, Destination, &content),
        }
        .with_context(|| format!("cannot add the extension header {header:?}"))?;
    }
    Ok(())
}
