//! Which connections go where, and how many are open.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mlctl_core::local_protocol::SocketMode;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{Backend, Front, forward};

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: u32 = 4096;

/// All listening addresses.
#[derive(Default)]
pub(super) struct Table {
    /// What was last asked for. Held while it is put in force.
    wanted: tokio::sync::Mutex<Wanted>,
    entries: Mutex<BTreeMap<String, Entry>>,
    open: Arc<Mutex<HashMap<String, Arc<AtomicUsize>>>>,
}

/// A table as it was asked for.
#[derive(Default)]
struct Wanted {
    fronts: Vec<Front>,
    /// True when some port of it could not be taken.
    lacking: bool,
}

struct Entry {
    port: u16,
    routes: Arc<Routes>,
    socket: Bound,
}

enum Bound {
    /// We accept.
    Relay(JoinHandle<()>),
    /// Others accept.
    Passed(std::net::TcpListener),
}

/// The ready replicas of one service.
pub(super) struct Routes {
    backends: Mutex<Vec<Backend>>,
    turn: AtomicUsize,
    open: Arc<Mutex<HashMap<String, Arc<AtomicUsize>>>>,
    /// Told at every change, for connections that wait for a replica.
    pub(super) changed: Notify,
}

/// A chosen replica; counted as open until dropped.
pub(super) struct Chosen {
    pub(super) replica: String,
    pub(super) address: SocketAddr,
    open: Arc<AtomicUsize>,
}

impl Drop for Chosen {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A panic while one of these is held leaves maps that are whole all the same.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Routes {
    /// Chooses the replica with the fewest open connections, in turn among equals, and counts it before anybody can
    /// ask for the count. `tried` are left out.
    pub(super) fn choose(&self, tried: &[String]) -> Option<Chosen> {
        let backends = hold(&self.backends);
        let mut open = hold(&self.open);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = backends.len();
        let (backend, counter) = (0..count)
            .map(|offset| &backends[(turn + offset) % count])
            .filter(|backend| !tried.contains(&backend.replica))
            .map(|backend| (backend, open.entry(backend.replica.clone()).or_default().clone()))
            .min_by_key(|(_, counter)| counter.load(Ordering::Acquire))?;
        counter.fetch_add(1, Ordering::AcqRel);
        Some(Chosen {
            replica: backend.replica.clone(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, backend.port)),
            open: counter,
        })
    }
}

impl Table {
    /// Makes this the whole table; returns why ports could not be taken, by service. Connections that are open stay.
    /// A service that moves to another port keeps its old one until it has the new one.
    pub(super) async fn set(&self, fronts: Vec<Front>) -> BTreeMap<String, String> {
        let mut wanted = self.wanted.lock().await;
        wanted.fronts.clone_from(&fronts);
        let failed = self.put_in_force(fronts).await;
        wanted.lacking = !failed.is_empty();
        failed
    }

    /// Tries again what could not be taken: whoever has a port may have ended meanwhile.
    pub(super) async fn retry(&self) {
        let mut wanted = self.wanted.lock().await;
        if wanted.lacking {
            wanted.lacking = !self.put_in_force(wanted.fronts.clone()).await.is_empty();
        }
    }

    async fn put_in_force(&self, fronts: Vec<Front>) -> BTreeMap<String, String> {
        self.close(|service, entry| !fronts.iter().any(|f| f.service == service && entry.stays(f, &fronts)))
            .await;
        let mut failed = BTreeMap::new();
        for front in fronts {
            if let Some(entry) = hold(&self.entries).get(&front.service) {
                hold(&entry.routes.backends).clone_from(&front.backends);
                entry.routes.changed.notify_waiters();
                if entry.port == front.port {
                    continue;
                }
            }
            match bind(front.port) {
                Ok(listener) => {
                    self.close(|service, _| service == front.service).await;
                    self.add(front, listener, &mut failed);
                }
                Err(error) => {
                    failed.insert(front.service, error.to_string());
                }
            }
        }
        hold(&self.open)
            .retain(|_, counter| Arc::strong_count(counter) > 1 || counter.load(Ordering::Acquire) > 0);
        failed
    }

    /// Closes the listening sockets of some services.
    async fn close(&self, closes: impl Fn(&str, &Entry) -> bool) {
        let closed: Vec<Entry> = {
            let mut entries = hold(&self.entries);
            let gone: Vec<String> = entries
                .iter()
                .filter(|(service, entry)| closes(service.as_str(), entry))
                .map(|(service, _)| service.clone())
                .collect();
            gone.iter().filter_map(|service| entries.remove(service)).collect()
        };
        for entry in closed {
            if let Bound::Relay(task) = entry.socket {
                task.abort();
                // The port is free once the task is gone, not before.
                let _ = task.await;
            }
        }
    }

