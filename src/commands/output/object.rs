//! A JSON object whose members keep the order in which they were added.

use base64::Engine as _;
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::Value;

/// An ordered JSON object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(Vec<(String, Value)>);

impl Object {
    /// Begins a document: its first member is the name of its schema.
    pub fn document(schema: &str) -> Self {
        let mut object = Self::default();
        object.add("schema", schema);
        object
    }

    /// Adds a member.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<Value>) -> &mut Self {
        self.0.push((name.into(), value.into()));
        self
    }

    /// Returns the members in order.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Adds bytes: as `name` where they are UTF-8, else as `name_b64`.
    pub fn add_bytes(&mut self, name: &str, bytes: &[u8]) -> &mut Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.add(name, text),
            Err(_) => self.add(
                format!("{name}_b64"),
                base64::engine::general_purpose::STANDARD.encode(bytes),
            ),
        }
    }
}

impl From<Object> for Value {
    /// Its members go into a value's map, which orders them by name.
    fn from(object: Object) -> Self {
        Self::Object(object.0.into_iter().collect())
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order() {
        let mut object = Object::document("prkdb.x/1");
        object.add("b", 1).add("a", Value::Null).add_bytes("key", b"\0\xff\n");
        assert_eq!(
            serde_json::to_string(&object).unwrap(),
            r#"{"schema":"prkdb.x/1","b":1,"a":null,"key_b64":"AP8K"}"#
        );
    }
}
