//! Discovery: which groups, versions, kinds and subresources are served, in the old form (`/api`, `/apis`, one document a
//! version) and in the aggregated one (apidiscovery.k8s.io v2 and v2beta1).

use gantry_kube::{Resource, resource};
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::body::Body;
use super::{media, respond, usage};
use crate::custom::{Table, Version};

const ALL_VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];
const CONNECT: &[&str] = &["create", "delete", "get", "patch", "update"];
const STATUS: &[&str] = &["get", "patch", "update"];

/// A subresource (`pods/log`), or a resource that exists only to be posted to (`bindings`, with an empty `name`).
#[derive(Clone, Copy, Debug)]
pub struct Subresource {
    pub group: &'static str,
    pub plural: &'static str,
    pub name: &'static str,
    /// Group, version and kind of what it answers with.
    pub kind: (&'static str, &'static str, &'static str),
    pub verbs: &'static [&'static str],
}

const fn sub(
    group: &'static str,
    plural: &'static str,
    name: &'static str,
    kind: (&'static str, &'static str, &'static str),
    verbs: &'static [&'static str],
) -> Subresource {
    Subresource { group, plural, name, kind, verbs }
}

const READ: &[&str] = &["get", "list"];
const SCALE: (&str, &str, &str) = ("autoscaling", "v1", "Scale");
const SIGNING_REQUEST: (&str, &str, &str) = ("certificates.k8s.io", "v1", "CertificateSigningRequest");
const FLOW_CONTROL: &str = "flowcontrol.apiserver.k8s.io";

pub static SUBRESOURCES: &[Subresource] = &[
    sub("", "namespaces", "finalize", ("", "v1", "Namespace"), &["update"]),
    sub("", "namespaces", "status", ("", "v1", "Namespace"), STATUS),
    sub("", "nodes", "proxy", ("", "v1", "NodeProxyOptions"), CONNECT),
    sub("", "nodes", "status", ("", "v1", "Node"), STATUS),
    sub("", "persistentvolumeclaims", "status", ("", "v1", "PersistentVolumeClaim"), STATUS),
    sub("", "persistentvolumes", "status", ("", "v1", "PersistentVolume"), STATUS),
    sub("", "pods", "attach", ("", "v1", "PodAttachOptions"), &["create", "get"]),
    sub("", "pods", "binding", ("", "v1", "Binding"), CREATE),
    sub("", "pods", "ephemeralcontainers", ("", "v1", "Pod"), STATUS),
    sub("", "pods", "eviction", ("policy", "v1", "Eviction"), CREATE),
    sub("", "pods", "exec", ("", "v1", "PodExecOptions"), &["create", "get"]),
    sub("", "pods", "log", ("", "v1", "Pod"), &["get"]),
    sub("", "pods", "portforward", ("", "v1", "PodPortForwardOptions"), &["create", "get"]),
    sub("", "pods", "proxy", ("", "v1", "PodProxyOptions"), CONNECT),
    sub("", "pods", "resize", ("", "v1", "Pod"), STATUS),
    sub("", "pods", "status", ("", "v1", "Pod"), STATUS),
    sub("", "replicationcontrollers", "scale", SCALE, STATUS),
    sub("", "replicationcontrollers", "status", ("", "v1", "ReplicationController"), STATUS),
    sub("", "resourcequotas", "status", ("", "v1", "ResourceQuota"), STATUS),
    sub("", "services", "proxy", ("", "v1", "ServiceProxyOptions"), CONNECT),
    sub("", "services", "status", ("", "v1", "Service"), STATUS),
    sub("", "serviceaccounts", "token", ("authentication.k8s.io", "v1", "TokenRequest"), CREATE),
    sub("apps", "daemonsets", "status", ("apps", "v1", "DaemonSet"), STATUS),
    sub("apps", "deployments", "scale", SCALE, STATUS),
    sub("apps", "deployments", "status", ("apps", "v1", "Deployment"), STATUS),
    sub("apps", "replicasets", "scale", SCALE, STATUS),
    sub("apps", "replicasets", "status", ("apps", "v1", "ReplicaSet"), STATUS),
    sub("apps", "statefulsets", "scale", SCALE, STATUS),
    sub("apps", "statefulsets", "status", ("apps", "v1", "StatefulSet"), STATUS),
    sub("autoscaling", "horizontalpodautoscalers", "status", ("autoscaling", "v2", "HorizontalPodAutoscaler"), STATUS),
    sub("batch", "cronjobs", "status", ("batch", "v1", "CronJob"), STATUS),
    sub("batch", "jobs", "status", ("batch", "v1", "Job"), STATUS),
    sub(
        "admissionregistration.k8s.io",
        "validatingadmissionpolicies",
        "status",
        ("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy"),
        STATUS,
    ),
    sub(
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        "status",
        ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
        STATUS,
    ),
    sub("apiregistration.k8s.io", "apiservices", "status", ("apiregistration.k8s.io", "v1", "APIService"), STATUS),
    sub("certificates.k8s.io", "certificatesigningrequests", "approval", SIGNING_REQUEST, STATUS),
    sub("certificates.k8s.io", "certificatesigningrequests", "status", SIGNING_REQUEST, STATUS),
    sub(FLOW_CONTROL, "flowschemas", "status", (FLOW_CONTROL, "v1", "FlowSchema"), STATUS),
    sub(
        FLOW_CONTROL,
        "prioritylevelconfigurations",
        "status",
        (FLOW_CONTROL, "v1", "PriorityLevelConfiguration"),
        STATUS,
    ),
    sub("networking.k8s.io", "ingresses", "status", ("networking.k8s.io", "v1", "Ingress"), STATUS),
    sub("networking.k8s.io", "servicecidrs", "status", ("networking.k8s.io", "v1", "ServiceCIDR"), STATUS),
    sub("policy", "poddisruptionbudgets", "status", ("policy", "v1", "PodDisruptionBudget"), STATUS),
    sub("resource.k8s.io", "resourceclaims", "status", ("resource.k8s.io", "v1", "ResourceClaim"), STATUS),
    sub("storage.k8s.io", "volumeattachments", "status", ("storage.k8s.io", "v1", "VolumeAttachment"), STATUS),
];

