//! The way to the server: a bounded pool of the driver, opened when it is first needed, and what it tells of itself.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mongodb::event::EventHandler;
use mongodb::event::cmap::CmapEvent;
use mongodb::options::{ClientOptions, ServerAddress, WriteConcern};
use mongodb::{Client, Database};
use secrecy::{ExposeSecret as _, SecretString};
use service_kit::pools::{ConnectionPool, Measures};

use crate::IDENTITY;

/// How long a call waits for a server that may take it; the driver's own 30 s would hold every request of an outage.
const SELECTION_TIMEOUT: Duration = Duration::from_millis(2_500);
/// Longest attempt to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that idled longer is closed: firewalls forget such connections without telling.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// The database, where the address names none.
const DATABASE: &str = "catalog";

/// The address cannot be read. What it says is not repeated: it may hold a password.
#[derive(Debug, thiserror::Error)]
#[error(
    "the address of MongoDB cannot be read; expected mongodb://[USER:PASSWORD@]HOST[:PORT][,HOST...][/NAME]"
)]
pub(super) struct Address;

/// The driver's pool, as the metrics see it. The driver has one per server; all work goes to the primary.
pub struct MongoPool {
    size: u32,
    measures: Measures,
    /// Connections given out. A set, because a connection can come back twice over: into the pool, and closed with it.
    out: Mutex<HashSet<(ServerAddress, u32)>>,
}

impl fmt::Debug for MongoPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MongoPool({} of {} in use)", self.active(), self.size)
    }
}

impl ConnectionPool for MongoPool {
    fn store(&self) -> &'static str {
        "mongodb"
    }

    fn size(&self) -> usize {
        self.size as usize
    }

    fn measures(&self) -> &Measures {
        &self.measures
    }
}

impl MongoPool {
    fn new(size: u32) -> Self {
        Self { size, measures: Measures::default(), out: Mutex::default() }
    }

    /// Connections in use at this moment.
    #[must_use]
    pub fn active(&self) -> usize {
        self.out.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn note(&self, event: CmapEvent) {
        match event {
            CmapEvent::ConnectionCheckedOut(event) => {
                self.measures.waited(event.duration.as_secs_f64());
                self.given((event.address, event.connection_id));
            }
            CmapEvent::ConnectionCheckoutFailed(event) => {
                self.measures.waited(event.duration.as_secs_f64());
            }
            CmapEvent::ConnectionCheckedIn(event) => self.back(&(event.address, event.connection_id)),
            CmapEvent::ConnectionClosed(event) => self.back(&(event.address, event.connection_id)),
            _ => {}
        }
    }

    fn given(&self, connection: (ServerAddress, u32)) {
        if self.out.lock().unwrap_or_else(PoisonError::into_inner).insert(connection) {
            self.measures.active(1.0);
        }
    }

    fn back(&self, connection: &(ServerAddress, u32)) {
        if self.out.lock().unwrap_or_else(PoisonError::into_inner).remove(connection) {
            self.measures.active(-1.0);
        }
    }
}

/// The database that `url` names, and the pool in front of it, of at most `size` connections unless the address says
/// otherwise (`maxPoolSize`). Opens nothing yet, so a service starts while its database is away.
pub(super) async fn open(url: &SecretString, size: u32) -> Result<(Database, Arc<MongoPool>), Address> {
    let mut options = ClientOptions::parse(url.expose_secret()).await.map_err(|_| Address)?;
    options.app_name.get_or_insert_with(|| IDENTITY.name.to_owned());
    let size = *options.max_pool_size.get_or_insert(size.max(1));
    options.connect_timeout.get_or_insert(CONNECT_TIMEOUT);
    options.server_selection_timeout.get_or_insert(SELECTION_TIMEOUT);
    options.max_idle_time.get_or_insert(IDLE_MAX);
    // What was answered as stored survives the loss of the primary.
    options.write_concern.get_or_insert_with(WriteConcern::majority);
    let pool = Arc::new(MongoPool::new(size));
    let noting = Arc::clone(&pool);
    options.cmap_event_handler = Some(EventHandler::callback(move |event| noting.note(event)));
    let name = options.default_database.clone().unwrap_or_else(|| DATABASE.to_owned());
    let client = Client::with_options(options).map_err(|_| Address)?;
    Ok((client.database(&name), pool))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn opened(url: &str) -> Result<(Database, Arc<MongoPool>), Address> {
        open(&SecretString::from(url.to_owned()), 10).await
    }

    #[tokio::test]
    async fn the_address_decides_before_the_defaults() {
        let (database, pool) = opened("mongodb://127.0.0.1:9").await.unwrap();
        assert_eq!((database.name(), pool.size()), ("catalog", 10));
        let (database, pool) = opened("mongodb://a:1,b:2/ml_ecosystem?maxPoolSize=3").await.unwrap();
        assert_eq!((database.name(), pool.size()), ("ml_ecosystem", 3));
    }

    #[tokio::test]
    async fn a_wrong_address_keeps_its_password() {
        let error = opened("mongodb://user:hunter2@h:port/").await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[test]
    fn a_connection_counts_until_it_is_back_or_closed() {
        let pool = MongoPool::new(2);
        let connection = |id| (ServerAddress::parse("h:1").unwrap(), id);
        pool.given(connection(1));
        pool.given(connection(2));
        assert_eq!(pool.active(), 2);
        pool.back(&connection(1));
        pool.back(&connection(1));
        assert_eq!(pool.active(), 1, "coming back and being closed is one return");
    }
}
