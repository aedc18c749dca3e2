//! Free ports for a system's stable addresses.

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::{Mutex, OnceLock};

/// Below the ports that the agent gives its replicas (20000 up) and the kernel gives clients (32768 up): nobody takes
/// one between here and its use.
const RANGE: std::ops::Range<u16> = 10_000..19_900;

/// Returns ports that nobody listens on and that no other call in this process was given.
///
/// # Panics
/// When there are not that many.
#[must_use]
pub fn free_ports(count: usize) -> Vec<u16> {
    static GIVEN: OnceLock<Mutex<HashSet<u16>>> = OnceLock::new();
    let mut given = GIVEN.get_or_init(Mutex::default).lock().unwrap();
    // Suites of one machine start in different places, so that two of them hardly ever meet.
    let start = RANGE.start + u16::try_from(std::process::id() % 450).unwrap() * 20;
    let candidates = (start..RANGE.end).chain(RANGE.start..start);
    let free = |port: &u16| !given.contains(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let ports: Vec<u16> = candidates.filter(free).take(count).collect();
    assert_eq!(ports.len(), count, "no {count} free ports in {RANGE:?}");
    given.extend(&ports);
    ports
}
