//! Connections to upstreams that are kept: used again, closed soon, and never at the cost of a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::Method;
use service_kit::testing::{Running, client};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{RoutesFile, gateway, table};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// How an upstream treats a connection.
#[derive(Clone, Copy)]
enum Manner {
    /// Answers as long as it is asked.
    Patient,
    /// Answers once, and closes without a word as soon as it is asked again.
    ClosesWhenAsked,
    /// Answers once and closes at once, without having said so.
    ClosesAtOnce,
}

struct Upstream {
    address: std::net::SocketAddr,
    made: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Upstream {
    async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (made, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (all, now) = (Arc::clone(&made), Arc::clone(&open));
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                all.fetch_add(1, Ordering::SeqCst);
                now.fetch_add(1, Ordering::SeqCst);
                let now = Arc::clone(&now);
                tokio::spawn(async move {
                    converse(stream, manner).await.ok();
                    now.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, made, open }
    }

    fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }
}

async fn converse(mut stream: TcpStream, manner: Manner) -> std::io::Result<()> {
    for asked in 0.. {
        let mut text = Vec::new();
        while !text.windows(4).any(|window| window == b"\r\n\r\n") {
            let mut buffer = [0; 2048];
            match stream.read(&mut buffer).await? {
                0 => return Ok(()),
                read => text.extend_from_slice(&buffer[..read]),
            }
        }
        if asked == 1 && matches!(manner, Manner::ClosesWhenAsked) {
            return Ok(());
        }
        stream.write_all(ANSWER).await?;
        if matches!(manner, Manner::ClosesAtOnce) {
            return Ok(());
        }
    }
    Ok(())
}

async fn front(upstream: &Upstream) -> (Running<gateway::Error>, RoutesFile) {
    let routes = RoutesFile::new(&table(upstream.address));
    (gateway(&routes.path()).await, routes)
}

async fn ask(front: &Running<gateway::Error>, method: Method) -> u16 {
    let body = if method == Method::POST { "{}" } else { "" };
    let answer = client(front.address).unwrap().call(method, "/api/svc/x", &[], body.into()).await.unwrap();
    answer.status.as_u16()
}

#[tokio::test]
async fn a_connection_is_used_again_and_closed_after_a_second() {
    let upstream = Upstream::start(Manner::Patient).await;
    let (front, _routes) = front(&upstream).await;
    for _ in 0..20 {
        assert_eq!(ask(&front, Method::GET).await, 200);
    }
    assert!(upstream.made() <= 3, "{} connections for 20 requests one after the other", upstream.made());
    let closed = async {
        while upstream.open.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3), closed).await.expect("a kept connection holds a replica");
}

#[tokio::test]
async fn what_must_not_be_sent_twice_never_goes_on_a_kept_connection() {
    let upstream = Upstream::start(Manner::ClosesWhenAsked).await;
    let (front, _routes) = front(&upstream).await;
    for _ in 0..10 {
        assert_eq!(ask(&front, Method::POST).await, 200);
    }
    assert_eq!(upstream.made(), 10);
}

#[tokio::test]
async fn a_kept_connection_that_ends_costs_no_request() {
    for manner in [Manner::ClosesWhenAsked, Manner::ClosesAtOnce] {
        let upstream = Upstream::start(manner).await;
        let (front, _routes) = front(&upstream).await;
        for _ in 0..20 {
            assert_eq!(ask(&front, Method::GET).await, 200);
        }
    }
}
