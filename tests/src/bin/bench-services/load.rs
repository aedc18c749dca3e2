//! A closed loop: so many connections, each asks again as soon as it was answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Time for one answer.
const LIMIT: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// `HOST:PORT`.
    pub address: String,
    /// Path.
    pub path: String,
    /// Value of `authorization`, where one is needed.
    pub bearer: Option<String>,
    /// JSON to send.
    pub body: Option<String>,
    /// Answers that the server's cache may not have given, told by this header and value.
    pub wanted: Option<(&'static str, &'static str)>,
}

/// Asks `requests` times over `connections`; how long that took.
///
/// # Errors
/// The first answer that is not 200, or not as wanted.
pub async fn ask(question: &Question, connections: u64, requests: u64) -> Result<Duration, String> {
    let left = Arc::new(AtomicU64::new(requests));
    let began = Instant::now();
    let asking: Vec<_> =
        (0..connections).map(|_| tokio::spawn(converse(question.clone(), Arc::clone(&left)))).collect();
    for each in asking {
        each.await.map_err(|error| error.to_string())??;
    }
    Ok(began.elapsed())
}

async fn converse(question: Question, left: Arc<AtomicU64>) -> Result<(), String> {
    let told = |error: &dyn std::fmt::Display| format!("{} {}: {error}", question.method, question.path);
    let stream = TcpStream::connect(&question.address).await.map_err(|error| told(&error))?;
    stream.set_nodelay(true).map_err(|error| told(&error))?;
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| told(&error))?;
    let driver = tokio::spawn(driver);
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let exchange = async {
            sender.ready().await.map_err(|error| told(&error))?;
            let answer = sender.send_request(request(&question)?).await.map_err(|error| told(&error))?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await.map_err(|error| told(&error))?.to_bytes();
            if head.status.as_u16() != 200 {
                return Err(told(&format!("{} {}", head.status, String::from_utf8_lossy(&body))));
            }
            match question.wanted {
                Some((name, value)) if head.headers.get(name).is_none_or(|seen| seen != value) => {
                    Err(told(&format!("{name} is not {value}: {:?}", head.headers)))
                }
                _ => Ok(()),
            }
        };
        tokio::time::timeout(LIMIT, exchange).await.map_err(|_| told(&"no answer"))??;
    }
    driver.abort();
    Ok(())
}

fn request(question: &Question) -> Result<Request<Full<Bytes>>, String> {
    let mut request = Request::builder().method(question.method).uri(&question.path).header("host", "bench");
    if let Some(bearer) = &question.bearer {
        request = request.header("authorization", bearer);
    }
    if question.body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let body = question.body.clone().map_or_else(Bytes::new, Bytes::from);
    request.body(Full::new(body)).map_err(|error| error.to_string())
}
