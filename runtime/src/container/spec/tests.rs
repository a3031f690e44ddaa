use super::*;
use crate::cdi::inject::Tmpfs;

fn config() -> v1::ContainerConfig {
    v1::ContainerConfig { command: vec!["/bin/app".into()], ..v1::ContainerConfig::default() }
}

fn host() -> Host {
    Host { capabilities: (1 << 41) - 1, cgroup: "/gantry/c".into(), net: "/ns/net".into(), ..Host::default() }
}

fn with(security: v1::LinuxContainerSecurityContext) -> v1::ContainerConfig {
    let linux = v1::LinuxContainerConfig { security_context: Some(security), ..v1::LinuxContainerConfig::default() };
    v1::ContainerConfig { linux: Some(linux), ..config() }
}

fn launch(config: &v1::ContainerConfig) -> Result<Launch, SpecError> {
    build(config, &RunConfig::default(), &host()).map(|s| s.launch)
}

#[test]
fn command_and_args_follow_kubernetes() {
    let image = RunConfig { entrypoint: vec!["e".into()], cmd: vec!["c".into()], ..RunConfig::default() };
    let args = |command: &[&str], args: &[&str]| {
        let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        let config = v1::ContainerConfig { command: strings(command), args: strings(args), ..config() };
        arguments(&config, &image).unwrap()
    };
    assert_eq!(args(&[], &[]), ["e", "c"]);
    assert_eq!(args(&["x"], &[]), ["x"]);
    assert_eq!(args(&["x"], &["y"]), ["x", "y"]);
    assert_eq!(args(&[], &["y"]), ["e", "y"]);
    let none = v1::ContainerConfig::default();
    assert_eq!(arguments(&none, &RunConfig::default()), Err(SpecError::NoCommand));
}

#[test]
fn the_container_overrides_the_image_and_no_name_comes_twice() {
    let image = RunConfig { env: vec!["A=1".into(), "PATH=/p".into()], ..RunConfig::default() };
    let pair = |key: &str, value: &str| v1::KeyValue { key: key.into(), value: value.into() };
    let config = v1::ContainerConfig { envs: vec![pair("A", "2"), pair("B", "x=y")], ..config() };
    assert_eq!(environment(&config, &image, "pod", &[]).unwrap(), ["HOSTNAME=pod", "PATH=/p", "A=2", "B=x=y"]);
}

#[test]
fn nothing_of_the_defaults_slips_in() {
    let spec = build(&config(), &RunConfig::default(), &host()).unwrap();
    for absent in ["capabilities", "noNewPrivileges", "rlimits", "oomScoreAdj"] {
        assert!(spec.config["process"].get(absent).is_none(), "{absent}");
    }
    assert!(spec.config["linux"].get("seccomp").is_none());
    assert!(spec.config["linux"].get("resources").is_none());
    assert_eq!(spec.launch.process.inheritable, 0);
    assert_eq!(spec.launch.process.bounding, 0xa804_25fb);
}

#[test]
fn host_namespaces_are_not_named() {
    let kinds = |config: &v1::ContainerConfig, host: &Host| -> Vec<String> {
        let spec = build(config, &RunConfig::default(), host).unwrap().config;
        let list = spec["linux"]["namespaces"].as_array().unwrap().clone();
        list.iter().map(|n| n["type"].as_str().unwrap().to_owned()).collect()
    };
    let security = v1::LinuxContainerSecurityContext {
        namespace_options: Some(v1::NamespaceOption {
            pid: v1::NamespaceMode::Node as i32,
            ..v1::NamespaceOption::default()
        }),
        privileged: true,
        ..v1::LinuxContainerSecurityContext::default()
    };
    assert_eq!(kinds(&with(security), &Host { net: String::new(), ..host() }), ["mount"]);
    assert_eq!(kinds(&config(), &host()), ["mount", "network", "pid", "cgroup"]);
}

#[test]
fn users() {
    let number = |value| Some(v1::Int64Value { value });
    let security = v1::LinuxContainerSecurityContext {
        run_as_user: number(1000),
        run_as_group: number(3000),
        supplemental_groups: vec![5],
        ..v1::LinuxContainerSecurityContext::default()
    };
    let user = launch(&with(security.clone())).unwrap().user;
    assert_eq!(user, User { name: "1000".into(), gid: Some(3000), extra_gids: vec![5], merge_groups: true });
    for bad in [-1, 1 << 31, 1 << 32] {
        let security = v1::LinuxContainerSecurityContext { run_as_user: number(bad), ..security.clone() };
        assert_eq!(launch(&with(security)), Err(SpecError::Uid(bad)));
    }
    let alone = v1::LinuxContainerSecurityContext { run_as_group: number(1), ..Default::default() };
    assert_eq!(launch(&with(alone)), Err(SpecError::GroupAlone));
}

