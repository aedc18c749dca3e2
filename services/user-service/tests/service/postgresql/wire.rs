//! A wire to the database that a test can cut or freeze, as a server that is restarted or hangs looks from here.

use std::net::SocketAddr;
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How the wire is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Bytes go through.
    Open,
    /// Nobody listens, and what was open is closed.
    Cut,
    /// Connections stay open and are accepted, and nothing comes back.
    Frozen,
}

/// A wire from a port of its own to the server of an address.
pub struct Wire {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
}

impl Wire {
    /// A wire to the server in `database`.
    pub async fn to(database: &SecretString) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(watch::Sender::new(State::Open));
        let server = authority(database).to_owned();
        tokio::spawn(accept(listener, server, state.subscribe()));
        Self { address, state }
    }

    /// The same database by way of the wire.
    pub fn url(&self, database: &SecretString) -> SecretString {
        database.expose_secret().replacen(authority(database), &self.address.to_string(), 1).into()
    }

    pub fn become_(&self, state: State) {
        self.state.send_replace(state);
    }
}

/// `HOST:PORT` of an address.
fn authority(database: &SecretString) -> &str {
    let (_, rest) = database.expose_secret().split_once("://").unwrap();
    let (authority, _) = rest.split_once('/').unwrap();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

async fn accept(listener: TcpListener, server: String, mut state: watch::Receiver<State>) {
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    let mut wires = JoinSet::new();
    loop {
        if *state.borrow_and_update() == State::Cut {
            listener = None;
            wires.abort_all();
            state.wait_for(|now| *now != State::Cut).await.unwrap();
        }
        let listening = match listener.take() {
            Some(listening) => listening,
            None => TcpListener::bind(address).await.unwrap(),
        };
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            accepted = listening.accept() => {
                wires.spawn(carry(accepted.unwrap().0, server.clone(), state.clone()));
            }
        }
        listener = Some(listening);
    }
}

async fn carry(client: TcpStream, server: String, state: watch::Receiver<State>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (client, server) = (client.into_split(), server.into_split());
    tokio::join!(pump(client.0, server.1, state.clone()), pump(server.0, client.1, state),);
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut state: watch::Receiver<State>,
) {
    let mut buffer = vec![0; 16_384];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if state.wait_for(|now| *now == State::Open).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
