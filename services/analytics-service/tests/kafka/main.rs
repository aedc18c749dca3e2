//! Counting from a real Kafka: what the database says in the end equals what the topic says from its beginning.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what is not as expected here fails the test")]

mod consuming;
mod killed;
mod world;
