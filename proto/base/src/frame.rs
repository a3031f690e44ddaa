//! The frames on a supervisor's SOCK_SEQPACKET socket. The runtime asks, the supervisor answers with the same `seq` and
//! tells what happens unasked. One frame is one packet: version, then the value. Descriptors ride along by SCM_RIGHTS.

use crate::codec::{DecodeError, Wire};
use crate::id::Id;
use crate::{wire_enum, wire_struct};

/// Raised when a frame changes its meaning; new tags and appended fields do not raise it.
pub const VERSION: u32 = 1;

wire_struct! {
    /// What the supervisor must know of a container itself; everything else is in the bundle.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Unit {
        pub id: Id,
        /// Absolute path of the CRI log, empty for none.
        pub log_path: String,
        pub tty: bool,
        pub stdin: bool,
        /// v2: the folder of its cgroup, into which its processes are cloned. Empty on v1.
        pub cgroup: String,
    }
}

wire_enum! {
    /// From the runtime.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum Request {
        /// Answered by `Running` for each container, then `Done`. Exits not yet forgotten come as `Exited`.
        1 => Describe { seq: u64 },
        /// Creates and starts the container whose launch file lies in its bundle. A descriptor that comes along is the pid
        /// namespace that it shares with another container, to which its configuration goes by [`crate::layout::TARGET_PIDS`].
        2 => Start { seq: u64, unit: Unit },
        /// Runs a further process. The first descriptor is the launch (a memfd), then stdin, stdout, stderr unless it has a terminal.
        3 => Exec { seq: u64, container: Id, exec: Id, tty: bool },
        /// Signals the first process of a container.
        4 => Signal { seq: u64, container: Id, signal: i32 },
        /// Opens the log file anew.
        5 => ReopenLog { seq: u64, container: Id },
        /// Copies output to the pipes that come along (stdout, stderr), until they break or take nothing for too long.
        6 => Attach { seq: u64, container: Id },
        /// Drops what is kept of a container that has ended.
        7 => Forget { seq: u64, container: Id },
        /// Takes over a container that another supervisor started: descriptors are the pidfd, then the terminal's master
        /// or the write end of stdin when there is one.
        8 => Adopt { seq: u64, unit: Unit, pid: i32 },
        /// Ends the supervisor when it has no container.
        9 => Leave { seq: u64 },
        /// Closes the supervisor's end of a container's stdin.
        10 => CloseStdin { seq: u64, container: Id },
    }
}

wire_enum! {
    /// From the supervisor.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum Event {
        1 => Done { seq: u64 },
        2 => Failed { seq: u64, message: String },
        /// Descriptors: the pidfd, then the terminal's master or the write end of stdin when there is one.
        3 => Started { seq: u64, unit: Unit, pid: i32, start_ticks: u64 },
        /// Descriptors: the pidfd, then the terminal's master when there is one.
        4 => ExecStarted { seq: u64, exec: Id },
        /// The container has ended, its record is written.
        5 => Exited { container: Id },
        6 => ExecExited { exec: Id, code: i32 },
        /// As `Started`, in answer to `Describe`.
        7 => Running { unit: Unit, pid: i32, start_ticks: u64 },
        /// The disk of a container's log stands still: so many bytes of what it said were dropped by now. A runtime from before
        /// this passes over it.
        8 => LogLost { container: Id, bytes: u64 },
    }
}

pub fn encode<T: Wire>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    VERSION.put(&mut out);
    value.put(&mut out);
    out
}

pub fn decode<T: Wire>(mut frame: &[u8]) -> Result<T, DecodeError> {
    let version = u32::take(&mut frame)?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    T::take(&mut frame)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unit() -> impl Strategy<Value = Unit> {
        ("[a-z0-9]{1,64}", ".*", any::<bool>(), any::<bool>()).prop_map(|(id, log_path, tty, stdin)| Unit {
            cgroup: String::new(),
            id: Id::parse(&id).expect("the pattern is that of an id"),
            log_path,
            tty,
            stdin,
        })
    }

    proptest! {
        #[test]
        fn a_frame_reads_back(unit in unit(), seq: u64, pid: i32, start_ticks: u64) {
            let event = Event::Started { seq, unit, pid, start_ticks };
            prop_assert_eq!(decode::<Event>(&encode(&event)), Ok(event));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = decode::<Event>(&bytes);
            let _ = decode::<Request>(&bytes);
        }

        #[test]
        fn a_cut_frame_is_an_error(unit in unit(), cut in 1usize..20) {
            let whole = encode(&Request::Adopt { seq: 1, unit, pid: 2 });
            let end = whole.len().saturating_sub(cut);
            prop_assert!(decode::<Request>(&whole[..end]).is_err());
        }
    }

    #[test]
    fn another_version_is_refused() {
        let mut frame = encode(&Event::Done { seq: 1 });
        frame[0] = 9;
        assert_eq!(decode::<Event>(&frame), Err(DecodeError::Version(9)));
    }
}
