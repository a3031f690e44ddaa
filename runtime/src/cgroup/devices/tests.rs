use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use proptest::prelude::*;

use super::*;
use crate::cgroup::programs::Programs;

/// What a process asks the kernel for.
#[derive(Clone, Copy, Debug)]
struct Request {
    kind: Kind,
    major: u32,
    minor: u32,
    access: u32,
}

/// The rules' meaning, word for word: of each kind of access, the last rule that speaks of it.
fn allowed(rules: &[Rule], asked: Request) -> bool {
    let speaks = |rule: &&Rule, access: u32| {
        rule.kind.is_none_or(|kind| kind == asked.kind)
            && rule.major.is_none_or(|major| major == asked.major)
            && rule.minor.is_none_or(|minor| minor == asked.minor)
            && rule.access & access != 0
    };
    let each = [MKNOD, READ, WRITE].into_iter().filter(|access| asked.access & access != 0);
    each.map(|access| rules.iter().rfind(|rule| speaks(rule, access))).all(|rule| rule.is_some_and(|r| r.allow))
}

/// The kernel's part: enough of an interpreter for the codes that are used, strict about everything else.
fn run(program: &[Instruction], asked: Request) -> bool {
    let context = [asked.kind as u32 | asked.access << 16, asked.major, asked.minor];
    let mut registers: [Option<u32>; 11] = [None; 11];
    let mut at = 0;
    loop {
        let Instruction { code, registers: packed, offset, immediate } = program[at];
        let (target, source) = (usize::from(packed & 0xf), usize::from(packed >> 4));
        let value = immediate.cast_unsigned();
        let have = |register: usize| registers[register].expect("read after it was written");
        at += 1;
        match code {
            code::LOAD => {
                assert_eq!(usize::from(SCRATCH), source, "the context is in its register");
                assert!(registers[source].is_none(), "the context is still there");
                registers[target] = Some(context[usize::try_from(offset).unwrap() / 4]);
            }
            code::COPY => registers[target] = Some(have(source)),
            code::SET => registers[target] = Some(value),
            code::AND => registers[target] = Some(have(target) & value),
            code::SHIFT_RIGHT => registers[target] = Some(have(target) >> value),
            code::JUMP_IF_EQUAL if have(target) == value => at += usize::try_from(offset).unwrap(),
            code::JUMP_IF_NOT_EQUAL if have(target) != value => at += usize::try_from(offset).unwrap(),
            code::JUMP_IF_EQUAL | code::JUMP_IF_NOT_EQUAL => {}
            code::EXIT => return have(usize::from(RESULT)) == 1,
            other => panic!("no such code {other:#x}"),
        }
    }
}

/// Instructions that no path leads to: the kernel refuses them.
fn unreachable(program: &[Instruction]) -> Vec<usize> {
    let (mut seen, mut todo) = (vec![false; program.len()], vec![0]);
    while let Some(at) = todo.pop() {
        if std::mem::replace(&mut seen[at], true) || program[at].code == code::EXIT {
            continue;
        }
        todo.push(at + 1);
        if [code::JUMP_IF_EQUAL, code::JUMP_IF_NOT_EQUAL].contains(&program[at].code) {
            todo.push(at + 1 + usize::try_from(program[at].offset).unwrap());
        }
    }
    (0..program.len()).filter(|at| !seen[*at]).collect()
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Block), Just(Kind::Char)]
}

/// Few numbers, so that rules and requests meet; one of them has all bits set.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..3u32, 1 => Just(u32::MAX)]
}

fn rule() -> impl Strategy<Value = Rule> {
    let one = || proptest::option::of(number());
    (any::<bool>(), proptest::option::of(kind()), one(), one(), 0..=ALL)
        .prop_map(|(allow, kind, major, minor, access)| Rule { allow, kind, major, minor, access })
}

fn request() -> impl Strategy<Value = Request> {
    (kind(), number(), number(), 0..=ALL).prop_map(|(kind, major, minor, access)| Request {
        kind,
        major,
        minor,
        access,
    })
}

proptest! {
    #[test]
    fn the_program_does_what_the_rules_say(
        rules in proptest::collection::vec(rule(), 0..8),
        requests in proptest::collection::vec(request(), 1..32),
    ) {
        let program = program(&rules);
        prop_assert_eq!(unreachable(&program), Vec::<usize>::new());
        for asked in requests {
            prop_assert_eq!(run(&program, asked), allowed(&rules, asked), "{:?} of {:?}", asked, &rules);
        }
    }
}

