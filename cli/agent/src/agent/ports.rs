//! Free ports for replicas.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};

use rand::Rng as _;

/// Where replicas listen: below the range from which the kernel takes ports for outgoing connections (32768 up, by
/// default), since those of a loaded relay would be in the way.
const RANGE: std::ops::Range<u16> = 20_000..32_000;
/// Tries before the kernel is asked for any free port.
const TRIES: u32 = 64;

/// Returns a port nobody listens on now. It may be taken before the replica binds it: a replica that ends before it
/// was ready gets another.
pub(super) fn free_port(rng: &mut impl rand::RngCore, taken: &BTreeSet<u16>) -> std::io::Result<u16> {
    for _ in 0..TRIES {
        let port = rng.random_range(RANGE);
        if !taken.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr().map(|address| address.port())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn ports_that_are_promised_or_in_use_are_not_given() {
        let first = free_port(&mut StdRng::seed_from_u64(7), &BTreeSet::new()).unwrap();
        assert!(RANGE.contains(&first));
        let promised = free_port(&mut StdRng::seed_from_u64(7), &BTreeSet::from([first])).unwrap();
        assert_ne!(promised, first);
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        assert_ne!(free_port(&mut StdRng::seed_from_u64(7), &BTreeSet::new()).unwrap(), first);
    }
}
