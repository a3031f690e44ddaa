//! JSON whose repeated fields are found while it is read.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::object::{DecodeError, Object};

/// Nesting of JSON that is read. serde_json reads 127 levels; a list, and an event of a watch, put an object deeper, and
/// what can be stored must be read by whoever lists it.
pub const DEPTH_MAX: usize = 120;
/// Repeated fields that are named; a body may hold more, naming these is enough.
pub const DUPLICATES_MAX: usize = 100;

/// JSON maps in one body. A map of a few bytes costs hundreds of them in memory, more so once what Kubernetes always
/// writes is filled in: without a bound a body of 3 MiB could take hundreds of MiB. The largest built-in objects (slices of
/// endpoints, nodes with their images) have some thousands.
pub const MAPS_MAX: usize = 100_000;

/// Reads an object and the paths (`spec.containers[0].name`) of the fields that stand in it more than once. As in
/// Kubernetes, the last one counts.
pub fn parse_json(bytes: &[u8]) -> Result<(Object, Vec<String>), DecodeError> {
    let (value, duplicates) = parse_value(bytes)?;
    Ok((Object::from_value(value)?, duplicates))
}

/// The same for any JSON value.
pub fn parse_value(bytes: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    let mut found = Found { path: String::new(), duplicates: Vec::new(), maps: 0, depth: 0 };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = Seed(&mut found).deserialize(&mut json).map_err(DecodeError::Json)?;
    json.end().map_err(DecodeError::Json)?;
    Ok((value, found.duplicates))
}

/// The bounds of a JSON body, for a value that came in another encoding: it will be read as JSON from here on.
pub fn check_bounds(value: &Value) -> Result<(), DecodeError> {
    fn walk(value: &Value, levels_left: usize, maps_left: &mut usize) -> Result<(), DecodeError> {
        let mut inside = |items: &mut dyn Iterator<Item = &Value>| {
            let levels_left = levels_left.checked_sub(1).ok_or(DecodeError::TooDeep)?;
            for item in items {
                walk(item, levels_left, maps_left)?;
            }
            Ok(())
        };
        match value {
            Value::Array(items) => inside(&mut items.iter()),
            Value::Object(map) => {
                inside(&mut map.values())?;
                *maps_left = maps_left.checked_sub(1).ok_or(DecodeError::TooManyMaps)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }
    let mut maps_left = MAPS_MAX;
    walk(value, DEPTH_MAX, &mut maps_left)
}

struct Found {
    path: String,
    duplicates: Vec<String>,
    maps: usize,
    depth: usize,
}

impl Found {
    fn deeper<E: de::Error>(&mut self) -> Result<(), E> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(E::custom(DecodeError::TooDeep)) } else { Ok(()) }
    }
}

struct Seed<'a>(&'a mut Found);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        self.0.deeper()?;
        let mut items = Vec::new();
        let kept = self.0.path.len();
        loop {
            super::walk::push_index(&mut self.0.path, items.len());
            let item = seq.next_element_seed(Seed(self.0))?;
            self.0.path.truncate(kept);
            match item {
                Some(item) => items.push(item),
                None => {
                    self.0.depth -= 1;
                    return Ok(Value::Array(items));
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.0.deeper()?;
        self.0.maps += 1;
        if self.0.maps > MAPS_MAX {
            return Err(de::Error::custom(DecodeError::TooManyMaps));
        }
        let mut map = Map::new();
        let kept = self.0.path.len();
        while let Some(key) = entries.next_key::<String>()? {
            super::walk::push_key(&mut self.0.path, &key);
            let value = entries.next_value_seed(Seed(self.0))?;
            if map.insert(key, value).is_some() && self.0.duplicates.len() < DUPLICATES_MAX {
                let path = super::walk::named(&self.0.path);
                // A field that stands there three times is named once.
                if !self.0.duplicates.contains(&path) {
                    self.0.duplicates.push(path);
                }
            }
            self.0.path.truncate(kept);
        }
        self.0.depth -= 1;
        Ok(Value::Object(map))
    }
}