#[test]
fn a_container_has_the_usual_devices_and_those_it_is_given() {
    let given = Rule { allow: true, kind: Some(Kind::Block), major: Some(8), minor: Some(0), access: READ };
    let (plain, with_disk) = (program(&rules(false, [])), program(&rules(false, [given])));
    let ask =
        |program: &[Instruction], kind, major, minor, access| run(program, Request { kind, major, minor, access });
    for program in [&plain, &with_disk] {
        assert!(ask(program, Kind::Char, 1, 3, READ | WRITE), "null");
        assert!(ask(program, Kind::Char, 136, 7, READ | WRITE), "a terminal");
        assert!(ask(program, Kind::Block, 8, 0, MKNOD), "making a node");
        assert!(ask(program, Kind::Block, 8, 0, 0), "whether it is there");
        assert!(!ask(program, Kind::Char, 1, 1, READ), "the host's memory");
        assert!(!ask(program, Kind::Block, 8, 0, WRITE), "the host's disk");
        assert!(!ask(program, Kind::Char, 5, 1, WRITE), "the host's console");
    }
    assert!(!ask(&plain, Kind::Block, 8, 0, READ) && ask(&with_disk, Kind::Block, 8, 0, READ));
    assert!(unrestricted(&rules(true, [given])) && !unrestricted(&rules(false, [])));
}

#[test]
fn v1_is_told_the_same() {
    let given = Rule { allow: true, kind: Some(Kind::Block), major: Some(8), minor: None, access: READ | MKNOD };
    let text = |rules: &[Rule]| -> Vec<String> {
        legacy(rules).into_iter().map(|w| format!("{} {}", w.file, w.value)).collect()
    };
    let lines = text(&rules(false, [given]));
    assert_eq!(lines[..3], ["devices.deny a", "devices.allow c *:* m", "devices.allow b *:* m"]);
    assert_eq!(lines.last().map(String::as_str), Some("devices.allow b 8:* rm"));
    assert_eq!(text(&rules(true, [given])), ["devices.allow a"]);
}

/// A v2 cgroup of this test's own.
struct Cgroup(PathBuf);

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Where v2 is mounted on this machine, alone or beside v1.
fn unified() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [_, at, "cgroup2", ..] => Some(PathBuf::from(at)),
        _ => None,
    })
}

/// A shell in the cgroup, which opens a device that it has, then makes and opens one that it has not: the kernel's log.
fn shell_in(cgroup: &Path, node: &Path) -> Output {
    let script = "echo $$ > \"$1/cgroup.procs\" || exit 9; true > /dev/null && echo null; mknod \"$2\" c 1 11 && \
                  echo made; true > \"$2\" && echo opened; rm -f \"$2\"";
    Command::new("sh").args(["-c", script, "sh"]).args([cgroup, node]).output().expect("a shell")
}

#[test]
fn the_kernel_takes_the_program_and_holds_processes_to_it() {
    let Some(root) = unified().filter(|_| nix::unistd::geteuid().is_root()) else {
        eprintln!("skipped: this needs root and a mounted cgroup v2");
        return;
    };
    let cgroup = Cgroup(root.join(format!("gantry-test-devices-{}", std::process::id())));
    std::fs::create_dir(&cgroup.0).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let node = dir.path().join("log");
    let said = |output: Output| String::from_utf8(output.stdout).unwrap();
    if said(shell_in(&cgroup.0, &node)) != "null\nmade\nopened\n" {
        eprintln!("skipped: this machine lets nobody open the kernel's log, filter or not");
        return;
    }
    let programs = Programs::default();
    match programs.attach(&rules(false, []), &cgroup.0) {
        Err(crate::cgroup::CgroupError::DeviceProgram { source, .. })
            if source.kind() == std::io::ErrorKind::PermissionDenied || source.raw_os_error() == Some(libc::ENOSYS) =>
        {
            eprintln!("skipped: bpf(2) is refused here: {source}");
            return;
        }
        attached => attached.expect("the kernel takes it"),
    }
    let output = shell_in(&cgroup.0, &node);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said(output), "null\nmade\n");
    assert!(words.contains("Operation not permitted"), "{words}");
    // The longest form of each rule passes the kernel's proof too, and another cgroup takes the program that is loaded.
    let below = Cgroup(cgroup.0.join("below"));
    std::fs::create_dir(&below.0).unwrap();
    let partial = |allow, access| Rule { allow, kind: Some(Kind::Char), major: Some(1), minor: Some(11), access };
    programs.attach(&rules(false, [partial(true, READ | WRITE), partial(false, WRITE)]), &below.0).expect("taken");
    assert_eq!(said(shell_in(&below.0, &node)), "null\nmade\n", "what is above still holds");
    programs.attach(&rules(false, []), &below.0).expect("taken again");
}
