//! The agent's protocol: any bytes end as requests, as a refusal, or with the connection.

use std::io::ErrorKind;

use mlctl_core::local_protocol::{Request, Response, line, split_log_line};

/// The longest line here; the agent's own bound is larger and works the same.
const MOST: u64 = 4_096;

/// Any bytes as what a client sends and as what an agent answers.
pub fn protocol(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(converse(data));
    if let Ok(text) = std::str::from_utf8(data) {
        for each in text.lines() {
            let (at, rest) = split_log_line(each);
            assert!(each.ends_with(rest) && (at.is_some() || rest == each));
        }
    }
}

/// The agent's loop over one connection, without the socket.
async fn converse(data: &[u8]) {
    let mut reader = data;
    let mut taken = 0;
    loop {
        let before = reader.len();
        match line::read(&mut reader, MOST).await {
            Ok(Some(text)) => {
                assert!(!text.contains('\n') && (text.len() as u64) < MOST);
                taken += text.len() + 1;
                assert_eq!(before - reader.len(), text.len() + 1, "a line takes itself and its end");
                requested(&text);
                answered(&text);
            }
            Ok(None) => {
                assert_eq!(taken, data.len(), "the end is not told before all is read");
                return;
            }
            Err(error) => {
                let known = [ErrorKind::InvalidData, ErrorKind::UnexpectedEof];
                assert!(known.contains(&error.kind()), "{error}");
                assert!(before as u64 - (reader.len() as u64) <= MOST, "more is read than was agreed");
                return;
            }
        }
    }
}

fn requested(text: &str) {
    match Request::decode(text) {
        Ok(request) => {
            let written = line::encode(&request).unwrap();
            let (end, one) = written.split_last().unwrap();
            assert!(*end == b'\n' && !one.contains(&b'\n'), "a request is one line");
            let again = Request::decode(std::str::from_utf8(one).unwrap());
            assert_eq!(again.as_ref(), Ok(&request));
        }
        Err(refusal) => {
            let Response::Refused { kind, .. } = refusal.as_ref() else { panic!("refused with {refusal:?}") };
            assert_eq!(*kind, mlctl_core::ports::ErrorKind::Invalid);
            assert!(line::encode(&refusal).unwrap().ends_with(b"\n"));
        }
    }
}

fn answered(text: &str) {
    let Ok(response) = serde_json::from_str::<Response>(text) else { return };
    let written = serde_json::to_string(&response).unwrap();
    assert_eq!(serde_json::from_str::<Response>(&written).unwrap(), response, "{written}");
}
