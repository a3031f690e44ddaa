//! One RBAC rule, compiled: what it matches, and whether it covers another.

use serde_json::{Value, json};

use super::Action;

/// A PolicyRule. Everything is a list of alternatives; an empty list matches nothing, save `names`, where it matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    pub verbs: Vec<String>,
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    pub names: Vec<String>,
    pub urls: Vec<String>,
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

impl Rule {
    pub fn from_value(value: &Value) -> Rule {
        Rule {
            verbs: strings(&value["verbs"]),
            groups: strings(&value["apiGroups"]),
            resources: strings(&value["resources"]),
            names: strings(&value["resourceNames"]),
            urls: strings(&value["nonResourceURLs"]),
        }
    }

    pub fn to_value(&self) -> Value {
        let mut value = json!({"verbs": self.verbs});
        for (key, list) in [
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.urls),
        ] {
            if !list.is_empty() {
                value[key] = json!(list);
            }
        }
        value
    }

    pub fn matches(&self, action: &Action<'_>) -> bool {
        match *action {
            Action::Resource { verb, group, resource, subresource, name, .. } => {
                has(&self.verbs, verb)
                    && has(&self.groups, group)
                    && self.resources.iter().any(|r| matches_resource(r, resource, subresource))
                    && (self.names.is_empty() || self.names.iter().any(|n| n == name))
            }
            Action::NonResource { verb, path } => {
                has(&self.verbs, verb) && self.urls.iter().any(|url| matches_url(url, path))
            }
        }
    }

    /// The smallest rules that this one is made of: one verb, one group, one resource, at most one name, or one URL.
    pub fn atoms(&self) -> Vec<Rule> {
        let one = |text: &String| vec![text.clone()];
        let mut atoms = Vec::new();
        for verb in &self.verbs {
            for group in &self.groups {
                for resource in &self.resources {
                    let atom =
                        Rule { verbs: one(verb), groups: one(group), resources: one(resource), ..Rule::default() };
                    if self.names.is_empty() {
                        atoms.push(atom);
                    } else {
                        atoms.extend(self.names.iter().map(|name| Rule { names: one(name), ..atom.clone() }));
                    }
                }
            }
            atoms.extend(self.urls.iter().map(|url| Rule { verbs: one(verb), urls: one(url), ..Rule::default() }));
        }
        atoms
    }

    /// How many there would be of [`Rule::atoms`].
    pub fn atom_count(&self) -> usize {
        let lists = [&self.groups, &self.resources].map(Vec::len).into_iter().chain([self.names.len().max(1)]);
        let named = lists.fold(1, usize::saturating_mul);
        named.saturating_add(self.urls.len()).saturating_mul(self.verbs.len())
    }

    /// Whether this rule by itself allows everything that the other does.
    pub fn covers(&self, other: &Rule) -> bool {
        let all = |owned: &[String], asked: &[String]| asked.iter().all(|item| has(owned, item));
        let urls = other.urls.iter().all(|asked| self.urls.iter().any(|own| matches_url(own, asked)));
        if !urls || !all(&self.verbs, &other.verbs) {
            return false;
        }
        if other.groups.is_empty() || other.resources.is_empty() {
            return true;
        }
        let names = match (self.names.is_empty(), other.names.is_empty()) {
            (true, _) => true,
            (false, true) => false,
            (false, false) => other.names.iter().all(|name| self.names.contains(name)),
        };
        names
            && all(&self.groups, &other.groups)
            && other.resources.iter().all(|asked| {
                let (resource, subresource) = asked.split_once('/').unwrap_or((asked, ""));
                self.resources.iter().any(|own| own == asked || matches_resource(own, resource, subresource))
            })
    }
}

/// `pods`, `pods/log`, `*/scale` or `*` (which is every resource and subresource).
fn matches_resource(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    if subresource.is_empty() {
        return rule == resource;
    }
    match rule.split_once('/') {
        Some((head, tail)) => tail == subresource && (head == resource || head == "*"),
        None => false,
    }
}

/// `*` everything, `/healthz/*` what begins so, else exactly.
fn matches_url(rule: &str, path: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => rule == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource<'a>(
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
        subresource: &'a str,
        name: &'a str,
    ) -> Action<'a> {
        Action::Resource { verb, group, resource, subresource, namespace: "", name, fields: "", labels: "" }
    }

    #[test]
    fn a_truth_table_of_resources() {
        let rule = |value| Rule::from_value(&value);
        let core = |resources: Value| rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": resources}));
        for (rule, action, expected) in [
            (core(json!(["pods"])), resource("get", "", "pods", "", ""), true),
            (core(json!(["pods"])), resource("list", "", "pods", "", ""), false),
            (core(json!(["pods"])), resource("get", "apps", "pods", "", ""), false),
            (core(json!(["pods"])), resource("get", "", "pods", "log", "x"), false),
            (core(json!(["pods/log"])), resource("get", "", "pods", "log", "x"), true),
            (core(json!(["pods/log"])), resource("get", "", "pods", "", "x"), false),
            (core(json!(["*/log"])), resource("get", "", "pods", "log", ""), true),
            (core(json!(["*"])), resource("get", "", "pods", "log", ""), true),
            (core(json!([])), resource("get", "", "pods", "", ""), false),
        ] {
            assert_eq!(rule.matches(&action), expected, "{rule:?} {action:?}");
        }
        let named = rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["secrets"], "resourceNames": ["a"]}));
        assert!(named.matches(&resource("get", "", "secrets", "", "a")));
        assert!(!named.matches(&resource("get", "", "secrets", "", "b")));
        assert!(!named.matches(&resource("list", "", "secrets", "", "")), "a list names nothing");
        let url = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz/*", "/version"]}));
        for (path, expected) in [("/healthz/etcd", true), ("/healthz", false), ("/version", true), ("/versions", false)]
        {
            assert_eq!(url.matches(&Action::NonResource { verb: "get", path }), expected, "{path}");
        }
    }

    #[test]
    fn what_covers_what() {
        let rule = |value| Rule::from_value(&value);
        let wide = rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        let pods = rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]}));
        assert!(pods.atoms().iter().all(|atom| wide.covers(atom)));
        assert!(!wide.atoms().iter().all(|atom| pods.covers(atom)));
        assert_eq!((pods.atoms().len(), pods.atom_count()), (4, 4));
        assert!(wide.covers(&pods) && !pods.covers(&wide), "and as a whole");
        let named = rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}));
        assert!(pods.covers(&named.atoms()[0]));
        assert!(!named.covers(&rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}))));
        let urls = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/a/*"]}));
        assert!(urls.covers(&rule(json!({"verbs": ["get"], "nonResourceURLs": ["/a/b/*"]}))));
        assert!(!urls.covers(&rule(json!({"verbs": ["get"], "nonResourceURLs": ["*"]}))));
        let both =
            rule(json!({"verbs": ["get"], "nonResourceURLs": ["/a/b"], "apiGroups": [""], "resources": ["pods"]}));
        assert!(!urls.covers(&both), "a rule of both kinds hides nothing behind its URLs");
        assert_eq!((both.atoms().len(), both.atom_count()), (2, 2));
    }
}
