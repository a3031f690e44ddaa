//! Linux security modules: whether this host can do what a container or a pod asks of them. What it cannot is refused before
//! anything is made. But of SELinux, where a host has none: then there is nothing that a label would be compared with, charts name
//! labels for hosts that have it, and every other runtime passes over them.

use std::path::Path;

use gantry_cri::v1;
use gantry_cri::v1::security_profile::ProfileType;

/// What the kernel of this host has turned on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modules {
    pub selinux: bool,
    pub apparmor: bool,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ModuleError {
    #[error("AppArmor profile {0:?} is asked for, and this host has no AppArmor")]
    NoAppArmor(String),
    #[error("AppArmor profile {0:?} is neither runtime/default nor unconfined nor localhost/NAME")]
    Profile(String),
    #[error("AppArmor profile {0:?} is not loaded on this host")]
    NotLoaded(String),
    #[error("an AppArmor profile of the runtime's own is asked for, which is not supported yet: load one, and name it")]
    NoDefault,
    #[error("SELinux label {0:?} is asked for: labels are not supported yet on hosts with SELinux")]
    Label(String),
}

const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

impl Modules {
    pub fn of_host() -> Modules {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        Modules {
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
            apparmor: enabled.is_ok_and(|text| text.starts_with('Y')),
        }
    }

    /// The profile that a container's process is put under, by its name; empty for none.
    pub fn apparmor(&self, security: &v1::LinuxContainerSecurityContext) -> Result<String, ModuleError> {
        // Who may not read the list learns at the start what is not there.
        let loaded = |name: &str| std::fs::read_to_string(LOADED).map_or(true, |list| is_listed(&list, name));
        profile(self, security, loaded)
    }