#[test]
fn mounts_are_ordered_and_checked() {
    let mount = |at: &str| v1::Mount { container_path: at.into(), host_path: "/h".into(), ..v1::Mount::default() };
    let asked = |list: &[&str]| v1::ContainerConfig { mounts: list.iter().map(|m| mount(m)).collect(), ..config() };
    let got = launch(&asked(&["/a/b/c", "/z", "/a/b/"])).unwrap().volumes;
    let order: Vec<_> = got.iter().map(|v| v.destination.as_str()).collect();
    assert_eq!(order, ["/z", "/a/b", "/a/b/c"]);
    for bad in ["", "/", "a", "/a/../../b", "/.", "/proc/sys", "/proc"] {
        assert!(launch(&asked(&[bad])).is_err(), "{bad:?}");
    }
}

#[test]
fn a_volume_comes_from_an_absolute_path() {
    for bad in ["data", "./data", "../data", "/data\0"] {
        let mount = v1::Mount { container_path: "/d".into(), host_path: bad.into(), ..v1::Mount::default() };
        let refused = launch(&v1::ContainerConfig { mounts: vec![mount], ..config() });
        assert_eq!(refused, Err(SpecError::Source { at: "/d".into(), path: bad.into() }));
    }
}

/// SECURITY.md, row 14: runtimes take orders from annotations of the specification. There are none;
/// those that name CDI devices are asked for by the runtime, and root's files say what that means.
#[test]
fn row_14_an_annotation_is_no_order() {
    let annotations = [("run.oci.systemd.force_cgroup_v1", "/x"), ("org.systemd.property.X", "1")];
    let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let spec = build(&v1::ContainerConfig { annotations, ..config() }, &RunConfig::default(), &host()).unwrap();
    assert!(spec.config.get("annotations").is_none() && spec.config.get("hooks").is_none());
    assert_eq!(spec.launch, launch(&config()).unwrap());
}

#[test]
fn signals_by_name_and_number() {
    for (name, number) in [("", 15), ("SIGQUIT", 3), ("quit", 3), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)] {
        assert_eq!(signal_number(name), Ok(number), "{name}");
    }
    for bad in ["SIGNOPE", "0", "65", "RTMIN+99"] {
        assert!(signal_number(bad).is_err(), "{bad}");
    }
}

