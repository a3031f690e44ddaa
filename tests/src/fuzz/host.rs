//! What the host's own files and its administrator say to the runtime: records of the journal, ends of containers, profiles, and
//! the sysctls that a pod asks for.

use std::path::{Component, Path};

use gantry_base::codec::Wire;
use gantry_base::{DecodeError, ExitRecord};
use gantry_cri::v1;
use gantry_runtime::cdi::document::{self, HookName};
use gantry_runtime::cdi::hooks;
use gantry_runtime::cdi::inject::{Facts, HostNode, inject};
use gantry_runtime::cdi::name::{DEVICES_MAX, Name};
use gantry_runtime::cdi::resolve::{Found, resolve};
use gantry_runtime::container::seccomp::compile;
use gantry_runtime::records::{ContainerRecord, ContainerState, SandboxRecord, SandboxState, decode, encode};
use gantry_runtime::sandbox::namespaces::{Wanted, check_sysctl};
use prost::Message;

use super::input::{Input, texts};

/// The first byte says of what, the second where the record is cut that is made of it.
pub(super) fn journal_record(data: &[u8]) {
    let mut input = Input(data);
    let (kind, cut) = (input.byte(), input.byte());
    match kind % 2 {
        0 => record::<SandboxRecord>(input.0, cut),
        _ => record::<ContainerRecord>(input.0, cut),
    }
}

fn record<T: Message + Default + PartialEq>(data: &[u8], cut: u8) {
    let Ok(read) = decode::<T>(data) else { return };
    let written = encode(&read);
    assert!(decode::<T>(&written).is_ok_and(|again| again == read), "it reads back");
    // Cut anywhere, it is none.
    let end = usize::from(cut) % written.len();
    assert!(decode::<T>(&written[..end]).is_err() || end == 0, "cut at {end} of {}", written.len());
}

pub(super) fn exit_record(data: &[u8]) {
    let mut rest = data;
    let read: Result<ExitRecord, DecodeError> = ExitRecord::take(&mut rest);
    let Ok(read) = read else { return };
    let mut written = Vec::new();
    read.put(&mut written);
    assert_eq!(ExitRecord::take(&mut written.as_slice()).as_ref(), Ok(&read));
    for cut in 0..written.len() {
        assert!(ExitRecord::take(&mut &written[..cut]).is_err());
    }
}

pub(super) fn seccomp_profile(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(filter) = compile(&text, "profile".into()) else { return };
    // struct sock_filter
    assert!(!filter.program.is_empty() && filter.program.len() % 8 == 0, "{} bytes", filter.program.len());
}

/// The first byte says how it is written.
pub(super) fn cdi_specification(data: &[u8]) {
    let mut input = Input(data);
    let yaml = input.byte() % 2 == 1;
    let text = String::from_utf8_lossy(input.0);
    let Ok(document) = document::parse(&text, yaml) else { return };
    let names: Vec<Name> = document
        .devices
        .iter()
        .map(|device| format!("{}={}", document.kind, device.name))
        .map(|name| Name::parse(&name).expect("a device that can be asked for"))
        .take(DEVICES_MAX)
        .collect();
    let folders = vec![vec![Found { path: "/f".into(), document: Ok(document) }]];
    let edits = resolve(&folders, &names).expect("each is there once");
    let facts = Facts {
        own_users: data.len() % 2 == 1,
        user: (None, None),
        node: &|_| Ok(HostNode { kind: 'c', major: 1, minor: 3, mode: 0o666 }),
        exists: &|_| true,
    };
    let Ok(all) = inject(&edits, &facts) else { return };
    let places = all.binds.iter().map(|bind| &bind.volume.destination).chain(all.tmpfs.iter().map(|t| &t.destination));
    for place in places.chain(all.devices.iter().map(|device| &device.path)) {
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        assert!(place.starts_with('/') && Path::new(place).components().all(plain), "{place}");
    }
    assert!(all.devices.iter().all(|device| device.path.starts_with("/dev/") && device.mode <= 0o777));
}

