//! One accepted connection: find a replica, copy both ways, honour half-close.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::table::{Chosen, Routes};

/// How long a connection waits for a replica to become ready.
const HOLD: Duration = Duration::from_secs(1);
/// For connecting to a replica on this machine; longer means that its queue is full.
const CONNECT: Duration = Duration::from_secs(1);
/// Between two rounds over replicas that all refused.
const ROUND: Duration = Duration::from_millis(50);

/// Accepts for ever.
pub(super) async fn accept(listener: TcpListener, routes: Arc<Routes>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(forward(client, Arc::clone(&routes)));
            }
            // Out of descriptors: wait until connections have ended, do not spin.
            Err(_) => sleep(ROUND).await,
        }
    }
}

async fn forward(mut client: TcpStream, routes: Arc<Routes>) {
    let Some((mut server, chosen)) = connect(&routes).await else { return };
    // Both ends exchange small requests and answers; neither gains from waiting for full segments.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    if copy_bidirectional(&mut client, &mut server).await.is_err() {
        // Broken in the middle: the other side must see a reset, not an orderly end of half an answer.
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
    drop((client, server, chosen));
}

/// Connects to a ready replica. Nothing was sent yet, so a refused connection may try the next one.
async fn connect(routes: &Routes) -> Option<(TcpStream, Chosen)> {
    let deadline = Instant::now() + HOLD;
    let mut tried = Vec::new();
    loop {
        let changed = routes.changed.notified();
        tokio::pin!(changed);
        // Registered before looking, or a change in between would be missed.
        changed.as_mut().enable();
        if let Some(chosen) = routes.choose(&tried) {
            match timeout(CONNECT, TcpStream::connect(chosen.address)).await {
                Ok(Ok(server)) => return Some((server, chosen)),
                _ => tried.push(chosen.replica.clone()),
            }
            continue;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let pause = if tried.is_empty() { left } else { left.min(ROUND) };
        let _ = timeout(pause, changed).await;
        tried.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use mlctl_core::local_protocol::SocketMode;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::table::Table;
    use super::super::{Backend, Front};
    use super::*;

    /// Answers every connection with what it read, in capitals, once the client has said its last word.
    async fn shouter() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut text = String::new();
                    stream.read_to_string(&mut text).await.unwrap();
                    stream.write_all(text.to_uppercase().as_bytes()).await.unwrap();
                });
            }
        });
        port
    }

    /// A port on which nobody listens.
    async fn nobody() -> u16 {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port()
    }

    fn front(port: u16, backends: &[(&str, u16)]) -> Front {
        let backends = backends
            .iter()
            .map(|(name, port)| Backend { replica: (*name).to_owned(), port: *port })
            .collect();
        Front { service: "api".to_owned(), port, mode: SocketMode::Relay, backends }
    }

    async fn shout(port: u16, text: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn half_a_close_leaves_the_other_half_open() {
        let (table, port) = (Table::default(), nobody().await);
        assert!(table.set(vec![front(port, &[("a", shouter().await)])]).await.is_empty());
        assert_eq!(shout(port, "hello").await.unwrap(), "HELLO");
    }

    #[tokio::test]
    async fn a_replica_that_refuses_is_passed_over() {
        let (table, port) = (Table::default(), nobody().await);
        let backends = [("dead", nobody().await), ("alive", shouter().await), ("gone", nobody().await)];
        table.set(vec![front(port, &backends)]).await;
        for _ in 0..6 {
            assert_eq!(shout(port, "x").await.unwrap(), "X");
        }
    }

    #[tokio::test]
    async fn a_connection_waits_for_a_replica_and_not_for_ever() {
        let (table, port) = (Arc::new(Table::default()), nobody().await);
        table.set(vec![front(port, &[])]).await;
        let begun = Instant::now();
        assert_eq!(shout(port, "x").await.unwrap_or_default(), "", "closed without an answer");
        assert!(begun.elapsed() >= HOLD);
        let waiting = tokio::spawn(shout(port, "y"));
        table.set(vec![front(port, &[("late", shouter().await)])]).await;
        assert_eq!(waiting.await.unwrap().unwrap(), "Y");
    }

    #[tokio::test]
    async fn open_connections_are_counted_past_their_route() {
        let (table, port) = (Table::default(), nobody().await);
        table.set(vec![front(port, &[("a", shouter().await)])]).await;
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        while table.open().is_empty() {
            tokio::task::yield_now().await;
        }
        table.set(vec![front(port, &[])]).await;
        assert_eq!(table.open().get("a"), Some(&1), "drained, not forgotten");
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "X");
        while !table.open().is_empty() {
            tokio::task::yield_now().await;
        }
    }
}
