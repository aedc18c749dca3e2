//! What the OpenAPI document says of a product's fields beyond their types; of tests only.

use crate::product::{ATTRIBUTES_MAX, FIELD_MAX};

/// What is asked of a text's characters, but for the blanks.
pub(crate) const TEXT_PATTERN: &str = r"^[^\x00-\x1f\x7f-\x9f]*$";

/// The states that a client may ask for.
#[derive(schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum ClientsChoice {
    Active,
    Paused,
    Closed,
}

/// Attributes by name.
pub(crate) struct Attributes;

impl schemars::JsonSchema for Attributes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Attributes".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let text = serde_json::json!({
            "type": "string", "minLength": 1, "maxLength": FIELD_MAX, "pattern": TEXT_PATTERN,
        });
        schemars::json_schema!({
            "type": "object", "maxProperties": ATTRIBUTES_MAX, "propertyNames": text, "additionalProperties": text,
        })
    }
}