static BINDINGS: Subresource = sub("", "bindings", "", ("", "v1", "Binding"), CREATE);

/// A subresource of a kind; of a custom one, what its version has.
pub fn find(resource: &Resource, custom: Option<&Version>, name: &str) -> Option<Subresource> {
    subresources(resource, custom).into_iter().find(|sub| sub.name == name)
}

pub fn verbs(resource: &Resource) -> &'static [&'static str] {
    match resource {
        resource if resource.group == usage::GROUP => usage::VERBS,
        resource if *resource == resource::COMPONENT_STATUS => READ,
        resource if resource.virtual_only => CREATE,
        _ => ALL_VERBS,
    }
}

/// What is served without a definition: what is stored or reviewed, and what is made when it is asked for.
fn all_built_in() -> impl Iterator<Item = &'static Resource> {
    resource::served().chain(usage::RESOURCES)
}

pub fn built_in(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    // What tells most kinds apart comes first: each request asks.
    all_built_in().find(|r| r.plural == plural && r.group == group && r.version == version)
}

fn subresources(resource: &Resource, custom: Option<&Version>) -> Vec<Subresource> {
    let Some(custom) = custom else {
        let own = |sub: &&Subresource| sub.group == resource.group && sub.plural == resource.plural;
        return SUBRESOURCES.iter().filter(own).copied().collect();
    };
    let Resource { group, version, kind, plural, .. } = *custom.resource;
    let status = custom.status.then(|| sub(group, plural, "status", (group, version, kind), STATUS));
    let scale = custom.scale.is_some().then(|| sub(group, plural, "scale", SCALE, STATUS));
    status.into_iter().chain(scale).collect()
}

/// A group's name and its versions, the preferred one first.
type Group = (&'static str, Vec<&'static str>);

/// Everything that is served, built-in kinds first.
struct Served<'a>(&'a Table);

type OneServed<'a> = (&'static Resource, Option<&'a Version>);

