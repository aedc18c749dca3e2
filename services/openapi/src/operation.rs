//! One method of one path.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use crate::schemas::Schemas;

/// The schema of every refusal.
const ERROR: &str = "#/components/schemas/Error";

/// What a status of ours means wherever it comes from.
fn meaning(status: u16) -> &'static str {
    match status {
        200 => "Done.",
        201 => "Made.",
        204 => "Done; there is nothing to tell.",
        206 => "Made; not all of it is shown.",
        302 => "Elsewhere.",
        400 => "The request cannot be read.",
        401 => "No valid credentials.",
        403 => "Known, and not allowed.",
        404 => "There is no such thing, or it is not the caller's.",
        405 => "The address does not answer to that method.",
        408 => "The body came too slowly.",
        409 => "The request clashes with what is there.",
        413 => "The body is longer than allowed.",
        415 => "The body is no JSON.",
        422 => "Readable, but its content is not acceptable.",
        429 => "Too many; `Retry-After` says when to come back.",
        500 => "A fault of ours.",
        501 => "Not supported.",
        502 => "Who had to be asked did not give a usable answer.",
        503 => "Busy, or something needed is away; `Retry-After` says when to come back.",
        504 => "Who had to be asked did not answer in time.",
        _ => "",
    }
}

/// One method of one path, as far as it is described.
#[derive(Debug)]
pub struct Operation<'a> {
    pub(crate) schemas: &'a mut Schemas,
    path: &'static str,
    summary: String,
    parameters: Vec<Value>,
    body: Option<Value>,
    /// One scheme per element; any of them will do.
    security: Vec<&'static str>,
    /// Nobody has to show who they are.
    open: bool,
    responses: BTreeMap<u16, Option<Value>>,
}

impl<'a> Operation<'a> {
    pub(crate) fn new(schemas: &'a mut Schemas, path: &'static str, summary: &str) -> Self {
        Self {
            schemas,
            path,
            summary: summary.to_owned(),
            parameters: Vec::new(),
            body: None,
            security: Vec::new(),
            open: false,
            responses: BTreeMap::new(),
        }
    }

    /// Statuses that its rules add, each in the system's error form.
    pub fn refuses(&mut self, statuses: &[u16]) -> &mut Self {
        let error = json!({ "$ref": ERROR });
        for status in statuses {
            self.responses.insert(*status, Some(error.clone()));
        }
        self
    }

    /// Answers with a body of this type.
    pub fn answers<T: JsonSchema>(&mut self, status: u16) -> &mut Self {
        let schema = self.schemas.written::<T>();
        self.responses.insert(status, Some(schema));
        self
    }

    /// Answers with a body that this schema describes.
    pub fn answers_with(&mut self, status: u16, schema: Value) -> &mut Self {
        self.responses.insert(status, Some(schema));
        self
    }

    /// Answers with plain text.
    pub fn answers_text(&mut self, status: u16) -> &mut Self {
        self.responses.insert(status, Some(json!({ "type": "string", "contentMediaType": "text/plain" })));
        self
    }

    /// Answers without a body.
    pub fn answers_nothing(&mut self, status: u16) -> &mut Self {
        self.responses.insert(status, None);
        self
    }

    /// Answers with this status in the place of the one that the handler's type suggests.
    ///
    /// # Panics
    /// When the type suggests none.
    pub fn status(&mut self, status: u16) -> &mut Self {
        let suggested: Vec<u16> = self.responses.keys().copied().filter(|status| *status < 300).collect();
        assert_eq!(suggested.len(), 1, "{}: the answer's type suggests no one status", self.path);
        let answer = self.responses.remove(&suggested[0]).flatten();
        self.responses.insert(status, answer);
        self
    }

    /// Reads a body of this type, where the handler's own type says less.
    pub fn reads<T: JsonSchema>(&mut self) -> &mut Self {
        let schema = self.schemas.read::<T>();
        self.reads_with(schema)
    }

    /// Reads a body that this schema describes.
    pub fn reads_with(&mut self, schema: Value) -> &mut Self {
        self.body = Some(schema);
        self
    }

