use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use mlctl_core::system::SystemFile;

use super::*;

fn system(stores: &str) -> System {
    let text = format!(
        "apiVersion: mlctl/v1\nsystem: my-shop\nservices: {{web: {{command: [\"true\"], port: 4000}}}}\nstores:\n{stores}"
    );
    SystemFile::parse("mlctl.yaml", text.as_bytes()).unwrap().system().unwrap()
}

const BOTH: &str = "  db: {kind: postgresql, version: '>=14', settings: {max_connections: 200, search_path: \"a'b\"}}
  cache: {kind: redis, settings: {maxmemory: 8gb, save: 900 1 300 10, appendonly: 'yes', notify-keyspace-events: ''}}
  bus: {kind: kafka}
";

/// Puts a program there that tells a version, as the servers do.
fn install(folder: &Path, program: &str, version: &str) {
    fs::create_dir_all(folder).unwrap();
    let path = folder.join(program);
    fs::write(&path, format!("#!/bin/sh\necho '{version}'\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn path(folders: &[&Path]) -> String {
    std::env::join_paths(folders).unwrap().into_string().unwrap()
}

#[tokio::test]
async fn the_newest_server_that_is_as_wanted_is_taken() {
    let temporary = tempfile::tempdir().unwrap();
    let layout = Layout::new(temporary.path().join("state"));
    let folder = |name: &str| temporary.path().join(name);
    for (name, version) in [("old", "9000.1"), ("newer", "9002.3"), ("newest", "9010.1")] {
        install(&folder(name), "postgres", &format!("postgres (PostgreSQL) {version}"));
        install(&folder(name), "initdb", "initdb");
    }
    // Without what makes its data, it is of no use.
    install(&folder("half"), "postgres", "postgres (PostgreSQL) 9011.0");
    let (old, newer, newest, half) = (folder("old"), folder("newer"), folder("newest"), folder("half"));
    let path = path(&[&old, &newest, &half, &newer]);
    let system = system("  db: {kind: postgresql, version: '>=9001'}\n");
    let servers = find(&layout, &system, &path).await.unwrap();
    assert_eq!(servers["db"].programs, newest);
    assert!(PORTS.contains(&servers["db"].port));
    // The same folder gives the same port, and data the server that made it.
    let data = layout.server_data("db").join("data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("PG_VERSION"), "9002\n").unwrap();
    let again = find(&layout, &system, &path).await.unwrap();
    assert_eq!((&again["db"].programs, again["db"].port), (&newer, servers["db"].port));
}

#[tokio::test]
async fn what_is_missing_is_told_with_where_and_with_its_package() {
    let temporary = tempfile::tempdir().unwrap();
    let layout = Layout::new(temporary.path().join("state"));
    let bin = temporary.path().join("bin");
    let cache = system("  cache: {kind: redis, version: '>=7'}\n");
    let error = find(&layout, &cache, &path(&[&bin])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let text = error.to_string();
    for part in
        ["store cache", "no redis-server of version >=7", &bin.display().to_string(), "package redis-server"]
    {
        assert!(text.contains(part), "{text} lacks {part}");
    }
    install(&bin, "redis-server", "Redis server v=6.2.1 sha=0");
    let text = find(&layout, &cache, &path(&[&bin])).await.unwrap_err().to_string();
    assert!(text.contains("redis-server is 6.2.1"), "{text}");
    // One that is too old for us says so although the system would take it.
    install(&bin, "redis-server", "Redis server v=5.0.1 sha=0");
    let any = system("  cache: {kind: redis}\n");
    let text = find(&layout, &any, &path(&[&bin])).await.unwrap_err().to_string();
    assert!(text.contains("version >=6") && text.contains("is 5.0.1"), "{text}");
    let wrong = system("  cache: {kind: redis, version: new}\n");
    let error = find(&layout, &wrong, &path(&[&bin])).await.unwrap_err();
    assert!(
        error.kind == ErrorKind::Invalid && error.to_string().contains("stores.cache.version"),
        "{error}"
    );
}

#[test]
fn settings_are_told_in_each_servers_own_words() {
    let system = system(BOTH);
    let server = Server { programs: "/usr/bin".into(), port: 12_345 };
    let content = |store: &str| {
        let spec = spec(&system, store, &system.stores[store], &server).unwrap().unwrap();
        assert_eq!((spec.port, spec.socket), (Some(12_345), SocketMode::Own));
        assert!(!spec.argv.iter().any(|word| word.contains("password")), "{:?}", spec.argv);
        spec.files[0].content.clone()
    };
    assert_eq!(content("db"), "max_connections = '200'\nsearch_path = 'a''b'\n");
    assert_eq!(
        content("cache"),
        "maxmemory 8gb\nsave 900 1\nsave 300 10\nappendonly yes\nnotify-keyspace-events \"\"\n"
    );
    assert_eq!(spec(&system, "bus", &system.stores["bus"], &server).unwrap(), None);
    let text = |shown: bool, store: &str| {
        let kind = system.stores[store].kind;
        if shown { shown_url(&system, kind, &server) } else { url(&system, kind, &server) }
    };
    assert_eq!(text(false, "db"), "postgresql://my_shop:{secret}@127.0.0.1:12345/my_shop");
    assert_eq!(text(true, "db"), "postgresql://my_shop@127.0.0.1:12345/my_shop");
    assert_eq!(text(false, "cache"), "redis://:{secret}@127.0.0.1:12345");
    assert_eq!(text(true, "cache"), "redis://127.0.0.1:12345");
}

#[test]
fn a_setting_that_would_be_more_than_one_line_is_refused() {
    let settings = IndexMap::from([("maxmemory".to_owned(), "1gb\nrequirepass x".to_owned())]);
    let error = redis_settings("cache", &settings).unwrap_err();
    assert!(
        error.kind == ErrorKind::Invalid && error.to_string().contains("stores.cache.settings"),
        "{error}"
    );
    assert!(postgresql_settings("db", &IndexMap::from([("a b".to_owned(), "1".to_owned())])).is_err());
}
