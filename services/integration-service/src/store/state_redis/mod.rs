//! The state that replicas share, on Redis: limits on a server that keeps what it has ([`RedisLimits`]), caches on one
//! that may evict anything at any time ([`RedisCache`]).

mod cache;
mod limits;

pub use cache::RedisCache;
pub use limits::RedisLimits;

use service_kit::redis::RedisError;

use super::StoreError;

fn failed(operation: &'static str, error: RedisError) -> StoreError {
    StoreError { operation, busy: error.is_away(), source: Box::new(error) }
}

#[cfg(test)]
mod tests;