impl<'a> Served<'a> {
    fn all(&self) -> impl Iterator<Item = OneServed<'a>> + use<'a> {
        let custom = self.0.served().map(|version| (version.resource, Some(version)));
        all_built_in().map(|resource| (resource, None)).chain(custom)
    }

    fn of_version(&self, group: &str, version: &str) -> Vec<OneServed<'a>> {
        self.all().filter(|(r, _)| r.group == group && r.version == version).collect()
    }

    /// The groups in the order of the table of kinds, the core group left out.
    fn groups(&self) -> Vec<Group> {
        let mut all: Vec<Group> = Vec::new();
        for (resource, _) in self.all().filter(|(r, _)| !r.group.is_empty()) {
            match all.iter_mut().find(|(group, _)| *group == resource.group) {
                Some((_, versions)) if versions.contains(&resource.version) => {}
                Some((_, versions)) => versions.push(resource.version),
                None => all.push((resource.group, vec![resource.version])),
            }
        }
        // Of one group the version that clients rank highest is the preferred one, whichever kinds have it.
        all.iter_mut().for_each(|(_, versions)| versions.sort_by(|a, b| resource::version_order(a, b)));
        all
    }
}

/// Answers `/api`, `/apis` and what is below, or `None` where the path is no discovery document.
pub fn serve(custom: &Table, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let served = Served(custom);
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let value = match parts.as_slice() {
        ["api"] => return Some(aggregated(&served, headers, true).unwrap_or_else(|| respond::json(&api_versions()))),
        ["apis"] => {
            return Some(aggregated(&served, headers, false).unwrap_or_else(|| respond::json(&group_list(&served))));
        }
        ["api", "v1"] => resource_list(&served, "", "v1"),
        ["apis", group] => group_document(served.groups().into_iter().find(|(g, _)| g == group)?),
        ["apis", group, version] => {
            served.groups().into_iter().find(|(known, versions)| known == group && versions.contains(version))?;
            resource_list(&served, group, version)
        }
        _ => return None,
    };
    Some(respond::json(&value))
}

fn api_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}]})
}

fn group_entry((group, versions): Group) -> Value {
    let version = |version: &&str| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    let versions: Vec<Value> = versions.iter().map(version).collect();
    json!({"name": group, "preferredVersion": versions[0], "versions": versions})
}

fn group_document(group: Group) -> Value {
    let mut value = group_entry(group);
    value["kind"] = json!("APIGroup");
    value["apiVersion"] = json!("v1");
    value
}

fn group_list(served: &Served<'_>) -> Value {
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": served.groups().into_iter().map(group_entry).collect::<Vec<_>>()})
}

fn resource_list(served: &Served<'_>, group: &str, version: &str) -> Value {
    let mut resources = Vec::new();
    if group.is_empty() {
        resources.push(json!({"name": "bindings", "singularName": "binding", "namespaced": true, "kind": "Binding",
            "verbs": BINDINGS.verbs}));
    }
    for (resource, custom) in served.of_version(group, version) {
        let mut entry = json!({"name": resource.plural, "singularName": resource.singular,
            "namespaced": resource.namespaced, "kind": resource.kind, "verbs": verbs(resource)});
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        resources.push(entry);
        for sub in subresources(resource, custom) {
            let mut entry = json!({"name": format!("{}/{}", sub.plural, sub.name), "singularName": "",
                "namespaced": resource.namespaced, "kind": sub.kind.2, "verbs": sub.verbs});
            if (sub.kind.0, sub.kind.1) != (group, version) && sub.kind.2 != resource.kind {
                entry["group"] = json!(sub.kind.0);
                entry["version"] = json!(sub.kind.1);
            }
            resources.push(entry);
        }
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
}

/// The aggregated document, where the client asks for it before the old one.
fn aggregated(served: &Served<'_>, headers: &HeaderMap, core: bool) -> Option<Response<Body>> {
    let range =
        media::accepted(headers).into_iter().find(|r| matches!(r.essence.as_str(), "application/json" | "*/*"))?;
    let asked = range.param("as") == "APIGroupDiscoveryList" && range.param("g") == "apidiscovery.k8s.io";
    let (version, content_type) = match range.param("v") {
        "v2" if asked => ("v2", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
        "v2beta1" if asked => ("v2beta1", "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"),
        _ => return None,
    };
    let listed = if core { vec![("", vec!["v1"])] } else { served.groups() };
    let one = |group: &str, version: &str| json!({"version": version, "freshness": "Current", "resources": discovered(served, group, version)});
    let items: Vec<Value> = listed
        .into_iter()
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions.into_iter().map(|version| one(group, version)).collect();
            json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items});
    let document = serde_json::to_vec(&list).unwrap_or_default();
    let tag = gantry_kube::openapi::etag(&document);
    Some(respond::tagged(headers, &tag, || respond::bytes(StatusCode::OK, content_type, document)))
}

