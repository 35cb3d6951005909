//! The list of keys as a JSON Schema, for editors.

use serde_json::{Map, Value, json};
use toml::de::DeValue;

use super::keys::{Absent, FILE, Key, Kind, Word};

/// A JSON Schema (draft 2020-12) of `tungate.toml`, made from the list of keys that [`load`](super::load) checks by:
/// `config schema`.
pub fn schema() -> String {
    let Value::Object(mut file) = object(FILE) else { unreachable!("a table is an object") };
    file.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    file.insert("title".into(), "tungate.toml".into());
    let mut text = serde_json::to_string_pretty(&file).expect("its keys are strings");
    text.push('\n');
    text
}

fn object(keys: &[Key]) -> Value {
    let available = || keys.iter().filter(|key| !matches!(key.kind, Kind::Later(_)));
    let properties: Map<String, Value> = available().map(|key| (key.name.to_string(), property(key))).collect();
    let required: Vec<_> = available().filter(|key| matches!(key.absent, Absent::Refused(_))).map(|k| k.name).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn property(key: &Key) -> Value {
    let text = || json!({ "type": "string" });
    let texts = || json!({ "type": "array", "items": { "type": "string" } });
    let integer = |least: i64, most: i64| json!({ "type": "integer", "minimum": least, "maximum": most });
    let mut schema = match &key.kind {
        Kind::Text => text(),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Integer(least, most) => integer(*least, *most),
        Kind::IntegerOr(least, most, word) => json!({ "anyOf": [integer(*least, *most), { "const": word }] }),
        Kind::Duration => json!({ "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$" }),
        Kind::Rate => json!({ "type": "string", "pattern": "^[0-9]+[kM]?/[smh]$" }),
        Kind::Word(words) => json!({ "enum": available(words) }),
        Kind::TextList => texts(),
        Kind::TextOrInteger => json!({ "anyOf": [text(), { "type": "integer" }] }),
        Kind::TextOrList => json!({ "anyOf": [text(), texts()] }),
        Kind::Table { keys, .. } => object(keys),
        Kind::Tables { keys, .. } => json!({ "type": "array", "items": object(keys) }),
        Kind::Later(_) => unreachable!("not among the available keys"),
    };
    schema["description"] = key.about.into();
    if let Absent::Default(toml) = key.absent {
        schema["default"] = default(toml);
    }
    schema
}

fn available(words: &[Word]) -> Vec<&'static str> {
    words.iter().filter(|word| word.later.is_none()).map(|word| word.word).collect()
}

/// A default of the list: a string, an integer, a flag or an empty list.
fn default(toml: &str) -> Value {
    let value = DeValue::parse(toml).expect("a default of the list is TOML").into_inner();
    if let Some(integer) = value.as_integer() {
        let number = i64::from_str_radix(integer.as_str(), integer.radix());
        return number.expect("a default of the list is within its limits").into();
    }
    if let Some(flag) = value.as_bool() {
        return flag.into();
    }
    value.as_str().map_or_else(|| json!([]), Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_knows_the_keys_of_the_example_and_no_later_ones() {
        let schema: Value = serde_json::from_str(&schema()).unwrap();
        let example: toml::Value = toml::from_str(crate::config::example()).unwrap();
        assert_knows(&schema, &serde_json::to_value(example).unwrap());
        assert!(schema["properties"]["timeouts"]["properties"]["icmp"].is_null());
        assert_eq!(schema["properties"]["gateway"]["properties"]["mtu"]["default"], 1500);
        assert_eq!(schema["properties"]["service"]["items"]["required"], json!(["name", "listen", "backends"]));
    }

    /// Every key of the value is a property of the schema.
    #[track_caller]
    fn assert_knows(schema: &Value, value: &Value) {
        for entry in value.as_array().into_iter().flatten().filter(|entry| entry.is_object()) {
            assert_knows(&schema["items"], entry);
        }
        for (key, value) in value.as_object().into_iter().flatten() {
            assert!(schema["properties"][key].is_object(), "{key}");
            assert_knows(&schema["properties"][key], value);
        }
    }
}
