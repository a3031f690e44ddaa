//! What a table of custom objects shows beside their names.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::path::{JsonPath, printed};
use crate::time;

/// A column, as a definition's `additionalPrinterColumns` has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    pub format: String,
    pub description: String,
    pub priority: i64,
    path: JsonPath,
}

/// What stands in a cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// As it is; null where there is nothing to show.
    Value(Value),
    /// How long ago this was.
    Since(Timestamp),
}

impl Column {
    /// The columns of a version: its own, up to the first whose path cannot be read; or the age where it has none.
    pub fn all(columns: &[Value]) -> Vec<Column> {
        let age = [json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"})];
        let columns = if columns.is_empty() { &age[..] } else { columns };
        columns.iter().map_while(Column::read).collect()
    }

    fn read(column: &Value) -> Option<Column> {
        let text = |key: &str| column.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let path = text("jsonPath");
        let description = match text("description") {
            described if !described.is_empty() => described,
            _ => format!("Custom resource definition column (in JSONPath format): {path}"),
        };
        Some(Column {
            name: text("name"),
            kind: text("type"),
            format: text("format"),
            description,
            priority: column.get("priority").and_then(Value::as_i64).unwrap_or(0),
            path: JsonPath::parse(&path).ok()?,
        })
    }

    /// The column in a table's head.
    pub fn head(&self) -> Value {
        json!({"name": self.name, "type": self.kind, "format": self.format, "description": self.description,
            "priority": self.priority})
    }

    /// What an object shows. Of several values that the path finds it is the first.
    pub fn cell(&self, object: &Value) -> Cell {
        let Some(found) = self.path.find(object).into_iter().next() else { return Cell::Value(Value::Null) };
        let shown = match (self.kind.as_str(), found) {
            ("string", found) => Value::from(printed(found)),
            ("integer", Value::Number(number)) => match number.as_i64() {
                Some(_) => found.clone(),
                // As Go turns a float into an integer.
                None => number.as_f64().map_or(Value::Null, |float| Value::from(float as i64)),
            },
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => found.clone(),
            ("date", Value::String(text)) => match time::parse(text) {
                Ok(at) => return Cell::Since(at),
                Err(_) => Value::from("<invalid>"),
            },
            _ => Value::Null,
        };
        Cell::Value(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_show_what_their_type_can() {
        let object = json!({"metadata": {"creationTimestamp": "2026-01-02T03:04:05Z"}, "spec": {"n": 3, "f": 1.5, "s": "x",
            "b": true, "l": [1, 2]}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let cell = |kind: &str, path: &str| {
            let columns = Column::all(&[json!({"name": "A", "type": kind, "jsonPath": path})]);
            columns[0].cell(&object)
        };
        let value = |value: Value| Cell::Value(value);
        assert_eq!(cell("integer", ".spec.n"), value(json!(3)));
        assert_eq!(cell("integer", ".spec.f"), value(json!(1)));
        assert_eq!(cell("number", ".spec.f"), value(json!(1.5)));
        assert_eq!(cell("string", ".spec.n"), value(json!("3")));
        assert_eq!(cell("string", ".spec.l"), value(json!("[1,2]")));
        assert_eq!(cell("string", ".status.conditions[?(@.type==\"Ready\")].status"), value(json!("True")));
        assert_eq!(cell("boolean", ".spec.b"), value(json!(true)));
        assert_eq!(cell("integer", ".spec.s"), value(Value::Null));
        assert_eq!(cell("string", ".spec.none"), value(Value::Null));
        assert_eq!(cell("date", ".spec.s"), value(json!("<invalid>")));
        let at = time::parse("2026-01-02T03:04:05Z").unwrap();
        assert_eq!(cell("date", ".metadata.creationTimestamp"), Cell::Since(at));
    }

    #[test]
    fn a_version_without_columns_shows_the_age() {
        assert_eq!(Column::all(&[])[0].head()["name"], "Age");
        let odd = [
            json!({"name": "A", "type": "string", "jsonPath": ".a"}),
            json!({"name": "B", "type": "string", "jsonPath": ".a["}),
        ];
        assert_eq!(Column::all(&odd).len(), 1);
    }
}
