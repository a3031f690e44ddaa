//! What is known of data before it is seen: the declaration of a value that comes as JSON.
//!
//! A declaration says which type an expression finds, how the JSON is read, and how large the value can become: what
//! upstream calls a DeclType, and makes of a schema.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::schema::ListType;

/// What one value is, and how large it can be.
#[derive(Debug)]
pub struct Decl {
    pub kind: DeclKind,
    /// The most that `size` can say of a text, a list or a map; 0 for what has no size.
    pub max_elements: u64,
    /// The least that it takes as JSON, in bytes.
    pub min_bytes: u64,
    pub nullable: bool,
}

#[derive(Debug)]
pub enum DeclKind {
    /// Any JSON, read as what it is.
    Any,
    IntOrString,
    Bool,
    Int,
    Double,
    String,
    /// Base64 in JSON.
    Bytes,
    Duration,
    Date,
    DateTime,
    List(ListDecl),
    Map(Arc<Decl>),
    Object(ObjectDecl),
}

#[derive(Debug)]
pub struct ListDecl {
    pub items: Arc<Decl>,
    pub list_type: ListType,
    /// By which items of a list of type map are told apart.
    pub keys: Vec<String>,
}

/// An object with fields that have names.
#[derive(Debug)]
pub struct ObjectDecl {
    /// How errors call the type: unlike others, two types are one only if they come from one place.
    pub name: String,
    /// By the names that expressions use (see [`super::escape`]).
    pub fields: BTreeMap<String, FieldDecl>,
    /// The same by their names in JSON.
    pub properties: BTreeMap<String, Arc<Decl>>,
}

#[derive(Debug)]
pub struct FieldDecl {
    /// In JSON.
    pub name: String,
    pub decl: Arc<Decl>,
}

impl Decl {
    pub fn new(kind: DeclKind, max_elements: u64, min_bytes: u64) -> Decl {
        Decl { kind, max_elements, min_bytes, nullable: false }
    }

    /// Anything: what policies see of objects.
    pub fn any() -> Decl {
        Decl { kind: DeclKind::Any, max_elements: u64::MAX, min_bytes: 1, nullable: true }
    }

    /// What stands in a list or a map.
    pub fn element(&self) -> Option<&Arc<Decl>> {
        match &self.kind {
            DeclKind::List(list) => Some(&list.items),
            DeclKind::Map(values) => Some(values),
            _ => None,
        }
    }

    pub fn object(&self) -> Option<&ObjectDecl> {
        match &self.kind {
            DeclKind::Object(object) => Some(object),
            _ => None,
        }
    }
}
