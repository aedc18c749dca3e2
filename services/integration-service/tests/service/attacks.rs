//! Attacks on what the running service stores: rows and columns changed under it.

use std::time::Duration;

use serde_json::json;

use crate::bench::Bench;

/// The case that shows that the others fail for what was done to them.
const UNTOUCHED: &str = "nothing";

/// Whoever can write to the database still cannot act for another user: a sealed token opens in its own place only.
#[tokio::test]
async fn swapped_ciphertexts_are_presented_to_nobody() {
    let accounts = "SELECT max(access_token) FROM ml_accounts";
    for (what, change) in [
        (UNTOUCHED, "UPDATE ml_accounts SET access_token = access_token"),
        (
            "tokens of two users",
            "CREATE TEMP TABLE old AS SELECT * FROM ml_accounts;
             UPDATE ml_accounts SET (access_token, refresh_token) = (SELECT other.access_token, other.refresh_token
             FROM old AS other WHERE other.user_id <> ml_accounts.user_id)",
        ),
        ("the two tokens of a user", "UPDATE ml_accounts SET access_token = refresh_token, refresh_token = access_token"),
        (
            "a row under another MercadoLibre account",
            "UPDATE ml_accounts SET ml_user_id = ml_user_id + 1000000",
        ),
        ("a row under another tenant", "UPDATE ml_accounts SET tenant = 'other'"),
        (
            "a letter of the ciphertext",
            "UPDATE ml_accounts SET access_token = substr(access_token, 1, 40) ||
             CASE substr(access_token, 41, 1) WHEN 'A' THEN 'B' ELSE 'A' END || substr(access_token, 42),
             refresh_token = substr(refresh_token, 1, 40) ||
             CASE substr(refresh_token, 41, 1) WHEN 'A' THEN 'B' ELSE 'A' END || substr(refresh_token, 42)",
        ),
        ("another key's name", "UPDATE ml_accounts SET access_token = 'v1.AAAAAAAA' || substr(access_token, 12), refresh_token = 'v1.AAAAAAAA' || substr(refresh_token, 12)"),
        ("plain text", "UPDATE ml_accounts SET access_token = 'APP_USR-planted', refresh_token = 'TG-planted'"),
    ] {
        let bench = Bench::new().await;
        let [(ana, _), (eve, _)] = [bench.connected().await, bench.connected().await];
        let database = rusqlite::Connection::open(bench.folder.path().join("ml.db")).unwrap();
        let read = || database.query_row(accounts, [], |row| row.get::<_, String>(0)).unwrap();
        database.execute_batch(change).unwrap();
        assert!(!read().is_empty());
        if what == UNTOUCHED {
            for user in [&ana, &eve] {
                assert_eq!(bench.get(user, "/ml/items").await.status.as_u16(), 200, "{what}");
            }
            continue;
        }
        let before = bench.summary().await["requests"].clone();
        for user in [&ana, &eve] {
            let answer = bench.get(user, "/ml/items").await;
            let status = answer.status.as_u16();
            assert!(status >= 400, "{what}: {status}");
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(!body.contains("APP_USR") && !body.contains("TG-"), "{what}: {body}");
        }
        // Nor does the end of their life make anybody present them for new ones.
        bench.hand.advance(Duration::from_secs(6 * 3600 - 300));
        for user in [bench.signed_in_again(&ana), bench.signed_in_again(&eve)] {
            assert!(bench.get(&user, "/ml/items").await.status.as_u16() >= 400, "{what}");
        }
        let summary = bench.summary().await;
        assert_eq!(summary["requests"], before, "{what}: MercadoLibre was asked");
        assert_eq!(summary["refresh_tokens_presented_twice"], json!([]), "{what}");
    }
}
