//! The service as its clients see it: in this process, over HTTP on a free port, with its stores in a temporary folder.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what is not as expected here fails the test")]

mod erasure;
mod events;
mod items;
mod kafka;
mod once;
mod outage;
mod products;
mod running;
