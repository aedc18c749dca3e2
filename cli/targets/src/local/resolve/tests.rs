use std::path::PathBuf;

use mlctl_core::ports::{Artifact, MigrationFile, StoreMode};
use mlctl_core::system::SystemFile;

use super::*;

const SYSTEM: &str = r#"
apiVersion: mlctl/v1
system: shop
services:
  front:
    gateway: true
    socket: passed
    build: {run: [make], artifact: out/front}
    port: 8080
    needs: [api]
    env: {ROUTES_FILE: "{file:routes.json}", API: "http://{addr:api}", NOTE: "{{not a placeholder}}"}
  api:
    build: {run: [make], artifact: out/api}
    port: 3001
    metrics: {port: 9001, path: /metrics}
    health: {ready: /readyz, check: /health}
    replicas: {min: 2, max: 4}
    resources: {limits: {cpu: 500m, memory: 64Mi}}
    update: {drain: 20s}
    needs: [pg, cache]
    migrations: migrations/api
    env:
      DATABASE_URL: {store: pg}
      CACHE_URL: {store: cache}
      KEY: {secret: key}
      TOKEN: {secret: token, as: env}
      DATA: "{data}"
      PORT: "{port}"
    routes: [{path: /api/things, to: /things, methods: [GET]}, {path: /api/x, match: exact, timeout: 3s}]
  files:
    command: [python3, -m, http.server, "{port}"]
    port: 3002
stores:
  pg: {kind: postgresql}
  cache: {kind: redis}
secrets:
  key: {generate: ed25519-pem}
  token: {generate: token}
"#;

fn system(text: &str) -> System {
    SystemFile::parse("mlctl.yaml", text.as_bytes()).unwrap().system().unwrap()
}

fn input(folder: &std::path::Path) -> ReleaseInput {
    let artifact = |name: &str| {
        let path = folder.join(name);
        (name.to_owned(), Artifact { path, digest: Digest::of(name.as_bytes()) })
    };
    let file = MigrationFile { version: 1, name: "begin".to_owned(), up: "create".to_owned(), down: None };
    ReleaseInput {
        artifacts: BTreeMap::from([artifact("front"), artifact("api")]),
        migrations: BTreeMap::from([("api".to_owned(), vec![file])]),
        ..ReleaseInput::default()
    }
}

fn resolved(text: &str) -> Desired {
    resolve(&Layout::new("/state"), &system(text), &input(&PathBuf::from("/out")), &Servers::new()).unwrap()
}

fn spec_of(desired: &Desired, name: &str) -> WorkloadSpec {
    LocalWorkload::of(desired.get(&ItemId::workload(name)).unwrap(), "test").unwrap().spec
}

fn texts(spec: &WorkloadSpec, names: &[&str]) -> Vec<Option<String>> {
    names
        .iter()
        .map(|name| match spec.env.get(*name)? {
            EnvSource::Text(text) => Some(text.clone()),
            EnvSource::SecretFile(secret) => Some(format!("file of {secret}")),
            EnvSource::SecretValue(secret) => Some(format!("value of {secret}")),
            EnvSource::SecretText { secret, text } => Some(format!("{text} with {secret}")),
        })
        .collect()
}

#[test]
fn a_system_becomes_items_with_their_needs() {
    let desired = resolved(SYSTEM);
    let told: Vec<String> = desired
        .items
        .iter()
        .map(|item| {
            let needs: Vec<String> = item.needs.iter().map(ToString::to_string).collect();
            format!("{} [{}]", item.id, needs.join(" "))
        })
        .collect();
    assert_eq!(
        told,
        [
            "namespace/shop []",
            "secret/key []",
            "secret/token []",
            "store/pg []",
            "store/cache []",
            "migration/api [store/pg]",
            "workload/front [workload/api]",
            "workload/api [store/pg store/cache migration/api secret/key secret/token]",
            "workload/files []",
        ]
    );
    let api = desired.get(&ItemId::workload("api")).unwrap();
    assert_eq!(api.replicas, Some(ReplicaRange { min: 2, max: 4 }));
    let migration = desired.get(&ItemId::new(ItemKind::Migration, "api")).unwrap();
    assert_eq!(migration.payload["url"], "sqlite:/state/data/pg.db");
}

#[test]
fn variables_are_filled_as_far_as_this_side_can() {
    let desired = resolved(SYSTEM);
    let api = spec_of(&desired, "api");
    let names =
        ["DATABASE_URL", "CACHE_URL", "KEY", "KEY_FILE", "TOKEN", "PORT", "METRICS_PORT", "DRAIN_SECONDS"];
    let expected = [
        Some("sqlite:{data}/pg.db"),
        None,
        None,
        Some("file of key"),
        Some("value of token"),
        Some("{port}"),
        Some("{metrics_port}"),
        Some("20"),
    ];
    assert_eq!(texts(&api, &names), expected.map(|t| t.map(ToOwned::to_owned)));
    let front = spec_of(&desired, "front");
    let names = ["API", "NOTE", "MLCTL_ADDR_API", "MLCTL_ADDR_FILES", "METRICS_PORT"];
    let expected = [
        Some("http://127.0.0.1:3001"),
        Some("{{not a placeholder}}"),
        Some("127.0.0.1:3001"),
        Some("127.0.0.1:3002"),
        None,
    ];
    assert_eq!(texts(&front, &names), expected.map(|t| t.map(ToOwned::to_owned)));
    assert_eq!((front.argv.join(" "), front.socket), ("{artifact}".to_owned(), SocketMode::Passed));
    assert_eq!(spec_of(&desired, "files").argv.join(" "), "python3 -m http.server {port}");
    assert_eq!(api.limits, Limits { cpu_millis: Some(500), memory_bytes: Some(64 << 20) });
}