fn discovered(served: &Served<'_>, group: &str, version: &str) -> Vec<Value> {
    let kind = |(group, version, kind): (&str, &str, &str)| json!({"group": group, "version": version, "kind": kind});
    let mut resources = Vec::new();
    if group.is_empty() {
        resources.push(json!({"resource": "bindings", "responseKind": kind(BINDINGS.kind), "scope": "Namespaced",
            "singularResource": "binding", "verbs": BINDINGS.verbs}));
    }
    for (resource, custom) in served.of_version(group, version) {
        let mut entry = json!({"resource": resource.plural,
            "responseKind": kind((resource.group, resource.version, resource.kind)),
            "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
            "singularResource": resource.singular, "verbs": verbs(resource)});
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        let subs: Vec<Value> = subresources(resource, custom)
            .into_iter()
            .map(|s| {
                // A part of the object is of its kind, in the version that is asked for.
                let own = s.kind.2 == resource.kind;
                let answers = if own { (resource.group, resource.version, resource.kind) } else { s.kind };
                json!({"subresource": s.name, "responseKind": kind(answers), "verbs": s.verbs})
            })
            .collect();
        if !subs.is_empty() {
            entry["subresources"] = json!(subs);
        }
        resources.push(entry);
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, header};

    #[test]
    fn every_group_has_its_documents() {
        let headers = HeaderMap::new();
        for path in [
            "/api",
            "/api/v1",
            "/apis",
            "/apis/apps",
            "/apis/apps/v1",
            "/apis/autoscaling/v1",
            "/apis/autoscaling/v2",
            "/apis/discovery.k8s.io/v1",
            "/apis/metrics.k8s.io/v1beta1",
        ] {
            assert!(serve(&Table::default(), path, &headers).is_some(), "{path}");
        }
        for path in ["/apis/nope", "/apis/apps/v2", "/api/v2", "/version"] {
            assert!(serve(&Table::default(), path, &headers).is_none(), "{path}");
        }
    }

    #[test]
    fn a_group_names_its_versions_and_the_preferred_one() {
        let table = Table::default();
        let served = Served(&table);
        let (group, versions) = served.groups().into_iter().find(|(group, _)| *group == "autoscaling").unwrap();
        assert_eq!(versions, ["v2", "v1"]);
        let entry = group_entry((group, versions));
        assert_eq!(entry["preferredVersion"]["groupVersion"], "autoscaling/v2");
        assert_eq!(entry["versions"][1]["groupVersion"], "autoscaling/v1");
        for version in ["v1", "v2"] {
            let list = resource_list(&served, "autoscaling", version);
            assert_eq!(list["resources"][1]["name"], "horizontalpodautoscalers/status");
            assert_eq!(list["resources"][1]["version"], Value::Null);
            assert_eq!(
                discovered(&served, "autoscaling", version)[0]["subresources"][0]["responseKind"]["version"],
                version
            );
        }
    }

    #[test]
    fn the_aggregated_form_names_itself_in_the_content_type() {
        let mut headers = HeaderMap::new();
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        let response = serve(&Table::default(), "/apis", &headers).unwrap();
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        );
    }

    #[test]
    fn subresources_belong_to_served_kinds() {
        for sub in SUBRESOURCES {
            assert!(resource::ALL.iter().any(|r| r.group == sub.group && r.plural == sub.plural), "{sub:?}");
        }
    }
}
