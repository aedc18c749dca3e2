//! JSON Schema (draft 2020-12) of a kind, for editors.

use serde_json::{Map, Value as Json, json};

use super::shape::{Kind, Presence, Struct};

/// Returns the JSON Schema of a file whose root is `root`. `id` is the schema's identifier.
///
/// It accepts whatever the validator accepts; rules that span keys (cycles, clashing ports) are the validator's.
pub fn json_schema(root: &'static Struct, id: &str) -> Json {
    let mut definitions = Map::new();
    let mut schema = structure(root, false, &mut definitions);
    if let Some(object) = schema.as_object_mut() {
        let head = [
            ("$schema", json!("https://json-schema.org/draft/2020-12/schema")),
            ("$id", json!(id)),
            ("title", json!(root.name)),
        ];
        for (index, (key, value)) in head.into_iter().enumerate() {
            object.shift_insert(index, key.to_owned(), value);
        }
        definitions.sort_keys();
        object.insert("$defs".to_owned(), Json::Object(definitions));
    }
    schema
}

fn value(kind: &Kind, partial: bool, definitions: &mut Map<String, Json>) -> Json {
    match kind {
        Kind::Json => json!({}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Int { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        // Numbers and booleans without quotes are read as the text they stand for.
        Kind::Text(rule) => match rule.pattern {
            Some(pattern) => json!({"type": ["string", "number", "boolean"], "pattern": pattern}),
            None => json!({"type": ["string", "number", "boolean"]}),
        },
        Kind::Unit(rule) => {
            json!({"type": ["string", "number"], "pattern": rule.pattern, "description": rule.expected})
        }
        Kind::Choice(choices) => {
            let forms: Vec<_> = choices
                .iter()
                .map(|choice| json!({"const": choice.word, "description": choice.doc}))
                .collect();
            json!({"oneOf": forms})
        }
        Kind::List { of, min } => {
            json!({"type": "array", "items": value(of, false, definitions), "minItems": min})
        }
        Kind::Map { key, of } => {
            let mut schema =
                json!({"type": "object", "additionalProperties": value(of, partial, definitions)});
            if let (Some(pattern), Some(object)) = (key.pattern, schema.as_object_mut()) {
                object.insert("propertyNames".to_owned(), json!({"pattern": pattern}));
            }
            schema
        }
        Kind::Struct(shape) => reference(shape, partial, definitions),
        Kind::Partial(shape) => reference(shape, true, definitions),
        Kind::OneOf(one_of) => {
            let forms: Vec<_> = one_of.forms.iter().map(|form| value(form, false, definitions)).collect();
            json!({"anyOf": forms, "description": one_of.expected})
        }
    }
}

/// A reference to the definition of a struct, made on first sight.
fn reference(shape: &Struct, partial: bool, definitions: &mut Map<String, Json>) -> Json {
    let name = if partial { format!("{}-part", shape.name) } else { shape.name.to_owned() };
    if !definitions.contains_key(&name) {
        // Held by a blank first, so that a shape that refers to itself ends.
        definitions.insert(name.clone(), Json::Null);
        let schema = structure(shape, partial, definitions);
        definitions.insert(name.clone(), schema);
    }
    json!({"$ref": format!("#/$defs/{name}")})
}

fn structure(shape: &Struct, partial: bool, definitions: &mut Map<String, Json>) -> Json {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in shape.keys {
        let mut property = value(&key.kind, partial, definitions);
        if let Some(object) = property.as_object_mut() {
            object.insert("description".to_owned(), json!(key.doc));
            if let (Presence::Default(text), false) = (key.presence, partial) {
                object.insert("default".to_owned(), default(text, &key.kind));
            }
        }
        properties.insert(key.name.to_owned(), property);
        if key.presence == Presence::Required && !partial {
            required.push(key.name);
        }
    }
    let mut schema = json!({
        "type": "object",
        "description": shape.doc,
        "properties": properties,
        "additionalProperties": false,
    });
    if let Some(object) = schema.as_object_mut() {
        if !required.is_empty() {
            object.insert("required".to_owned(), json!(required));
        }
        if let (Some(group), false) = (shape.one_of, partial) {
            let each: Vec<_> = group.keys.iter().map(|key| json!({"required": [key]})).collect();
            object.insert("oneOf".to_owned(), json!(each));
        }
    }
    schema
}

fn default(text: &str, kind: &Kind) -> Json {
    match kind {
        Kind::Bool => json!(text == "true"),
        Kind::Int { .. } => text.parse::<i64>().map_or_else(|_| json!(text), |number| json!(number)),
        _ => json!(text),
    }
}
