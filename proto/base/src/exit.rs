use crate::wire_struct;

wire_struct! {
    /// How a container ended; written to its bundle before anyone is told.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ExitRecord {
        /// 0 to 255; 128 + signal for one that was killed, as shells say it.
        pub code: i32,
        /// Nanoseconds since the epoch.
        pub finished_at_ns: i64,
        /// The code could not be learnt: the process ended while nobody held it.
        pub unknown: bool,
    }
}

/// What containerd reports for a container whose end nobody saw.
pub const UNKNOWN_EXIT_CODE: i32 = 255;

/// What containerd reports for a container that never reached its program.
pub const START_ERROR_EXIT_CODE: i32 = 128;
