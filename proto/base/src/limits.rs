//! Bounds that both ends must agree on.

/// The largest frame on a supervisor's socket. What is larger travels as a file in the bundle or as a memfd.
pub const FRAME_MAX_BYTES: usize = 64 << 10;

/// The largest launch file: arguments and environment are bounded by the kernel at 6 MiB, the filter by 32 KiB.
pub const LAUNCH_MAX_BYTES: usize = 8 << 20;

/// Descriptors that one frame may carry.
pub const FRAME_MAX_FDS: usize = 4;

/// A log line is cut into partial lines (tag `P`) of this size; what containerd and CRI-O write.
pub const LOG_LINE_MAX_BYTES: usize = 16 << 10;

/// What /etc/passwd or /etc/group of an image may weigh.
pub const USER_FILE_MAX_BYTES: usize = 1 << 20;

/// The longest error text that a creator reports.
pub const ERROR_TEXT_MAX_BYTES: usize = 4 << 10;

const _: () = assert!(ERROR_TEXT_MAX_BYTES < FRAME_MAX_BYTES);
