//! The schema table: which fields each built-in kind has, of which type, how lists merge, and the protobuf numbers.
//!
//! The table is a checked-in text (`schema/kubernetes-1.36.txt`, written by `schema/generate.py`) that is parsed once.
//! A line `type NAME gvk=GROUP/VERSION/KIND map=atomic` opens a definition; the indented lines after it are its fields:
//! `NAME TYPE FLAG...`, sorted by name. TYPE is a scalar, a definition, `[]TYPE`, `{}TYPE` (a map from strings) or
//! `TYPE|TYPE` (one of the two: in JSON the value tells which, and on the protobuf wire it is a message whose field 1 is the
//! first and field 2 the second; `{}A|B` is a map of such choices). Flags:
//! `req` (required), `zero` (written even when it is zero), `ptr` (a scalar whose zero is not the same as its absence),
//! `default=`, `list=atomic|set|map`, `keys=`, `map=atomic`, `patch=merge|replace|retainKeys,…`, `mergekey=` and `#N`, the
//! field's number on the protobuf wire. `+ #N TYPE` is a message that stands inline in JSON and nested on that wire.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::OnceLock;

use serde_json::Value;

/// The minor version of Kubernetes whose facts the table holds.
pub const KUBERNETES_VERSION: &str = "1.36";

static TEXT: &str = include_str!("../schema/kubernetes-1.36.txt");

/// One definition of the table, by its place in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeRef(u16);

impl Deref for TypeRef {
    type Target = Type;

    fn deref(&self) -> &'static Type {
        &table().types[usize::from(self.0)]
    }
}

impl TypeRef {
    /// The definition itself, which lives as long as the program.
    pub fn get(self) -> &'static Type {
        &table().types[usize::from(self.0)]
    }
}

impl std::fmt::Debug for TypeRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.get().name)
    }
}

#[derive(Debug)]
pub struct Type {
    /// `io.k8s.api.core.v1.Pod`, the name under which OpenAPI knows it.
    pub name: &'static str,
    /// Sorted by name.
    pub fields: Vec<Field>,
    pub kinds: Vec<GroupVersionKind>,
    /// True where the whole struct is owned and merged as one value.
    pub atomic: bool,
    /// Messages of the protobuf wire whose fields stand among ours in JSON.
    pub inlined: Vec<(u32, TypeRef)>,
    /// The numbers of the protobuf wire, ascending.
    wire: Vec<(u32, Numbered)>,
}

/// What a number of the protobuf wire stands for.
#[derive(Clone, Copy, Debug)]
enum Numbered {
    /// The place of a field among the others.
    Field(u16),
    Inlined(TypeRef),
}

/// What a number of the protobuf wire stands for.
#[derive(Clone, Copy, Debug)]
pub enum OnWire {
    Field(&'static Field),
    /// A message whose fields stand among ours in JSON.
    Inlined(TypeRef),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupVersionKind {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
}

#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub ty: Ty,
    pub required: bool,
    /// Written whether it is set or not: a struct as `{}`, a scalar as its zero.
    pub zero: bool,
    /// A scalar for which zero is a value of its own; elsewhere zero is the same as absent.
    pub pointer: bool,
    pub default: Option<&'static str>,
    pub list_type: Option<ListType>,
    pub map_keys: Vec<&'static str>,
    pub map_atomic: bool,
    pub patch_strategy: PatchStrategy,
    pub merge_key: Option<&'static str>,
    /// The field's number on the protobuf wire; a few alpha fields have none here.
    pub number: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    Atomic,
    Set,
    Map,
}

/// What `x-kubernetes-patch-strategy` names; no flag at all means replace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    pub merge: bool,
    pub retain_keys: bool,
}

#[derive(Debug, PartialEq)]
pub enum Ty {
    String,
    Int32,
    Int64,
    Bool,
    Double,
    /// Base64 in JSON.
    Bytes,
    Quantity,
    Time,
    MicroTime,
    IntOrString,
    /// Whatever object there is: RawExtension, FieldsV1.
    Any,
    /// Whatever JSON there is, scalars too. On the wire it is as [`Ty::Any`] is.
    Json,
    Struct(TypeRef),
    List(Box<Ty>),
    Map(Box<Ty>),
    /// A schema, or what may stand in its place. The second is what counts where the wire has both: a schema that stands
    /// for `true` is written with it.
    Either(Box<(Ty, Ty)>),
}

