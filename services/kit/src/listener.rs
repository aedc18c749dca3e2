//! The sockets that a service answers on: bound here, or bound by whoever started it and passed in.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::config::Base;

/// The main socket and, when there is one, the metrics socket.
#[derive(Debug)]
pub struct Listener {
    pub(crate) main: TcpListener,
    pub(crate) metrics: Option<TcpListener>,
    /// Others accept from the same socket, so its queue of new connections is not ours to empty.
    pub(crate) shared: bool,
}

/// A socket could not be taken or bound.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Binding failed, most often because the port is taken.
    #[error("cannot listen on {address} for {purpose}; is another process using the port?")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// `requests` or `metrics`.
        purpose: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// `LISTEN_FDS` is set, but descriptor 3 is no listening TCP socket.
    #[error("LISTEN_FDS is set, but file descriptor 3 is not a TCP socket to accept from")]
    Passed {
        /// The system's answer.
        source: io::Error,
    },
}

impl Listener {
    /// Binds what the configuration asks for; a passed socket takes the place of the main one.
    ///
    /// # Errors
    /// [`ListenError`] when a port is taken or the passed socket is not a TCP listener.
    pub async fn open(base: &Base, passed: Option<std::net::TcpListener>) -> Result<Self, ListenError> {
        let shared = passed.is_some();
        let main = match passed {
            Some(socket) => adopt(socket).map_err(|source| ListenError::Passed { source })?,
            None => bind(SocketAddr::new(base.host, base.port), "requests").await?,
        };
        let metrics = match base.metrics_port {
            Some(port) => Some(bind(SocketAddr::new(base.host, port), "metrics").await?),
            None => None,
        };
        Ok(Self { main, metrics, shared })
    }

    /// Two free loopback ports: what tests listen on.
    ///
    /// # Errors
    /// [`ListenError`] when the machine has no free port.
    pub async fn loopback() -> Result<Self, ListenError> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let main = bind(any, "requests").await?;
        let metrics = Some(bind(any, "metrics").await?);
        Ok(Self { main, metrics, shared: false })
    }

    /// Address of the main socket.
    ///
    /// # Errors
    /// The system's answer, when it cannot name the socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.main.local_addr()
    }

    /// Address of the metrics socket, when there is one.
    ///
    /// # Errors
    /// The system's answer, when it cannot name the socket.
    pub fn metrics_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.metrics.as_ref().map(TcpListener::local_addr).transpose()
    }
}

/// Takes descriptor 3 when `LISTEN_FDS` says that one was passed (the systemd protocol; `LISTEN_PID`, when set,
/// must be ours). Called once, before any thread exists, because it takes the variables away from children.
///
/// # Errors
/// [`ListenError::Passed`] when the descriptor is no TCP socket.
pub fn passed_socket() -> Result<Option<std::net::TcpListener>, ListenError> {
    listenfd::ListenFd::from_env().take_tcp_listener(0).map_err(|source| ListenError::Passed { source })
}

fn adopt(socket: std::net::TcpListener) -> io::Result<TcpListener> {
    socket.set_nonblocking(true)?;
    let accepts = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::AcceptConn)?;
    if !accepts {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket does not listen"));
    }
    TcpListener::from_std(socket)
}

async fn bind(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError::Bind { address, purpose, source })
}