    fn add(&self, front: Front, listener: TcpListener, failed: &mut BTreeMap<String, String>) {
        let routes = self.routes(front.backends);
        let socket = match front.mode {
            // A port that is its program's own is in no table.
            SocketMode::Relay | SocketMode::Own => {
                Bound::Relay(tokio::spawn(forward::accept(listener, Arc::clone(&routes))))
            }
            SocketMode::Passed => match listener.into_std() {
                Ok(listener) => Bound::Passed(listener),
                Err(error) => {
                    failed.insert(front.service, error.to_string());
                    return;
                }
            },
        };
        hold(&self.entries).insert(front.service, Entry { port: front.port, routes, socket });
    }

    fn routes(&self, backends: Vec<Backend>) -> Arc<Routes> {
        Arc::new(Routes {
            backends: Mutex::new(backends),
            turn: AtomicUsize::new(0),
            open: Arc::clone(&self.open),
            changed: Notify::new(),
        })
    }

    /// Takes over the bound socket of a service that others accept for; one that has its socket needs no other. What
    /// the table does not ask for is refused: nobody would ever close it.
    pub(super) async fn take(
        &self,
        service: String,
        port: u16,
        socket: Option<OwnedFd>,
    ) -> Result<(), String> {
        let socket = socket.ok_or("no descriptor came with the request")?;
        let listener = std::net::TcpListener::from(socket);
        match listener.local_addr() {
            Ok(address) if address.port() == port => {}
            _ => return Err(format!("that is no socket of port {port}")),
        }
        let wanted = self.wanted.lock().await;
        let asked = |f: &Front| f.service == service && f.port == port && f.mode == SocketMode::Passed;
        if !wanted.fronts.iter().any(asked) {
            return Err(format!("no passed socket of {service} on port {port} is asked for"));
        }
        let entry = Entry { port, routes: self.routes(Vec::new()), socket: Bound::Passed(listener) };
        hold(&self.entries).entry(service).or_insert(entry);
        Ok(())
    }

    /// Returns the open connections by replica, those without left out.
    pub(super) fn open(&self) -> BTreeMap<String, usize> {
        hold(&self.open)
            .iter()
            .map(|(replica, counter)| (replica.clone(), counter.load(Ordering::Acquire)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Returns a copy of the socket that the service's replicas accept from. Never that of another port: a replica that
    /// was made for the new port of a service would accept on the old one, and nobody would see it.
    pub(super) fn passed_socket(&self, service: &str, port: u16) -> Result<OwnedFd, String> {
        let entries = hold(&self.entries);
        let Some(entry) = entries.get(service) else { return Err(format!("nothing listens for {service}")) };
        match &entry.socket {
            Bound::Relay(_) => Err(format!("connections of {service} are relayed")),
            Bound::Passed(_) if entry.port != port => {
                Err(format!("{service} listens on port {}, not on {port}", entry.port))
            }
            Bound::Passed(listener) => listener.try_clone().map(OwnedFd::from).map_err(|e| e.to_string()),
        }
    }
}

impl Entry {
    /// Says whether its socket is of use for a front of the same service: it is the very one, or it can serve until
    /// the new port is had and nobody else is to have the old one.
    fn stays(&self, front: &Front, fronts: &[Front]) -> bool {
        let wanted = fronts.iter().any(|other| other.port == self.port && other.service != front.service);
        self.mode() == front.mode && (self.port == front.port || !wanted)
    }

    const fn mode(&self) -> SocketMode {
        match self.socket {
            Bound::Relay(_) => SocketMode::Relay,
            Bound::Passed(_) => SocketMode::Passed,
        }
    }
}

fn bind(port: u16) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // A relay that takes over finds connections of its predecessor in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(names: &[&str]) -> Routes {
        let backends = names.iter().map(|n| Backend { replica: (*n).to_owned(), port: 1 }).collect();
        Routes {
            backends: Mutex::new(backends),
            turn: AtomicUsize::new(0),
            open: Arc::default(),
            changed: Notify::new(),
        }
    }

    #[test]
    fn the_least_loaded_is_chosen_and_equals_take_turns() {
        let routes = routes(&["a", "b", "c"]);
        let first: Vec<Chosen> = (0..3).map(|_| routes.choose(&[]).unwrap()).collect();
        let mut names: Vec<_> = first.iter().map(|c| c.replica.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["a", "b", "c"]);
        let held: Vec<Chosen> = first.into_iter().filter(|c| c.replica != "b").collect();
        assert_eq!(routes.choose(&[]).unwrap().replica, "b");
        assert_eq!(held.len(), 2);
        assert!(routes.choose(&["a".into(), "b".into(), "c".into()]).is_none());
    }

    #[tokio::test]
    async fn a_taken_port_is_named_and_the_rest_is_in_force() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let table = Table::default();
        let front = |service: &str, port| Front {
            service: service.to_owned(),
            port,
            mode: SocketMode::Passed,
            backends: vec![],
        };
        let failed = table.set(vec![front("free", 0), front("clash", port)]).await;
        assert_eq!(failed.keys().collect::<Vec<_>>(), ["clash"]);
        assert!(table.passed_socket("free", 0).is_ok());
        assert_eq!(table.passed_socket("clash", port).unwrap_err(), "nothing listens for clash");
        drop(taken);
        assert!(table.set(vec![front("clash", port)]).await.is_empty());
        assert_eq!(table.passed_socket("free", 0).unwrap_err(), "nothing listens for free");
    }

