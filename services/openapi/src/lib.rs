//! OpenAPI 3.1 documents drawn from the handlers of a service.
//!
//! A handler's arguments say what it reads (a path, a query, a body, a token) and with which refusals; its answer says
//! what it gives. So a document is a list of handlers with a sentence each, and what the compiler cannot know: the
//! statuses that its rules add. It is drawn in tests only and committed as `openapi.json` beside the service, which
//! serves the committed text: the programs carry neither this package nor the schemas.
//!
//! Modules in reading order: [`document`] is the whole, [`operation`] one method of one path, [`parts`] what arguments
//! and answers say, `schemas` the types in both directions, [`committed`] the comparison with the file.

pub mod committed;
pub mod document;
pub mod operation;
pub mod parts;
mod schemas;

pub use document::Document;
pub use operation::Operation;
pub use parts::{Answers, Handler, Part};
