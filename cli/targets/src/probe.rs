//! One HTTP question to one address.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::Body as _;
use hyper_util::rt::TokioIo;
use mlctl_core::ports::ProbeAnswer;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// What is kept of an answer's body: enough for a gate to find a value in it.
const SHOWN_BYTES: usize = 64 << 10;
/// The longest metrics text that is read.
pub(crate) const METRICS_BYTES: usize = 16 << 20;

/// What came back, whole.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// Asks `GET path` at an address (`host:port`); the error is a sentence.
pub(crate) async fn get(
    address: &str,
    path: &str,
    limit: Duration,
    body_bytes: usize,
) -> Result<Answer, String> {
    timeout(limit, exchange(address, path, body_bytes))
        .await
        .map_err(|_| format!("no answer within {} ms", limit.as_millis()))?
}

async fn exchange(address: &str, path: &str, body_bytes: usize) -> Result<Answer, String> {
    let stream = TcpStream::connect(address).await.map_err(|e| format!("cannot connect: {e}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let request = Request::get(path)
        .header(hyper::header::HOST, address)
        .header(hyper::header::USER_AGENT, concat!("mlctl/", env!("CARGO_PKG_VERSION")))
        .header(hyper::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| format!("{path} is no path to ask: {e}"))?;
    let question = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        let mut incoming = response.into_body();
        let mut body = Vec::new();
        while !incoming.is_end_stream() && body.len() < body_bytes {
            let Some(frame) = incoming.frame().await else { break };
            let frame = frame.map_err(|e| format!("the answer broke off: {e}"))?;
            if let Some(data) = frame.data_ref() {
                body.extend_from_slice(data);
            }
        }
        body.truncate(body_bytes);
        Ok(Answer { status, body })
    };
    tokio::pin!(question);
    // The connection is driven here, not in a task of its own: it ends with the question.
    tokio::select! {
        biased;
        answer = &mut question => answer,
        result = connection => match result {
            Err(error) => Err(error.to_string()),
            // Read to its end: what the question still needs has arrived.
            Ok(()) => question.await,
        },
    }
}

/// Asks an address and says what came back; no answer is an answer too.
///
/// `subject` is whom people know behind the address: a replica or a service.
pub async fn probe(subject: &str, address: &str, path: &str, limit: Duration) -> ProbeAnswer {
    let begun = Instant::now();
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let result = get(address, &path, limit, SHOWN_BYTES).await;
    let (status, detail) = match result {
        Ok(answer) => (Some(answer.status), printable(&answer.body)),
        Err(reason) => (None, reason),
    };
    ProbeAnswer {
        subject: subject.to_owned(),
        url: format!("http://{address}{path}"),
        status,
        detail,
        took: begun.elapsed(),
    }
}

/// Returns a body as text that a terminal may show: line ends and tabs stay, other control characters go.
fn printable(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one connection with the given bytes.
    async fn canned(answer: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = [0; 1024];
            let _ = stream.read(&mut question).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        address
    }

    #[tokio::test]
    async fn an_answer_is_told_with_status_and_what_may_be_shown() {
        let body = format!("{{\"a\":\x1b[1m1}}\n{}", "x".repeat(5000));
        let head = format!("HTTP/1.1 503 Service Unavailable\r\nContent-Length: {}\r\n\r\n", body.len());
        let address = canned(head + &body).await;
        let answer = probe("api", &address, "health?x=1", Duration::from_secs(5)).await;
        assert_eq!((answer.status, answer.is_success()), (Some(503), false));
        assert_eq!(answer.url, format!("http://{address}/health?x=1"));
        assert!(answer.detail.starts_with("{\"a\":[1m1}\nxxx"), "{}", answer.detail);
        assert!(answer.detail.len() <= SHOWN_BYTES);
    }

    #[tokio::test]
    async fn no_answer_is_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let silent = probe("api", &address, "/", Duration::from_millis(30)).await;
        assert_eq!((silent.status, silent.detail.as_str()), (None, "no answer within 30 ms"));
        drop(listener);
        let refused = probe("api", &address, "/", Duration::from_secs(5)).await;
        assert!(
            refused.status.is_none() && refused.detail.starts_with("cannot connect: "),
            "{}",
            refused.detail
        );
    }
}
