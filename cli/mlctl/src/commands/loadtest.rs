//! `mlctl loadtest`: sends load at a rate that does not wait for answers, and judges it.

use clap::Args;
use indexmap::IndexMap;
use mlctl_core::gate::Verdict;
use mlctl_core::overrides::Override;
use mlctl_core::ports::{LoadReport, LoadRequest, LoadRunner as _, LoadTick};
use mlctl_core::run::Canceller;
use mlctl_core::steps::load::{sentence, tick_sentence};
use mlctl_core::system::units::{Expect, Rate, Threshold, TimeSpan};
use mlctl_core::system::{Call, LoadProfile, MixEntry};
use mlctl_load::HttpLoadRunner;

use super::known;
use crate::error::{CommandError, ExitStatus};
use crate::output::{Printer, endpoint_table, verdict_style};
use crate::session::Session;
use crate::settings::Settings;
use crate::signals::Signals;

/// Send load on a schedule and judge latency and errors
///
/// The schedule never waits for answers, and latency counts from when a request was due: a server that freezes is
/// seen to have frozen. Without a URL the system's public front is loaded with a profile of mlctl.yaml.
#[derive(Debug, Args)]
pub(crate) struct LoadtestArgs {
    /// The URL to GET; without one, a profile of mlctl.yaml against the system
    url: Option<String>,
    /// The profile of mlctl.yaml
    #[arg(long, default_value = "verify", value_name = "NAME")]
    profile: String,
    /// Requests per time, such as 250/s
    #[arg(long)]
    rate: Option<Rate>,
    /// How long
    #[arg(long, value_name = "DURATION")]
    duration: Option<TimeSpan>,
    /// A linear ramp before it, not measured
    #[arg(long, value_name = "DURATION")]
    warmup: Option<TimeSpan>,
    /// The most connections
    #[arg(long, value_name = "N")]
    connections: Option<u32>,
    /// What has to hold, such as p99<500ms; may be repeated
    #[arg(long, value_name = "EXPR")]
    threshold: Vec<Threshold>,
    /// One connection a request
    #[arg(long)]
    no_keep_alive: bool,
    /// Allow load on a host that is not this machine
    #[arg(long, value_name = "H")]
    allow_host: Vec<String>,
    /// Seed of everything random; each test has its own unless told
    ///
    /// What the setup of a profile makes is named by it: a seed that was used before needs what that test made to be
    /// gone.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Compare with an earlier result
    #[arg(long, hide = true)]
    baseline: Option<String>,
    /// Search the highest rate at which everything holds
    #[arg(long, hide = true)]
    find_limit: bool,
    /// Bind the load to a rollout
    #[arg(long, hide = true)]
    during_rollout: bool,
    /// Where the load comes from
    #[arg(long, hide = true)]
    from: Option<String>,
}

