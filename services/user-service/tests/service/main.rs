//! user-service in process: on a free port, over temporary stores, with a clock that tests move and an
//! integration-service that tests script.
#![expect(clippy::unwrap_used, reason = "a test that cannot prepare its world should stop there")]

mod accounts;
mod attacks;
mod connections;
mod contract;
mod follow_ups;
mod guards;
mod operations;
mod postgresql;
mod support;
