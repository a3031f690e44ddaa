//! The system calls that neither nix nor rustix wraps, one a function.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forked {
    Child,
    Parent(i32),
}

/// libc's constant of this name overflows its type.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// fork(2), into the cgroup whose folder is given (v2), which spares the move later.
pub fn fork_into(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    fork_with(cgroup, 0)
}

/// The same of the first process of a new pid namespace.
pub fn fork_first(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    fork_with(cgroup, libc::CLONE_NEWPID as u64)
}

fn fork_with(cgroup: Option<BorrowedFd<'_>>, flags: u64) -> io::Result<Forked> {
    // SAFETY: clone_args is plain integers, for which zero is valid and means: not used.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = libc::SIGCHLD as u64;
    args.flags = flags;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no stack and no shared memory are asked for, so this is fork; this program has one thread for life, so the
    // child may run any code.
    match check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) })? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid as i32)),
    }
}

/// fork(2), of a child that is not this process' but its parent's.
pub fn fork_sibling() -> io::Result<Forked> {
    // SAFETY: clone_args is plain integers, for which zero is valid and means: not used.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    // The signal at its end is that which this process' own end sends.
    args.flags = libc::CLONE_PARENT as u64;
    // SAFETY: as in `fork_into`.
    match check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) })? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid as i32)),
    }
}

/// Ends this process at once: no destructors, no exit handlers of the program it was forked from.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// pidfd_send_signal(2) of any number, the real-time ones included, which images ask for as STOPSIGNAL.
pub fn pidfd_send(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let (fd, none) = (pidfd.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: no siginfo is passed, and the kernel checks the number.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, none, 0) }).map(drop)
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// The head of struct pidfd_info, as its first published size.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// The wait status of a process that has been reaped by someone else; None below Linux 6.15 and while it runs.
pub fn pidfd_exit_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    let request: libc::c_ulong = (3 << 30) | ((size_of::<PidfdInfo>() as libc::c_ulong) << 16) | (0xff << 8) | 11;
    // SAFETY: the request's size field is that of the struct, which the kernel fills.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), request as _, &raw mut info) };
    (result == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// Sets mount attributes and propagation of the mount at a descriptor, with all below it when `recursive`.
pub fn mount_setattr(tree: BorrowedFd<'_>, recursive: bool, set: u64, propagation: u64) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: set, attr_clr: 0, propagation, userns_fd: 0 };
    set_attributes(tree, if recursive { libc::AT_RECURSIVE } else { 0 }, &attr)
}

/// Has the files of a detached mount, though not of those below it, owned inside the user namespace by whom they are owned on
/// disk. EINVAL where the file system cannot.
pub fn map_ids(tree: BorrowedFd<'_>, users: BorrowedFd<'_>) -> io::Result<()> {
    let users = users.as_raw_fd() as u64;
    let attr = libc::mount_attr { attr_set: libc::MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd: users };
    set_attributes(tree, 0, &attr)
}

fn set_attributes(tree: BorrowedFd<'_>, flags: libc::c_int, attr: &libc::mount_attr) -> io::Result<()> {
    let (fd, flags, size) = (tree.as_raw_fd(), flags | libc::AT_EMPTY_PATH, size_of::<libc::mount_attr>());
    let attr = std::ptr::from_ref(attr);
    // SAFETY: the path is a literal, attr outlives the call and its size is given.
    check(unsafe { libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), flags, attr, size) })?;
    Ok(())
}

/// Loads a compiled filter for this process and its children.
pub fn load_seccomp(program: &[u8], flags: u32) -> io::Result<()> {
    let filters: Vec<libc::sock_filter> = program
        .chunks_exact(size_of::<libc::sock_filter>())
        .map(|c| libc::sock_filter {
            code: u16::from_le_bytes([c[0], c[1]]),
            jt: c[2],
            jf: c[3],
            k: u32::from_le_bytes([c[4], c[5], c[6], c[7]]),
        })
        .collect();
    let fprog = libc::sock_fprog { len: filters.len() as u16, filter: filters.as_ptr().cast_mut() };
    // SAFETY: fprog points at `filters`, which lives past the call; the kernel copies and verifies it.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const fprog) })?;
    Ok(())
}

pub fn set_no_new_privs() -> io::Result<()> {
    // SAFETY: an integer-only prctl.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())?;
    Ok(())
}

/// Whether others of the same user may trace this process; execve makes it so again.
pub fn set_dumpable(dumpable: bool) -> io::Result<()> {
    // SAFETY: an integer-only prctl.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, libc::c_ulong::from(dumpable), 0, 0, 0) }.into())?;
    Ok(())
}

/// The end of a new terminal that programs use, by its master: no path leads to it that somebody could have changed.
pub fn other_end(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let unlocked: libc::c_int = 0;
    // SAFETY: the request reads an int, which outlives the call.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) }.into())?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the request takes flags by value and returns a new descriptor.
    let fd = check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }.into())?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