pub(super) fn cdi_specification_seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#" {"cdiVersion":"1.1.0","kind":"vendor.com/gpu","annotations":{"a":"b"},"containerEdits":{"env":["A=1"],"hooks":[{"hookName":"createContainer","path":"/bin/hook","args":["hook","x"],"env":["B=2"],"timeout":3}]},"devices":[{"name":"0","containerEdits":{"deviceNodes":[{"path":"/dev/x0","hostPath":"/dev/y","type":"c","major":1,"minor":3,"fileMode":438,"permissions":"rw","uid":1,"gid":2}],"mounts":[{"hostPath":"/usr/lib/l.so","containerPath":"/usr/lib/l.so","options":["ro","nosuid","nodev","rbind","rprivate"]}],"additionalGids":[44]}}]}"#,
        r#" {"cdiVersion":"0.4.0","kind":"v/c","devices":[{"name":"d","containerEdits":{"mounts":[{"hostPath":"tmpfs","containerPath":"/t","type":"tmpfs","options":["size=1k"]}]}}]}"#,
        r#" {"cdiVersion":"1.1.0","kind":"v/c","devices":[{"name":"d","containerEdits":{"netDevices":[{"hostInterfaceName":"a","name":"b"}],"intelRdt":{"closID":"x","schemata":["L3:0=f"],"enableMonitoring":true}}}]}"#,
        "\u{1}cdiVersion: 1.0.0\nkind: v.com/c\ncontainerEdits: &e\n  env: [A=1]\ndevices:\n- name: d\n  containerEdits: *e\n- name: e\n  containerEdits:\n    deviceNodes:\n    - {path: /dev/x, fileMode: 0660, permissions: none}\n",
    ])
}

/// What a specification says of hooks is what is run, and what each is told is of the container alone. The first byte says how
/// it is written, the rest is a configuration as well, which comes back from disk when its container has ended.
pub(super) fn oci_hooks(data: &[u8]) {
    let mut input = Input(data);
    let yaml = input.byte() % 2 == 1;
    hooks::poststop(input.0);
    let text = String::from_utf8_lossy(input.0);
    let state = hooks::state_of_stopped(&text, Path::new(&*text));
    let told: serde_json::Value = serde_json::from_str(&state).expect("it is JSON");
    assert!(told["id"] == *text && told["bundle"] == *text && told["status"] == "stopped", "{state}");
    let Ok(document) = document::parse(&text, yaml) else { return };
    let all: Vec<_> =
        document.container_edits.iter().chain(document.devices.iter().flat_map(|d| &d.container_edits)).collect();
    let all: Vec<_> = all.iter().flat_map(|edits| edits.hooks.iter().flatten()).cloned().collect();
    let configuration = serde_json::json!({"hooks": hooks::configured(&all)});
    let of = |name| all.iter().filter(move |hook| hook.hook_name == name);
    let after = hooks::poststop(configuration.to_string().as_bytes());
    assert_eq!(after.len(), of(HookName::Poststop).count());
    for (run, said) in after.iter().zip(of(HookName::Poststop)) {
        assert_eq!((&run.path, run.timeout), (&said.path, said.seconds()));
        assert_eq!(
            (&run.args, &run.env),
            (&said.args.clone().unwrap_or_default(), &said.env.clone().unwrap_or_default())
        );
    }
    let inside = hooks::inside(&all);
    assert_eq!(inside.hooks.len(), of(HookName::StartContainer).count());
    assert_eq!(after.len() + inside.hooks.len() + inside.others.len(), all.len(), "each runs once");
    // No argument ends early, and no hook runs for ever or not at all.
    for hook in &all {
        let words = hook.args.iter().chain(&hook.env).flatten().chain([&hook.path]);
        assert!(hook.path.starts_with('/') && words.into_iter().all(|word| !word.contains('\0')) && hook.seconds() > 0);
    }
}

