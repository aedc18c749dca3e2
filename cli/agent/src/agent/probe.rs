//! Asks one replica how it is, over HTTP/1.1 on its own port, and tells when the answer changes.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use mlctl_core::local_protocol::{HealthSpec, ProbeProtocol};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

mod servers;

pub(crate) use servers::PROBE_USER;

/// Between two questions to a replica that is still starting: a fast start should be seen as one.
const EAGER: Duration = Duration::from_millis(100);
/// What is read of an answer.
const BODY_BYTES: usize = 2 << 10;
/// What is shown of an answer's first line, in characters.
const SHOWN: usize = 160;

/// What a prober tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    /// The replica may take requests.
    Ready,
    /// It may not, and this is what it says; told again when it says something else.
    NotReady(String),
    /// It should be started again: its startup or liveness probe failed for too long.
    Sick(String),
}

/// Asks until dropped. `started` says that the replica has answered before, to an earlier agent.
pub(super) async fn watch(
    health: HealthSpec,
    port: Option<u16>,
    started: bool,
    mut tell: impl AsyncFnMut(Report),
) {
    let Some(port) = port else {
        // Nothing to ask: being alive is all there is to know, and the end of it is told by its shim.
        tell(Report::Ready).await;
        return std::future::pending().await;
    };
    let asker = Asker { port, protocol: health.protocol, limit: Duration::from_millis(health.timeout_ms) };
    let period = Duration::from_millis(health.period_ms.max(10));
    let begun = Instant::now();
    let grace = Duration::from_millis(health.grace_ms);
    let mut is_started = started || health.startup.is_none();
    let mut tally = Tally::new(health.failures);
    loop {
        if !is_started {
            match asker.ask(health.startup.as_deref()).await {
                Ok(()) => is_started = true,
                Err(answer) if begun.elapsed() >= grace => {
                    tell(Report::Sick(format!("startup probe: {answer}"))).await;
                    return std::future::pending().await;
                }
                Err(answer) => {
                    if let Some(report) = tally.readiness(Err(answer)) {
                        tell(report).await;
                    }
                }
            }
        }
        if is_started {
            let answer = asker.ask(health.ready.as_deref()).await;
            if let Some(report) = tally.readiness(answer) {
                tell(report).await;
            }
            let lives = health.startup.is_some() || tally.was_ready || begun.elapsed() >= grace;
            if let Some(path) = health.live.as_deref().filter(|_| lives) {
                let answer = asker.ask(Some(path)).await;
                if let Some(report) = tally.liveness(answer) {
                    tell(report).await;
                    return std::future::pending().await;
                }
            }
        }
        sleep(if tally.was_ready { period } else { period.min(EAGER) }).await;
    }
}

/// Counts failures in a row and says what has changed.
struct Tally {
    allowed: u32,
    ready: bool,
    was_ready: bool,
    unready: u32,
    dead: u32,
    said: Option<String>,
}

impl Tally {
    fn new(allowed: u32) -> Self {
        Self { allowed: allowed.max(1), ready: false, was_ready: false, unready: 0, dead: 0, said: None }
    }

    fn readiness(&mut self, answer: Result<(), String>) -> Option<Report> {
        match answer {
            Ok(()) => {
                self.unready = 0;
                self.said = None;
                let news = !self.ready;
                (self.ready, self.was_ready) = (true, true);
                news.then_some(Report::Ready)
            }
            Err(answer) => {
                self.unready += 1;
                if self.ready && self.unready < self.allowed {
                    return None;
                }
                self.ready = false;
                let news = self.said.as_ref() != Some(&answer);
                self.said = Some(answer.clone());
                news.then_some(Report::NotReady(answer))
            }
        }
    }

    fn liveness(&mut self, answer: Result<(), String>) -> Option<Report> {
        match answer {
            Ok(()) => {
                self.dead = 0;
                None
            }
            Err(answer) => {
                self.dead += 1;
                (self.dead >= self.allowed).then(|| Report::Sick(format!("liveness probe: {answer}")))
            }
        }
    }
}