pub fn set_child_subreaper() -> io::Result<()> {
    // SAFETY: an integer-only prctl.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }.into())?;
    Ok(())
}

/// Whether capabilities outlive the next change of user ids (until execve).
pub fn set_keep_caps(keep: bool) -> io::Result<()> {
    // SAFETY: an integer-only prctl.
    check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, libc::c_ulong::from(keep), 0, 0, 0) }.into())?;
    Ok(())
}

/// Takes a capability out of the bounding set; false when the kernel does not know one of that number.
pub fn drop_bounding(capability: u32) -> io::Result<bool> {
    // SAFETY: an integer-only prctl.
    match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) }.into()) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(e) => Err(e),
    }
}

pub fn clear_ambient() -> io::Result<()> {
    // SAFETY: an integer-only prctl.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) }.into())?;
    Ok(())
}

pub fn raise_ambient(capability: u32) -> io::Result<()> {
    let capability = libc::c_ulong::from(capability);
    // SAFETY: an integer-only prctl.
    let done = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0) };
    check(done.into())?;
    Ok(())
}

/// capset(2) of this thread with 64-bit sets.
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header: [u32; 2] = [VERSION_3, 0];
    let half = |set: u64, shift: u32| (set >> shift) as u32;
    let data: [u32; 6] = [
        half(effective, 0),
        half(permitted, 0),
        half(inheritable, 0),
        half(effective, 32),
        half(permitted, 32),
        half(inheritable, 32),
    ];
    // SAFETY: the header and two data records have the layout that version 3 asks for.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) })?;
    Ok(())
}

/// setgroups, setresgid, setresuid, in the only order that works.
pub fn set_ids(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the pointer and the count describe `groups`.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    // SAFETY: integers only; the raw call changes this thread, which is the only one.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })?;
    Ok(())
}

/// Gives every signal its default action and empties the mask: execve hands both on. By the raw call, because libc keeps
/// two signals to itself, which a parent may have ignored all the same.
pub fn reset_signals() {
    // The kernel's struct sigaction: handler, flags, restorer, mask of eight bytes; zero is SIG_DFL and nothing else.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: the struct outlives the call, the old action is not asked for; SIGKILL and SIGSTOP are refused.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u8>(), 8) };
    }
    // SAFETY: the set is initialised by sigemptyset before use.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Marks every descriptor from `first` on as closed by execve.
pub fn close_range_on_exec(first: RawFd) -> io::Result<()> {
    // SAFETY: integers only; no descriptor is closed here.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}

/// Closes every descriptor from `first` on, whoever believes to own it: for a process that comes back to nobody.
pub fn close_all_from(first: RawFd) -> io::Result<()> {
    // SAFETY: integers only; the caller uses none of them any more.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) })?;
    Ok(())
}

/// Closes every descriptor but the standard streams and these two, whoever holds them: in a child that only ends by
/// [`exit_now`], and drops none of what its parent had.
pub fn close_all_but(kept: [BorrowedFd<'_>; 2]) {
    let mut kept = kept.map(|fd| fd.as_raw_fd().cast_unsigned());
    kept.sort_unstable();
    for (first, last) in [(3, kept[0] - 1), (kept[0] + 1, kept[1] - 1), (kept[1] + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: integers only; the caller does not use what is closed.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}

/// Writes to a descriptor that is known by number only; whether anybody may read it.
pub fn write_raw(fd: RawFd, bytes: &[u8]) -> bool {
    // SAFETY: the pointer and length describe `bytes`; a bad descriptor is an error we have nobody to tell.
    unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) > 0 }
}

/// Borrows a descriptor that a parent left open for us.
pub fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: callers pass numbers of descriptors that their creator holds until this process execs or ends.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// execve(2): comes back only with an error.
pub fn execve(path: &CStr, args: &[*const libc::c_char], env: &[*const libc::c_char]) -> io::Error {
    // SAFETY: both arrays end with a null pointer and point at strings that the caller keeps.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Seconds since some point in the past, for measuring.
pub fn uptime() -> i64 {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `at` is valid for writing; this clock cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut at) };
    at.tv_sec
}

/// Seconds and nanoseconds of the wall clock, with which log lines and exits are stamped.
pub fn now() -> (i64, u32) {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `at` is valid for writing; this clock cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut at) };
    (at.tv_sec, at.tv_nsec as u32)
}

/// Sets a limit of this process; returns the kernel's refusal.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` outlives the call, the old value is not asked for.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, std::ptr::null::<u8>()) })?;
    Ok(())
}

/// The hard limit of this process.
pub fn hard_rlimit(resource: u32) -> io::Result<u64> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writing, nothing is set.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, std::ptr::null::<u8>(), &raw mut limit) })?;
    Ok(limit.rlim_max)
}
