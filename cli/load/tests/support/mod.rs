//! Servers on port 0 that behave, and servers that do not.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use mlctl_core::ports::{LoadError, LoadReport, LoadRequest, LoadRunner as _};
use mlctl_core::run::CancelToken;
use mlctl_load::HttpLoadRunner;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

type Answer = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

/// A server that ends with the test.
pub struct Server {
    pub base: String,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Answers every request by `handler`.
    pub async fn http(handler: impl Fn(Request<Incoming>) -> Answer + Send + Sync + 'static) -> Self {
        let handler = Arc::new(handler);
        Self::raw(move |stream| {
            let handler = Arc::clone(&handler);
            Box::pin(async move {
                let service = service_fn(move |request| {
                    let answer = handler(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            })
        })
        .await
    }

    /// Does with every connection what `handler` does.
    pub async fn raw(
        handler: impl Fn(TcpStream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(handler(stream));
            }
        });
        Self { base, connections, task }
    }

    /// Returns how many connections were accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// An answer that is ready.
pub fn answer(status: u16, body: &str) -> Answer {
    let response = Response::builder().status(status).body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    Box::pin(async move { response })
}

/// An answer that never comes.
pub fn silence() -> Answer {
    Box::pin(std::future::pending())
}

/// A request for load; `profile` replaces keys of a small one.
pub fn request(base: &str, profile: &Value) -> LoadRequest {
    let mut value = json!({
        "rate": "200/s", "duration": "500ms", "warmup": "0", "connections": 8, "timeout": "2s",
        "headers": {}, "setup": [], "teardown": [], "thresholds": [],
        "mix": [{"name": "it", "weight": 1, "get": "/it", "headers": {}, "expect": "2xx"}],
    });
    for (key, part) in profile.as_object().unwrap() {
        value[key] = part.clone();
    }
    LoadRequest {
        profile: serde_json::from_value(value).unwrap(),
        base: base.to_owned(),
        secrets: Default::default(),
        seed: 1,
    }
}

pub async fn run(request: &LoadRequest) -> LoadReport {
    try_run(request).await.unwrap()
}

pub async fn try_run(request: &LoadRequest) -> Result<LoadReport, LoadError> {
    HttpLoadRunner::new().run(request, &|_| (), &CancelToken::never()).await
}
