//! The shipped system, deployed as a user deploys it, with one service more: the bare answer.

use std::time::Duration;

use mlctl_tests::{Sandbox, of_folder, send};
use serde_json::{Value, json};

use crate::Compared;
use crate::load::{Question, ask};
use crate::{cpu, login};

const GATEWAY: u16 = 8080;
const ROUNDS: usize = 7;
const REQUESTS: u64 = 20_000;
const CONNECTIONS: u64 = 16;
/// Logins of one round, over as many connections as there are hashers on a small machine.
const LOGINS: u32 = 60;
const LOGIN_CONNECTIONS: u64 = 2;
const PASSWORD: &str = "correct horse battery staple";

/// The bare answer as a service of the system.
const HELLO: &str = "
  hello:
    command: [BENCH, hello]
    port: 3999
    health: {ready: /readyz}
    replicas: {min: 2, max: 2}
    resources: {requests: {cpu: 50m, memory: 64Mi}, limits: {cpu: 2, memory: 512Mi}}
    env: {PORT: \"{port}\"}
    routes:
      - {path: /api/hello, methods: [GET]}

  # The only caller of the MercadoLibre API and keeper of its tokens.
  integration-service:
";

/// A cached item against the bare answer, and a login against the hash.
pub async fn compare() -> Result<(Compared, Compared), String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let sandbox = Sandbox::of_shipped();
    let marker = "
  # The only caller of the MercadoLibre API and keeper of its tokens.
  integration-service:
";
    sandbox.edit(marker, &HELLO.replace("BENCH", &own.display().to_string()));
    sandbox.mlctl_within(Duration::from_secs(300), &["deploy"]).await.ends(0);
    let address = sandbox.url(GATEWAY).replace("http://", "");
    let compared = measure(&sandbox, &address).await;
    sandbox.end().await;
    compared
}

async fn measure(sandbox: &Sandbox, address: &str) -> Result<(Compared, Compared), String> {
    let pids = |name: &str| -> Vec<i32> {
        let all = of_folder(&sandbox.local());
        let named = all.iter().filter(|process| {
            let program = process.args[0].rsplit('/').next().unwrap_or_default();
            program == name || (program == "bench-services" && name == "hello")
        });
        named.map(|process| process.pid).collect()
    };
    let user = User::connected(address).await?;
    let item = Question {
        method: "GET",
        address: address.to_owned(),
        path: format!("/api/ml/items/{}", user.item),
        bearer: Some(user.bearer.clone()),
        body: None,
        wanted: Some(("x-cache", "hit")),
    };
    let bare = Question { path: "/api/hello".to_owned(), bearer: None, wanted: None, ..item.clone() };
    let gateways = pids("gateway");
    let with = |name: &str| [gateways.clone(), pids(name)].concat();
    let sides = [(item, with("integration-service")), (bare, with("hello"))];
    let mut ratios = Vec::new();
    for round in 0..=ROUNDS {
        let mut costs = [0.0; 2];
        for side in [round % 2, 1 - round % 2] {
            let (question, pids) = &sides[side];
            // Every replica has the item in its own memory before it is measured; its entry lives for seconds.
            warm(question).await;
            let before = cpu::used(pids)?;
            ask(question, CONNECTIONS, REQUESTS).await?;
            costs[side] = (cpu::used(pids)? - before).as_secs_f64() * 1e6 / REQUESTS as f64;
        }
        if round > 0 {
            println!("  cached item {:.1} µs, bare answer {:.1} µs of CPU a request", costs[0], costs[1]);
            println!("    so two cores serve {:.0} cached items a minute", 2.0 * 60e6 / costs[0]);
            ratios.push(costs[0] / costs[1]);
        }
    }
    let item = Compared { ratios, budget: 3.0 };
    Ok((item, logins(address, &pids("user-service"), &user).await?))
}

/// Asks until the answer is as it is wanted, or a moment has passed.
async fn warm(question: &Question) {
    for _ in 0..50 {
        if ask(question, CONNECTIONS, CONNECTIONS * 4).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn logins(address: &str, pids: &[i32], user: &User) -> Result<Compared, String> {
    let question = Question {
        method: "POST",
        address: address.to_owned(),
        path: "/api/auth/login".to_owned(),
        bearer: None,
        body: Some(json!({"email": user.email, "password": PASSWORD}).to_string()),
        wanted: None,
    };
    let mut ratios = Vec::new();
    for round in 0..=ROUNDS {
        let before = cpu::used(pids)?;
        ask(&question, LOGIN_CONNECTIONS, u64::from(LOGINS)).await?;
        let login = (cpu::used(pids)? - before).as_secs_f64() * 1e3 / f64::from(LOGINS);
        // The hash alone, on as many threads at once: two of them share caches and memory as two logins do.
        let threads: Vec<_> =
            (0..LOGIN_CONNECTIONS).map(|_| std::thread::spawn(|| login::hash_alone(LOGINS / 2))).collect();
        let mut hashes = Vec::new();
        for thread in threads {
            let hash = thread.join().map_err(|_| "a hashing thread panicked".to_owned())??;
            hashes.push(hash.as_secs_f64() * 1e3);
        }
        let hash = hashes.iter().sum::<f64>() / hashes.len() as f64;
        if round > 0 {
            println!("  login {login:.1} ms, hash {hash:.1} ms of CPU");
            ratios.push(login / hash);
        }
    }
    Ok(Compared { ratios, budget: 1.1 })
}

/// Somebody whose MercadoLibre account is connected.
struct User {
    email: String,
    bearer: String,
    item: String,
}

impl User {
    async fn connected(address: &str) -> Result<Self, String> {
        let base = format!("http://{address}");
        let email = format!("bench-{}@example.com", std::process::id());
        let body = json!({"email": email, "password": PASSWORD});
        expect(&send("POST", &format!("{base}/api/auth/register"), &[], Some(&body)).await?, 201)?;
        let login = expect(&send("POST", &format!("{base}/api/auth/login"), &[], Some(&body)).await?, 200)?;
        let bearer = format!("Bearer {}", login["access_token"].as_str().unwrap_or_default());
        let headers = [("authorization", bearer.as_str())];
        let begun = expect(&send("GET", &format!("{base}/api/auth/ml/connect"), &headers, None).await?, 200)?;
        let consent = send("GET", begun["authorize_url"].as_str().unwrap_or_default(), &[], None).await?;
        let callback =
            consent.headers.get("location").and_then(|value| value.to_str().ok()).unwrap_or_default();
        expect(&send("GET", callback, &headers, None).await?, 200)?;
        let items = expect(&send("GET", &format!("{base}/api/ml/items"), &headers, None).await?, 200)?;
        let item = items["results"][0].as_str().unwrap_or_default().to_owned();
        Ok(Self { email, bearer, item })
    }
}

fn expect(answer: &mlctl_tests::Answer, status: u16) -> Result<Value, String> {
    if answer.status == status {
        Ok(answer.json())
    } else {
        Err(format!("{}: {}", answer.status, answer.body))
    }
}
