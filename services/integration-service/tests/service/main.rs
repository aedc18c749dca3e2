//! integration-service in process, against the simulated MercadoLibre and a catalog that takes notes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test stops at the first surprise, also in what its cases share"
)]

mod attacks;
mod bench;
mod flood;
mod journey;
mod listing;
mod publish;
mod resilience;
mod tokens;
mod webhook;
