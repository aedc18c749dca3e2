//! What comes before and after the load: requests sent once, in order, whose answers later ones need.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use mlctl_core::gate::{GateResult, Verdict};
use mlctl_core::mask::Mask;
use mlctl_core::ports::LoadFault;
use mlctl_core::run::{CancelLevel, CancelToken};
use rand::rngs::StdRng;
use tokio::time::timeout;

use crate::connection::{Link, send};
use crate::failure::Failure;
use crate::origin::Origin;
use crate::script::{Exchange, ScriptError};
use crate::template::Values;

/// The most of an answer that is read to save something of it.
const LONGEST_ANSWER: usize = 1024 * 1024;

/// The most of an answer's first line that is shown.
const SHOWN: usize = 200;

/// A request of setup or teardown that did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error(transparent)]
    Script(#[from] ScriptError),
    #[error("request `{request}` ({title}) got no answer: {failure}")]
    NoAnswer { request: String, title: String, failure: Failure },
    #[error("request `{request}` ({title}) got {status}, expected {expected}: {line}")]
    Status { request: String, title: String, status: u16, expected: String, line: String },
    #[error(
        "request `{request}` ({title}) is to save `{variable}`, but its answer has no text or number at `{pointer}`"
    )]
    Save { request: String, title: String, status: u16, variable: String, pointer: String },
}

impl SessionError {
    /// Says whose it is.
    pub(crate) const fn fault(&self) -> LoadFault {
        match self {
            Self::Script(_) => LoadFault::Profile,
            Self::NoAnswer { .. } => LoadFault::NoAnswer,
            Self::Status { status, .. } | Self::Save { status, .. } => LoadFault::Answer(*status),
        }
    }
}

/// Sends the requests around a load and keeps what they save.
pub(crate) struct Session<'a> {
    pub(crate) origin: &'a Origin,
    /// How long each request may take.
    pub(crate) timeout: Duration,
    pub(crate) values: Values,
    pub(crate) random: StdRng,
    link: Option<Link>,
    /// Counts `{{seq}}`.
    sequence: u64,
}

impl<'a> Session<'a> {
    pub(crate) const fn new(origin: &'a Origin, timeout: Duration, values: Values, random: StdRng) -> Self {
        Self { origin, timeout, values, random, link: None, sequence: 0 }
    }

    /// Sends the setup requests; says whether all were sent, which a cancelled run's are not. One that is under way
    /// is finished: what it makes has to be known to the teardown.
    pub(crate) async fn setup(
        &mut self,
        requests: &[Exchange],
        cancel: &CancelToken,
    ) -> Result<bool, SessionError> {
        for request in requests {
            if cancel.level() >= CancelLevel::AfterStep {
                return Ok(false);
            }
            self.perform(request).await?;
        }
        Ok(true)
    }

    /// Sends every teardown request whose variables are known; one that fails is told and keeps no other from being
    /// sent. What the setup never made needs no removing.
    pub(crate) async fn teardown(&mut self, requests: &[Exchange]) -> Vec<GateResult> {
        let mut left = Vec::new();
        for request in requests {
            if !request.variables().all(|name| self.values.variables.contains_key(name)) {
                continue;
            }
            if let Err(error) = self.perform(request).await {
                left.push(GateResult {
                    subject: format!("teardown:{}", request.name),
                    want: request.expect.to_string(),
                    got: error.to_string(),
                    verdict: Verdict::Inconclusive,
                });
            }
        }
        left
    }

    async fn perform(&mut self, exchange: &Exchange) -> Result<(), SessionError> {
        let prepared = exchange.bind(&self.values, &self.origin.prefix, &self.origin.host, true)?;
        self.sequence += 1;
        let request = prepared.request(self.sequence, &mut self.random);
        let title = exchange.title(&self.origin.prefix);
        let name = || exchange.name.clone();

        let answer = async {
            let response = send(self.origin, &mut self.link, request.ok_or(Failure::InvalidRequest)?).await?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
            let body = body.map_err(|error| {
                error
                    .downcast::<hyper::Error>()
                    .map_or(Failure::BadResponse, |error| Failure::of_body(&error))
            })?;
            Ok((status, body.to_bytes()))
        };
        let answer = timeout(self.timeout, answer).await.unwrap_or(Err(Failure::Timeout));
        let (status, body) = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                self.link = None;
                return Err(SessionError::NoAnswer { request: name(), title, failure });
            }
        };
        if !exchange.expect.matches(status) {
            let expected = exchange.expect.to_string();
            return Err(SessionError::Status {
                request: name(),
                title,
                status,
                expected,
                line: first_line(&body),
            });
        }
        for (variable, pointer) in &exchange.save {
            let value = pick(&body, pointer).ok_or_else(|| SessionError::Save {
                request: name(),
                title: title.clone(),
                status,
                variable: variable.clone(),
                pointer: pointer.clone(),
            })?;
            self.values.variables.insert(variable.clone(), value);
        }
        Ok(())
    }
}

/// Returns the text, number or truth value at a JSON pointer.
fn pick(body: &Bytes, pointer: &str) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    match answer.pointer(pointer)? {
        serde_json::Value::String(text) => Some(text.clone()),
        value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_)) => Some(value.to_string()),
        _ => None,
    }
}

/// Returns the first line of an answer, harmless to a terminal, without passwords of URLs and short.
fn first_line(body: &Bytes) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("(no body)");
    let plain: String = line.chars().filter(|c| !c.is_control()).collect();
    Mask::default().text(&plain).chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_a_scalar() {
        let body = Bytes::from(r#"{"user":{"id":7,"name":"x","ok":true,"tags":[]}}"#);
        for (pointer, wanted) in [
            ("/user/id", Some("7")),
            ("/user/name", Some("x")),
            ("/user/ok", Some("true")),
            ("/user/tags", None),
            ("/nobody", None),
        ] {
            assert_eq!(pick(&body, pointer).as_deref(), wanted, "{pointer}");
        }
        assert_eq!(pick(&Bytes::from("<html>"), ""), None);
    }

    #[test]
    fn a_first_line_tells_no_password_of_a_url() {
        let body = Bytes::from("cannot connect postgres://u:pw@db/x\nmore");
        assert_eq!(first_line(&body), "cannot connect postgres://u:***@db/x");
        let long = format!("{} postgres://u:{}@db", "x".repeat(SHOWN - 20), "p".repeat(40));
        assert!(!first_line(&Bytes::from(long)).contains("pp"), "starred before it is cut");
    }

    #[test]
    fn a_first_line_cannot_move_the_cursor() {
        assert_eq!(first_line(&Bytes::from("\n  a\u{1b}[2Jb\nc")), "a[2Jb");
        assert_eq!(first_line(&Bytes::from(vec![b'x'; 999])).len(), SHOWN);
        assert_eq!(first_line(&Bytes::new()), "(no body)");
    }
}
