//! The table of routes: which one wins, what is refused.

use axum::http::Method;
use gateway::table::{Lookup, Table, TableError};

/// Where a request goes: `service path`, `405 allowed` or `404`.
fn lookup(table: &Table, method: &Method, path: &str) -> String {
    match table.find(method, path) {
        Lookup::Found(route) => match route.target(path) {
            Some(target) => format!("{} {target}", route.service.name),
            None => "404".to_owned(),
        },
        Lookup::MethodNotAllowed(methods) => {
            format!("405 {}", methods.iter().map(Method::as_str).collect::<Vec<_>>().join(","))
        }
        Lookup::NotFound => "404".to_owned(),
    }
}

const TABLE: &str = r#"{
  "version": 1,
  "services": [
    {"name": "user-service", "upstream": "127.0.0.1:3001"},
    {"name": "catalog", "upstream": "127.0.0.1:3003", "health_path": "/healthz"}
  ],
  "routes": [
    {"path": "/api", "service": "catalog", "to": "/"},
    {"path": "/api/auth", "service": "user-service", "to": "/auth"},
    {"path": "/api/auth/login", "service": "user-service", "to": "/auth/login", "match": "exact", "methods": ["POST"]},
    {"path": "/api/users/me", "service": "user-service", "to": "/users/me", "match": "exact", "methods": ["GET"]},
    {"path": "/api/users/me", "service": "user-service", "to": "/users/me", "match": "exact", "methods": ["DELETE"]},
    {"path": "/api/products", "service": "catalog", "to": "/products/", "timeout_ms": 250}
  ],
  "maintenance": {"since": "2026-11-24T03:00:00Z", "message": "moving", "retry_after_seconds": 30},
  "a key of a later version": true
}"#;

#[test]
fn the_longest_path_wins_on_segment_boundaries() {
    let table = Table::parse(TABLE.as_bytes()).unwrap();
    let rows = [
        (Method::POST, "/api/auth/login", "user-service /auth/login"),
        // The exact route does not take this method, the prefix below it does.
        (Method::GET, "/api/auth/login", "user-service /auth/login"),
        (Method::GET, "/api/auth/ml/callback", "user-service /auth/ml/callback"),
        (Method::GET, "/api/auth", "user-service /auth"),
        (Method::GET, "/api/authority", "catalog /authority"),
        (Method::GET, "/api/products/7", "catalog /products/7"),
        (Method::GET, "/api/products", "catalog /products"),
        (Method::GET, "/api", "catalog /"),
        (Method::GET, "/api/", "catalog /"),
        (Method::HEAD, "/api/users/me", "user-service /users/me"),
        (Method::DELETE, "/api/users/me", "user-service /users/me"),
        // The catch-all takes what the exact routes do not.
        (Method::PUT, "/api/users/me", "catalog /users/me"),
        (Method::GET, "/apix", "404"),
        (Method::GET, "/", "404"),
        // Whatever the table says, these are not public.
        (Method::GET, "/api/internal/products", "404"),
        (Method::GET, "/api/internal", "404"),
        (Method::GET, "/api/%69nternal/products", "404"),
        (Method::GET, "/api//internal/products", "404"),
        (Method::GET, "/api/internals", "catalog /internals"),
    ];
    for (method, path, expected) in rows {
        assert_eq!(lookup(&table, &method, path), expected, "{method} {path}");
    }
    assert_eq!(table.maintenance.as_ref().unwrap().retry_after_seconds, 30);
    assert_eq!(table.health_of("/api/catalog/health").unwrap().health_path, "/healthz");
    assert!(table.health_of("/api/unknown/health").is_none());
}

#[test]
fn a_path_without_the_method_tells_which_would_do() {
    let text = TABLE.replace(r#"{"path": "/api", "service": "catalog", "to": "/"},"#, "");
    let table = Table::parse(text.as_bytes()).unwrap();
    assert_eq!(lookup(&table, &Method::PUT, "/api/users/me"), "405 GET,DELETE");
}

#[test]
fn every_mistake_is_listed() {
    let text = r#"{
      "version": 2,
      "services": [
        {"name": "a", "upstream": "127.0.0.1:3001"},
        {"name": "a", "upstream": "127.0.0.1"},
        {"name": "b c", "upstream": "h:1", "health_path": "health"}
      ],
      "routes": [
        {"path": "api", "service": "a", "to": "/"},
        {"path": "/x/", "service": "a", "to": "x"},
        {"path": "/y", "service": "z", "to": "/internal/y", "methods": ["get"], "timeout_ms": 0},
        {"path": "/w", "service": "a", "to": "/", "methods": []},
        {"path": "/v", "service": "a", "to": "/1"},
        {"path": "/v", "service": "a", "to": "/2", "methods": ["GET"]}
      ]
    }"#;
    let Err(TableError::Content(mistakes)) = Table::parse(text.as_bytes()) else { panic!("accepted") };
    assert_eq!(
        mistakes,
        [
            "version is 2, this build reads 1",
            "service a: upstream \"127.0.0.1\" is not HOST:PORT",
            "service a: named twice",
            "service \"b c\": expected letters, digits, `-`, `_`, `.`",
            "service b c: health_path \"health\" does not begin with `/`",
            "route api: a path begins with `/`, does not end with one, and has no query",
            "route /x/: a path begins with `/`, does not end with one, and has no query",
            "route /x/: to \"x\" does not begin with `/`",
            "route /y: to \"/internal/y\" is for services only",
            "route /y: service \"z\" is not in the list of services",
            "route /y: timeout_ms is 0, expected 1 to 300000",
            "route /y: method \"get\" is not one of GET HEAD POST PUT PATCH DELETE OPTIONS",
            "route /w: methods is empty; leave it out to allow all",
            "route /v: the same path is routed twice",
        ]
    );
}

#[test]
fn text_that_is_no_table_is_told() {
    for text in ["", "[]", "{}", r#"{"version": 1, "services": []}"#] {
        assert!(matches!(Table::parse(text.as_bytes()), Err(TableError::Syntax(_))), "{text}");
    }
}
