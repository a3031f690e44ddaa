//! Who a process runs as: names of the image looked up in its own /etc/passwd and /etc/group. Pure; the caller reads.

use gantry_base::launch::{Ids, User};

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UserError {
    #[error("user {0:?} is not in the image's /etc/passwd")]
    NoUser(String),
    #[error("group {0:?} is not in the image's /etc/group")]
    NoGroup(String),
    #[error("id {0:?} is out of range")]
    Range(String),
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn passwd(text: &str) -> impl Iterator<Item = Passwd<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let (_, home) = (fields.next(), fields.next().unwrap_or(""));
        Some(Passwd { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
    })
}

/// Name, gid and members of each line.
fn group(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name, gid.parse().ok()?, fields.next().unwrap_or("")))
    })
}

/// An id as text. What wraps past 31 bits is refused: CVE-2024-40635.
fn number(text: &str) -> Option<Result<u32, UserError>> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(match text.parse::<u32>() {
        Ok(id) if id <= i32::MAX as u32 => Ok(id),
        _ => Err(UserError::Range(text.to_owned())),
    })
}

pub fn resolve(user: &User, passwd_text: &str, group_text: &str) -> Result<Ids, UserError> {
    let (name, group_name) = match user.name.split_once(':') {
        Some((name, group_name)) => (name, Some(group_name)),
        None => (user.name.as_str(), None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let entry = match number(name) {
        Some(uid) => {
            let uid = uid?;
            let known = passwd(passwd_text).find(|p| p.uid == uid);
            known.unwrap_or(Passwd { name: "", uid, gid: 0, home: "/" })
        }
        None => passwd(passwd_text).find(|p| p.name == name).ok_or_else(|| UserError::NoUser(name.to_owned()))?,
    };
    let mut gid = entry.gid;
    if let Some(wanted) = group_name.filter(|g| !g.is_empty()) {
        gid = match number(wanted) {
            Some(gid) => gid?,
            None => {
                let known = group(group_text).find(|(name, _, _)| *name == wanted);
                known.ok_or_else(|| UserError::NoGroup(wanted.to_owned()))?.1
            }
        };
    }
    if let Some(set) = user.gid {
        gid = set;
    }
    let mut groups = vec![gid];
    if user.merge_groups && !entry.name.is_empty() {
        let member = |members: &str| members.split(',').any(|m| m.trim() == entry.name);
        groups.extend(group(group_text).filter(|(_, _, members)| member(members)).map(|(_, gid, _)| gid));
    }
    groups.extend(&user.extra_gids);
    if let Some(id) = groups.iter().chain([&entry.uid]).find(|id| **id > i32::MAX as u32) {
        return Err(UserError::Range(id.to_string()));
    }
    groups.sort_unstable();
    groups.dedup();
    let home = if entry.home.is_empty() { "/" } else { entry.home };
    Ok(Ids { uid: entry.uid, gid, groups, home: home.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlogs:x:4:daemon,web\n";

    fn user(name: &str) -> User {
        User { name: name.to_owned(), merge_groups: true, ..User::default() }
    }

    #[test]
    fn names_and_numbers() {
        let ids = resolve(&user("web"), PASSWD, GROUP).unwrap();
        assert_eq!(ids, Ids { uid: 33, gid: 34, groups: vec![4, 34], home: "/srv".into() });
        assert_eq!(resolve(&user(""), PASSWD, GROUP).unwrap().home, "/root");
        let unknown = resolve(&user("1000"), PASSWD, GROUP).unwrap();
        assert_eq!(unknown, Ids { uid: 1000, gid: 0, groups: vec![0], home: "/".into() });
        assert_eq!(resolve(&user("web:logs"), PASSWD, GROUP).unwrap().gid, 4);
        assert_eq!(resolve(&user("web:77"), PASSWD, GROUP).unwrap().gid, 77);
    }

    #[test]
    fn what_is_not_there_or_out_of_range_is_refused() {
        assert_eq!(resolve(&user("nobody"), PASSWD, GROUP), Err(UserError::NoUser("nobody".into())));
        assert_eq!(resolve(&user("web:none"), PASSWD, GROUP), Err(UserError::NoGroup("none".into())));
        for wraps in ["4294967296", "2147483648", "99999999999999999999"] {
            assert_eq!(resolve(&user(wraps), PASSWD, GROUP), Err(UserError::Range(wraps.into())));
        }
        let huge = "huge:x:4294967295:web\n";
        assert_eq!(resolve(&user("web"), PASSWD, huge), Err(UserError::Range("4294967295".into())));
    }

    #[test]
    fn groups_of_the_pod_come_on_top() {
        let mut asked = user("web");
        asked.gid = Some(2000);
        asked.extra_gids = vec![3000, 2000];
        assert_eq!(resolve(&asked, PASSWD, GROUP).unwrap().groups, vec![4, 2000, 3000]);
        asked.merge_groups = false;
        assert_eq!(resolve(&asked, PASSWD, GROUP).unwrap().groups, vec![2000, 3000]);
    }
}
