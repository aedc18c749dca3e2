//! What a flood of logins does to everybody else: the built binary, four times the logins it can compute, and a person
//! who looks at their account meanwhile. Rounds with and without the flood alternate; the median of the ratios counts.
//!
//! `cargo bench -p user-service --bench login_flood`; ends with 1 when the 99th percentile of `/users/me` moves by more
//! than twice, or memory grows by more than the hashing workers' buffers.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program for measuring")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use service_kit::auth::Signer;
use service_kit::client::Client;
use service_kit::testing::{client, migrate};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(8);
/// Looks at one's account in a second.
const LOOKS: u32 = 100;
/// Logins in a second; a core computes about 60.
const LOGINS: u32 = 400;
/// Most that a flood may add: two workers of 19 MiB, and what connections and answers take.
const GROWTH_KIB: u64 = 64 * 1024;
const PASSWORD: &str = "correct horse battery staple";

/// The service, killed when it is dropped.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Service {
    fn start(folder: &Path, port: u16) -> Self {
        let database = folder.join("app.db");
        migrate(&database, Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite"))).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_user-service"))
            .env_clear()
            .envs([
                ("HOST", "127.0.0.1"),
                ("PORT", &port.to_string()),
                ("LOG_LEVEL", "error"),
                ("DATABASE_URL", &format!("sqlite:{}", database.display())),
                ("EMBEDDED_DIR", &folder.display().to_string()),
                ("JWT_KEYS", Signer::generate_pem().unwrap().expose_secret()),
                ("INTEGRATION_SERVICE_URL", "http://127.0.0.1:9"),
                ("INTERNAL_TOKEN", "internal"),
                ("ML_AUTH_URL", "https://auth.example.com"),
                ("ML_CLIENT_ID", "1"),
                ("ML_REDIRECT_URI", "https://api.example.com/api/auth/ml/callback"),
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// A line of `/proc/PID/status`, in KiB.
    fn memory(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
    }
}

/// How the flood's logins ended.
#[derive(Default)]
struct Ended {
    computed: AtomicUsize,
    turned_away: AtomicUsize,
    other: AtomicUsize,
    guess: AtomicU64,
}

/// So many calls a second for one round, each started in its time whether or not the one before has ended.
async fn paced<F>(rate: u32, mut call: impl FnMut() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut calls = JoinSet::new();
    let end = Instant::now() + ROUND;
    while Instant::now() < end {
        ticks.tick().await;
        calls.spawn(call());
    }
    calls.join_all().await;
}

async fn flood(client: Client, ended: Arc<Ended>) {
    paced(LOGINS, || {
        let (client, ended) = (client.clone(), Arc::clone(&ended));
        async move {
            // Everybody else's account from everywhere: neither throttle holds this back.
            let guess = ended.guess.fetch_add(1, Ordering::Relaxed);
            let body = json!({"email": format!("user{guess}@example.com"), "password": "wrong password"});
            let address = format!("10.{}.{}.{}", guess >> 16 & 255, guess >> 8 & 255, guess & 255);
            let headers = [("x-forwarded-for", address.as_str())];
            let answer = client.send_json(axum::http::Method::POST, "/auth/login", &headers, &body).await;
            let counter = match answer.map(|answer| answer.status.as_u16()) {
                Ok(401) => &ended.computed,
                Ok(503) => &ended.turned_away,
                _ => &ended.other,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    })
    .await;
}

/// The 99th percentile of looks at one's account, in milliseconds.
async fn looks(client: &Client, bearer: &str) -> f64 {
    let times = Arc::new(parking_lot::Mutex::new(Vec::new()));
    paced(LOOKS, || {
        let (client, bearer, times) = (client.clone(), bearer.to_owned(), Arc::clone(&times));
        async move {
            let asked = Instant::now();
            let answer = client.get("/users/me", &[("authorization", &bearer)]).await.unwrap();
            assert_eq!(answer.status.as_u16(), 200);
            times.lock().push(asked.elapsed());
        }
    })
    .await;
    let mut times = times.lock();
    times.sort();
    times[times.len() * 99 / 100].as_secs_f64() * 1e3
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let service = Service::start(folder.path(), port);
    let client = client(([127, 0, 0, 1], port).into()).unwrap();
    while !client.get("/readyz", &[]).await.is_ok_and(|answer| answer.status == 200) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let body = json!({"email": "ana@example.com", "password": PASSWORD});
    let answer = client.send_json(axum::http::Method::POST, "/auth/register", &[], &body).await.unwrap();
    let bearer = format!("Bearer {}", answer.json::<Value>().unwrap()["access_token"].as_str().unwrap());

    looks(&client, &bearer).await;
    let before = service.memory("VmHWM:");
    let ended = Arc::new(Ended::default());
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        let calm = looks(&client, &bearer).await;
        let (flooded, ()) = tokio::join!(looks(&client, &bearer), flood(client.clone(), Arc::clone(&ended)));
        let memory = service.memory("VmRSS:");
        println!("  round {round}: P99 {calm:.1} ms, in the flood {flooded:.1} ms; {} MiB", memory / 1024);
        ratios.push(flooded / calm);
    }
    let grown = service.memory("VmHWM:").saturating_sub(before);
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios[ROUNDS / 2];
    let [computed, away, other] =
        [&ended.computed, &ended.turned_away, &ended.other].map(|count| count.load(Ordering::Relaxed));
    println!(
        "P99 of /users/me in a flood / without: {ratio:.2} (at most 2); memory grew by {} MiB (at most {}); \
         of {} logins {computed} computed, {away} turned away, {other} otherwise",
        grown / 1024,
        GROWTH_KIB / 1024,
        computed + away + other
    );
    if ratio < 2.0 && grown < GROWTH_KIB && other == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
