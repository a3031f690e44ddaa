//! Which claims a volume or a class may be what they wait for.

use std::collections::{BTreeMap, BTreeSet};

use gantry_kube::{Object, Ref, storage};

use super::claimed_by;

/// Claims that have no volume yet, by their class, and claims of whatever state by the volume that they name.
#[derive(Debug, Default, PartialEq)]
pub struct Waiting {
    by_class: BTreeMap<String, BTreeSet<Ref>>,
    by_volume: BTreeMap<String, BTreeSet<Ref>>,
}

/// No class and the empty one are the same to a volume.
fn class_of(object: &Object) -> String {
    storage::class_of(object).unwrap_or("").to_owned()
}

impl Waiting {
    pub fn note(&mut self, at: &Ref, before: Option<&Object>, now: Option<&Object>) {
        if let Some(before) = before {
            take_out(&mut self.by_class, &class_of(before), at);
            take_out(&mut self.by_volume, before.str_at("/spec/volumeName"), at);
        }
        match now.map(|now| (now, now.str_at("/spec/volumeName"))) {
            None => {}
            Some((now, "")) => drop(self.by_class.entry(class_of(now)).or_default().insert(at.clone())),
            Some((_, volume)) => drop(self.by_volume.entry(volume.to_owned()).or_default().insert(at.clone())),
        }
    }

    /// Those to whom a change of this volume matters: whom it is set aside for, who names it, and where it is nobody's, who
    /// may take it.
    pub fn for_volume(&self, volume: &Object) -> BTreeSet<Ref> {
        let mut concerned = self.by_volume.get(volume.name()).cloned().unwrap_or_default();
        if storage::is_claimed(volume) {
            concerned.insert(claimed_by(volume));
        } else {
            concerned.extend(self.by_class.get(&class_of(volume)).into_iter().flatten().cloned());
        }
        concerned
    }

    /// Those of a class, and those that get the default one.
    pub fn of_class(&self, name: &str) -> BTreeSet<Ref> {
        [name, ""].into_iter().filter_map(|class| self.by_class.get(class)).flatten().cloned().collect()
    }
}

fn take_out(all: &mut BTreeMap<String, BTreeSet<Ref>>, key: &str, at: &Ref) {
    if let Some(some) = all.get_mut(key) {
        some.remove(at);
        if some.is_empty() {
            all.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn claim(name: &str, class: Option<&str>, volume: &str) -> Object {
        let spec = json!({"storageClassName": class, "volumeName": volume});
        Object::from_value(json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec})).unwrap()
    }

    fn volume(name: &str, class: &str, claim: Option<&str>) -> Object {
        let claim = claim.map(|name| json!({"name": name, "namespace": "a"}));
        let spec = json!({"storageClassName": class, "claimRef": claim});
        Object::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
    }

    fn names(all: BTreeSet<Ref>) -> Vec<String> {
        all.into_iter().map(|at| at.name).collect()
    }

    #[test]
    fn a_volume_concerns_those_that_may_have_it() {
        let mut waiting = Waiting::default();
        for of in [
            claim("none", None, ""),
            claim("empty", Some(""), ""),
            claim("fast", Some("fast"), ""),
            claim("slow", Some("slow"), ""),
            claim("named", Some("fast"), "v"),
        ] {
            waiting.note(&of.reference(), None, Some(&of));
        }
        let concerned = |class: &str, claim| names(waiting.for_volume(&volume("v", class, claim)));
        assert_eq!(concerned("fast", None), ["fast", "named"]);
        assert_eq!(concerned("", None), ["empty", "named", "none"]);
        assert_eq!(concerned("fast", Some("slow")), ["named", "slow"], "it is set aside");
        assert_eq!(names(waiting.for_volume(&volume("w", "other", None))), [""; 0]);
        assert_eq!(names(waiting.of_class("slow")), ["empty", "none", "slow"]);
    }

    proptest! {
        /// However claims change: the index is that of what there is, and nothing of what was.
        #[test]
        fn it_forgets_nobody_and_keeps_nobody(steps in prop::collection::vec((0_usize..4, 0_usize..4, 0_usize..3), 0..30)) {
            let (mut waiting, mut there) = (Waiting::default(), BTreeMap::<Ref, Object>::new());
            for (name, class, volume) in steps {
                let at = Ref::new("a", format!("c{name}"));
                let now = [Some(None), Some(Some("x")), Some(Some("y")), None][class]
                    .map(|class| claim(&at.name, class, ["", "v", "w"][volume]));
                let before = match &now {
                    Some(now) => there.insert(at.clone(), now.clone()),
                    None => there.remove(&at),
                };
                waiting.note(&at, before.as_ref(), now.as_ref());
                let mut afresh = Waiting::default();
                there.iter().for_each(|(at, claim)| afresh.note(at, None, Some(claim)));
                prop_assert_eq!(&waiting, &afresh);
            }
        }
    }
}
