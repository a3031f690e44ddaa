//! The system calls that no safe wrapper offers, one a function.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use tokio::io::unix::AsyncFd;

use crate::cgroup::devices::Instruction;

/// Registers a descriptor with tokio.
pub fn async_fd(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd holds its descriptor open for as long as the AsyncFd owns it, and is never replaced in it.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// Lets this process have as many heaps as there are processors. glibc would make eight for each, and what the threads of one
/// have freed is no use to those of another. To be called before there are threads.
pub fn bound_heaps() {
    let processors = std::thread::available_parallelism().map_or(1, |n| libc::c_int::try_from(n.get()).unwrap_or(1));
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes two numbers, and changes how memory is handed out from here on, not what was.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, processors) };
}

/// Sets a terminal's size.
pub fn set_window_size(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request takes a pointer to a winsize, which outlives the call.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// include/uapi/linux/pidfd.h, from Linux 6.9.
const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 4;

/// Kills the process group that a process leads or is in. EINVAL where the kernel does not know how.
pub fn kill_group(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    let (fd, info) = (pidfd.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: the call takes a descriptor, which the borrow keeps open, and no siginfo.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, info, PIDFD_SIGNAL_PROCESS_GROUP) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// bpf(2)'s commands and constants (include/uapi/linux/bpf.h).
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The part of union bpf_attr that loading reads.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The part that attaching reads.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Gives a device program to the kernel, which first proves that it ends and touches nothing but its context.
pub fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let attributes = LoadAttributes {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(too_long)?,
        instructions: program.as_ptr() as u64,
        license: c"".as_ptr() as u64,
        name: *b"gantry_devices\0\0",
        ..LoadAttributes::default()
    };
    // SAFETY: the attributes are as long as said, start as bpf_attr does for this command, and point to `count`
    // instructions in the kernel's layout and to a string with its end, which all outlive the call.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, std::mem::size_of_val(&attributes))
    };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec) for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches it to a v2 cgroup, beside the programs of other cgroups above: all of them must agree.
pub fn attach_device_program(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = AttachAttributes {
        target: cgroup.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the attributes are as long as said, start as bpf_attr does for this command, and hold no pointer.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attributes, std::mem::size_of_val(&attributes))
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A socket that sends whole frames over an interface of its thread's network namespace, and hears none.
#[cfg(test)]
pub fn packet_socket(interface: u32) -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketType};
    let socket = rustix::net::socket(AddressFamily::PACKET, SocketType::RAW, None)?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: interface.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let bytes = std::mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is as long as said, of the family that the socket has, and outlives the call.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}
