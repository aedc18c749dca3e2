//! Connections to upstreams that are used again for a moment.
//!
//! A connect costs about as much as the request it is for. But the stable address before each service is a relay whose
//! drain counts open connections: one that is kept holds an old replica open. So a connection is used for one second
//! from its making and then closed, whoever is on it: under load the connect vanishes from the bill, and a roll
//! waits a second longer at most.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;
use service_kit::Shutdown;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long a connection takes further requests, from its making. Shorter than any server's idea of an idle
/// connection, so that we are the ones who close it.
const LIFE: Duration = Duration::from_secs(1);
/// Time between two looks for those whose time is over.
const SWEEP_EVERY: Duration = Duration::from_millis(250);
/// Kept ones of one upstream at most.
const MOST: usize = 128;

/// A connection to an upstream; dropping it closes it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Body>,
    driver: JoinHandle<()>,
    made: Instant,
}

impl Connection {
    /// A connection made now, driven by that task.
    pub(crate) fn new(sender: SendRequest<Body>, driver: JoinHandle<()>) -> Self {
        Self { sender, driver, made: Instant::now() }
    }

    fn is_fresh(&self) -> bool {
        self.made.elapsed() < LIFE && !self.sender.is_closed()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The kept connections by address; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept(Arc<Mutex<HashMap<String, Vec<Connection>>>>);

impl Kept {
    /// A connection to this address that can take a request.
    pub(crate) async fn take(&self, address: &str) -> Option<Connection> {
        loop {
            // The one used last is the least likely to have been closed by the other side.
            let mut connection = self.0.lock().get_mut(address)?.pop()?;
            if connection.is_fresh() && connection.sender.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose answer was read to the end.
    pub(crate) fn keep(&self, address: &str, connection: Connection) {
        if !connection.is_fresh() {
            return;
        }
        let mut all = self.0.lock();
        match all.get_mut(address) {
            Some(kept) if kept.len() < MOST => kept.push(connection),
            Some(_) => {}
            None => {
                all.insert(address.to_owned(), vec![connection]);
            }
        }
    }

    /// Closes those whose time is over, and all of them at the end.
    pub(crate) async fn sweep(self, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.draining() => break,
                () = tokio::time::sleep(SWEEP_EVERY) => self.close_old(),
            }
        }
        self.0.lock().clear();
    }

    fn close_old(&self) {
        self.0.lock().retain(|_, kept| {
            kept.retain(Connection::is_fresh);
            !kept.is_empty()
        });
    }
}
