//! The table of routes: what may pass, where to, how long it may take.
//!
//! The file is JSON: `{"version": 1, "services": [...], "routes": [...], "maintenance": null}`. A prefix matches on
//! segment boundaries and the longest path wins; of one path, `exact` wins over `prefix`. Unknown keys are skipped,
//! so an older gateway reads a newer file; what changes a meaning raises `version`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use service_kit::Kit;

/// The format that this build reads.
const VERSION: u64 = 1;
/// How long an upstream may take unless a route says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest a route may allow.
const LONGEST_TIMEOUT_MS: u64 = 300_000;
/// Paths of a service that are only for other services, whatever the table says.
const INTERNAL: &str = "/internal";

#[derive(Debug, Deserialize)]
struct File {
    version: u64,
    services: Vec<ServiceEntry>,
    routes: Vec<RouteEntry>,
    #[serde(default)]
    maintenance: Option<Maintenance>,
}

#[derive(Debug, Deserialize)]
struct ServiceEntry {
    name: String,
    upstream: String,
    #[serde(default = "default_health")]
    health_path: String,
}

fn default_health() -> String {
    "/health".to_owned()
}

#[derive(Debug, Deserialize)]
struct RouteEntry {
    path: String,
    service: String,
    to: String,
    #[serde(default, rename = "match")]
    matching: Matching,
    #[serde(default)]
    methods: Option<Vec<String>>,
    #[serde(default)]
    timeout_ms: Option<u64>,
}

/// How a route's path is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Matching {
    /// The path itself and everything below it.
    #[default]
    Prefix,
    /// The path and nothing else.
    Exact,
}

/// Maintenance: the public routes answer 503 until it is taken out of the table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Maintenance {
    /// Since when.
    pub since: Timestamp,
    /// What to tell people.
    #[serde(default)]
    pub message: String,
    /// When to come back, in seconds.
    #[serde(default = "default_retry")]
    pub retry_after_seconds: u64,
}

fn default_retry() -> u64 {
    60
}

/// A service behind the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name, as in `/api/NAME/health`.
    pub name: String,
    /// `HOST:PORT`.
    pub upstream: String,
    /// Where it answers for its health.
    pub health_path: String,
}

/// One way through the gateway.
#[derive(Clone, Debug)]
pub struct Route {
    /// Public path; the `route` label of metrics.
    pub path: String,
    /// Where requests go.
    pub service: Arc<Service>,
    /// Path on the service that takes the public path's place.
    pub to: String,
    /// How `path` is compared.
    pub matching: Matching,
    /// Methods allowed; every method when `None`.
    pub methods: Option<Vec<Method>>,
    /// How long the answer may take, and then each part of its body.
    pub timeout: Duration,
}

/// A checked table.
#[derive(Clone, Debug)]
pub struct Table {
    /// By length of path, longest first; exact before prefix.
    routes: Vec<Route>,
    services: BTreeMap<String, Arc<Service>>,
    /// Set while maintenance is on.
    pub maintenance: Option<Maintenance>,
}

/// What the table says about one request.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup<R> {
    /// Forward it.
    Found(R),
    /// The path is there, but not for this method; these would do.
    MethodNotAllowed(Vec<Method>),
    /// Not on the list.
    NotFound,
}

/// The text is no valid table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Not JSON of this form.
    #[error("the text is no table of routes")]
    Syntax(#[from] serde_json::Error),
    /// JSON of the right form with a wrong content; every mistake is listed.
    #[error("the table of routes has {} mistake(s): {}", .0.len(), .0.join("; "))]
    Content(Vec<String>),
}

impl Table {
    /// Reads and checks a table.
    ///
    /// # Errors
    /// [`TableError`] with every mistake.
    pub fn parse(text: &[u8]) -> Result<Self, TableError> {
        let file: File = serde_json::from_slice(text)?;
        let mut mistakes = Vec::new();
        if file.version != VERSION {
            mistakes.push(format!("version is {}, this build reads {VERSION}", file.version));
        }
        let services = services(file.services, &mut mistakes);
        let mut routes: Vec<Route> =
            file.routes.into_iter().filter_map(|entry| route(entry, &services, &mut mistakes)).collect();
        routes.sort_by_key(|route| (std::cmp::Reverse(route.path.len()), route.matching == Matching::Prefix));
        for (index, route) in routes.iter().enumerate() {
            if routes[..index].iter().any(|earlier| earlier.hides(route)) {
                mistakes.push(format!("route {}: the same path is routed twice", route.path));
            }
        }
        if mistakes.is_empty() {
            Ok(Self { routes, services, maintenance: file.maintenance })
        } else {
            Err(TableError::Content(mistakes))
        }
    }

    /// The route of a request. `HEAD` passes where `GET` does.
    #[must_use]
    pub fn find(&self, method: &Method, path: &str) -> Lookup<&Route> {
        let mut others = Vec::new();
        for route in self.routes.iter().filter(|route| route.matches(path)) {
            match &route.methods {
                Some(allowed) if !allows(allowed, method) => others.extend(allowed.iter().cloned()),
                _ => return Lookup::Found(route),
            }
        }
        if others.is_empty() { Lookup::NotFound } else { Lookup::MethodNotAllowed(others) }
    }

