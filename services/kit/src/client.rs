//! Calls to other services of the system: plain HTTP/1.1, JSON, one connection per call.
//!
//! One connection per call is on purpose. The stable address before each service is a TCP relay whose drain counts
//! open connections: a connection that idles in a pool would hold a rolling replica open and then lose the race
//! between its close and our next request. On loopback or inside a cluster a connect costs far less than that.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::trace;

/// The largest answer that is read, in bytes.
const ANSWER_LIMIT: usize = 4 << 20;

/// Address of a service: `http://HOST:PORT` and perhaps a base path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    authority: String,
    host: String,
    port: u16,
    base: String,
}

/// The text is no `http://HOST[:PORT][/PATH]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected http://HOST:PORT[/PATH] without user, query or fragment")]
pub struct HttpUrlError;

impl FromStr for HttpUrl {
    type Err = HttpUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|_| HttpUrlError)?;
        let authority = uri.authority().ok_or(HttpUrlError)?;
        let plain = uri.scheme_str() == Some("http")
            && uri.query().is_none()
            && !text.contains('#')
            && !authority.as_str().contains('@');
        if !plain || authority.host().is_empty() {
            return Err(HttpUrlError);
        }
        Ok(Self {
            authority: authority.as_str().to_owned(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            base: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl HttpUrl {
    /// The host without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 80 when the text named none.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Another port of the same host, without a path.
    #[must_use]
    pub fn at(&self, port: u16) -> Self {
        let host = &self.host;
        let authority =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Self { authority, host: host.clone(), port, base: String::new() }
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.base)
    }
}

/// A call to another service failed before there was a usable answer. A call is named by its method, address and path;
/// its query is left out, because a query may hold a secret.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection: nothing was sent, so the call may be repeated whatever its method.
    #[error("cannot connect for {call}")]
    Connect {
        /// The call, `GET http://HOST:PORT/PATH`.
        call: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The call broke after the request may have been sent.
    #[error("{call} broke off before its answer was complete")]
    Broken {
        /// The call, `GET http://HOST:PORT/PATH`.
        call: String,
        /// What the HTTP layer says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The deadline passed first.
    #[error("{call} was not answered within {} ms", limit.as_millis())]
    Timeout {
        /// The call, `GET http://HOST:PORT/PATH`.
        call: String,
        /// The deadline.
        limit: Duration,
    },
    /// The request could not be built: a header or the path holds characters that HTTP does not allow.
    #[error("cannot build {call}")]
    Request {
        /// The call, `GET http://HOST:PORT/PATH`.
        call: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl CallError {
    /// One word for traces.
    fn kind(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect",
            Self::Broken { .. } => "broken",
            Self::Timeout { .. } => "timeout",
            Self::Request { .. } => "request",
        }
    }
}

/// What another service answered, whatever the status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status of the answer.
    pub status: StatusCode,
    /// Headers of the answer.
    pub headers: axum::http::HeaderMap,
    /// Body of the answer, at most 4 MiB.
    pub body: Bytes,
}

impl Answer {
    /// The body read as JSON.
    ///
    /// # Errors
    /// What the body is instead.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }
}

/// A client of one service; cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    url: HttpUrl,
    timeout: Duration,
}

impl Client {
    /// A client that waits at most `timeout` for a whole call.
    #[must_use]
    pub fn new(url: HttpUrl, timeout: Duration) -> Self {
        Self { url, timeout }
    }

    /// Where the calls go.
    #[must_use]
    pub fn url(&self) -> &HttpUrl {
        &self.url
    }

    /// `GET path`.
    ///
    /// # Errors
    /// [`CallError`] when there was no answer at all; every status is an answer.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer, CallError> {
        self.call(Method::GET, path, headers, Bytes::new()).await
    }

    /// `method path` with a JSON body.
    ///
    /// # Errors
    /// [`CallError`] when there was no answer at all; every status is an answer.
    pub async fn send_json<T: Serialize + Sync>(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &T,
    ) -> Result<Answer, CallError> {
        let text = serde_json::to_vec(body)
            .map_err(|source| CallError::Request { call: self.name(&method, path), source: source.into() })?;
        let mut with_type = vec![("content-type", "application/json")];
        with_type.extend_from_slice(headers);
        self.call(method, path, &with_type, text.into()).await
    }

    /// `method path` with these headers and this body; `path` begins with a slash and may hold a query. In the scope of
    /// a trace the call is a span of it, and the other service is told so.
    ///
    /// # Errors
    /// [`CallError`] when there was no answer at all; every status is an answer.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, CallError> {
        let mut request = self.request(&method, path, headers, body)?;
        let mut span = trace::open(method.to_string(), trace::Kind::Client);
        if let Some(span) = &mut span {
            span.context().put(request.headers_mut());
            span.set("http.request.method", method.to_string());
            span.set("server.address", self.url.host.clone());
            span.set("server.port", self.url.port);
        }
        let called = tokio::time::timeout(self.timeout, self.exchange(request, &method, path)).await;
        let called = called.unwrap_or_else(|_| {
            Err(CallError::Timeout { call: self.name(&method, path), limit: self.timeout })
        });
        match (&mut span, &called) {
            (Some(span), Ok(answer)) => span.set("http.response.status_code", answer.status.as_u16()),
            (Some(span), Err(error)) => span.fail(error.kind()),
            (None, _) => {}
        }
        called
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Request<Body>, CallError> {
        let mut builder = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url.base))
            .header(header::HOST, &self.url.authority)
            .header(header::CONNECTION, HeaderValue::from_static("close"));
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder
            .body(Body::from(body))
            .map_err(|source| CallError::Request { call: self.name(method, path), source: source.into() })
    }

    /// The call for an error's words.
    fn name(&self, method: &Method, path: &str) -> String {
        format!("{method} {}{}", self.url, path.split('?').next().unwrap_or_default())
    }

    async fn exchange(
        &self,
        request: Request<Body>,
        method: &Method,
        path: &str,
    ) -> Result<Answer, CallError> {
        let broken = |source: Box<dyn std::error::Error + Send + Sync>| CallError::Broken {
            call: self.name(method, path),
            source,
        };
        let stream = TcpStream::connect((self.url.host.as_str(), self.url.port))
            .await
            .map_err(|source| CallError::Connect { call: self.name(method, path), source })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| broken(source.into()))?;
        let driver = AbortOnDrop(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to another service ended early");
            }
        }));
        let response = sender.send_request(request).await.map_err(|source| broken(source.into()))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_LIMIT).collect().await.map_err(broken)?.to_bytes();
        drop(driver);
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }
}

