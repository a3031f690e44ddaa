//! Where a test may have a process killed: before each of its steps that outlives it. Of two such points that follow each other
//! the second is the end of the first one's step, so that these are all the states in which a kill -9 can leave things.
//!
//! A point costs nothing where programs ship: without debug assertions nobody asks for an order, and `build-release.sh` looks
//! that no program knows of one. A feature of cargo would not do: the workspace is built as one, so that the programs have
//! what their tests ask for; and `cfg(test)` is not there for tests that stand beside a crate, nor for a program they start.

/// The variable that names the file with an order: `POINT COUNT SERIAL`. Whoever passes that point for the COUNTth time renames
/// the file to `<file>.hit`, and is to end there and then. The serial makes every order another one.
#[cfg(debug_assertions)]
pub const ORDER: &str = "GANTRY_TEST_KILL_AT";

macro_rules! points {
    ($($(#[$meta:meta])* $side:ident { $($(#[$doc:meta])* $point:ident,)* })*) => {
        /// A step that outlives who takes it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point { $($($(#[$doc])* $point,)*)* }
        impl Point { $($(#[$meta])* pub const $side: &'static [Point] = &[$(Point::$point,)*];)* }
    };
}

points! {
    /// Those of the runtime.
    RUNTIME {
        /// A record of the journal, or another file on /run, is written beside its place.
        RecordWrite,
        /// It is moved to its place.
        RecordRename,
        /// A record goes, before what lies beside it.
        RecordRemove,
        /// What lay beside it goes.
        FolderRemove,
        NetnsMake,
        NetnsRemove,
        AddressWrite,
        AddressRename,
        AddressRemove,
        LinkMake,
        LinkRemove,
        RulesAdd,
        RulesRemove,
        /// A mount or a file that keeps a namespace of a pod.
        PinMake,
        PinUnmount,
        PinRemove,
        CgroupMake,
        CgroupKill,
        CgroupRemove,
        /// The first process of shared processes, or a supervisor.
        ProgramStart,
        /// A file or a pipe of a container's bundle.
        BundleMake,
        SnapshotMake,
        SnapshotUnmount,
        /// A container's folders or a layer go to the trash.
        Discard,
        TrashEmpty,
        /// A supervisor is asked for something.
        Ask,
        Signal,
        /// A layer is complete and gets its name.
        LayerRename,
        /// A file of the images is written beside its place.
        ImageWrite,
        ImageRename,
        ImageSync,
        BlobRemove,
        /// All that was asked for is done, and nobody has heard of it.
        Answer,
    }
    /// Those of a supervisor.
    SUPERVISOR {
        /// It has become a process of its own, and listens.
        Serve,
        /// It has taken a request from its socket.
        Request,
        /// A creator, or a further process, is forked.
        Fork,
        /// It has been forked, and nobody knows of it.
        Forked,
        /// It has reported, and the container is kept.
        Keep,
        /// A container has ended.
        End,
        ExitWrite,
        ExitRename,
        /// Something is told.
        Tell,
        /// A container's output is read and not handed over yet.
        Output,
        /// The writer of its logs is forked.
        LogFork,
        /// The writer, over what it has not taken out of its socket yet.
        LogWrite,
        LogWritten,
        /// A log that is full gets its part's name, and the next is begun.
        LogRename,
        LogBegin,
    }
}

impl Point {
    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

/// Whether this is the pass that the order names.
#[cfg(debug_assertions)]
pub fn is_due(point: Point) -> bool {
    use std::ffi::OsString;
    use std::path::PathBuf;
    use std::sync::{Mutex, OnceLock, PoisonError};
    static FILE: OnceLock<Option<OsString>> = OnceLock::new();
    static PASSED: Mutex<(String, u32)> = Mutex::new((String::new(), 0));
    let Some(file) = FILE.get_or_init(|| std::env::var_os(ORDER)) else { return false };
    let Ok(order) = std::fs::read_to_string(file) else { return false };
    let mut words = order.split(' ');
    if words.next() != Some(point.name().as_str()) {
        return false;
    }
    let count: u32 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
    if passed.0 != order {
        *passed = (order.clone(), 0);
    }
    passed.1 += 1;
    let mut hit = file.clone();
    hit.push(".hit");
    passed.1 == count && std::fs::rename(file, PathBuf::from(hit)).is_ok()
}

#[cfg(not(debug_assertions))]
pub const fn is_due(_: Point) -> bool {
    false
}
