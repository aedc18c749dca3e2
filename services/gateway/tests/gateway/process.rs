//! The gateway as a process: exit codes, signals, the passed socket, and a roll that loses nothing.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{RoutesFile, echo, table, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use service_kit::testing::Wire;
use tokio::process::{Child, Command};

const GATEWAY: &str = env!("CARGO_BIN_EXE_gateway");

/// A command with nothing of this process's environment.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// A gateway that takes `socket` as descriptor 3.
fn passed(socket: &TcpListener, routes: &Path, revision: &str, drain: &str) -> Child {
    let mut shell = command("/bin/sh");
    shell
        .args(["-c", "exec 3<&0 </dev/null; exec \"$0\"", GATEWAY])
        .stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())))
        .stdout(Stdio::null())
        .env("LISTEN_FDS", "1")
        .env("ROUTES_FILE", routes)
        .env("SERVICE_REVISION", revision)
        .env("DRAIN_SECONDS", drain);
    shell.spawn().unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()), signal).unwrap();
}

async fn exit_code(mut child: Child) -> Option<i32> {
    tokio::time::timeout(Duration::from_secs(10), child.wait()).await.expect("still running").unwrap().code()
}

async fn output(mut command: Command) -> Output {
    tokio::time::timeout(Duration::from_secs(10), command.output()).await.expect("still running").unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_bad_environment_is_told_completely_and_ends_with_3() {
    let mut start = command(GATEWAY);
    start.env("PORT", "eighty").env("OPERATOR_TOKEN", "hunter2").env("OPERATOR_TOKEN_FILE", "/x");
    let output = output(start).await;
    assert_eq!(output.status.code(), Some(3));
    let lines: Vec<serde_json::Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<(&str, &str)> = lines
        .iter()
        .map(|line| (line["variable"].as_str().unwrap(), line["message"].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ("PORT", "invalid configuration: PORT: expected a port, 1 to 65535"),
            (
                "ROUTES_FILE",
                "invalid configuration: ROUTES_FILE: is not set; expected a path (or ROUTES_FILE_FILE naming a file)"
            ),
            (
                "OPERATOR_TOKEN",
                "invalid configuration: OPERATOR_TOKEN: both it and OPERATOR_TOKEN_FILE are set; keep one"
            ),
        ]
    );
}

#[tokio::test]
async fn commands_and_what_they_answer() {
    let mut version = command(GATEWAY);
    version.arg("--version");
    let output_of = output(version).await;
    assert_eq!(output_of.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(output_of.stdout).unwrap(),
        format!("gateway {}\n", env!("CARGO_PKG_VERSION"))
    );

    let mut unknown = command(GATEWAY);
    unknown.arg("serve");
    let output_of = output(unknown).await;
    assert_eq!(output_of.status.code(), Some(2));
    assert_eq!(String::from_utf8(output_of.stderr).unwrap(), "usage: gateway [healthcheck | --version]\n");

    let mut nobody = command(GATEWAY);
    nobody.arg("healthcheck").env("PORT", free_port().to_string());
    let output_of = output(nobody).await;
    assert_eq!(output_of.status.code(), Some(1));
    let text = String::from_utf8(output_of.stderr).unwrap();
    assert!(text.starts_with("gateway is not ready: cannot connect for GET http://127.0.0.1:"), "{text}");
    assert_eq!(text.lines().count(), 1);
}

#[tokio::test]
async fn it_serves_says_it_is_ready_and_stops_at_a_signal() {
    let service = echo("r1").await;
    let routes = RoutesFile::new(&table(service.address));
    let (port, metrics) = (free_port(), free_port());
    let mut start = command(GATEWAY);
    start
        .stdout(Stdio::null())
        .env("PORT", port.to_string())
        .env("METRICS_PORT", metrics.to_string())
        .env("ROUTES_FILE", routes.path());
    let child = start.spawn().unwrap();
    let asked = async {
        loop {
            let mut check = command(GATEWAY);
            check.arg("healthcheck").env("PORT", port.to_string());
            if output(check).await.status.success() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asked).await.expect("never ready");
    // The file is the same; a hang-up has it read again all the same.
    let metrics = SocketAddr::from(([127, 0, 0, 1], metrics));
    let reloads = |count| format!("gateway_route_reloads_total{{outcome=\"taken\"}} {count}\n");
    until(metrics, "/metrics", |reply| reply.body.contains(&reloads(0))).await;
    signal(&child, Signal::SIGHUP);
    until(metrics, "/metrics", |reply| reply.body.contains(&reloads(1))).await;

    let mut second = command(GATEWAY);
    second.env("PORT", port.to_string()).env("ROUTES_FILE", routes.path());
    let output_of = output(second).await;
    assert_eq!(output_of.status.code(), Some(1));
    let log = String::from_utf8(output_of.stdout).unwrap();
    assert!(log.contains("is another process using the port?"), "{log}");

    signal(&child, Signal::SIGTERM);
    assert_eq!(exit_code(child).await, Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let service = echo("r1").await;
    let routes = RoutesFile::new(&table(service.address));
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let child = passed(&socket, &routes.path(), "one", "60");
    let mut idle = Wire::connect(address).await.unwrap();
    idle.get("/livez", &[]).await.unwrap();
    signal(&child, Signal::SIGTERM);
    // The idle connection would hold it open for a minute.
    signal(&child, Signal::SIGINT);
    assert_eq!(exit_code(child).await, Some(143));
}

/// Requests on one connection after the other (or on one for long) until told to stop; answers the failures.
async fn client(
    address: SocketAddr,
    keep_alive: bool,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut failures = Vec::new();
    let mut wire = None;
    while !stop.load(Ordering::Relaxed) {
        let connected = match wire.take() {
            Some(wire) => Ok(wire),
            None => Wire::connect(address).await,
        };
        let answered = match connected {
            Ok(mut used) => {
                let connection = if keep_alive { "keep-alive" } else { "close" };
                let reply = used.get("/api/svc/x", &[("connection", connection)]).await;
                reply.map(|reply| (used, reply))
            }
            Err(error) => Err(error),
        };
        match answered {
            Ok((used, reply)) if reply.status == 200 => wire = Some(used).filter(|_| !reply.closes()),
            Ok((_, reply)) => failures.push(format!("{} {}", reply.status, reply.body)),
            Err(error) => failures.push(error.to_string()),
        }
        done.fetch_add(1, Ordering::Relaxed);
        // A client thinks between two requests: its connection idles just when the server goes.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    failures
}

/// Waits until the clients have made 100 requests more: every connection has been used by then.
async fn busy(done: &AtomicUsize) {
    let enough = done.load(Ordering::Relaxed) + 100;
    let worked = async {
        while done.load(Ordering::Relaxed) < enough {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), worked).await.expect("the load stands still");
}

/// Three rolls of the gateway on one passed socket under load; answers every failure that a client saw.
async fn rolls(drain: &str) -> Vec<String> {
    let service = echo("r1").await;
    let routes = RoutesFile::new(&table(service.address));
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut present = passed(&socket, &routes.path(), "g0", drain);
    until(address, "/readyz", |reply| reply.status == 200).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|index| tokio::spawn(client(address, index % 2 == 0, stop.clone(), done.clone())))
        .collect();
    for revision in ["g1", "g2", "g3"] {
        busy(&done).await;
        let next = passed(&socket, &routes.path(), revision, drain);
        until(address, "/livez", |reply| reply.header("x-revision") == Some(revision)).await;
        busy(&done).await;
        signal(&present, Signal::SIGTERM);
        assert_eq!(exit_code(present).await, Some(0), "the old gateway ends well");
        present = next;
    }
    busy(&done).await;
    stop.store(true, Ordering::Relaxed);
    let mut failures = Vec::new();
    for client in clients {
        failures.extend(client.await.unwrap());
    }
    signal(&present, Signal::SIGTERM);
    exit_code(present).await;
    failures
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolls_on_a_passed_socket_lose_nothing() {
    assert_eq!(rolls("5").await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_drain_the_same_rolls_lose_requests() {
    assert!(!rolls("0").await.is_empty(), "the test above cannot fail");
}