#[test]
fn declared_volumes_stay_inside_and_below_what_is_mounted() {
    let declared = |paths: &[&str], mounts: &[&str]| {
        let volumes = paths.iter().map(|path| ((*path).to_owned(), serde_json::json!({}))).collect();
        let mounts =
            mounts.iter().map(|at| v1::Mount { container_path: (*at).into(), ..v1::Mount::default() }).collect();
        let config = v1::ContainerConfig { mounts, ..config() };
        declared_volumes(&config, &RunConfig { volumes, ..RunConfig::default() })
    };
    let inside = ["/../../etc", "data//", "/data/./", "/a/../b", "..a"];
    assert_eq!(declared(&inside, &[]).unwrap(), ["/..a", "/b", "/data", "/etc"]);
    assert_eq!(declared(&["/data", "/data/db"], &["/data/"]).unwrap(), ["/data/db"]);
    for root in ["/", "", "/..", "/../..", "/a/.."] {
        assert_eq!(declared(&[root], &[]), Err(SpecError::RootVolume(root.into())));
    }
    for kernel in ["/proc", "/proc/self", "/x/../proc/sys"] {
        assert_eq!(declared(&[kernel], &[]), Err(SpecError::KernelPath(kernel.into())));
    }
    assert_eq!(declared(&["/a\0b"], &[]), Err(SpecError::Destination("/a\0b".into())));
    let many: Vec<String> = (0..=IMAGE_VOLUMES_MAX).map(|n| format!("/v{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(declared(&many, &[]), Err(SpecError::TooManyVolumes(IMAGE_VOLUMES_MAX + 1)));
    // Where the sandbox has a file of its own, that is what is seen.
    let files = vec![("/sandbox/hosts".to_owned(), "/etc/hosts".to_owned())];
    let image_volumes = vec![("/c/0".to_owned(), "/etc/hosts".to_owned()), ("/c/1".to_owned(), "/etc".to_owned())];
    let built = build(&config(), &RunConfig::default(), &Host { files, image_volumes, ..host() }).unwrap().launch;
    let mounted: Vec<(&str, &str)> =
        built.volumes.iter().map(|v| (v.source.as_str(), v.destination.as_str())).collect();
    assert_eq!(mounted, [("/c/1", "/etc"), ("/sandbox/hosts", "/etc/hosts")]);
}

#[test]
fn a_cdi_devices_mounts_take_the_place_of_others_and_are_there_for_its_hooks() {
    use crate::cdi::document::{Hook, HookName};
    use crate::cdi::inject::{Bind, Tmpfs};
    let mount = |source: &str, destination: &str| Volume {
        source: source.into(),
        destination: destination.into(),
        ..Volume::default()
    };
    let bind = |at: &str| Bind { volume: mount("/cdi", at), attributes: 2, shallow: false };
    let hook = |hook_name, path: &str| Hook { hook_name, path: path.into(), args: None, env: None, timeout: None };
    let binds = ["/lib/x", "/data/y", "/dev/z", "/own", "/own/within"].map(bind).to_vec();
    let cdi = Injection {
        env: vec![("PATH".into(), "/cdi".into())],
        binds,
        hooks: vec![hook(HookName::CreateContainer, "/a"), hook(HookName::StartContainer, "/b")],
        gids: vec![7],
        ..Injection::default()
    };
    let v1_mount = |at: &str| v1::Mount { host_path: "/k".into(), container_path: at.into(), ..v1::Mount::default() };
    let config = v1::ContainerConfig { mounts: vec![v1_mount("/lib/x"), v1_mount("/data")], ..config() };
    let host = Host { cdi, ..host() };
    let Spec { config: oci, launch } = build(&config, &RunConfig::default(), &host).unwrap();
    let early: Vec<(&str, bool)> = launch
        .refined
        .0
        .iter()
        .map(|refined| (launch.volumes[refined.volume as usize].destination.as_str(), refined.early))
        .collect();
    // What lies in a mount of CRI's, or where libcontainer mounts, comes when that is there.
    let mut expected = [("/lib/x", true), ("/data/y", false), ("/dev/z", false), ("/own", true), ("/own/within", true)];
    let mut told = early.clone();
    told.sort_unstable();
    expected.sort_unstable();
    assert_eq!(told, expected);
    let sources: Vec<&str> =
        launch.volumes.iter().filter(|v| v.destination == "/lib/x").map(|v| v.source.as_str()).collect();
    assert_eq!(sources, ["/cdi"]);
    assert!(launch.process.env.contains(&"PATH=/cdi".to_owned()) && launch.user.extra_gids == [7]);
    assert_eq!(oci["hooks"], json!({"createContainer": [{"path": "/a", "timeout": 120}]}));
    assert_eq!(launch.start_hooks.0.hooks.len(), 1);
    let tmpfs = |at: &str| Tmpfs { destination: at.into(), source: "tmpfs".into(), options: Vec::new() };
    let with = |at: &str| Host { cdi: Injection { tmpfs: vec![tmpfs(at)], ..Injection::default() }, ..host.clone() };
    let hidden = build(&config, &RunConfig::default(), &with("/data/t")).err();
    assert_eq!(hidden, Some(SpecError::Hidden { at: "/data/t".into(), by: "/data".into() }));
    let mut own = with("/own/t");
    own.cdi.binds = vec![bind("/own")];
    assert!(build(&config, &RunConfig::default(), &own).is_err(), "its own mount would hide it as well");
    let seen = build(&config, &RunConfig::default(), &with("/data")).unwrap();
    assert!(seen.launch.volumes.iter().all(|volume| volume.destination != "/data"));
    assert!(seen.config["mounts"].as_array().unwrap().iter().any(|mount| mount["destination"] == "/data"));
}

#[test]
fn only_what_needs_libcontainer_is_made_by_it() {
    let direct = |host: &Host| build(&config(), &RunConfig::default(), host).unwrap().launch.direct.0;
    let plain = direct(&host()).expect("it is made directly");
    assert_eq!((plain.namespaces, plain.own_pids, plain.own_cgroups), (vec!["/ns/net".to_owned()], true, true));
    let tmpfs = Tmpfs { destination: "/t".into(), source: "tmpfs".into(), options: Vec::new() };
    let tmpfs = Injection { tmpfs: vec![tmpfs], ..Injection::default() };
    assert_eq!(direct(&Host { cdi: tmpfs, ..host() }), None);
    assert_eq!(direct(&Host { users: Some(Users::default()), ..host() }), None);
}

#[test]
fn a_device_replaces_the_default_one_and_none_the_terminals() {
    let device = |path: &str, minor| Device {
        path: path.into(),
        source: "/dev/zero".into(),
        kind: 'c',
        major: 1,
        minor,
        mode: 0o600,
        uid: 1,
        gid: 2,
        access: "rw".into(),
    };
    let host = Host { devices: vec![device("/dev//null", 5), device("/dev/./ptmx", 2)], ..host() };
    let nodes = build(&config(), &RunConfig::default(), &host).unwrap().launch.direct.0.unwrap().nodes;
    let named: Vec<(&str, u32, u32)> = nodes.iter().map(|node| (node.path.as_str(), node.minor, node.mode)).collect();
    assert_eq!(named[..2], [("/dev/null", 5, 0o600), ("/dev/zero", 5, 0o666)]);
    assert_eq!(named.len(), 6);
    assert!(named.iter().all(|(path, ..)| *path != "/dev/ptmx"));
}

#[test]
fn a_privileged_container_sees_the_kernel_as_the_host_does() {
    let security = |privileged| v1::LinuxContainerSecurityContext {
        privileged,
        masked_paths: vec!["/proc/kcore".into()],
        readonly_paths: vec!["/proc/sys".into()],
        ..v1::LinuxContainerSecurityContext::default()
    };
    let direct = |privileged| launch(&with(security(privileged))).unwrap().direct.0.unwrap();
    let (open, closed) = (direct(true), direct(false));
    assert_eq!((open.masked.len(), open.read_only.len(), open.own_cgroups, open.writable_kernel), (0, 0, false, true));
    assert_eq!((closed.masked.len(), closed.read_only.len()), (1, 1));
    assert_eq!((closed.own_cgroups, closed.writable_kernel), (true, false));
}