pub(super) fn oci_hooks_seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#" {"cdiVersion":"1.0.0","kind":"v/c","containerEdits":{"hooks":[{"hookName":"prestart","path":"/a"},{"hookName":"createRuntime","path":"/b","args":["b"]},{"hookName":"poststart","path":"/c","env":["A=1"]}]},"devices":[{"name":"d","containerEdits":{"hooks":[{"hookName":"startContainer","path":"/d","args":["d","x"],"env":["B=\u00e9"],"timeout":3},{"hookName":"poststop","path":"/e","args":["e","\n"],"env":["C==","D="],"timeout":4294967295},{"hookName":"poststop","path":"/f"}]}}]}"#,
        "\u{1}cdiVersion: 0.3.0\nkind: v/c\ndevices:\n- name: d\n  containerEdits:\n    hooks:\n    - {hookName: poststop, path: /e, args: [e, 'x y'], timeout: 1}\n    - {hookName: startContainer, path: /s}\n",
        r#" {"ociVersion":"1.0.2","hooks":{"poststop":[{"path":"/e","args":["e"],"env":["A=1"],"timeout":2},{"path":"/f","timeout":1}],"createContainer":[{"path":"/a","timeout":120}]}}"#,
        " container\"1\\",
    ])
}

/// The first byte says which namespaces the pod has.
pub(super) fn sysctl(data: &[u8]) {
    let mut input = Input(data);
    let own = input.byte();
    let name = String::from_utf8_lossy(input.0).into_owned();
    let wanted = Wanted { ipc: own & 1 != 0, netns: (own & 2 != 0).then(|| "/n".into()), ..Wanted::default() };
    if check_sysctl(&name, &wanted).is_err() {
        return;
    }
    let path = name.replace('.', "/");
    assert!(Path::new(&path).components().all(|part| matches!(part, Component::Normal(_))), "{path}");
    let of_net = path.starts_with("net/") && wanted.netns.is_some();
    let of_ipc = (path.starts_with("kernel/") || path.starts_with("fs/mqueue/")) && wanted.ipc;
    assert!(of_net || of_ipc, "{path} is the host's");
}

pub(super) fn journal_record_seeds() -> Vec<Vec<u8>> {
    let metadata = v1::PodSandboxMetadata { name: "a".into(), uid: "u".into(), namespace: "n".into(), attempt: 1 };
    let config = v1::PodSandboxConfig { metadata: Some(metadata), hostname: "a".into(), ..Default::default() };
    let mut sandbox =
        SandboxRecord { id: "a1".into(), config: Some(config), ip: "10.0.0.1".into(), ..Default::default() };
    sandbox.set_state(SandboxState::Ready);
    let mut container =
        ContainerRecord { id: "c1".into(), sandbox: "a1".into(), pid: 7, reason: "Error".into(), ..Default::default() };
    container.set_state(ContainerState::Exited);
    let seeds = [
        (0, encode(&sandbox)),
        (0, sandbox.encode_to_vec()),
        (1, encode(&container)),
        (1, container.encode_to_vec()),
        (0, Vec::new()),
    ];
    seeds.into_iter().map(|(kind, record)| [&[kind, 9], &record[..]].concat()).collect()
}

pub(super) fn exit_record_seeds() -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    ExitRecord { code: 42, finished_at_ns: 1, unknown: false }.put(&mut bytes);
    vec![bytes.clone(), [&bytes[..], b"appended"].concat()]
}

pub(super) fn seccomp_profile_seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["read","exit_group"],"action":"SCMP_ACT_ALLOW"}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":38,"syscalls":[{"name":"clone","action":"SCMP_ACT_ERRNO","errnoRet":1,"args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#,
        r#"{"defaultAction":"SCMP_ACT_LOG","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],"flags":["SECCOMP_FILTER_FLAG_LOG"],"syscalls":null}"#,
        r#"{"defaultAction":"SCMP_ACT_KILL_PROCESS","syscalls":[{"names":["no_such_call"],"action":"SCMP_ACT_TRACE","includes":{},"excludes":{"caps":["A"]}}]}"#,
        r#"{"defaultAction":"SCMP_ACT_NOTIFY","listenerPath":"/run/x","listenerMetadata":"m"}"#,
    ])
}

pub(super) fn sysctl_seeds() -> Vec<Vec<u8>> {
    let names =
        ["net.ipv4.ip_local_port_range", "kernel.shmmax", "fs.mqueue.msg_max", "kernel.core_pattern", "net/../kernel"];
    let all = names.iter().flat_map(|name| (0..4).map(move |own| [&[own], name.as_bytes()].concat()));
    all.collect()
}