    /// The service whose health `/api/NAME/health` asks for.
    #[must_use]
    pub fn health_of(&self, path: &str) -> Option<&Arc<Service>> {
        let name = path.strip_prefix("/api/")?.strip_suffix("/health")?;
        self.services.get(name)
    }

    /// Every service, by name.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// One line about the table, for `/health` and the log.
    #[must_use]
    pub fn summary(&self) -> String {
        let maintenance = if self.maintenance.is_some() { ", maintenance on" } else { "" };
        format!("{} routes to {} services{maintenance}", self.routes.len(), self.services.len())
    }

    /// Creates the latency series of every route at 0.
    pub(crate) fn announce(&self, kit: &Kit) {
        for route in &self.routes {
            let usual = [Method::GET, Method::POST];
            for method in route.methods.as_deref().unwrap_or(&usual) {
                kit.announce_one(method.as_str(), &route.path);
            }
        }
    }
}

impl Route {
    fn matches(&self, path: &str) -> bool {
        match self.matching {
            Matching::Exact => path == self.path,
            Matching::Prefix => {
                path.strip_prefix(&*self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }

    /// Path on the service for a public path that matches; `None` for what is never public.
    #[must_use]
    pub fn target(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix(&*self.path)?;
        let base = self.to.trim_end_matches('/');
        let target =
            if base.is_empty() && rest.is_empty() { "/".to_owned() } else { format!("{base}{rest}") };
        (!is_internal(&target)).then_some(target)
    }

    /// True when `later` could never be reached because of this one.
    fn hides(&self, later: &Self) -> bool {
        let same = self.path == later.path && self.matching == later.matching;
        same && match (&self.methods, &later.methods) {
            (None, _) | (_, None) => true,
            (Some(ours), Some(theirs)) => theirs.iter().any(|method| ours.contains(method)),
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}{}", self.path, self.service.name, self.to)
    }
}

fn allows(allowed: &[Method], method: &Method) -> bool {
    allowed.contains(method) || (*method == Method::HEAD && allowed.contains(&Method::GET))
}

fn is_internal(path: &str) -> bool {
    // A service may decode what we compare raw, so `/%69nternal` must not slip through either.
    let decoded = crate::headers::decoded(path);
    let folded = decoded.trim_start_matches('/');
    folded == &INTERNAL[1..] || folded.starts_with("internal/")
}

fn services(entries: Vec<ServiceEntry>, mistakes: &mut Vec<String>) -> BTreeMap<String, Arc<Service>> {
    let mut services = BTreeMap::new();
    for ServiceEntry { name, upstream, health_path } in entries {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || !name.bytes().all(plain) {
            mistakes.push(format!("service {name:?}: expected letters, digits, `-`, `_`, `.`"));
        }
        if !is_address(&upstream) {
            mistakes.push(format!("service {name}: upstream {upstream:?} is not HOST:PORT"));
        }
        if !is_path(&health_path) {
            mistakes.push(format!("service {name}: health_path {health_path:?} does not begin with `/`"));
        }
        let service = Arc::new(Service { name: name.clone(), upstream, health_path });
        if services.insert(name.clone(), service).is_some() {
            mistakes.push(format!("service {name}: named twice"));
        }
    }
    services
}

fn route(
    entry: RouteEntry,
    services: &BTreeMap<String, Arc<Service>>,
    mistakes: &mut Vec<String>,
) -> Option<Route> {
    let RouteEntry { path, service, to, matching, methods, timeout_ms } = entry;
    let before = mistakes.len();
    let mut wrong = |text: String| mistakes.push(format!("route {path}: {text}"));
    if !is_path(&path) || (path.len() > 1 && path.ends_with('/')) {
        wrong("a path begins with `/`, does not end with one, and has no query".to_owned());
    }
    if !is_path(&to) {
        wrong(format!("to {to:?} does not begin with `/`"));
    } else if is_internal(&to) {
        wrong(format!("to {to:?} is for services only"));
    }
    let found = services.get(&service).cloned();
    if found.is_none() {
        wrong(format!("service {service:?} is not in the list of services"));
    }
    let timeout = match timeout_ms {
        None => DEFAULT_TIMEOUT,
        Some(ms) => {
            if !(1..=LONGEST_TIMEOUT_MS).contains(&ms) {
                wrong(format!("timeout_ms is {ms}, expected 1 to {LONGEST_TIMEOUT_MS}"));
            }
            Duration::from_millis(ms)
        }
    };
    let methods = methods.map(|names| {
        if names.is_empty() {
            wrong("methods is empty; leave it out to allow all".to_owned());
        }
        names
            .iter()
            .filter_map(|name| match name.as_str() {
                "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" => name.parse().ok(),
                _ => {
                    wrong(format!("method {name:?} is not one of GET HEAD POST PUT PATCH DELETE OPTIONS"));
                    None
                }
            })
            .collect()
    });
    if mistakes.len() > before {
        return None;
    }
    Some(Route { path, service: found?, to, matching, methods, timeout })
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?' && byte != b'#')
}

fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let host_is_plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
        && !host.is_empty();
    host_is_plain && port.parse::<u16>().is_ok_and(|port| port != 0)
}
