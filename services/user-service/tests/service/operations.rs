//! What an operator sees: migrations, probes, metrics, and a database without secrets in it.

use serde_json::Value;
use service_kit::testing::{migrate, migrate_down};

use crate::support::{PASSWORD, PATIENCE, World, migrations, text};

#[tokio::test]
async fn it_waits_for_the_migrations_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::unmigrated(folder, |_| {}).await;
    let answer = world.get("/startupz", &[]).await;
    assert_eq!(answer.status, 503);
    assert_eq!(world.get("/livez", &[]).await.status, 200);
    assert_eq!(world.get("/readyz", &[]).await.status, 503);
    migrate(&world.folder.path().join("app.db"), &migrations()).unwrap();
    world.service.ready(PATIENCE).await.unwrap();
    assert_eq!(world.get("/startupz", &[]).await.status, 200);
    let health: Value = world.get("/health", &[]).await.json().unwrap();
    assert_eq!((health["status"].as_str(), health["service"].as_str()), (Some("ok"), Some("user-service")));
}

#[test]
fn migrations_go_up_and_down_and_up() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let objects = || {
        let connection = rusqlite::Connection::open(&database).unwrap();
        let mut statement = connection
            .prepare("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name")
            .unwrap();
        let names = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        names.collect::<Result<Vec<_>, _>>().unwrap()
    };
    migrate(&database, &migrations()).unwrap();
    let up = objects();
    for index in ["idx_users_email", "idx_users_ml_user_id", "idx_users_created_at"] {
        assert!(up.iter().any(|name| name == index), "the plan asks for {index}");
    }
    migrate_down(&database, &migrations()).unwrap();
    assert_eq!(objects(), Vec::<String>::new());
    migrate(&database, &migrations()).unwrap();
    assert_eq!(objects(), up);
}

#[tokio::test]
async fn every_metric_is_there_before_the_first_request() {
    let world = World::new().await;
    let page = world.service.scrape().await.unwrap();
    for series in [
        r#"user_registrations_total{outcome="created"} 0"#,
        r#"oauth_connections_total{outcome="connected"} 0"#,
        r#"password_hashes_total{outcome="refused"} 0"#,
        r#"database_connections_active{store="postgresql"} "#,
        r#"database_connections_active{store="redis"} "#,
        "container_memory_usage_bytes",
        r#"route="/auth/login""#,
        r#"route="/auth/ml/callback""#,
    ] {
        assert!(page.contains(series), "{series} is missing from\n{page}");
    }
}

#[tokio::test]
async fn the_stores_hold_no_secret() {
    let world = World::new().await;
    let ana = world.register("ana@example.com").await;
    let answer = world.get("/auth/ml/connect", &[("authorization", &ana.bearer())]).await;
    let started: Value = answer.json().unwrap();
    let state = started["state"].as_str().unwrap();
    world.login("ana@example.com", "wrong password").await;

    let mut files = Vec::new();
    for folder in [world.folder.path().to_owned(), world.folder.path().join("embedded/redis")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                files.push((path.clone(), std::fs::read(path).unwrap()));
            }
        }
    }
    let holds = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(files.iter().any(|(_, bytes)| holds(bytes, "ana@example.com")), "the search itself works");
    for (path, bytes) in &files {
        for secret in [PASSWORD, "wrong password", &ana.refresh, &ana.access, state] {
            assert!(!holds(bytes, secret), "{} holds {secret}", path.display());
        }
        let limiter = path.to_string_lossy().contains("redis");
        assert!(!(limiter && holds(bytes, "ana@example.com")), "throttles know no address");
    }
}

#[tokio::test]
async fn it_stops_when_asked() {
    let world = World::new().await;
    let keys = world.get("/.well-known/jwks.json", &[]).await;
    assert_eq!(keys.headers["cache-control"], "public, max-age=60");
    assert_eq!(keys.json::<Value>().unwrap()["keys"].as_array().unwrap().len(), 1, "{}", text(&keys));
    let stopped = tokio::time::timeout(PATIENCE, world.service.stop()).await.unwrap().unwrap();
    assert!(stopped.is_ok(), "{stopped:?}");
}
