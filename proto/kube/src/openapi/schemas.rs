//! Definitions as OpenAPI writes them.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::schema::{Field, ListType, Ty, Type, TypeRef};

/// The two versions differ in where definitions stand, and in how a reference carries facts of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

/// Scalars that have a name of their own: the name, and their schema. The last ones may be of more than one type, and have
/// no schema that says so.
const NAMED: [(&str, &str, &str); 8] = [
    ("io.k8s.apimachinery.pkg.api.resource.Quantity", "string", ""),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", "string", "date-time"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime", "string", "date-time"),
    ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", "string", "int-or-string"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON", "", ""),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool", "", ""),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray", "", ""),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray", "", ""),
];

/// The definitions that the roots reach, by name.
pub(super) fn definitions(roots: Vec<TypeRef>, dialect: Dialect) -> Map<String, Value> {
    let (mut seen, mut scalars) = (BTreeSet::new(), BTreeSet::new());
    let mut wanted = roots;
    while let Some(ty) = wanted.pop() {
        if seen.insert(ty) {
            for field in &ty.get().fields {
                reach(&field.ty, &mut wanted, &mut scalars);
            }
        }
    }
    let mut out = Map::new();
    for (name, kind, format) in NAMED.iter().filter(|(name, ..)| scalars.contains(name)) {
        let schema = match (*name, dialect) {
            (name, Dialect::V3) if name.ends_with("IntOrString") => {
                json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": format})
            }
            (name, Dialect::V3) if name.ends_with("Quantity") => {
                json!({"oneOf": [{"type": "string"}, {"type": "number"}]})
            }
            _ if kind.is_empty() => json!({}),
            _ if format.is_empty() => json!({"type": kind}),
            _ => json!({"type": kind, "format": format}),
        };
        out.insert((*name).to_owned(), schema);
    }
    out.extend(seen.into_iter().map(|ty| (ty.name.to_owned(), definition(ty.get(), dialect))));
    out
}

fn reach(ty: &Ty, wanted: &mut Vec<TypeRef>, scalars: &mut BTreeSet<&'static str>) {
    match ty {
        Ty::Struct(inner) => wanted.push(*inner),
        Ty::List(inner) | Ty::Map(inner) => reach(inner, wanted, scalars),
        other => scalars.extend(named(other)),
    }
}

fn named(ty: &Ty) -> Option<&'static str> {
    let index = match ty {
        Ty::Quantity => 0,
        Ty::Time => 1,
        Ty::MicroTime => 2,
        Ty::IntOrString => 3,
        Ty::Json => 4,
        Ty::Either(of) => match &**of {
            (Ty::Bool, _) => 5,
            (_, Ty::List(item)) if **item == Ty::String => 7,
            _ => 6,
        },
        _ => return None,
    };
    Some(NAMED[index].0)
}

fn definition(ty: &Type, dialect: Dialect) -> Value {
    let mut out = Map::new();
    out.insert("type".into(), "object".into());
    let required: Vec<&str> = ty.fields.iter().filter(|f| f.required).map(|f| f.name).collect();
    if !required.is_empty() {
        out.insert("required".into(), required.into());
    }
    if !ty.fields.is_empty() {
        let properties: Map<String, Value> =
            ty.fields.iter().map(|f| (f.name.to_owned(), property(f, dialect))).collect();
        out.insert("properties".into(), properties.into());
    }
    if !ty.kinds.is_empty() {
        let kinds: Vec<Value> =
            ty.kinds.iter().map(|k| json!({"group": k.group, "version": k.version, "kind": k.kind})).collect();
        out.insert("x-kubernetes-group-version-kind".into(), kinds.into());
    }
    if ty.atomic {
        out.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    Value::Object(out)
}

fn property(field: &Field, dialect: Dialect) -> Value {
    let mut facts = Map::new();
    if let Some(list) = field.list_type {
        let name = match list {
            ListType::Atomic => "atomic",
            ListType::Set => "set",
            ListType::Map => "map",
        };
        facts.insert("x-kubernetes-list-type".into(), name.into());
    }
    if !field.map_keys.is_empty() {
        facts.insert("x-kubernetes-list-map-keys".into(), field.map_keys.clone().into());
    }
    if field.map_atomic {
        facts.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    let strategy = match (field.patch_strategy.merge, field.patch_strategy.retain_keys) {
        (true, true) => Some("merge,retainKeys"),
        (true, false) => Some("merge"),
        (false, true) => Some("retainKeys"),
        (false, false) => None,
    };
    if let Some(strategy) = strategy {
        facts.insert("x-kubernetes-patch-strategy".into(), strategy.into());
    }
    if let Some(key) = field.merge_key {
        facts.insert("x-kubernetes-patch-merge-key".into(), key.into());
    }
    if let Some(default) = field.default {
        facts.insert("default".into(), default.into());
    }
    let mut schema = value(&field.ty, dialect);
    if !facts.is_empty() && dialect == Dialect::V3 && schema.get("$ref").is_some() {
        // Beside a reference v3 reads nothing.
        schema = json!({"allOf": [schema]});
    }
    if let Value::Object(map) = &mut schema {
        map.append(&mut facts);
    }
    schema
}

fn value(ty: &Ty, dialect: Dialect) -> Value {
    match ty {
        Ty::String => json!({"type": "string"}),
        Ty::Int32 => json!({"type": "integer", "format": "int32"}),
        Ty::Int64 => json!({"type": "integer", "format": "int64"}),
        Ty::Double => json!({"type": "number", "format": "double"}),
        Ty::Bool => json!({"type": "boolean"}),
        Ty::Bytes => json!({"type": "string", "format": "byte"}),
        Ty::Any => json!({"type": "object"}),
        Ty::List(inner) => json!({"type": "array", "items": value(inner, dialect)}),
        Ty::Map(inner) => json!({"type": "object", "additionalProperties": value(inner, dialect)}),
        Ty::Struct(inner) => reference(inner.get().name, dialect),
        Ty::Quantity | Ty::Time | Ty::MicroTime | Ty::IntOrString | Ty::Json | Ty::Either(_) => {
            named(ty).map_or(Value::Null, |name| reference(name, dialect))
        }
    }
}

pub(super) fn reference(name: &str, dialect: Dialect) -> Value {
    match dialect {
        Dialect::V2 => json!({"$ref": format!("#/definitions/{name}")}),
        Dialect::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
    }
}
