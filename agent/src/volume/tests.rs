use super::*;

#[test]
fn mounts_are_found_by_whole_names_and_with_blanks() {
    let text = b"36 35 98:0 / / rw - ext4 /dev/sda rw\n\
        37 36 0:31 / /var/pods/u\\0401/volumes/x rw shared:1 - tmpfs tmpfs rw\n\
        38 36 0:32 / /var/pods/v rw - tmpfs tmpfs rw\n";
    let below = |path: &str| mounts_below(text, Path::new(path)).next();
    assert_eq!(below("/var/pods/u 1"), Some("/var/pods/u 1/volumes/x".into()));
    assert_eq!(below("/var/pods/v"), Some("/var/pods/v".into()), "the folder itself is one");
    assert_eq!(below("/var/pods/u"), None);
    assert_eq!(below("/var/pods/v/deeper"), None);
    assert_eq!(unescape(b"a\\134b\\9"), b"a\\b\\9");
}

/// In a mount namespace of its own: a thread may have one where its process may not.
#[test]
fn what_is_mounted_in_a_volume_is_not_removed() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("needs root");
        return;
    }
    use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change};
    let root = tempfile::tempdir().unwrap();
    let (theirs, point) = (root.path().join("theirs"), root.path().join("pod/volumes/data"));
    fs::create_dir_all(&theirs).unwrap();
    fs::create_dir_all(&point).unwrap();
    fs::write(theirs.join("precious"), "x").unwrap();
    let (pod, kept) = (root.path().join("pod"), theirs.join("precious"));
    let outcome = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        // A bind in one file system: no device number tells it from a folder.
        mount_bind(&theirs, &point).unwrap();
        let refused = remove(&pod).map_err(|error| error.to_string());
        let stayed = fs::exists(&kept).unwrap();
        rustix::mount::unmount(&point, UnmountFlags::DETACH).unwrap();
        let removed = remove(&pod).is_ok() && !fs::exists(&pod).unwrap();
        (refused, stayed, removed, fs::exists(&kept).unwrap())
    });
    let (refused, stayed, removed, kept) = outcome.join().unwrap();
    assert!(refused.unwrap_err().contains("still mounted on"));
    assert!(stayed && removed && kept);
}
