//! The schemas of types: one generator for what is read, one for what is written, one list of named ones.

use schemars::JsonSchema;
use schemars::generate::{Contract, SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value};

/// Where a document keeps named schemas.
const PLACE: &str = "/components/schemas";

/// Draws schemas; a named type is drawn once.
#[derive(Debug)]
pub(crate) struct Schemas {
    read: SchemaGenerator,
    written: SchemaGenerator,
}

impl Schemas {
    pub(crate) fn new() -> Self {
        let settings =
            || SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = PLACE.into());
        Self {
            read: settings().with(|settings| settings.contract = Contract::Deserialize).into_generator(),
            written: settings().with(|settings| settings.contract = Contract::Serialize).into_generator(),
        }
    }

    /// The schema of what a client sends.
    pub(crate) fn read<T: JsonSchema>(&mut self) -> Value {
        self.read.subschema_for::<T>().to_value()
    }

    /// The schema of what a client gets.
    pub(crate) fn written<T: JsonSchema>(&mut self) -> Value {
        self.written.subschema_for::<T>().to_value()
    }

    /// The schema of a type itself, named or not, for its fields.
    pub(crate) fn fields<T: JsonSchema>(&mut self) -> Value {
        T::json_schema(&mut self.read).to_value()
    }

    /// Every named schema.
    ///
    /// # Panics
    /// When a type is read in another form than it is written: give the two forms two types.
    pub(crate) fn named(mut self) -> Map<String, Value> {
        let mut named: Map<String, Value> = self.read.take_definitions(true);
        for (name, schema) in self.written.take_definitions(true) {
            let read = named.insert(name.clone(), schema.clone());
            assert!(read.is_none_or(|read| read == schema), "{name} is read and written in two forms");
        }
        named.sort_keys();
        named
    }
}