#[test]
fn the_route_table_names_upstreams_by_their_stable_address() {
    let front = spec_of(&resolved(SYSTEM), "front");
    let table: Value = serde_json::from_str(&front.files[0].content).unwrap();
    assert_eq!(
        table,
        json!({
            "version": 1,
            "services": [{"name": "api", "upstream": "127.0.0.1:3001", "health_path": "/health"}],
            "routes": [
                {"path": "/api/things", "service": "api", "to": "/things", "match": "prefix", "methods": ["GET"]},
                {"path": "/api/x", "service": "api", "to": "/api/x", "match": "exact", "timeout_ms": 3000},
            ],
            "maintenance": null,
        })
    );
}

#[test]
fn only_what_rolls_a_workload_changes_its_digest() {
    let digest = |text: &str, name: &str| resolved(text).get(&ItemId::workload(name)).unwrap().digest.clone();
    let other_route = SYSTEM.replace("/api/things", "/api/others");
    assert_eq!(digest(SYSTEM, "front"), digest(&other_route, "front"), "a live file rolls nothing");
    let more = SYSTEM.replace("min: 2, max: 4", "min: 3, max: 5");
    assert_eq!(digest(SYSTEM, "api"), digest(&more, "api"), "a count is no revision");
    let other_env = SYSTEM.replace("PORT: \"{port}\"", "PORT: \"{port}\"\n      X: y");
    assert_ne!(digest(SYSTEM, "api"), digest(&other_env, "api"));
    assert_eq!(digest(SYSTEM, "files"), digest(&other_env, "files"));
}

#[test]
fn what_this_target_cannot_run_is_refused_by_name() {
    let layout = Layout::new("/state");
    let nothing_built =
        resolve(&layout, &system(SYSTEM), &ReleaseInput::default(), &Servers::new()).unwrap_err();
    assert_eq!(
        nothing_built.to_string(),
        "resolve service front: artifact_missing: nothing was built for it"
    );
    let image_only = "apiVersion: mlctl/v1\nsystem: s\nservices: {a: {image: x, port: 1234}}\n";
    let error = resolve(&layout, &system(image_only), &ReleaseInput::default(), &Servers::new()).unwrap_err();
    assert!(error.to_string().contains("runs no images"), "{error}");
}

#[test]
fn with_servers_addresses_are_files_with_a_password_that_no_item_holds() {
    let system = system(SYSTEM);
    let server = |port| servers::Server { programs: "/usr/bin".into(), port };
    let names = system.stores.iter().filter(|(_, store)| servers::kind_word(store.kind).is_some());
    let servers: Servers =
        names.zip(15_000..).map(|((name, _), port)| (name.clone(), server(port))).collect();
    let input = ReleaseInput { stores: StoreMode::Real, ..input(&PathBuf::from("/out")) };
    let desired = resolve(&Layout::new("/state"), &system, &input, &servers).unwrap();
    assert_eq!(desired.stores, StoreMode::Real);
    for name in servers.keys() {
        let secret = ItemId::new(ItemKind::Secret, servers::password(name));
        assert!(desired.get(&secret).is_some(), "{name}");
        let item = desired.get(&ItemId::new(ItemKind::Store, name)).unwrap();
        assert_eq!(item.needs, [secret]);
        assert!(LocalStore::of(item, "test").unwrap().server.is_some());
    }
    // What it reads, under the name with _FILE, and what it needs to be there first and last.
    let (api, port) = (spec_of(&desired, "api"), servers["pg"].port);
    let Some(EnvSource::SecretText { secret, text }) = api.env.get("DATABASE_URL_FILE") else {
        panic!("{:?}", api.env);
    };
    assert_eq!(
        (secret.as_str(), text.as_str()),
        ("pg.password", format!("postgresql://shop:{{secret}}@127.0.0.1:{port}/shop").as_str())
    );
    assert!(!api.env.contains_key("DATABASE_URL"));
    assert_eq!(api.needs, ["cache", "pg"]);
    let migration = desired.get(&ItemId::new(ItemKind::Migration, "api")).unwrap();
    assert_eq!(migration.payload["url"], format!("postgresql://shop@127.0.0.1:{port}/shop"));
    assert_eq!(migration.payload["password"], "pg.password");
    // The embedded form is what it always was.
    let embedded = resolved(SYSTEM);
    assert!(embedded.stores.is_embedded() && spec_of(&embedded, "api").needs.is_empty());
    assert!(!embedded.items.iter().any(|item| item.id.name.ends_with(".password")));
}