/// Ends the connection's task with the call that needed it: a call that timed out must not leave a socket behind.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_strictly() {
        let table = [
            ("http://127.0.0.1:3001", Some("http://127.0.0.1:3001")),
            ("http://user-service:3001/base/", Some("http://user-service:3001/base")),
            ("http://[::1]:80", Some("http://[::1]:80")),
            ("http://plain", Some("http://plain")),
            ("https://127.0.0.1:3001", None),
            ("127.0.0.1:3001", None),
            ("http://user:password@host:1", None),
            ("http://host:1/?query", None),
            ("http://host:1/#part", None),
            ("", None),
        ];
        for (text, expected) in table {
            let read = text.parse::<HttpUrl>().ok().map(|url| url.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn another_port_of_the_same_host_has_no_path() {
        for (text, expected) in [
            ("http://jaeger:14268/api/traces", "http://jaeger:4318"),
            ("http://[::1]:1/x", "http://[::1]:4318"),
        ] {
            assert_eq!(text.parse::<HttpUrl>().unwrap().at(4318).to_string(), expected);
        }
    }

    #[tokio::test]
    async fn a_refused_connection_is_told_apart() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url: HttpUrl = format!("http://{}", free.local_addr().unwrap()).parse().unwrap();
        drop(free);
        let client = Client::new(url, Duration::from_secs(2));
        let error = client.get("/things?code=secret", &[]).await.unwrap_err();
        assert!(matches!(error, CallError::Connect { .. }));
        assert_eq!(error.to_string(), format!("cannot connect for GET {}/things", client.url()));
    }
}
