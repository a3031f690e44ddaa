use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use gantry_cri::v1;
use proptest::prelude::*;

use super::document::{Document, DocumentError, parse};
use super::inject::{Facts, HostNode, Injection, inject};
use super::name::{Name, wanted};
use super::resolve::{Found, resolve};
use super::*;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn document(edits: &str) -> Result<Document, DocumentError> {
    parse(
        &format!(r#"{{"cdiVersion":"1.1.0","kind":"v.com/c","devices":[{{"name":"d","containerEdits":{edits}}}]}}"#),
        false,
    )
}

/// A host that has one node and a few files.
fn facts() -> Facts<'static> {
    Facts {
        own_users: false,
        user: (Some(1000), None),
        node: &|path| match path {
            "/dev/there" => Ok(HostNode { kind: 'c', major: 1, minor: 3, mode: 0o640 }),
            "/dev/pipe" => Ok(HostNode { kind: 'p', major: 0, minor: 0, mode: 0o600 }),
            _ => Err(io::ErrorKind::NotFound.into()),
        },
        exists: &|path| path.starts_with("/there"),
    }
}

fn made(edits: &str, facts: &Facts<'_>) -> Result<Injection, CdiError> {
    let document = document(edits).unwrap();
    let of = name("v.com/c=d");
    inject(&[(&of, document.devices[0].container_edits.as_ref().unwrap())], facts)
}

#[test]
fn a_name_has_a_vendor_a_class_and_a_device() {
    for good in ["vendor.com/class=dev", "v/c=0", "a_b.c-d/e.f_g-h=i:j.k_l-m", "V/C=D"] {
        assert_eq!(name(good).to_string(), good);
    }
    for bad in [
        "",
        "=",
        "/",
        "a/b=",
        "a/=c",
        "/b=c",
        "a/b",
        "a=b",
        "1a/b=c",
        "a/1b=c",
        "a/b=-c",
        "a/b=c-",
        "a./b=c",
        "a/b/c=d",
        "a/b=c=d",
        "a/b=c d",
        "a/b=ä",
        "/dev/null",
        "a/b=c\n",
    ] {
        assert!(matches!(Name::parse(bad), Err(CdiError::Name { name, .. }) if name == bad), "{bad:?}");
    }
    assert!(Name::parse(&format!("a/b={}", "c".repeat(4096))).is_err());
}

#[test]
fn fields_and_annotations_ask_for_each_device_once() {
    let annotations = [("cdi.k8s.io/b", "v/c=3,v/c=1"), ("cdi.k8s.io/a", "v/c=2"), ("other", "no name")];
    let config = v1::ContainerConfig {
        cdi_devices: ["v/c=1", "v/c=1"].map(|name| v1::CdiDevice { name: name.into() }).to_vec(),
        annotations: annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect(),
        ..v1::ContainerConfig::default()
    };
    let names = wanted(&config).unwrap();
    assert_eq!(names.iter().map(Name::to_string).collect::<Vec<_>>(), ["v/c=1", "v/c=2", "v/c=3"]);
    let mut bad = config.clone();
    bad.annotations.insert("cdi.k8s.io/c".into(), "v/c=1,".into());
    assert!(matches!(wanted(&bad), Err(CdiError::Name { .. })));
    let mut many = config;
    many.cdi_devices = (0..=name::DEVICES_MAX).map(|n| v1::CdiDevice { name: format!("v/c={n}") }).collect();
    assert!(matches!(wanted(&many), Err(CdiError::TooMany { .. })));
}