    pub fn selinux(&self, label: Option<&v1::SeLinuxOption>) -> Result<(), ModuleError> {
        let Some(label) = label.filter(|_| self.selinux) else { return Ok(()) };
        let parts = [&label.user, &label.role, &label.r#type, &label.level];
        if parts.iter().all(|part| part.is_empty()) {
            return Ok(());
        }
        Err(ModuleError::Label(parts.map(String::as_str).join(":")))
    }
}

/// `name (mode)`, a line each.
fn is_listed(list: &str, name: &str) -> bool {
    list.lines().any(|line| line.rsplit_once(" (").is_some_and(|(listed, _)| listed == name))
}

fn profile(
    host: &Modules,
    security: &v1::LinuxContainerSecurityContext,
    loaded: impl Fn(&str) -> bool,
) -> Result<String, ModuleError> {
    let Some((kind, name)) = asked(security)? else { return Ok(String::new()) };
    match kind {
        ProfileType::Unconfined => Ok(String::new()),
        // The default is not for those who may do anything.
        ProfileType::RuntimeDefault if host.apparmor && security.privileged => Ok(String::new()),
        ProfileType::RuntimeDefault if host.apparmor => Err(ModuleError::NoDefault),
        ProfileType::RuntimeDefault => Err(ModuleError::NoAppArmor("runtime/default".to_owned())),
        ProfileType::Localhost if !host.apparmor => Err(ModuleError::NoAppArmor(name)),
        // It goes to the kernel in a line of its own.
        ProfileType::Localhost if name.is_empty() || name.contains(['\n', '\0']) => Err(ModuleError::Profile(name)),
        ProfileType::Localhost if !loaded(&name) => Err(ModuleError::NotLoaded(name)),
        ProfileType::Localhost => Ok(name),
    }
}

/// The newer field counts where both are set; the kubelet fills both for the sake of older runtimes.
#[expect(deprecated, reason = "callers of old fill only that one")]
fn asked(security: &v1::LinuxContainerSecurityContext) -> Result<Option<(ProfileType, String)>, ModuleError> {
    const LOCALHOST: &str = "localhost/";
    if let Some(profile) = &security.apparmor {
        let name = profile.localhost_ref.as_str();
        return Ok(Some((profile.profile_type(), name.strip_prefix(LOCALHOST).unwrap_or(name).to_owned())));
    }
    match security.apparmor_profile.as_str() {
        "" => Ok(None),
        "runtime/default" => Ok(Some((ProfileType::RuntimeDefault, String::new()))),
        "unconfined" => Ok(Some((ProfileType::Unconfined, String::new()))),
        other => match other.strip_prefix(LOCALHOST) {
            Some(name) => Ok(Some((ProfileType::Localhost, name.to_owned()))),
            None => Err(ModuleError::Profile(other.to_owned())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(kind: ProfileType, name: &str) -> v1::LinuxContainerSecurityContext {
        let profile = v1::SecurityProfile { profile_type: kind as i32, localhost_ref: name.to_owned() };
        v1::LinuxContainerSecurityContext { apparmor: Some(profile), ..Default::default() }
    }

    #[expect(deprecated, reason = "the field is what is tested")]
    fn old(name: &str) -> v1::LinuxContainerSecurityContext {
        v1::LinuxContainerSecurityContext { apparmor_profile: name.to_owned(), ..Default::default() }
    }

    #[test]
    fn a_profile_is_put_on_or_refused() {
        let (with, without) = (Modules { apparmor: true, ..Modules::default() }, Modules::default());
        let list = "docker-default (enforce)\nmy profile (complain)\n";
        let on = |host: &Modules, security: &v1::LinuxContainerSecurityContext| {
            profile(host, security, |name| is_listed(list, name))
        };
        for host in [&with, &without] {
            for none in
                [v1::LinuxContainerSecurityContext::default(), old("unconfined"), new(ProfileType::Unconfined, "")]
            {
                assert_eq!(on(host, &none).as_deref(), Ok(""));
            }
            assert_eq!(on(host, &old("localhost")), Err(ModuleError::Profile("localhost".into())));
        }
        for asked in [
            new(ProfileType::Localhost, "my profile"),
            new(ProfileType::Localhost, "localhost/my profile"),
            old("localhost/my profile"),
        ] {
            assert_eq!(on(&with, &asked).as_deref(), Ok("my profile"));
            assert_eq!(on(&without, &asked), Err(ModuleError::NoAppArmor("my profile".into())));
        }
        for asked in [new(ProfileType::RuntimeDefault, ""), old("runtime/default")] {
            assert_eq!(on(&with, &asked), Err(ModuleError::NoDefault));
            assert_eq!(on(&without, &asked), Err(ModuleError::NoAppArmor("runtime/default".into())));
            assert_eq!(on(&with, &v1::LinuxContainerSecurityContext { privileged: true, ..asked }).as_deref(), Ok(""));
        }
        for missing in ["my", "docker-default (enforce)", "Docker-default"] {
            assert_eq!(on(&with, &new(ProfileType::Localhost, missing)), Err(ModuleError::NotLoaded(missing.into())));
        }
        for bad in ["", "a\nb"] {
            assert_eq!(on(&with, &new(ProfileType::Localhost, bad)), Err(ModuleError::Profile(bad.into())));
        }
        let both = v1::LinuxContainerSecurityContext {
            apparmor: new(ProfileType::Unconfined, "").apparmor,
            ..old("localhost/x")
        };
        assert_eq!(on(&with, &both).as_deref(), Ok(""));
    }

    #[test]
    fn a_label_is_refused_where_it_would_count_and_is_missing() {
        let label = v1::SeLinuxOption { r#type: "spc_t".into(), level: "s0".into(), ..Default::default() };
        let with = Modules { selinux: true, ..Modules::default() };
        assert_eq!(with.selinux(Some(&label)), Err(ModuleError::Label("::spc_t:s0".into())));
        for none in [None, Some(&v1::SeLinuxOption::default())] {
            assert_eq!(with.selinux(none), Ok(()));
        }
        assert_eq!(Modules::default().selinux(Some(&label)), Ok(()));
    }
}