    /// Reads a header that the handler looks up itself.
    pub fn header(&mut self, name: &str, description: &str) -> &mut Self {
        self.parameters.push(json!({
            "name": name, "in": "header", "required": false, "description": description,
            "schema": { "type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$" },
        }));
        self
    }

    /// Says more of a parameter than its type does.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn narrowed(&mut self, name: &str, schema: Value) -> &mut Self {
        let parameter = self.parameters.iter_mut().find(|parameter| parameter["name"] == name);
        let parameter = parameter.unwrap_or_else(|| panic!("{} has no parameter {name}", self.path));
        parameter["schema"] = schema;
        self
    }

    /// Wants one of these proofs of who asks.
    pub fn secured(&mut self, scheme: &'static str) -> &mut Self {
        if !self.security.contains(&scheme) {
            self.security.push(scheme);
        }
        self
    }

    /// Nobody has to show who they are, but whoever does must be right.
    pub(crate) fn optionally_secured(&mut self) {
        self.open = true;
    }

    /// Every field of a query type is a parameter.
    pub(crate) fn query<T: JsonSchema>(&mut self) {
        let schema = self.schemas.fields::<T>();
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let fields = schema["properties"].as_object().cloned().unwrap_or_default();
        for (name, mut field) in fields {
            let mut parameter =
                json!({ "name": name, "in": "query", "required": required.contains(&name.as_str()) });
            if let Some(description) =
                field.as_object_mut().and_then(|field| field.shift_remove("description"))
            {
                parameter["description"] = description;
            }
            parameter["schema"] = never_null(field);
            self.parameters.push(parameter);
        }
    }

    /// The one placeholder of the path is of this type.
    ///
    /// # Panics
    /// When the path has none.
    pub fn placeholder<T: JsonSchema>(&mut self) -> &mut Self {
        let name = self.path.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
        let name = name.map_or_else(|| panic!("{} has no placeholder", self.path), |(name, _)| name);
        let schema = self.schemas.read::<T>();
        self.parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": schema }));
        self
    }

    pub(crate) fn write(self, id: &str) -> Value {
        let mut operation = json!({ "operationId": id, "summary": self.summary });
        if !self.parameters.is_empty() {
            operation["parameters"] = self.parameters.into();
        }
        if let Some(schema) = self.body {
            operation["requestBody"] =
                json!({ "required": true, "content": { "application/json": { "schema": schema } } });
        }
        let mut security: Vec<Value> = self.security.iter().map(|scheme| json!({ (*scheme): [] })).collect();
        if self.open {
            security.push(json!({}));
        }
        operation["security"] = security.into();
        let responses: Map<String, Value> = self
            .responses
            .into_iter()
            .map(|(status, schema)| (status.to_string(), response(status, schema)))
            .collect();
        operation["responses"] = responses.into();
        operation
    }
}

fn response(status: u16, schema: Option<Value>) -> Value {
    let mut response = json!({ "description": meaning(status) });
    if let Some(schema) = schema {
        let kind = schema["contentMediaType"].as_str().unwrap_or("application/json").to_owned();
        response["content"] = json!({ kind: { "schema": schema } });
    }
    let of_error = response["content"]["application/json"]["schema"]["$ref"] == ERROR;
    if matches!(status, 429 | 503) && of_error {
        response["headers"] = json!({ "Retry-After": { "schema": { "type": "integer", "minimum": 1 } } });
    }
    response
}

/// A parameter that may be left out has no `null`: a query is text.
fn never_null(mut schema: Value) -> Value {
    if let Some(kinds) = schema.get_mut("type").and_then(Value::as_array_mut) {
        kinds.retain(|kind| kind != "null");
        if let [one] = kinds.as_slice() {
            schema["type"] = one.clone();
        }
    }
    if let Some(choices) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        choices.retain(|choice| choice["type"] != "null");
        if let [one] = choices.as_slice() {
            schema = one.clone();
        }
    }
    schema
}