pub(super) async fn run(
    args: &LoadtestArgs,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitStatus, CommandError> {
    for (asked, name) in [
        (args.baseline.is_some(), "--baseline"),
        (args.find_limit, "--find-limit"),
        (args.during_rollout, "--during-rollout"),
        (args.from.is_some(), "--from"),
    ] {
        if asked {
            return Err(CommandError::not_yet(&format!("`mlctl loadtest {name}`")));
        }
    }
    let (request, maintenance) = match &args.url {
        Some(url) => (of_url(args, url).await?, None),
        None => of_system(args, settings, printer).await?,
    };
    let mut runner = HttpLoadRunner::new().with_keep_alive(!args.no_keep_alive);
    for host in &args.allow_host {
        runner = runner.allowing_host(host);
    }
    let (canceller, cancel) = Canceller::new();
    let tick = |tick: LoadTick| printer.status(&tick_sentence(&tick));
    // The runner is never dropped: what the setup made has to be taken away again.
    let running = runner.run(&request, &tick, &cancel);
    let signals = Signals::hear()?;
    let warn = |_| printer.warning("stopping; what the profile made is being removed");
    let report = tokio::select! {
        report = running => report.map_err(|error| {
            let edge = CommandError::from(error);
            before_the_load(edge, request.seed, args.seed.is_some(), maintenance.as_ref())
        })?,
        never = signals.pass_on(&canceller, warn) => match never {},
    };
    show(printer, &report, request.seed);
    let status = status(&report);
    Ok(if status == ExitStatus::Interrupted && cancel.by_system() { ExitStatus::Terminated } else { status })
}

/// Adds what helps after a load that could not begin.
fn before_the_load(
    error: CommandError,
    seed: u64,
    chosen: bool,
    maintenance: Option<&Override>,
) -> CommandError {
    let refused = matches!(error.status, ExitStatus::GateFailed | ExitStatus::GateInconclusive);
    match maintenance.filter(|_| error.status == ExitStatus::GateInconclusive) {
        Some(on) => error.hint(format!(
            "maintenance is on since {} by {}; `mlctl maintenance off` ends it",
            on.since, on.owner
        )),
        None if refused && chosen => error.hint(format!(
            "a test with --seed {seed} that was cut off may have left what it made; without --seed each test has names of its own"
        )),
        None if refused => error.hint(format!("nothing was measured; --seed {seed} asks the same once more")),
        None => error,
    }
}

/// An interrupted run never passes, nor does one without a request.
fn status(report: &LoadReport) -> ExitStatus {
    if report.interrupted {
        return ExitStatus::Interrupted;
    }
    match report.verdicts.iter().map(|result| result.verdict).max() {
        Some(Verdict::Fail) => ExitStatus::GateFailed,
        Some(Verdict::Inconclusive) => ExitStatus::GateInconclusive,
        None if report.sent == 0 => ExitStatus::GateInconclusive,
        None if report.succeeded == 0 => ExitStatus::GateFailed,
        Some(Verdict::Pass) | None => ExitStatus::Done,
    }
}

/// A URL of the command line, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    host: String,
    port: u16,
    /// Host and port as given.
    authority: String,
    path: String,
}

/// Takes a URL apart; none where it is not one that load can be sent to.
fn address(url: &str) -> Option<Address> {
    let rest = url.strip_prefix("http://")?;
    let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':')?)),
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(80), |port| port.parse().ok())?;
    // What no URL holds as it is (RFC 3986, 2.2); a user name would be sent to nobody.
    let bad = |c: char| c.is_whitespace() || c.is_control() || "\"<>\\^`{|}".contains(c);
    if host.is_empty() || host.contains(['@', '[', ']']) || authority.contains(bad) || path.contains(bad) {
        return None;
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Some(Address { host: host.to_owned(), port, authority: authority.to_owned(), path })
}

/// Refuses load on another machine that was not allowed by name.
async fn guard(args: &LoadtestArgs, address: &Address) -> Result<(), CommandError> {
    let Address { host, port, .. } = address;
    if args.allow_host.contains(host) {
        return Ok(());
    }
    let mut found = tokio::net::lookup_host((host.as_str(), *port)).await.map_err(|error| {
        CommandError::new(ExitStatus::Unreachable, format!("send load to {host}: look it up: {error}"))
    })?;
    if found.all(|address| address.ip().is_loopback()) {
        return Ok(());
    }
    Err(CommandError::refused(format!("send load to {host}: it is not this machine"))
        .hint(format!("--allow-host {host}, if its owner agrees")))
}

async fn of_url(args: &LoadtestArgs, url: &str) -> Result<LoadRequest, CommandError> {
    let address = address(url).ok_or_else(|| {
        CommandError::new(
            ExitStatus::Usage,
            format!("{url}: expected a URL such as http://127.0.0.1:8080/path"),
        )
    })?;
    guard(args, &address).await?;
    let parsed = |text: &str| text.parse::<Rate>().map_err(|error| CommandError::bug(error.to_string()));
    let expect = "2xx".parse::<Expect>().map_err(|error| CommandError::bug(error.to_string()))?;
    let mix = MixEntry {
        name: "get".to_owned(),
        weight: 1,
        call: Call::Get(address.path),
        body: None,
        headers: IndexMap::new(),
        expect,
    };
    let profile = LoadProfile {
        rate: args.rate.map_or_else(|| parsed("50/s"), Ok)?,
        duration: args.duration.unwrap_or(TimeSpan::from_secs(10)),
        warmup: args.warmup.unwrap_or(TimeSpan::from_millis(0)),
        connections: args.connections.unwrap_or(50),
        timeout: TimeSpan::from_secs(10),
        headers: IndexMap::new(),
        setup: Vec::new(),
        mix: vec![mix],
        teardown: Vec::new(),
        thresholds: args.threshold.clone(),
    };
    let base = format!("http://{}", address.authority);
    Ok(LoadRequest { profile, base, secrets: std::collections::BTreeMap::new(), seed: seed(args) })
}

