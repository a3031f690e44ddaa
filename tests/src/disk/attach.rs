//! Gives one end of a socket pair to the kernel as a block device: nbd's family of generic netlink (linux/nbd-netlink.h).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use gantry_netlink::message::{attributes, messages};
use rustix::net::netlink::{GENERIC, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with};

use super::SECTOR_BYTES;

const NLM_F_REQUEST_ACK: u16 = 0x5;
const NLMSG_ERROR: u16 = 2;
const NLA_F_NESTED: u16 = 0x8000;
/// The family that knows the others, its one command and two attributes.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

const NBD_CMD_CONNECT: u8 = 1;
const NBD_ATTR_INDEX: u16 = 1;
const NBD_ATTR_SIZE_BYTES: u16 = 2;
const NBD_ATTR_BLOCK_SIZE_BYTES: u16 = 3;
const NBD_ATTR_SERVER_FLAGS: u16 = 5;
const NBD_ATTR_SOCKETS: u16 = 7;
const NBD_SOCK_ITEM: u16 = 1;
const NBD_SOCK_FD: u16 = 1;
/// NBD_FLAG_HAS_FLAGS, NBD_FLAG_SEND_FLUSH, NBD_FLAG_SEND_FUA.
const SERVER_FLAGS: u64 = 1 | 4 | 8;

pub(super) fn attach(index: u32, bytes: u64, socket: BorrowedFd<'_>) -> io::Result<()> {
    let netlink = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(GENERIC))?;
    bind(&netlink, &SocketAddrNetlink::new(0, 0))?;
    let name = attribute(CTRL_ATTR_FAMILY_NAME, b"nbd\0");
    let family = ask(&netlink, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &name)?;
    let family = family.ok_or(io::ErrorKind::Unsupported)?;

    let item = attribute(NBD_SOCK_ITEM | NLA_F_NESTED, &attribute(NBD_SOCK_FD, &socket.as_raw_fd().to_ne_bytes()));
    let body = [
        attribute(NBD_ATTR_INDEX, &index.to_ne_bytes()),
        attribute(NBD_ATTR_SIZE_BYTES, &bytes.to_ne_bytes()),
        attribute(NBD_ATTR_BLOCK_SIZE_BYTES, &(SECTOR_BYTES as u64).to_ne_bytes()),
        attribute(NBD_ATTR_SERVER_FLAGS, &SERVER_FLAGS.to_ne_bytes()),
        attribute(NBD_ATTR_SOCKETS | NLA_F_NESTED, &item),
    ];
    ask(&netlink, family, NBD_CMD_CONNECT, &body.concat()).map(|_| ())
}

/// Sends one command and waits for its acknowledgement; of the answer, a family's number is what anyone here wants.
fn ask(netlink: &OwnedFd, family: u16, command: u8, body: &[u8]) -> io::Result<Option<u16>> {
    send(netlink, &message(family, command, body), SendFlags::empty())?;
    let mut found = None;
    let mut buffer = vec![0; 16 << 10];
    loop {
        let (length, _) = recv(netlink, &mut buffer[..], RecvFlags::empty())?;
        for message in messages(&buffer[..length]) {
            let message = message.ok_or(io::ErrorKind::InvalidData)?;
            if message.kind == NLMSG_ERROR {
                let code = message.payload.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
                return match code.ok_or(io::ErrorKind::InvalidData)? {
                    0 => Ok(found),
                    code => Err(io::Error::from_raw_os_error(-code)),
                };
            }
            // Behind the command, its version and two bytes that mean nothing.
            let id = attributes(&message.payload[4..]).find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID);
            found = id.and_then(|(_, value)| Some(u16::from_ne_bytes(*value.first_chunk()?)));
        }
    }
}

fn message(family: u16, command: u8, body: &[u8]) -> Vec<u8> {
    let length = (20 + body.len()) as u32;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(family.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([command, 1, 0, 0]);
    bytes.extend(body);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
