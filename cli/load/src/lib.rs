//! The load engine: sends a profile's requests when they are due, whatever the answers do, and judges the result.
//!
//! The loop is open. Request `k` is due at a time that only the profile decides, and its latency counts from then:
//! a server that stops for half a second is seen to have been late for everybody who came meanwhile. A slot that no
//! connection could take in time is a failure (`not_sent`), never a silence.
//!
//! Modules in reading order: [`schedule`] says when, `template` and `script` say what, `origin` and `connection`
//! send it, `engine` keeps the pace, `recorder` counts, [`bound`] and `verdict` judge, [`summary`] makes rows for
//! people. [`HttpLoadRunner`] puts them together. Nothing here knows an orchestrator or prints.
//!
//! Failures are told apart by class in a report:
//!
//! | class | what happened |
//! |---|---|
//! | `status_NNN` | an error status that was not expected |
//! | `unexpected_status` | another status that was not expected |
//! | `timeout` | no whole answer in time; counted at its age |
//! | `refused`, `connect` | no connection: nobody listens, or another reason |
//! | `reset` | the connection broke before a whole answer |
//! | `reset_on_reuse` | the same on a connection that had served before, which HTTP/1.1 cannot rule out |
//! | `short_body`, `bad_response` | fewer bytes than announced; bytes that are not HTTP |
//! | `not_sent` | due, but no connection took it in time: each was busy |
//! | `client_exhausted`, `invalid_request` | this client's own: no port or descriptor left, a value that does not fit |

pub mod bound;
mod connection;
mod engine;
mod failure;
mod origin;
mod recorder;
mod runner;
pub mod schedule;
mod script;
mod session;
pub mod summary;
mod template;
mod verdict;

pub use runner::HttpLoadRunner;