fn seed(args: &LoadtestArgs) -> u64 {
    args.seed.unwrap_or_else(rand::random)
}

async fn of_system(
    args: &LoadtestArgs,
    settings: &Settings,
    printer: &Printer,
) -> Result<(LoadRequest, Option<Override>), CommandError> {
    let session = Session::open(settings, printer).await?;
    let system = &session.system;
    let Some(mut profile) = system.load.get(&args.profile).cloned() else {
        let text = format!("load profile {}: mlctl.yaml has no such profile", args.profile);
        return Err(
            CommandError::new(ExitStatus::NotFound, text).hint(known("its `load`", system.load.keys()))
        );
    };
    let base = session.front().await.ok_or_else(|| {
        CommandError::refused("send load: the system has no public front here").hint("mlctl deploy")
    })?;
    profile.rate = args.rate.unwrap_or(profile.rate);
    profile.duration = args.duration.unwrap_or(profile.duration);
    profile.warmup = args.warmup.unwrap_or(profile.warmup);
    profile.connections = args.connections.unwrap_or(profile.connections);
    if args.threshold.is_empty() {
        profile.thresholds.extend(system.kpis.values().filter_map(mlctl_core::system::Kpi::load_threshold));
    } else {
        profile.thresholds.clone_from(&args.threshold);
    }
    let mut secrets = std::collections::BTreeMap::new();
    for name in system.secrets.keys() {
        if let Some(value) = session.target.inspector.secret(name).await? {
            secrets.insert(name.clone(), value);
        }
    }
    let now = jiff::Timestamp::now();
    let maintenance =
        session.target.overrides.list().await?.into_iter().find(|entry| entry.is_maintenance(now));
    Ok((LoadRequest { profile, base, secrets, seed: seed(args) }, maintenance))
}

fn show(printer: &Printer, report: &LoadReport, seed: u64) {
    if printer.is_json() {
        let mut document = serde_json::to_value(report).unwrap_or_default();
        document["seed"] = seed.into();
        printer.json(&document);
        return;
    }
    printer.data(&format!("{}; --seed {seed} sends the same", sentence(report)));
    printer.table(&endpoint_table(report));
    for result in &report.verdicts {
        let verdict = printer.out_styles().paint(verdict_style(result.verdict), result.verdict.word());
        printer.data(&format!("{verdict}: {} wants {}, got {}", result.subject, result.want, result.got));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_or_refused() {
        for (url, host, port, path) in [
            ("http://127.0.0.1:8080", "127.0.0.1", 8080, "/"),
            ("http://localhost/a@b?c[]=d", "localhost", 80, "/a@b?c[]=d"),
            ("http://[::1]:9/x#y", "::1", 9, "/x"),
            ("http://[::1]?q", "::1", 80, "/?q"),
        ] {
            let found = address(url).unwrap();
            assert_eq!((found.host.as_str(), found.port, found.path.as_str()), (host, port, path), "{url}");
        }
        for url in [
            "",
            "127.0.0.1:8080",
            "https://127.0.0.1",
            "http://",
            "http:///x",
            "http://:80",
            "http://h:port",
            "http://h:99999",
            "http://[::1",
            "http://[::1]9",
            "http://me@h",
            "http://a host/",
            "http://h/a b",
        ] {
            assert_eq!(address(url), None, "{url}");
        }
    }
}
