//! The bound of a login: the argon2id hash that it has to compute, with its memory at hand.

use std::time::Duration;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

/// The minimum that OWASP recommends, and the cost user-service hashes with: 19 MiB, 2 passes, 1 lane.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;

/// CPU time of one hash, of so many.
pub fn hash_alone(count: u32) -> Result<Duration, String> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, Some(32)).map_err(|error| error.to_string())?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut memory = vec![Block::default(); argon2.params().block_count()];
    let mut out = [0; 32];
    let mut hash = |salt: u32| {
        argon2
            .hash_password_into_with_memory(
                b"correct horse battery staple",
                &[salt.to_le_bytes(); 4].concat(),
                &mut out,
                &mut memory,
            )
            .map_err(|error| error.to_string())
    };
    hash(0)?;
    let before = own()?;
    for salt in 1..=count {
        hash(salt)?;
    }
    Ok((own()? - before) / count)
}

/// CPU time of this thread.
fn own() -> Result<Duration, String> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).map_err(|error| error.to_string())?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros).unwrap_or_default()))
}