struct Asker {
    port: u16,
    protocol: ProbeProtocol,
    limit: Duration,
}

impl Asker {
    /// Asks once; the error is the answer as people read it. Without a path, an accepted connection will do.
    async fn ask(&self, path: Option<&str>) -> Result<(), String> {
        match timeout(self.limit, self.exchange(path)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer from {} within {} ms", self.name(path), self.limit.as_millis())),
        }
    }

    fn name(&self, path: Option<&str>) -> String {
        format!("127.0.0.1:{}{}", self.port, path.unwrap_or_default())
    }

    async fn exchange(&self, path: Option<&str>) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", self.name(path));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let stream = TcpStream::connect(address).await.map_err(|e| failed(&e))?;
        match self.protocol {
            ProbeProtocol::Http => {}
            ProbeProtocol::Postgresql => {
                return servers::ask_postgresql(stream).await.map_err(|e| failed(&e));
            }
            ProbeProtocol::Redis => return servers::ask_redis(stream).await.map_err(|e| failed(&e)),
        }
        let Some(path) = path else { return Ok(()) };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
        let request = Request::get(path)
            .header(hyper::header::HOST, address.to_string())
            .header(hyper::header::USER_AGENT, "mlctl-agent")
            .header(hyper::header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|e| failed(&e))?;
        let question = async {
            let response = sender.send_request(request).await.map_err(|e| failed(&e))?;
            let status = response.status();
            if status.is_success() {
                return Ok(());
            }
            let body = beginning(response.into_body()).await;
            Err(match first_line(&body) {
                Some(line) => format!("{path} answers {status}: {line}"),
                None => format!("{path} answers {status}"),
            })
        };
        tokio::pin!(question);
        // The connection is driven here, not in a task of its own: it ends with the question.
        tokio::select! {
            biased;
            answer = &mut question => answer,
            result = connection => match result {
                Err(error) => Err(failed(&error)),
                // Read to its end: what the question still needs has arrived.
                Ok(()) => question.await,
            },
        }
    }
}

/// Returns as much of a body as is read of it, however long it is or when it breaks off.
async fn beginning(mut body: Incoming) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < BODY_BYTES
        && let Some(Ok(frame)) = body.frame().await
    {
        bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
    }
    bytes.truncate(BODY_BYTES);
    bytes
}

/// Returns the first line of a body that says anything, free of control characters and cut to what people read.
fn first_line(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().filter(|c| !c.is_control()).take(SHOWN).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_told() {
        let no = |text: &str| Err(text.to_owned());
        let mut tally = Tally::new(2);
        assert_eq!(tally.readiness(no("refused")), Some(Report::NotReady("refused".to_owned())));
        assert_eq!(tally.readiness(no("refused")), None);
        assert_eq!(tally.readiness(no("503")), Some(Report::NotReady("503".to_owned())));
        assert_eq!(tally.readiness(Ok(())), Some(Report::Ready));
        assert_eq!(tally.readiness(Ok(())), None);
        assert_eq!(tally.readiness(no("503")), None, "one failure is forgiven");
        assert_eq!(tally.readiness(Ok(())), None);
        assert_eq!(tally.readiness(no("503")), None);
        assert_eq!(tally.readiness(no("503")), Some(Report::NotReady("503".to_owned())));
        assert_eq!(tally.liveness(no("500")), None);
        assert_eq!(tally.liveness(Ok(())), None);
        assert_eq!(tally.liveness(no("500")), None);
        assert_eq!(tally.liveness(no("500")), Some(Report::Sick("liveness probe: 500".to_owned())));
    }

    #[test]
    fn an_answer_is_shown_by_its_first_line() {
        for (body, expected) in
            [("", None), ("\n\n  no tables\nmore", Some("no tables")), ("a\x1b[31mb", Some("a[31mb"))]
        {
            assert_eq!(first_line(body.as_bytes()).as_deref(), expected);
        }
    }
}
