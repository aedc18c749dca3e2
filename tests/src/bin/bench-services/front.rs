//! The gateway beside nginx: the same upstream, the same questions, connections to the upstream kept by both.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mlctl_tests::{free_ports, get};

use crate::Compared;
use crate::cpu;
use crate::load::{Question, ask};

const ROUNDS: usize = 7;
const REQUESTS: u64 = 40_000;
const CONNECTIONS: u64 = 16;

/// A program that ends with us.
struct Program(Child);

impl Program {
    fn start(command: &mut Command) -> Result<Self, String> {
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Ok(Self(started.map_err(|error| format!("start {:?}: {error}", command.get_program()))?))
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Its master ends the workers of nginx, which does not come with a kill.
        let pid = nix::unistd::Pid::from_raw(self.pid());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        self.0.wait().ok();
    }
}

/// CPU a request of the gateway against nginx.
pub async fn compare() -> Result<Compared, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let ports = free_ports(4);
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let _hello = Program::start(Command::new(own).arg("hello").env("PORT", ports[0].to_string()))?;

    let routes = folder.path().join("routes.json");
    let table = format!(
        "{{\"version\":1,\"services\":[{{\"name\":\"hello\",\"upstream\":\"127.0.0.1:{}\"}}],\
          \"routes\":[{{\"path\":\"/api/hello\",\"service\":\"hello\",\"to\":\"/hello\"}}],\"maintenance\":null}}",
        ports[0]
    );
    std::fs::write(&routes, table).map_err(|error| error.to_string())?;
    let gateway = mlctl_tests::service("gateway");
    let gateway = Program::start(
        Command::new(&gateway)
            .env_clear()
            .env("PORT", ports[1].to_string())
            .env("METRICS_PORT", ports[2].to_string())
            .env("ROUTES_FILE", &routes)
            .env("LOG_LEVEL", "info"),
    )?;
    let nginx = Program::start(
        Command::new("nginx")
            .arg("-c")
            .arg(configuration(folder.path(), ports[3], ports[0])?)
            .arg("-p")
            .arg(folder.path()),
    )?;
    for port in [ports[1], ports[3]] {
        let url = format!("http://127.0.0.1:{port}/api/hello");
        mlctl_tests::eventually("both to answer", Duration::from_secs(10), async || match mlctl_tests::ask(
            &url,
        )
        .await
        {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("{url}: {}", answer.status)),
            Err(reason) => Err(format!("{url}: {reason}")),
        })
        .await;
        assert_eq!(get(&url).await.body, "{\"hello\":\"world\"}");
    }
    let workers = cpu::children(nginx.pid())?;
    let sides = [(ports[1], vec![gateway.pid()]), (ports[3], workers)];
    let mut ratios = Vec::new();
    for round in 0..=ROUNDS {
        let mut costs = [0.0; 2];
        // Who comes first changes from round to round.
        for side in [round % 2, 1 - round % 2] {
            let (port, pids) = &sides[side];
            costs[side] = cost(*port, pids).await?;
        }
        // The first round only warms up.
        if round > 0 {
            println!("  gateway {:.1} µs, nginx {:.1} µs of CPU a request", costs[0], costs[1]);
            ratios.push(costs[0] / costs[1]);
        }
    }
    Ok(Compared { ratios, budget: 1.5 })
}

/// Microseconds of CPU for one request.
async fn cost(port: u16, pids: &[i32]) -> Result<f64, String> {
    let question = Question {
        method: "GET",
        address: format!("127.0.0.1:{port}"),
        path: "/api/hello".to_owned(),
        bearer: None,
        body: None,
        wanted: None,
    };
    let before = cpu::used(pids)?;
    ask(&question, CONNECTIONS, REQUESTS).await?;
    Ok((cpu::used(pids)? - before).as_secs_f64() * 1e6 / REQUESTS as f64)
}

/// nginx as one would run it: as many workers as cores, connections to the upstream kept, and the headers that the
/// gateway sets too.
fn configuration(folder: &Path, port: u16, upstream: u16) -> Result<std::path::PathBuf, String> {
    let path = folder.join("nginx.conf");
    let text = format!(
        "daemon off;
         worker_processes auto;
         pid {folder}/nginx.pid;
         error_log {folder}/error.log;
         events {{ worker_connections 1024; }}
         http {{
           access_log off;
           client_body_temp_path {folder}/body;
           proxy_temp_path {folder}/proxy;
           fastcgi_temp_path {folder}/fastcgi;
           uwsgi_temp_path {folder}/uwsgi;
           scgi_temp_path {folder}/scgi;
           keepalive_requests 1000000;
           upstream hello {{ server 127.0.0.1:{upstream}; keepalive 64; }}
           server {{
             listen 127.0.0.1:{port};
             location = /api/hello {{
               proxy_pass http://hello/hello;
               proxy_http_version 1.1;
               proxy_set_header Connection \"\";
               proxy_set_header X-Forwarded-For $remote_addr;
               proxy_set_header X-Forwarded-Host $host;
               proxy_set_header X-Forwarded-Proto $scheme;
               proxy_set_header X-Request-Id $request_id;
             }}
           }}
         }}
        ",
        folder = folder.display()
    );
    std::fs::write(&path, text).map_err(|error| error.to_string())?;
    Ok(path)
}