impl Ty {
    /// The type that a JSON value has, if this is a choice that allows it; every other type is what it is.
    pub fn chosen(&self, value: &Value) -> &Ty {
        let fits = |ty: &Ty| match value {
            Value::Object(_) => matches!(ty, Ty::Struct(_)),
            Value::Array(_) => matches!(ty, Ty::List(_)),
            Value::Bool(_) => *ty == Ty::Bool,
            _ => false,
        };
        match self {
            Ty::Either(of) if fits(&of.0) => &of.0,
            Ty::Either(of) if fits(&of.1) => &of.1,
            _ => self,
        }
    }
}

impl Type {
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|f| f.name.cmp(name)).ok().map(|i| &self.fields[i])
    }

    /// What stands under this number on the protobuf wire.
    pub fn numbered(&'static self, number: u32) -> Option<OnWire> {
        let at = self.wire.binary_search_by_key(&number, |(n, _)| *n).ok()?;
        Some(self.on_wire(self.wire[at].1))
    }

    /// Everything that has a number on the protobuf wire, in the order of the numbers.
    pub fn wire(&'static self) -> impl DoubleEndedIterator<Item = (u32, OnWire)> {
        self.wire.iter().map(|(number, numbered)| (*number, self.on_wire(*numbered)))
    }

    fn on_wire(&'static self, numbered: Numbered) -> OnWire {
        match numbered {
            Numbered::Field(at) => OnWire::Field(&self.fields[usize::from(at)]),
            Numbered::Inlined(inner) => OnWire::Inlined(inner),
        }
    }

    /// Sorts what has a number by it; false where two have the same.
    fn index_wire(&mut self) -> bool {
        let fields = self.fields.iter().enumerate();
        let fields = fields.filter_map(|(at, field)| Some((field.number?, Numbered::Field(at as u16))));
        let inlined = self.inlined.iter().map(|(number, inner)| (*number, Numbered::Inlined(*inner)));
        self.wire = fields.chain(inlined).collect();
        self.wire.sort_by_key(|(number, _)| *number);
        self.wire.windows(2).all(|pair| pair[0].0 < pair[1].0)
    }

    /// `Pod`: the last part of the name.
    pub fn short(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// `v1.Pod`: as Go prints the type.
    pub fn go_name(&self) -> &'static str {
        let dot = self.name.rmatch_indices('.').nth(1).map_or(0, |(i, _)| i + 1);
        &self.name[dot..]
    }
}

/// What every group has, in whose name it is asked for.
const OF_EVERY_GROUP: [&str; 7] =
    ["CreateOptions", "DeleteOptions", "GetOptions", "ListOptions", "PatchOptions", "UpdateOptions", "WatchEvent"];

/// The definition of a kind, if the table has it.
pub fn for_kind(group: &str, version: &str, kind: &str) -> Option<TypeRef> {
    let table = table();
    let (group, version) = if OF_EVERY_GROUP.contains(&kind) { ("", "v1") } else { (group, version) };
    table.kinds.get(&(group, version, kind)).copied()
}

/// The definition of that name (`io.k8s.api.core.v1.Pod`).
pub fn by_name(name: &str) -> Option<TypeRef> {
    table().find(name)
}

/// Every definition, sorted by name.
pub fn all() -> impl Iterator<Item = TypeRef> {
    (0..table().types.len()).map(|i| TypeRef(i as u16))
}

struct Table {
    types: Vec<Type>,
    kinds: BTreeMap<(&'static str, &'static str, &'static str), TypeRef>,
}

impl Table {
    fn find(&self, name: &str) -> Option<TypeRef> {
        self.types.binary_search_by(|t| t.name.cmp(name)).ok().map(|i| TypeRef(i as u16))
    }
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    // The text is part of the program, and a test of this module parses it.
    TABLE.get_or_init(|| parse(TEXT).expect("the checked-in schema table parses"))
}

/// Why the table's text is not one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the schema table: {problem}: {text:?}")]
struct TableError {
    line: usize,
    problem: &'static str,
    text: &'static str,
}

fn parse(text: &'static str) -> Result<Table, TableError> {
    let mut names: Vec<&'static str> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("type ") {
            names.push(rest.split(' ').next().unwrap_or(rest));
        }
    }
    if names.len() > usize::from(u16::MAX) || !names.is_sorted() {
        return Err(TableError { line: 0, problem: "too many definitions, or not sorted", text: "" });
    }
    let mut types: Vec<Type> = Vec::with_capacity(names.len());
    let mut kinds = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let wrong = |problem| TableError { line: index + 1, problem, text: line };
        if line.starts_with('#') || line.is_empty() {
        } else if let Some(rest) = line.strip_prefix("type ") {
            let ty = parse_type(rest).ok_or_else(|| wrong("not a definition"))?;
            let at = TypeRef(types.len() as u16);
            kinds.extend(ty.kinds.iter().map(|k| ((k.group, k.version, k.kind), at)));
            types.push(ty);
        } else {
            let ty = types.last_mut().ok_or_else(|| wrong("a field before any definition"))?;
            if let Some(rest) = line.trim_start().strip_prefix("+ #") {
                ty.inlined.push(parse_inlined(rest, &names).ok_or_else(|| wrong("not an inlined message"))?);
            } else {
                ty.fields.push(parse_field(line, &names).ok_or_else(|| wrong("not a field"))?);
            }
        }
    }
    match types.iter_mut().find_map(|ty| (!ty.index_wire()).then_some(ty.name)) {
        Some(text) => Err(TableError { line: 0, problem: "a number of the wire that stands for two fields", text }),
        None => Ok(Table { types, kinds }),
    }
}

