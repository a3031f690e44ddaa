//! Where tests have a supervisor killed.

pub use gantry_base::fault::Point;

/// The next step outlives this process, which may end here (see [`gantry_base::fault`]).
pub fn point(point: Point) {
    if gantry_base::fault::is_due(point) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
