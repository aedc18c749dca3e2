//! What every pool of connections tells of itself, whatever server it leads to.

use std::sync::OnceLock;

use crate::metrics::{DURATION_BUCKETS, Gauges, Histograms, Metrics};

/// A bounded set of connections to one store.
pub trait ConnectionPool: Send + Sync {
    /// Its name in metrics and errors, such as `postgresql`.
    fn store(&self) -> &'static str;

    /// Connections at most.
    fn size(&self) -> usize;

    /// Where it keeps what it tells.
    fn measures(&self) -> &Measures;
}

/// The series of one pool; silent until it is registered.
#[derive(Default)]
pub struct Measures(OnceLock<Series>);

struct Series {
    store: &'static str,
    active: Gauges,
    waits: Histograms,
}

impl Measures {
    /// A connection was given out (1) or came back (-1).
    pub fn active(&self, change: f64) {
        if let Some(series) = self.0.get() {
            series.active.add(&[series.store], change);
        }
    }

    /// A call waited so long for a connection, in seconds.
    pub fn waited(&self, seconds: f64) {
        if let Some(series) = self.0.get() {
            series.waits.observe(&[series.store], seconds);
        }
    }
}

/// Registers `database_connections_active`, `database_connections_max` and `database_acquire_wait_seconds` for these
/// pools. Call it once per service, with all its pools.
pub fn register(metrics: &Metrics, pools: &[&dyn ConnectionPool]) {
    let names: Vec<[&str; 1]> = pools.iter().map(|pool| [pool.store()]).collect();
    let series: Vec<&[&str]> = names.iter().map(|name| &name[..]).collect();
    let active = metrics.gauge("database_connections_active", "Connections in use", &["store"], &series);
    let max = metrics.gauge("database_connections_max", "Connections at most", &["store"], &series);
    let waits = metrics.histogram(
        "database_acquire_wait_seconds",
        "Time until a connection was free",
        &["store"],
        &DURATION_BUCKETS,
        &series,
    );
    for pool in pools {
        #[expect(clippy::cast_precision_loss, reason = "a handful of connections")]
        max.set(&[pool.store()], pool.size() as f64);
        // A second registration would measure into a registry that nobody scrapes: the first one stays.
        pool.measures().0.get_or_init(|| Series {
            store: pool.store(),
            active: active.clone(),
            waits: waits.clone(),
        });
    }
}