    #[tokio::test]
    async fn a_port_that_was_taken_is_tried_again_without_being_asked() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let table = Table::default();
        let front = Front { service: "api".to_owned(), port, mode: SocketMode::Relay, backends: vec![] };
        assert_eq!(table.set(vec![front]).await.len(), 1);
        table.retry().await;
        assert!(hold(&table.entries).is_empty());
        drop(taken);
        table.retry().await;
        assert!(hold(&table.entries).contains_key("api"));
    }

    #[tokio::test]
    async fn a_service_that_moves_keeps_its_old_port_until_it_has_the_new_one() {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let accepts = |port: u16| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        let front = |service: &str, port| Front {
            service: service.to_owned(),
            port,
            mode: SocketMode::Relay,
            backends: vec![Backend { replica: "a".to_owned(), port: 1 }],
        };
        let table = Table::default();
        let (old, other) = (free(), free());
        assert!(table.set(vec![front("web", old), front("api", other)]).await.is_empty());
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let new = taken.local_addr().unwrap().port();
        let failed = table.set(vec![front("web", new), front("api", other)]).await;
        assert_eq!(failed.keys().collect::<Vec<_>>(), ["web"]);
        assert!(accepts(old), "it serves where it did");
        drop(taken);
        assert!(table.set(vec![front("web", new), front("api", other)]).await.is_empty());
        assert!(accepts(new) && !accepts(old), "it has moved");
        // Two that change places have to let go first.
        assert!(table.set(vec![front("web", other), front("api", new)]).await.is_empty());
        assert!(accepts(other) && accepts(new));
    }

    #[tokio::test]
    async fn a_passed_socket_that_moves_is_never_handed_out_for_the_other_port() {
        let old = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let front =
            |port| Front { service: "web".to_owned(), port, mode: SocketMode::Passed, backends: vec![] };
        let table = Table::default();
        let port_of = |port| {
            let socket = table.passed_socket("web", port)?;
            Ok::<_, String>(std::net::TcpListener::from(socket).local_addr().unwrap().port())
        };
        assert!(table.set(vec![front(old)]).await.is_empty());
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let new = taken.local_addr().unwrap().port();
        assert_eq!(table.set(vec![front(new)]).await.len(), 1);
        assert_eq!(port_of(old), Ok(old));
        assert_eq!(port_of(new), Err(format!("web listens on port {old}, not on {new}")));
        drop(taken);
        assert!(table.set(vec![front(new)]).await.is_empty());
        assert_eq!(port_of(new), Ok(new));
        assert!(port_of(old).is_err());
    }

    #[tokio::test]
    async fn a_socket_that_is_in_use_is_taken_over_where_it_cannot_be_bound() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let copy = || OwnedFd::from(listener.try_clone().unwrap());
        let front = Front { service: "web".to_owned(), port, mode: SocketMode::Passed, backends: vec![] };
        let table = Table::default();
        assert_eq!(table.set(vec![front.clone()]).await.len(), 1, "it is bound already");
        let give = async |service: &str, port, socket| table.take(service.to_owned(), port, socket).await;
        assert!(give("web", port, None).await.is_err());
        assert!(give("web", port + 1, Some(copy())).await.is_err());
        assert!(give("other", port, Some(copy())).await.unwrap_err().contains("is asked for"));
        give("web", port, Some(copy())).await.unwrap();
        give("web", port, Some(copy())).await.unwrap();
        table.retry().await;
        assert!(table.set(vec![front]).await.is_empty());
        assert!(table.passed_socket("web", port).is_ok());
        table.set(Vec::new()).await;
        assert!(give("web", port, Some(copy())).await.is_err(), "it was removed");
    }
}