fn parse_type(rest: &'static str) -> Option<Type> {
    let mut words = rest.split(' ');
    let (fields, kinds, inlined, wire) = (vec![], vec![], vec![], vec![]);
    let mut ty = Type { name: words.next()?, fields, kinds, atomic: false, inlined, wire };
    for word in words {
        match word.split_once('=')? {
            ("gvk", value) => {
                let mut parts = value.split('/');
                let (group, version, kind) = (parts.next()?, parts.next()?, parts.next()?);
                ty.kinds.push(GroupVersionKind { group, version, kind });
            }
            ("map", "atomic") => ty.atomic = true,
            _ => return None,
        }
    }
    Some(ty)
}

fn parse_inlined(rest: &'static str, names: &[&'static str]) -> Option<(u32, TypeRef)> {
    let (number, name) = rest.split_once(' ')?;
    Some((number.parse().ok()?, TypeRef(names.binary_search(&name).ok()? as u16)))
}

fn parse_field(line: &'static str, names: &[&'static str]) -> Option<Field> {
    let mut words = line.trim_start().split(' ');
    let mut field = Field {
        name: words.next()?,
        ty: parse_ty(words.next()?, names)?,
        required: false,
        zero: false,
        pointer: false,
        default: None,
        list_type: None,
        map_keys: vec![],
        map_atomic: false,
        patch_strategy: PatchStrategy::default(),
        merge_key: None,
        number: None,
    };
    for word in words {
        if let Some(number) = word.strip_prefix('#') {
            field.number = Some(number.parse().ok()?);
            continue;
        }
        match word.split_once('=').unwrap_or((word, "")) {
            ("req", _) => field.required = true,
            ("zero", _) => field.zero = true,
            ("ptr", _) => field.pointer = true,
            ("default", value) => field.default = Some(value),
            ("list", "atomic") => field.list_type = Some(ListType::Atomic),
            ("list", "set") => field.list_type = Some(ListType::Set),
            ("list", "map") => field.list_type = Some(ListType::Map),
            ("keys", value) => field.map_keys = value.split(',').collect(),
            ("map", "atomic") => field.map_atomic = true,
            ("map", "granular") => {}
            ("patch", value) => {
                field.patch_strategy.merge = value.split(',').any(|s| s == "merge");
                field.patch_strategy.retain_keys = value.split(',').any(|s| s == "retainKeys");
            }
            ("mergekey", value) => field.merge_key = Some(value),
            _ => return None,
        }
    }
    Some(field)
}