#[test]
fn json_and_yaml_say_the_same() {
    let json = r#"{"cdiVersion":"0.7.0","kind":"v.com/c","containerEdits":{"env":["A=1"]},"devices":[{"name":"d",
        "containerEdits":{"deviceNodes":[{"path":"/dev/x","type":"c","major":1,"minor":3,"fileMode":432}],
        "additionalGIDs":[5]}}]}"#;
    let yaml = "cdiVersion: 0.7.0\nkind: v.com/c\ncontainerEdits:\n  env: [A=1]\ndevices:\n- name: d\n  containerEdits:\n    \
                deviceNodes:\n    - {path: /dev/x, type: c, major: 1, minor: 3, fileMode: 0660}\n    additionalGids: [5]\n";
    assert_eq!(parse(json, false).unwrap(), parse(yaml, true).unwrap());
    assert_eq!(parse(json, false).unwrap(), parse(json, true).unwrap(), "JSON is YAML");
}

#[test]
fn what_is_not_known_is_no_specification() {
    let with = |version: &str, kind: &str, device: &str, edits: &str| {
        let text = format!(
            r#"{{"cdiVersion":"{version}","kind":"{kind}","devices":[{{"name":"{device}","containerEdits":{edits}}}]}}"#
        );
        parse(&text, false)
    };
    let env = r#"{"env":["A=1"]}"#;
    for good in ["0.3.0", "v0.3.0", "0.8.0", "1.0.0", "1.1.0"] {
        assert!(with(good, "v.com/c", "d", env).is_ok(), "{good}");
    }
    for bad in ["", "1", "0.9.0", "2.0.0", "1.1"] {
        assert!(matches!(with(bad, "v.com/c", "d", env), Err(DocumentError::Version(_))), "{bad}");
    }
    for (version, kind, device, edits) in [
        ("0.4.0", "v.com/c", "0", env),
        ("0.5.0", "v.com/c.d", "d", env),
        ("0.4.0", "v.com/c", "d", r#"{"deviceNodes":[{"path":"/dev/x","hostPath":"/dev/y"}]}"#),
        ("0.3.0", "v.com/c", "d", r#"{"mounts":[{"hostPath":"/x","containerPath":"/x","type":"bind"}]}"#),
        ("0.6.0", "v.com/c", "d", r#"{"additionalGids":[1]}"#),
        ("0.6.0", "v.com/c", "d", r#"{"intelRdt":{"closID":"x"}}"#),
        ("1.0.0", "v.com/c", "d", r#"{"intelRdt":{"schemata":["x"]}}"#),
        ("1.0.0", "v.com/c", "d", r#"{"netDevices":[{"hostInterfaceName":"a","name":"b"}]}"#),
    ] {
        assert!(matches!(with(version, kind, device, edits), Err(DocumentError::TooOld { .. })), "{version} {edits}");
        assert!(with("1.1.0", kind, device, edits).is_ok(), "{edits}");
    }
    for bad in [
        "{}",
        r#"{"env":["A"]}"#,
        r#"{"env":["=1"]}"#,
        r#"{"env":["A=1"],"more":1}"#,
        r#"{"deviceNodes":[{"path":"x"}]}"#,
        r#"{"deviceNodes":[{"path":"/dev/../x"}]}"#,
        r#"{"deviceNodes":[{"path":"/dev/x","type":"d"}]}"#,
        r#"{"deviceNodes":[{"path":"/dev/x","permissions":"rx"}]}"#,
        r#"{"deviceNodes":[{"path":"/dev/x","major":-1}]}"#,
        r#"{"hooks":[{"hookName":"never","path":"/x"}]}"#,
        r#"{"hooks":[{"hookName":"poststop","path":"x"}]}"#,
        r#"{"hooks":[{"hookName":"poststop","path":"/x","timeout":0}]}"#,
        r#"{"mounts":[{"hostPath":"","containerPath":"/x"}]}"#,
        r#"{"mounts":[{"hostPath":"/x","containerPath":"/"}]}"#,
        r#"{"netDevices":[{"hostInterfaceName":"a","name":"b"},{"hostInterfaceName":"a","name":"c"}]}"#,
    ] {
        assert!(document(bad).is_err(), "{bad}");
    }
    let none = r#"{"cdiVersion":"1.0.0","kind":"v.com/c","devices":[]}"#;
    assert!(matches!(parse(none, false), Err(DocumentError::NoDevices)));
    let one = r#"{"name":"d","containerEdits":{"env":["A=1"]}}"#;
    let twice = format!(r#"{{"cdiVersion":"1.0.0","kind":"v.com/c","devices":[{one},{one}]}}"#);
    assert!(matches!(parse(&twice, false), Err(DocumentError::Device { .. })));
}

fn found(path: &str, device: &str, value: &str) -> Found {
    let text = format!(
        r#"{{"cdiVersion":"1.0.0","kind":"v.com/c","containerEdits":{{"env":["ALL={value}"]}},
            "devices":[{{"name":"{device}","containerEdits":{{"env":["OWN={value}"]}}}},
                       {{"name":"only-{value}","containerEdits":{{"env":["ONLY={value}"]}}}}]}}"#
    );
    Found { path: path.into(), document: parse(&text, false).map_err(|error| error.to_string()) }
}

#[test]
fn a_later_folder_comes_first_and_one_folder_has_a_device_once() {
    let bad = Found { path: "/1/bad.json".into(), document: Err("is empty".into()) };
    let folders =
        vec![vec![found("/1/a.json", "d", "1"), found("/1/b.json", "e", "2"), bad], vec![found("/2/a.json", "d", "3")]];
    let env = |names: &[&str]| {
        let names: Vec<Name> = names.iter().map(|text| name(text)).collect();
        let edits = resolve(&folders, &names)?;
        Ok::<_, CdiError>(edits.iter().flat_map(|(_, edits)| edits.env.clone().unwrap()).collect::<Vec<_>>())
    };
    assert_eq!(env(&["v.com/c=d"]).unwrap(), ["ALL=3", "OWN=3"]);
    // A file's own edits come once, before those of its first device.
    assert_eq!(
        env(&["v.com/c=only-3", "v.com/c=e", "v.com/c=d"]).unwrap(),
        ["ALL=3", "ONLY=3", "ALL=2", "OWN=2", "OWN=3"]
    );
    let error = env(&["v.com/c=x", "v.com/c=d", "v.com/z=d"]).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("v.com/c=x, v.com/z=d") && text.contains("/1/bad.json") && text.contains("is empty"),
        "{text}"
    );
    let twice = vec![vec![found("/1/a.json", "d", "1"), found("/1/b.json", "d", "2")]];
    let conflict = |text| resolve(&twice, &[name(text)]).map(drop);
    assert!(matches!(conflict("v.com/c=d"), Err(CdiError::Conflict { .. })));
    assert!(conflict("v.com/c=only-1").is_ok(), "the others are unharmed");
}

#[test]
fn numbers_come_from_the_host_where_they_are_not_said() {
    let device =
        |node: &str| made(&format!(r#"{{"deviceNodes":[{node}]}}"#), &facts()).map(|all| all.devices[0].clone());
    let there = device(r#"{"path":"/dev/new","hostPath":"/dev/there"}"#).unwrap();
    assert_eq!((there.kind, there.major, there.minor, there.mode), ('c', 1, 3, 0o640));
    assert_eq!((there.path.as_str(), there.source.as_str(), there.access.as_str()), ("/dev/new", "/dev/there", "rwm"));
    assert_eq!((there.uid, there.gid), (1000, 0), "it is who runs there");
    let said = device(
        r#"{"path":"/dev/gone","type":"b","major":8,"minor":1,"fileMode":384,"permissions":"r","uid":0,"gid":6}"#,
    );
    let said = said.unwrap();
    assert_eq!((said.kind, said.major, said.minor, said.mode), ('b', 8, 1, 0o600));
    assert_eq!((said.uid, said.gid, said.access.as_str()), (0, 6, "r"));
    assert_eq!(device(r#"{"path":"/dev/there","permissions":"none"}"#).unwrap().access, "");
    assert_eq!(device(r#"{"path":"/dev/there","type":"u"}"#).unwrap().kind, 'c');
    assert_eq!(device(r#"{"path":"/dev/pipe"}"#).unwrap().kind, 'p');
    for bad in [r#"{"path":"/dev/gone"}"#, r#"{"path":"/dev/gone","type":"c"}"#, r#"{"path":"/dev/there","type":"b"}"#]
    {
        assert!(matches!(device(bad), Err(CdiError::Host { .. })), "{bad}");
    }
    assert!(matches!(device(r#"{"path":"/srv/x","hostPath":"/dev/there"}"#), Err(CdiError::Unsupported { .. })));
    // Users of a pod's own are given the host's node, which must be the one that was meant.
    let own = Facts { own_users: true, ..facts() };
    let own = |node: &str| made(&format!(r#"{{"deviceNodes":[{node}]}}"#), &own);
    assert!(own(r#"{"path":"/dev/there","type":"c","major":1,"minor":3}"#).is_ok());
    assert!(own(r#"{"path":"/dev/there","type":"c","major":1,"minor":5}"#).is_err());
    assert!(own(r#"{"path":"/dev/gone","type":"c","major":1,"minor":5}"#).is_err());
}

#[test]
fn the_last_word_counts_for_a_variable_a_node_and_a_mount() {
    let all = made(
        r#"{"env":["A=1","B=x=y","A=2"],"additionalGids":[0,7,7],
            "deviceNodes":[{"path":"/dev/there"},{"path":"/dev/there","permissions":"r"}],
            "mounts":[{"hostPath":"/there/a","containerPath":"/x"},
                      {"hostPath":"/there/b","containerPath":"//x/","options":["ro","bind","nosuid","noexec","rslave"]},
                      {"hostPath":"tmpfs","containerPath":"/t","type":"tmpfs","options":["mode=755"]}]}"#,
        &facts(),
    )
    .unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(all.env, [pair("B", "x=y"), pair("A", "2")]);
    assert_eq!(all.gids, [7]);
    assert_eq!(all.devices.iter().map(|d| d.access.as_str()).collect::<Vec<_>>(), ["r"]);
    let [bind] = all.binds.as_slice() else { panic!("{:?}", all.binds) };
    assert_eq!((bind.volume.source.as_str(), bind.volume.destination.as_str()), ("/there/b", "/x"));
    assert!(bind.volume.read_only && bind.volume.no_exec && bind.shallow && bind.volume.propagation == 1);
    assert_eq!(bind.attributes, libc::MOUNT_ATTR_NOSUID);
    assert_eq!(all.tmpfs.len(), 1);
    assert!(!all.early());
}

#[test]
fn what_cannot_be_given_is_refused_by_name() {
    for (edits, word) in [
        (r#"{"intelRdt":{"closID":"x"}}"#, "intelRdt"),
        (r#"{"netDevices":[{"hostInterfaceName":"eth9","name":"b"}]}"#, "eth9"),
        (r#"{"mounts":[{"hostPath":"x","containerPath":"/x","type":"nfs"}]}"#, "nfs"),
        (r#"{"mounts":[{"hostPath":"/there","containerPath":"/x","options":["noatime"]}]}"#, "noatime"),
        (r#"{"mounts":[{"hostPath":"/there","containerPath":"/proc/x"}]}"#, "/proc/x"),
        (r#"{"mounts":[{"hostPath":"/gone","containerPath":"/x"}]}"#, "/gone"),
        (r#"{"hooks":[{"hookName":"prestart","path":"/gone/hook"}]}"#, "/gone/hook"),
    ] {
        let error = made(edits, &facts()).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("v.com/c=d"), "{error}");
    }
    let hook = r#"{"hooks":[{"hookName":"createContainer","path":"/there/hook"}]}"#;
    assert!(made(hook, &facts()).unwrap().early());
    assert!(made(hook, &Facts { own_users: true, ..facts() }).is_err());
    // One that runs in the container is not looked for on the host.
    assert!(!made(r#"{"hooks":[{"hookName":"startContainer","path":"/x"}]}"#, &facts()).unwrap().early());
}

#[test]
fn a_bad_file_hurts_only_its_own_and_nobody_else_may_write() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let text = |device: &str| {
        format!("cdiVersion: 1.0.0\nkind: v.com/c\ndevices:\n- name: {device}\n  containerEdits: {{env: [A=1]}}\n")
    };
    std::fs::write(at("a.yaml"), text("a")).unwrap();
    std::fs::write(at("b.yml"), text("b")).unwrap();
    std::fs::write(at("c.json"), "{").unwrap();
    std::fs::write(at("d.txt"), "nothing of ours").unwrap();
    std::fs::write(at("e.yaml"), text("e")).unwrap();
    std::fs::write(at("f.yaml"), vec![b' '; (1 << 20) + 1]).unwrap();
    std::fs::create_dir(at("g.json")).unwrap();
    nix::unistd::mkfifo(&at("h.json"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    std::os::unix::fs::symlink(at("a.yaml"), at("i.yaml")).unwrap();
    for name in ["a.yaml", "b.yml", "c.json", "f.yaml"] {
        mode(&at(name), 0o644);
    }
    mode(&at("e.yaml"), 0o664);
    mode(root.path(), 0o755);
    let specifications = Specifications::new(vec![at("gone"), root.path().to_owned()]);
    let found = specifications.read();
    let usable = |file: &&Found| file.document.is_ok();
    let names: Vec<_> = found[1].iter().filter(usable).map(|f| f.path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["a.yaml", "b.yml", "i.yaml"]);
    let why = |name: &str| found[1].iter().find(|f| f.path == at(name)).unwrap().document.clone().unwrap_err();
    assert!(why("e.yaml").contains("others than root"), "{}", why("e.yaml"));
    assert!(why("f.yaml").contains("more than"), "{}", why("f.yaml"));
    assert!(why("g.json").contains("regular") && why("h.json").contains("regular"));
    assert_eq!((found[0].len(), specifications.told.lock().len()), (0, 5));
    std::fs::remove_file(at("c.json")).unwrap();
    specifications.read();
    assert_eq!(specifications.told.lock().len(), 4, "what is gone is forgotten");
    mode(root.path(), 0o757);
    let found = specifications.read();
    assert!(found[1].len() == 1 && found[1][0].document.is_err(), "{found:?}");
}

proptest! {
    /// Of a device in any files of any folders the last folder counts, and only what is twice in that one is refused.
    #[test]
    fn precedence_is_by_folder(places in prop::collection::vec((0usize..3, 0u32..4), 0..8), wanted in 0u32..4) {
        let mut folders: Vec<Vec<Found>> = vec![Vec::new(); 3];
        for (n, (folder, device)) in places.iter().enumerate() {
            folders[*folder].push(found(&format!("/{folder}/{n}"), &format!("d{device}"), &n.to_string()));
        }
        let last = places.iter().filter(|(_, d)| *d == wanted).map(|(folder, _)| *folder).max();
        let there: Vec<_> = places.iter().enumerate().filter(|(_, (f, d))| *d == wanted && Some(*f) == last).collect();
        let names = [name(&format!("v.com/c=d{wanted}"))];
        match (resolve(&folders, &names), there.as_slice()) {
            (Err(CdiError::Unknown { .. }), []) => {}
            (Ok(edits), [(n, _)]) => {
                let env: Vec<_> = edits.iter().flat_map(|(_, edits)| edits.env.clone().unwrap()).collect();
                prop_assert_eq!(env, [format!("ALL={n}"), format!("OWN={n}")]);
            }
            (Err(CdiError::Conflict { .. }), [_, _, ..]) => {}
            (other, _) => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn a_name_that_parses_prints_as_it_was(text in "[a-z0-9./=_:-]{0,20}") {
        if let Ok(name) = Name::parse(&text) {
            prop_assert_eq!(name.to_string(), text);
        }
    }
}
