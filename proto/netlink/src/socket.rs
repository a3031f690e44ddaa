use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use crate::Error;
use crate::message::{self, Message, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, Writer};

/// A dump's datagrams are at most this long; so are acknowledgements.
const RECEIVE_MAX_BYTES: usize = 64 << 10;
/// A batch of ten thousand services is some megabytes, and goes out as one datagram.
const SEND_MAX_BYTES: usize = 32 << 20;
/// The first failure is what counts; the kernel queues an answer per message that failed.
const QUEUE_MAX_BYTES: usize = 4 << 20;
const DUMP_TRIES_MAX: u32 = 5;

/// One netlink socket, used for one request at a time.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    pub fn open(protocol: Option<Protocol>, groups: u32) -> Result<Socket, Error> {
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .map_err(Error::Open)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups)).map_err(Error::Open)?;
        // Without CAP_NET_ADMIN in the first user namespace the forced size is refused; the ordinary one will do there.
        if sockopt::set_socket_send_buffer_size_force(&fd, SEND_MAX_BYTES).is_err() {
            sockopt::set_socket_send_buffer_size(&fd, SEND_MAX_BYTES).map_err(Error::Open)?;
        }
        if sockopt::set_socket_recv_buffer_size_force(&fd, QUEUE_MAX_BYTES).is_err() {
            sockopt::set_socket_recv_buffer_size(&fd, QUEUE_MAX_BYTES).map_err(Error::Open)?;
        }
        Ok(Socket { fd, sequence: 0, buffer: Vec::new() })
    }

    pub fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// The first of `count` numbers that follow one another.
    pub fn sequence_block(&mut self, count: u32) -> u32 {
        // A run that would wrap starts over instead, so that answers can be told by subtraction.
        let first = if self.sequence > u32::MAX - count - 1 { 1 } else { self.sequence + 1 };
        self.sequence = first + count - 1;
        first
    }

    pub fn set_nonblocking(&self) -> Result<(), Error> {
        rustix::io::ioctl_fionbio(&self.fd, true).map_err(Error::Open)
    }

    pub fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        rustix::io::retry_on_intr(|| rustix::net::send(&self.fd, bytes, SendFlags::empty())).map_err(Error::Send)?;
        Ok(())
    }

    /// One datagram; `None` where none is queued and `flags` say not to wait.
    fn receive(&mut self, flags: RecvFlags) -> Result<Option<&[u8]>, Error> {
        self.buffer.clear();
        self.buffer.reserve(RECEIVE_MAX_BYTES);
        let spare: &mut [MaybeUninit<u8>] = self.buffer.spare_capacity_mut();
        let received = loop {
            match rustix::net::recv(&self.fd, &mut *spare, flags) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(errno) => return Err(Error::Receive(errno)),
                Ok(((filled, _), _)) => break filled.to_vec(),
            }
        };
        self.buffer = received;
        Ok(Some(&self.buffer))
    }

    /// Sends one message and waits for its acknowledgement.
    pub fn request(&mut self, mut writer: Writer, what: impl FnOnce() -> String) -> Result<(), Error> {
        let sequence = self.next_sequence();
        writer.add_flags(0, NLM_F_ACK);
        writer.set_sequence(0, sequence);
        self.send(writer.as_slice())?;
        loop {
            let Some(datagram) = self.receive(RecvFlags::empty())? else { return Err(Error::Malformed) };
            for message in message::messages(datagram) {
                let message = message.ok_or(Error::Malformed)?;
                if message.sequence == sequence && message.kind == NLMSG_ERROR {
                    return match errno(&message)? {
                        None => Ok(()),
                        Some(source) => Err(Error::Kernel { what: what(), source }),
                    };
                }
            }
        }
    }

    /// Sends one message that has one answer, and reads it.
    pub fn ask<T>(
        &mut self,
        mut writer: Writer,
        what: &str,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let sequence = self.next_sequence();
        writer.set_sequence(0, sequence);
        self.send(writer.as_slice())?;
        loop {
            let Some(datagram) = self.receive(RecvFlags::empty())? else { return Err(Error::Malformed) };
            for message in message::messages(datagram) {
                let message = message.ok_or(Error::Malformed)?;
                match message.kind {
                    _ if message.sequence != sequence => {}
                    NLMSG_ERROR => {
                        return match errno(&message)? {
                            Some(source) => Err(Error::Kernel { what: what.to_owned(), source }),
                            None => Ok(None),
                        };
                    }
                    _ => return Ok(read(message.payload)),
                }
            }
        }
    }

    /// The answers that are queued, without waiting for more: (sequence, what the kernel said).
    pub fn drain_answers(&mut self) -> Result<Vec<(u32, Option<Errno>)>, Error> {
        let mut answers = Vec::new();
        while let Some(datagram) = self.receive(RecvFlags::DONTWAIT)? {
            for message in message::messages(datagram) {
                let message = message.ok_or(Error::Malformed)?;
                if message.kind == NLMSG_ERROR {
                    answers.push((message.sequence, errno(&message)?));
                }
            }
        }
        Ok(answers)
    }

    /// Reads and forgets what is queued; true where there was something. For sockets that listen to a group.
    pub fn drain(&mut self) -> Result<bool, Error> {
        let mut any = false;
        loop {
            match self.receive(RecvFlags::DONTWAIT) {
                Ok(Some(_)) => any = true,
                Ok(None) => return Ok(any),
                // Too much was said for the queue to hold, which says the same thing.
                Err(Error::Receive(Errno::NOBUFS)) => any = true,
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks for a dump and hands each message's payload to `each`, which `None` stops as malformed. A dump that a change
    /// interrupted starts again, with `restart` called first.
    pub fn dump<T>(
        &mut self,
        writer: &Writer,
        what: &str,
        mut each: impl FnMut(&mut Vec<T>, &[u8]) -> Option<()>,
    ) -> Result<Vec<T>, Error> {
        for _ in 0..DUMP_TRIES_MAX {
            let mut found = Vec::new();
            if self.dump_once(writer, what, &mut |payload| each(&mut found, payload))? {
                return Ok(found);
            }
        }
        Err(Error::Interrupted)
    }

    /// True where the dump is consistent.
    fn dump_once(
        &mut self,
        writer: &Writer,
        what: &str,
        each: &mut dyn FnMut(&[u8]) -> Option<()>,
    ) -> Result<bool, Error> {
        let sequence = self.next_sequence();
        let mut writer = writer.clone();
        writer.add_flags(0, NLM_F_DUMP);
        writer.set_sequence(0, sequence);
        self.send(writer.as_slice())?;
        let mut consistent = true;
        loop {
            let Some(datagram) = self.receive(RecvFlags::empty())? else { return Err(Error::Malformed) };
            for message in message::messages(datagram) {
                let message = message.ok_or(Error::Malformed)?;
                if message.sequence != sequence {
                    continue;
                }
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => return Ok(consistent),
                    NLMSG_ERROR => match errno(&message)? {
                        // nf_tables says EINTR when the generation changed under the dump.
                        Some(Errno::INTR) => return Ok(false),
                        Some(source) => return Err(Error::Kernel { what: what.to_owned(), source }),
                        None => return Ok(consistent),
                    },
                    _ => each(message.payload).ok_or(Error::Malformed)?,
                }
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What an error message carries: nothing wrong (an acknowledgement), or an error number.
fn errno(message: &Message<'_>) -> Result<Option<Errno>, Error> {
    let code = message.payload.first_chunk::<4>().map(|b| i32::from_ne_bytes(*b)).ok_or(Error::Malformed)?;
    match code {
        0 => Ok(None),
        // What is no error number would be no Errno either.
        -4095..0 => Ok(Some(Errno::from_raw_os_error(-code))),
        _ => Err(Error::Malformed),
    }
}
