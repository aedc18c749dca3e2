//! A gateway in this process, the services behind it, and the file that connects them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use gateway::Config;
use http_body_util::BodyExt;
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use service_kit::extract::Json;
use service_kit::testing::{Running, Wire};
use service_kit::{Base, Identity, Kit, ServeError};

pub const OPERATOR: &str = "operator-secret";

/// A service that answers with what it was asked; `name` is its revision, so tests see who answered.
pub async fn echo(name: &'static str) -> Running<ServeError> {
    upstream(name, Router::new().fallback(tell)).await
}

/// A service with these routes.
pub async fn upstream(name: &'static str, routes: Router) -> Running<ServeError> {
    Running::start(move |listener, shutdown| async move {
        let identity = Identity::new("upstream", "0.1.0", 1);
        let base = Base { revision: Some(name.to_owned()), ..Base::new(identity) };
        Kit::new(identity, &base).body_limit(64 << 20).serve(routes, listener, shutdown).await
    })
    .await
    .unwrap()
}

async fn tell(request: Request) -> Json<Value> {
    let (parts, body) = request.into_parts();
    let length = body.collect().await.map_or(-1, |body| i64::try_from(body.to_bytes().len()).unwrap());
    Json(json!({
        "method": parts.method.as_str(),
        "path": parts.uri.path(),
        "query": parts.uri.query(),
        "headers": all(&parts.headers),
        "length": length,
    }))
}

fn all(headers: &HeaderMap) -> Map<String, Value> {
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), Value::from(String::from_utf8_lossy(value.as_bytes()))))
        .collect()
}

/// A routes file that is replaced by renaming, as its writer does.
pub struct RoutesFile {
    folder: tempfile::TempDir,
}

impl RoutesFile {
    pub fn new(table: &Value) -> Self {
        let file = Self { folder: tempfile::tempdir().unwrap() };
        file.replace(&table.to_string());
        file
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("routes.json")
    }

    pub fn replace(&self, text: &str) {
        let new = self.folder.path().join("routes.json.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }
}

/// A table with one service `svc` at `upstream` behind `/api/svc`, where the tests add what they need.
pub fn table(upstream: SocketAddr) -> Value {
    json!({
        "version": 1,
        "services": [{"name": "svc", "upstream": upstream.to_string(), "health_path": "/health"}],
        "routes": [{"path": "/api/svc", "service": "svc", "to": "/svc", "timeout_ms": 5000}],
        "maintenance": null,
    })
}

/// A gateway on a free port.
pub async fn gateway(routes: &Path) -> Running<gateway::Error> {
    let config = Config {
        base: Base {
            revision: Some("front".to_owned()),
            drain: Duration::from_secs(2),
            ..Base::new(gateway::IDENTITY)
        },
        routes_file: routes.to_owned(),
        operator_token: Some(SecretString::from(OPERATOR.to_owned())),
    };
    let running =
        Running::start(move |listener, shutdown| gateway::run(config, listener, shutdown)).await.unwrap();
    running.ready(Duration::from_secs(5)).await.unwrap();
    running
}

/// Asks until the answer is as wished, or fails: a new routes file is seen within a quarter of a second.
pub async fn until(address: SocketAddr, path: &str, wish: impl Fn(&service_kit::testing::Reply) -> bool) {
    let asked = async {
        loop {
            let mut wire = Wire::connect(address).await.unwrap();
            if wish(&wire.get(path, &[("connection", "close")]).await.unwrap()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), asked).await.expect("the wished answer never came");
}

/// An endless body, one chunk at a time.
pub fn body_of(chunks: usize, size: usize) -> Body {
    let chunk = vec![b'x'; size];
    Body::from_stream(futures::stream::iter((0..chunks).map(move |_| Ok::<_, std::io::Error>(chunk.clone()))))
}
