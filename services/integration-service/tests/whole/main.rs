//! Every service of the system in one process, each knowing the others, and what may be seen of them from outside: their
//! traces, and no secret. A program of its own, because the logs of a whole process are looked at.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise, also in what its cases share")]

mod secrets;
mod system;
mod traces;