fn parse_ty(word: &'static str, names: &[&'static str]) -> Option<Ty> {
    if let Some(inner) = word.strip_prefix("[]") {
        return Some(Ty::List(Box::new(parse_ty(inner, names)?)));
    }
    if let Some(inner) = word.strip_prefix("{}") {
        return Some(Ty::Map(Box::new(parse_ty(inner, names)?)));
    }
    if let Some((first, second)) = word.split_once('|') {
        return Some(Ty::Either(Box::new((parse_ty(first, names)?, parse_ty(second, names)?))));
    }
    Some(match word {
        "string" => Ty::String,
        "int32" => Ty::Int32,
        "int64" => Ty::Int64,
        "bool" => Ty::Bool,
        "double" => Ty::Double,
        "bytes" => Ty::Bytes,
        "quantity" => Ty::Quantity,
        "time" => Ty::Time,
        "microtime" => Ty::MicroTime,
        "intorstring" => Ty::IntOrString,
        "any" => Ty::Any,
        "json" => Ty::Json,
        name => Ty::Struct(TypeRef(names.binary_search(&name).ok()? as u16)),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource;

    #[test]
    fn the_table_parses_and_is_sorted() {
        let table = parse(TEXT).unwrap();
        assert!(table.types.len() > 300);
        for ty in &table.types {
            assert!(ty.fields.is_sorted_by_key(|f| f.name), "{} is not sorted", ty.name);
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = parse("type a\n  x nonsense").err().unwrap();
        assert_eq!(error.line, 2);
        assert!(parse("  x string").is_err());
        assert!(parse("type b\ntype a").is_err());
        assert!(parse("type a\n  x string #1\n  y string #1").is_err());
    }

    #[test]
    fn every_served_kind_and_its_list_has_a_definition() {
        for r in resource::ALL {
            assert!(for_kind(r.group, r.version, r.kind).is_some(), "{} has none", r.kind);
            if !r.virtual_only || *r == &resource::COMPONENT_STATUS {
                assert!(for_kind(r.group, r.version, &format!("{}List", r.kind)).is_some(), "{}List has none", r.kind);
            }
        }
        for (group, version, kind) in [
            ("autoscaling", "v1", "Scale"),
            ("policy", "v1", "Eviction"),
            ("authentication.k8s.io", "v1", "TokenRequest"),
            ("", "v1", "Binding"),
            ("apps", "v1", "DeleteOptions"),
            ("apps", "v1", "WatchEvent"),
            ("", "v1", "List"),
            ("", "v1", "APIGroupList"),
            ("meta.k8s.io", "v1", "PartialObjectMetadataList"),
        ] {
            assert!(for_kind(group, version, kind).is_some(), "{kind} has none");
        }
        assert!(for_kind("", "v2", "Pod").is_none());
    }

    #[test]
    fn numbers_of_the_wire_lead_to_their_fields() {
        for ty in all().map(TypeRef::get) {
            assert!(ty.wire().map(|(number, _)| number).is_sorted(), "{}", ty.name);
            assert_eq!(ty.wire().count(), ty.inlined.len() + ty.fields.iter().filter(|f| f.number.is_some()).count());
            for field in ty.fields.iter().filter(|field| field.number.is_some()) {
                let found = ty.numbered(field.number.unwrap());
                assert!(matches!(found, Some(OnWire::Field(same)) if same.name == field.name), "{found:?}");
            }
        }
        let volume = by_name("io.k8s.api.core.v1.Volume").unwrap().get();
        assert!(matches!(volume.numbered(2), Some(OnWire::Inlined(inner)) if inner.short() == "VolumeSource"));
        assert!(volume.numbered(3).is_none());
    }

    #[test]
    fn facts_of_known_fields() {
        let pod = for_kind("", "v1", "Pod").unwrap();
        assert_eq!((pod.name, pod.short(), pod.go_name()), ("io.k8s.api.core.v1.Pod", "Pod", "v1.Pod"));
        let Ty::Struct(spec) = &pod.field("spec").unwrap().ty else { panic!("spec is a struct") };
        let containers = spec.field("containers").unwrap();
        assert!(containers.required && containers.patch_strategy.merge);
        assert_eq!((containers.merge_key, containers.list_type), (Some("name"), Some(ListType::Map)));
        assert_eq!((containers.map_keys.as_slice(), containers.number), (&["name"][..], Some(2)));
        assert!(spec.field("volumes").unwrap().patch_strategy.retain_keys);
        let port = by_name("io.k8s.api.core.v1.ContainerPort").unwrap();
        assert_eq!(port.field("protocol").unwrap().default, Some("TCP"));
        let volume = by_name("io.k8s.api.core.v1.Volume").unwrap();
        assert_eq!(volume.inlined.len(), 1);
        assert!(by_name("io.k8s.api.core.v1.LabelSelector").is_none());
        assert!(by_name("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector").unwrap().atomic);
    }

    #[test]
    fn a_choice_is_made_by_the_value() {
        let schema = by_name("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps").unwrap();
        let own = Ty::Struct(schema);
        let chosen = |field: &str, value: Value| schema.get().field(field).unwrap().ty.chosen(&value);
        assert_eq!(chosen("items", json!({})), &own);
        assert!(matches!(chosen("items", json!([])), Ty::List(inner) if **inner == own));
        assert!(matches!(chosen("items", json!(true)), Ty::Either(_)));
        assert_eq!(chosen("additionalProperties", json!(true)), &Ty::Bool);
        assert_eq!(chosen("additionalProperties", json!({})), &own);
        assert_eq!(chosen("title", json!("a")), &Ty::String);
        let Ty::Map(dependency) = &schema.get().field("dependencies").unwrap().ty else { panic!("a map") };
        assert_eq!(dependency.chosen(&json!(["a"])), &Ty::List(Box::new(Ty::String)));
    }
}
