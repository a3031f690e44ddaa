//! The paths of served kinds and what can be done there.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::schemas::{Dialect, reference};
use crate::resource::{self, Resource};
use crate::schema::{self, GroupVersionKind, TypeRef};

/// One path with its operations.
pub(super) struct Served {
    pub path: String,
    pub operations: Vec<Operation>,
}

pub(super) struct Operation {
    pub method: &'static str,
    /// `x-kubernetes-action`.
    pub action: &'static str,
    pub id: String,
    pub kind: Kind,
    pub query: &'static [Query],
    pub body: Body,
    pub answer: Answer,
}

/// The kind that an operation is about, built in or not.
#[derive(Clone)]
pub(super) struct Kind {
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    pub kind: Cow<'static, str>,
}

pub(super) enum Body {
    None,
    Object(TypeRef),
    /// A custom kind's, by the name of its definition.
    Custom(String),
    Patch,
    /// Custom kinds have no strategic merge.
    CustomPatch,
}

/// What a success carries.
pub(super) enum Answer {
    Text,
    Object(TypeRef),
    Custom(String),
}

/// A query parameter: its name and type.
pub(super) type Query = (&'static str, &'static str);

pub(super) const GET: &[Query] = &[("pretty", "string")];
pub(super) const WRITE: &[Query] =
    &[("pretty", "string"), ("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
pub(super) const DELETE: &[Query] = &[
    ("pretty", "string"),
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
pub(super) const LIST: &[Query] = &[
    ("pretty", "string"),
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
pub(super) const DELETE_COLLECTION: &[Query] = &[
    ("pretty", "string"),
    ("dryRun", "string"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("gracePeriodSeconds", "integer"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("timeoutSeconds", "integer"),
];
const LOG: &[Query] = &[
    ("container", "string"),
    ("follow", "boolean"),
    ("limitBytes", "integer"),
    ("previous", "boolean"),
    ("sinceSeconds", "integer"),
    ("tailLines", "integer"),
    ("timestamps", "boolean"),
];
const ATTACH: &[Query] =
    &[("container", "string"), ("stderr", "boolean"), ("stdin", "boolean"), ("stdout", "boolean"), ("tty", "boolean")];
const EXEC: &[Query] = &[
    ("command", "string"),
    ("container", "string"),
    ("stderr", "boolean"),
    ("stdin", "boolean"),
    ("stdout", "boolean"),
    ("tty", "boolean"),
];

/// The patches that are taken, as content types.
const PATCHES: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];
const CUSTOM_PATCHES: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
const JSON: &str = "application/json";

/// Kinds whose status is written through a path of its own.
const WITH_STATUS: &[&str] = &[
    "Namespace",
    "Node",
    "Pod",
    "ReplicationController",
    "Service",
    "DaemonSet",
    "Deployment",
    "ReplicaSet",
    "StatefulSet",
    "Job",
    "CronJob",
    "PodDisruptionBudget",
    "ResourceQuota",
    "HorizontalPodAutoscaler",
    "Ingress",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "APIService",
    "CertificateSigningRequest",
    "CustomResourceDefinition",
    "FlowSchema",
    "PriorityLevelConfiguration",
    "ResourceClaim",
    "ServiceCIDR",
    "ValidatingAdmissionPolicy",
    "VolumeAttachment",
];
const BINDING: GroupVersionKind = GroupVersionKind { group: "", version: "v1", kind: "Binding" };
const SCALE: GroupVersionKind = GroupVersionKind { group: "autoscaling", version: "v1", kind: "Scale" };
const EVICTION: GroupVersionKind = GroupVersionKind { group: "policy", version: "v1", kind: "Eviction" };
const TOKEN_REQUEST: GroupVersionKind =
    GroupVersionKind { group: "authentication.k8s.io", version: "v1", kind: "TokenRequest" };

/// Every path of a kind.
pub(super) fn of(resource: &Resource) -> Vec<Served> {
    let kind = GroupVersionKind { group: resource.group, version: resource.version, kind: resource.kind };
    let Some(ty) = type_of(kind) else { return Vec::new() };
    let namespace = resource.namespaced.then_some("{namespace}");
    let collection = resource.collection_path(namespace);
    let id = |verb: &str| format!("{verb}{}", identifier(resource));
    if *resource == resource::COMPONENT_STATUS {
        let list = schema::for_kind(resource.group, resource.version, "ComponentStatusList");
        let listed = operation("get", "list", id("list"), kind, GET, Body::None, list);
        let one = operation("get", "get", id("read"), kind, GET, Body::None, Some(ty));
        return vec![
            Served { path: collection.clone(), operations: vec![listed] },
            Served { path: format!("{collection}/{{name}}"), operations: vec![one] },
        ];
    }
    if resource.virtual_only {
        let post = operation("post", "post", id("create"), kind, WRITE, Body::Object(ty), Some(ty));
        return vec![Served { path: collection, operations: vec![post] }];
    }
    let list = schema::for_kind(resource.group, resource.version, &format!("{}List", resource.kind));
    let options = schema::for_kind("", "v1", "DeleteOptions");
    let status = schema::by_name("io.k8s.apimachinery.pkg.apis.meta.v1.Status");
    let deletion = || options.map_or(Body::None, Body::Object);
    let one = format!("{collection}/{{name}}");
    let mut served = vec![
        Served {
            path: collection.clone(),
            operations: vec![
                operation("get", "list", id("list"), kind, LIST, Body::None, list),
                operation("post", "post", id("create"), kind, WRITE, Body::Object(ty), Some(ty)),
                operation(
                    "delete",
                    "deletecollection",
                    id("deleteCollection"),
                    kind,
                    DELETE_COLLECTION,
                    deletion(),
                    status,
                ),
            ],
        },
        Served {
            path: one.clone(),
            operations: vec![
                operation("get", "get", id("read"), kind, GET, Body::None, Some(ty)),
                operation("put", "put", id("replace"), kind, WRITE, Body::Object(ty), Some(ty)),
                operation("patch", "patch", id("patch"), kind, WRITE, Body::Patch, Some(ty)),
                operation("delete", "delete", id("delete"), kind, DELETE, deletion(), status),
            ],
        },
    ];
    if resource.namespaced {
        served.push(Served {
            path: resource.collection_path(None),
            operations: vec![operation("get", "list", id("listAll"), kind, LIST, Body::None, list)],
        });
    }
    served.extend(subresources(resource, kind, &one));
    served
}

/// The paths below one object.
fn subresources(resource: &Resource, kind: GroupVersionKind, one: &str) -> Vec<Served> {
    let mut served = Vec::new();
    let id = |verb: &str, sub: &str| format!("{verb}{}{sub}", identifier(resource));
    let mut add = |sub: &str, suffix: &str, kind: GroupVersionKind, methods: &[&'static str]| {
        let Some(ty) = type_of(kind) else { return };
        let operations = methods.iter().map(|method| match *method {
            "get" => operation("get", "get", id("read", suffix), kind, GET, Body::None, Some(ty)),
            "put" => operation("put", "put", id("replace", suffix), kind, WRITE, Body::Object(ty), Some(ty)),
            "patch" => operation("patch", "patch", id("patch", suffix), kind, WRITE, Body::Patch, Some(ty)),
            _ => operation("post", "post", id("create", suffix), kind, WRITE, Body::Object(ty), Some(ty)),
        });
        served.push(Served { path: format!("{one}/{sub}"), operations: operations.collect() });
    };
    if WITH_STATUS.contains(&resource.kind) {
        add("status", "Status", kind, &["get", "put", "patch"]);
    }
    match resource.kind {
        "CertificateSigningRequest" => add("approval", "Approval", kind, &["get", "put", "patch"]),
        "Namespace" => add("finalize", "Finalize", kind, &["put"]),
        "ServiceAccount" => add("token", "Token", TOKEN_REQUEST, &["post"]),
        "Deployment" | "ReplicaSet" | "ReplicationController" | "StatefulSet" => {
            add("scale", "Scale", SCALE, &["get", "put", "patch"])
        }
        "Pod" => {
            add("binding", "Binding", BINDING, &["post"]);
            add("resize", "Resize", kind, &["get", "put", "patch"]);
            add("ephemeralcontainers", "Ephemeralcontainers", kind, &["get", "put", "patch"]);
            add("eviction", "Eviction", EVICTION, &["post"]);
            let log = operation("get", "get", id("read", "Log"), kind, LOG, Body::None, None);
            served.push(Served { path: format!("{one}/log"), operations: vec![log] });
            for (sub, suffix, query) in
                [("attach", "Attach", ATTACH), ("exec", "Exec", EXEC), ("portforward", "Portforward", &[])]
            {
                let connect =
                    |method, name| operation(method, "connect", id(name, suffix), kind, query, Body::None, None);
                let operations = vec![connect("get", "connectGet"), connect("post", "connectPost")];
                served.push(Served { path: format!("{one}/{sub}"), operations });
            }
        }
        _ => {}
    }
    served
}

fn operation(
    method: &'static str,
    action: &'static str,
    id: String,
    kind: GroupVersionKind,
    query: &'static [Query],
    body: Body,
    answer: Option<TypeRef>,
) -> Operation {
    let kind = Kind { group: kind.group.into(), version: kind.version.into(), kind: kind.kind.into() };
    let answer = answer.map_or(Answer::Text, Answer::Object);
    Operation { method, action, id, kind, query, body, answer }
}

fn type_of(kind: GroupVersionKind) -> Option<TypeRef> {
    schema::for_kind(kind.group, kind.version, kind.kind)
}

/// `AppsV1NamespacedDeployment`: the part of an operation's id that names the kind.
fn identifier(resource: &Resource) -> String {
    let first = resource.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
    let scope = if resource.namespaced { "Namespaced" } else { "" };
    format!("{}{}{scope}{}", capital(first), capital(resource.version), resource.kind)
}

pub(super) fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_ascii_uppercase().to_string() + letters.as_str())
}

/// The definitions that the paths name.
pub(super) fn roots(served: &[Served]) -> Vec<TypeRef> {
    let operations = || served.iter().flat_map(|s| &s.operations);
    let bodies = operations().filter_map(|o| match o.body {
        Body::Object(ty) => Some(ty),
        _ => None,
    });
    let answers = operations().filter_map(|o| match o.answer {
        Answer::Object(ty) => Some(ty),
        _ => None,
    });
    bodies.chain(answers).collect()
}

/// The `paths` of a document.
pub(super) fn rendered(served: &[Served], dialect: Dialect) -> Map<String, Value> {
    let mut paths = Map::new();
    for one in served {
        let mut item = Map::new();
        for operation in &one.operations {
            item.insert(operation.method.to_owned(), render(operation, dialect));
        }
        let parameters: Vec<Value> = ["namespace", "name"]
            .iter()
            .filter(|name| one.path.contains(&format!("{{{name}}}")))
            .map(|name| parameter(name, "path", "string", dialect))
            .collect();
        if !parameters.is_empty() {
            item.insert("parameters".into(), parameters.into());
        }
        paths.insert(one.path.clone(), item.into());
    }
    paths
}

fn parameter(name: &str, place: &str, kind: &str, dialect: Dialect) -> Value {
    let mut out = json!({"name": name, "in": place});
    match dialect {
        Dialect::V2 => {
            out["type"] = kind.into();
            out["uniqueItems"] = true.into();
        }
        Dialect::V3 => out["schema"] = json!({"type": kind, "uniqueItems": true}),
    }
    if place == "path" {
        out["required"] = true.into();
    }
    out
}

fn render(operation: &Operation, dialect: Dialect) -> Value {
    let kind = &operation.kind;
    let mut out = json!({
        "operationId": operation.id,
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
    });
    let mut parameters: Vec<Value> =
        operation.query.iter().map(|(name, kind)| parameter(name, "query", kind, dialect)).collect();
    if let Body::Patch | Body::CustomPatch = operation.body {
        parameters.push(parameter("force", "query", "boolean", dialect));
    }
    let (answer, answer_type) = match &operation.answer {
        Answer::Text => (json!({"type": "string"}), "text/plain"),
        Answer::Object(ty) => (reference(ty.name, dialect), JSON),
        Answer::Custom(name) => (reference(name, dialect), JSON),
    };
    let body = match &operation.body {
        Body::None => None,
        Body::Object(ty) => Some((reference(ty.name, dialect), &["*/*"][..])),
        Body::Custom(name) => Some((reference(name, dialect), &["*/*"][..])),
        Body::Patch => Some((json!({"type": "object"}), &PATCHES[..])),
        Body::CustomPatch => Some((json!({"type": "object"}), &CUSTOM_PATCHES[..])),
    };
    let required = operation.method != "delete";
    match dialect {
        Dialect::V2 => {
            if let Some((schema, types)) = body {
                parameters.insert(0, json!({"name": "body", "in": "body", "required": required, "schema": schema}));
                out["consumes"] = types.into();
            }
            out["produces"] = json!([answer_type]);
            out["responses"] = json!({"200": {"description": "OK", "schema": answer}});
        }
        Dialect::V3 => {
            if let Some((schema, types)) = body {
                let content: Map<String, Value> =
                    types.iter().map(|t| ((*t).to_owned(), json!({"schema": schema}))).collect();
                out["requestBody"] = json!({"content": content, "required": required});
            }
            out["responses"] = json!({"200": {"description": "OK", "content": {answer_type: {"schema": answer}}}});
        }
    }
    out["parameters"] = parameters.into();
    out
}
