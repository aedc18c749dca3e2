//! A client whose agent ends in the middle of an answer.

use std::sync::atomic::AtomicU32;

use jiff::Timestamp;
use mlctl_core::ports::{LockHolder, LockRequest, LockState, Standing};
use mlctl_core::release::Operator;
use tokio::net::UnixListener;

use super::*;

const BUILD: &str = "build";

/// Greets each client, ends the conversation at the first `deaths` questions after that and answers those that follow;
/// counts the questions. It takes note of a lock before it ends.
async fn agent(listener: UnixListener, deaths: u32, asked: Arc<AtomicU32>) {
    let mut locked: Option<LockHolder> = None;
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (reading, mut writing) = stream.into_split();
        let mut reading = BufReader::new(reading);
        while let Ok(Some(request)) = line::read(&mut reading, ANSWER_BYTES).await {
            let request = Request::decode(&request).unwrap();
            if let Request::Lock { lock } = &request {
                assert!(locked.is_none(), "a second lease would be refused");
                let (since, expires) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
                locked = Some(LockHolder { request: lock.clone(), since, expires, fence: Fence(7) });
            }
            let answer = match request {
                Request::Hello { .. } => {
                    Response::Hello { protocol: PROTOCOL, build: BUILD.to_owned(), pid: 1 }
                }
                _ if asked.fetch_add(1, Ordering::Relaxed) < deaths => break,
                Request::LockState => {
                    let standing = Standing::Held;
                    Response::Line { state: LockState { holder: locked.clone(), standing, line: Vec::new() } }
                }
                Request::Observe => Response::Workloads { workloads: Vec::new() },
                _ => Response::Done,
            };
            writing.write_all(&line::encode(&answer).unwrap()).await.unwrap();
        }
    }
}

/// Asks an agent that dies so often; returns the answer and how often it was asked.
async fn ask(deaths: u32, request: Request) -> (Result<Response>, u32) {
    with_agent(deaths, async |client| client.ask("observe", "the agent", request).await).await
}

async fn with_agent<T>(deaths: u32, work: impl AsyncFnOnce(&Client) -> T) -> (T, u32) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let asked = Arc::new(AtomicU32::new(0));
    let serving = tokio::spawn(agent(UnixListener::bind(&socket).unwrap(), deaths, Arc::clone(&asked)));
    let client = Client {
        socket,
        layout: Layout::new(folder.path()),
        runtime: folder.path().to_owned(),
        exe: "/nowhere".into(),
        build: BUILD.to_owned(),
        ending: Arc::default(),
    };
    let answer = work(&client).await;
    serving.abort();
    (answer, asked.load(Ordering::Relaxed))
}

#[tokio::test]
async fn a_question_is_asked_again_of_the_next_agent() {
    for (deaths, times) in [(0, 1), (1, 2), (2, 3)] {
        let (answer, asked) = ask(deaths, Request::Observe).await;
        assert_eq!(answer.unwrap(), Response::Workloads { workloads: Vec::new() });
        assert_eq!(asked, times);
    }
    let (answer, asked) = ask(9, Request::Observe).await;
    assert_eq!((answer.unwrap_err().kind, asked), (ErrorKind::Unavailable, TRIES));
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_for_the_engine_to_look_at() {
    let scale = Request::Scale { fence: Fence(1), name: "api".to_owned(), replicas: 2 };
    let (answer, asked) = ask(1, scale).await;
    assert_eq!((answer.unwrap_err().kind, asked), (ErrorKind::Unavailable, 1));
}

#[tokio::test]
async fn a_lease_whose_answer_is_lost_is_found_with_the_next_agent() {
    let request = LockRequest {
        operation: "deploy".to_owned(),
        operator: Operator { name: "ana".to_owned(), host: "desk".to_owned() },
        run: "01J".to_owned(),
        pid: 5,
        pid_start: 7,
        ttl: Duration::from_secs(15),
    };
    let (lease, asked) =
        with_agent(1, async |client| super::super::lease::take(client, &request).await).await;
    assert_eq!((lease.unwrap().fence(), asked), (Fence(7), 2));
}
