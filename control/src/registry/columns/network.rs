//! Rows of Ingresses and their classes.

use gantry_kube::Object;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{age, name, or_none};

/// Hosts shown before "more".
const HOSTS_SHOWN_MAX: usize = 3;

pub(super) fn ingress(object: &Object, now: Timestamp) -> Vec<Value> {
    let ports = if object.array_at("/spec/tls").is_empty() { "80" } else { "80, 443" };
    let address = |at: &Value| at["ip"].as_str().or(at["hostname"].as_str()).map(str::to_owned);
    let addresses: Vec<String> = object.array_at("/status/loadBalancer/ingress").iter().filter_map(address).collect();
    vec![
        name(object),
        or_none(object.str_at("/spec/ingressClassName").to_owned()),
        json!(hosts(object)),
        json!(addresses.join(",")),
        json!(ports),
        age(object, now),
    ]
}

fn hosts(object: &Object) -> String {
    let rules = object.array_at("/spec/rules");
    let named: Vec<&str> = rules.iter().filter_map(|rule| rule["host"].as_str()).filter(|h| !h.is_empty()).collect();
    match named.len() {
        0 => "*".to_owned(),
        count if count > HOSTS_SHOWN_MAX => {
            format!("{} + {} more...", named[..HOSTS_SHOWN_MAX].join(","), rules.len() - HOSTS_SHOWN_MAX)
        }
        _ => named.join(","),
    }
}

pub(super) fn ingress_class(object: &Object, now: Timestamp) -> Vec<Value> {
    let part = |field: &str| object.str_at(&format!("/spec/parameters/{field}"));
    let parameters = match (part("kind"), part("apiGroup")) {
        ("", _) => String::new(),
        (kind, "") => format!("{kind}/{}", part("name")),
        (kind, group) => format!("{kind}.{group}/{}", part("name")),
    };
    vec![name(object), json!(object.str_at("/spec/controller")), or_none(parameters), age(object, now)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_that_people_know() {
        let cells = |value: Value, row: fn(&Object, Timestamp) -> Vec<Value>| {
            row(&Object::from_value(value).unwrap(), Timestamp::UNIX_EPOCH)
        };
        let rule = |host: &str| json!({ "host": host });
        let plain = cells(json!({"metadata": {"name": "i"}, "spec": {"rules": [{}]}}), ingress);
        assert_eq!(plain[..5], [json!("i"), json!("<none>"), json!("*"), json!(""), json!("80")]);
        let full = json!({"spec": {"ingressClassName": "c", "tls": [{}], "rules": [rule("a"), rule("b"), rule("c"), rule("d")]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "h"}]}}});
        let full = cells(full, ingress);
        assert_eq!(full[1..5], [json!("c"), json!("a,b,c + 1 more..."), json!("192.0.2.1,h"), json!("80, 443")]);
        let class = |parameters: Value| {
            cells(json!({"spec": {"controller": "x/y", "parameters": parameters}}), ingress_class)[2].clone()
        };
        assert_eq!(class(Value::Null), "<none>");
        assert_eq!(class(json!({"kind": "K", "name": "n", "apiGroup": "g"})), "K.g/n");
    }
}
