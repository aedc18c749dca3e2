//! Attacks on the running service, each from outside: access tokens, consents, refresh tokens, stored secrets.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use futures::future::join_all;
use jsonwebtoken::{Algorithm, EncodingKey};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use service_kit::auth::Signer;
use user_service::settings::SigningKeys;

use crate::support::{SignedIn, World, refusal, text};

/// What an attacker who has a good token of their own can make of it.
struct Forger {
    /// The service's own key: for tokens that nobody outside could make, and that must be refused all the same.
    own: EncodingKey,
    /// A key of the attacker's.
    foreign: EncodingKey,
    header: Value,
    claims: Value,
}

impl Forger {
    fn new(own: &SecretString, good: &str) -> Self {
        let part = |index: usize| {
            let bytes = BASE64.decode(good.split('.').nth(index).unwrap()).unwrap();
            serde_json::from_slice(&bytes).unwrap()
        };
        let foreign = Signer::generate_pem().unwrap();
        let key = |pem: &SecretString| EncodingKey::from_ed_pem(pem.expose_secret().as_bytes()).unwrap();
        Self { own: key(own), foreign: key(&foreign), header: part(0), claims: part(1) }
    }

    /// A token whose header and claims are as the good one's but for these; null takes a member away.
    fn token(&self, key: &EncodingKey, algorithm: Algorithm, header: &Value, claims: &Value) -> String {
        let message = self.message(header, claims);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
        format!("{message}.{signature}")
    }

    fn message(&self, header: &Value, claims: &Value) -> String {
        let patched = |whole: &Value, with: &Value| {
            let mut whole = whole.clone();
            for (name, value) in with.as_object().unwrap() {
                if value.is_null() {
                    whole.as_object_mut().unwrap().remove(name);
                } else {
                    whole[name] = value.clone();
                }
            }
            BASE64.encode(whole.to_string())
        };
        format!("{}.{}", patched(&self.header, header), patched(&self.claims, claims))
    }

    fn ours(&self, header: &Value, claims: &Value) -> String {
        self.token(&self.own, Algorithm::EdDSA, header, claims)
    }
}

#[tokio::test]
async fn forged_access_tokens_are_refused_all_alike() {
    let pem = Signer::generate_pem().unwrap();
    let keys = SigningKeys::Ed25519(pem.clone());
    let world = World::with(|settings| settings.keys = keys).await;
    let ana = world.register("ana@example.com").await;
    let bob = world.register("bob@example.com").await;
    let forger = Forger::new(&pem, &ana.access);
    let jwks: Value = world.get("/.well-known/jwks.json", &[]).await.json().unwrap();
    let public = jwks["keys"][0]["x"].as_str().unwrap();
    let secret = |bytes: &[u8]| EncodingKey::from_secret(bytes);
    let now = forger.claims["nbf"].as_i64().unwrap();
    let same = json!({});
    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    let foreign_public = {
        let signer = Signer::from_pem(Signer::generate_pem().unwrap().expose_secret()).unwrap();
        serde_json::to_value(signer.key_set()).unwrap()["keys"][0].clone()
    };
    let p256 = {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref())
    };

    let good = forger.ours(&same, &same);
    let asked = world.get("/users/me", &[("authorization", &format!("Bearer {good}"))]).await;
    assert_eq!(asked.status, 200, "the forger makes tokens that are as they should be: {}", text(&asked));

    let none = json!({"alg": "none"});
    let table: Vec<(&str, String)> = vec![
        ("alg none, no signature", format!("{}.", forger.message(&none, &same))),
        (
            "alg none, the old signature",
            format!("{}.{}", forger.message(&none, &same), signature(&ana.access)),
        ),
        ("alg nOnE", format!("{}.", forger.message(&json!({"alg": "nOnE"}), &same))),
        ("no algorithm", forger.ours(&json!({"alg": null}), &same)),
        (
            "HMAC with the public key as published",
            forger.token(&secret(public.as_bytes()), Algorithm::HS256, &json!({"alg": "HS256"}), &same),
        ),
        (
            "HMAC with the public key's bytes",
            forger.token(
                &secret(&BASE64.decode(public).unwrap()),
                Algorithm::HS256,
                &json!({"alg": "HS256"}),
                &same,
            ),
        ),
        ("HMAC with nothing", forger.token(&secret(b""), Algorithm::HS256, &json!({"alg": "HS256"}), &same)),
        ("another kind of key", forger.token(&p256, Algorithm::ES256, &json!({"alg": "ES256"}), &same)),
        ("another kind of key, said to be ours", forger.token(&p256, Algorithm::ES256, &same, &same)),
        ("a foreign key under our name", forger.token(&forger.foreign, Algorithm::EdDSA, &same, &same)),
        (
            "a foreign key brought along",
            forger.token(&forger.foreign, Algorithm::EdDSA, &json!({"jwk": foreign_public}), &same),
        ),
        (
            "a foreign key to be fetched",
            forger.token(
                &forger.foreign,
                Algorithm::EdDSA,
                &json!({"jku": "https://attacker.example.com/jwks.json", "kid": "theirs"}),
                &same,
            ),
        ),
        ("unknown key id", forger.ours(&json!({"kid": "0000000000000000"}), &same)),
        ("no key id", forger.ours(&json!({"kid": null}), &same)),
        ("a path as key id", forger.ours(&json!({"kid": "../../../dev/null"}), &same)),
        ("another type of token", forger.ours(&json!({"typ": "JWT"}), &same)),
        ("no type", forger.ours(&json!({"typ": null}), &same)),
        ("another audience", forger.ours(&same, &json!({"aud": "another-system"}))),
        ("no audience", forger.ours(&same, &json!({"aud": null}))),
        ("another issuer", forger.ours(&same, &json!({"iss": "another-system"}))),
        ("expired", forger.ours(&same, &json!({"exp": now - 60}))),
        ("no end", forger.ours(&same, &json!({"exp": null}))),
        ("an end that is no number", forger.ours(&same, &json!({"exp": "tomorrow"}))),
        ("not valid yet", forger.ours(&same, &json!({"nbf": now + 60}))),
        ("no session", forger.ours(&same, &json!({"sid": null}))),
        ("a subject that is no user", forger.ours(&same, &json!({"sub": "admin"}))),
        ("a tenant that is none", forger.ours(&same, &json!({"tenant": "A/../B"}))),
        (
            "another user's name under one's own signature",
            format!("{}.{}", forger.message(&same, &json!({"sub": bob.id()})), signature(&ana.access)),
        ),
        (
            "a longer life under one's own signature",
            format!("{}.{}", forger.message(&same, &json!({"exp": now + 9_000})), signature(&ana.access)),
        ),
        ("a signature cut off", ana.access.rsplit_once('.').unwrap().0.to_owned() + "."),
        ("two parts", ana.access.rsplit_once('.').unwrap().0.to_owned()),
        ("four parts", ana.access.clone() + ".more"),
        ("a refresh token", ana.refresh.clone()),
        ("nothing", String::new()),
        ("far too much", "x".repeat(6_000)),
    ];
    let first = world.get("/users/me", &[]).await;
    for (what, token) in &table {
        for path in ["/users/me", "/auth/ml/connect"] {
            let answer = world.get(path, &[("authorization", &format!("Bearer {token}"))]).await;
            assert_eq!(refusal(&answer), (401, "invalid_token".to_owned()), "{what} at {path}");
            assert_eq!(text(&answer), text(&first), "{what}: the answer tells nothing about why");
        }
    }
}

/// A consent under way: its state and the cookie of the browser it began in.
struct Consent {
    state: String,
    cookie: String,
}

async fn consent(world: &World, user: &SignedIn) -> Consent {
    let answer = world.get("/auth/ml/connect", &[("authorization", &user.bearer())]).await;
    let state = answer.json::<Value>().unwrap()["state"].as_str().unwrap().to_owned();
    let set = answer.headers["set-cookie"].to_str().unwrap();
    Consent { state, cookie: set.split(';').next().unwrap().to_owned() }
}

/// A callback of ana's browser, with this state and whatever else is in the query.
async fn callback(world: &World, query: &str, cookie: &str) -> (u16, String) {
    refusal(&world.get(&format!("/auth/ml/callback?{query}"), &[("cookie", cookie)]).await)
}

#[tokio::test]
async fn consents_of_others_replays_and_injected_codes_connect_nothing() {
    let world = World::new().await;
    let (ana, eve) = (world.register("ana@example.com").await, world.register("eve@example.com").await);
    let invalid = (400, "invalid_state".to_owned());
    let elsewhere = (403, "other_browser".to_owned());

    // One consent goes through, to be replayed.
    let used = consent(&world, &ana).await;
    assert_eq!(callback(&world, &format!("code=good&state={}", used.state), &used.cookie).await.0, 200);
    assert_eq!(world.integration.call().await.content["user_id"], ana.id());

    let of_eve = consent(&world, &eve).await;
    let of_ana = consent(&world, &ana).await;
    let flipped = {
        let mut bytes = of_ana.state.clone().into_bytes();
        bytes[20] = if bytes[20] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    let table = [
        ("a replayed state", format!("code=good&state={}", used.state), used.cookie.clone(), &invalid),
        (
            "a replayed state with another code",
            format!("code=fresh&state={}", used.state),
            used.cookie,
            &invalid,
        ),
        (
            "a state that was never given out",
            "code=x&state=guess".to_owned(),
            of_ana.cookie.clone(),
            &invalid,
        ),
        (
            "a state with one letter changed",
            format!("code=x&state={flipped}"),
            of_ana.cookie.clone(),
            &invalid,
        ),
        ("an empty state", "code=x&state=".to_owned(), of_ana.cookie.clone(), &invalid),
        // The attacker's code and state in the victim's browser: the victim would work in the attacker's account.
        (
            "a code injected into the victim's browser",
            format!("code=eves&state={}", of_eve.state),
            of_ana.cookie.clone(),
            &elsewhere,
        ),
        // The victim's state, overheard, with the attacker's code: the attacker's account under the victim's name.
        (
            "a code injected under an overheard state",
            format!("code=eves&state={}", of_ana.state),
            of_eve.cookie.clone(),
            &elsewhere,
        ),
    ];
    for (what, query, cookie, want) in &table {
        assert_eq!(callback(&world, query, cookie).await, **want, "{what}");
    }
    for query in ["code=x", "", "code=x&state=a&state=b"] {
        assert!((400..500).contains(&callback(&world, query, &of_ana.cookie).await.0), "{query:?}");
    }
    let late = consent(&world, &ana).await;
    world.clock.advance(Duration::from_secs(600));
    assert_eq!(
        callback(&world, &format!("code=x&state={}", late.state), &late.cookie).await,
        invalid,
        "expired"
    );
    assert_eq!(world.integration.unseen().await, 0, "no code was exchanged");
}

/// Whoever can write to the database still cannot connect an account with another consent's verifier.
#[tokio::test]
async fn swapped_verifiers_do_not_open() {
    let world = World::new().await;
    let (ana, eve) = (world.register("ana@example.com").await, world.register("eve@example.com").await);
    let consents = [consent(&world, &ana).await, consent(&world, &eve).await, consent(&world, &eve).await];
    let database = rusqlite::Connection::open(world.folder.path().join("app.db")).unwrap();
    // Each row gets the verifier of the next: of another user, and of another consent of the same user.
    let swapped = database
        .execute_batch(
            "CREATE TEMP TABLE old AS SELECT row_number() OVER (ORDER BY user_id) - 1 AS place, state_hash,
             sealed_verifier FROM ml_connection_states;
             UPDATE ml_connection_states SET sealed_verifier = (SELECT next.sealed_verifier FROM old AS next
             JOIN old AS this ON next.place = (this.place + 1) % 3 WHERE this.state_hash = ml_connection_states.state_hash)",
        );
    swapped.unwrap();
    for consent in &consents {
        let query = format!("code=x&state={}", consent.state);
        assert_eq!(callback(&world, &query, &consent.cookie).await, (500, "internal".to_owned()));
    }
    assert_eq!(world.integration.unseen().await, 0, "no code was exchanged");
}

#[tokio::test]
async fn a_stolen_refresh_token_ends_the_family_whoever_comes_first() {
    let world = World::new().await;
    let ana = world.register("ana@example.com").await;
    let first = SignedIn::read(&world.refresh(&ana.refresh).await, 200);
    assert_eq!(refusal(&world.refresh(&ana.refresh).await), (401, "invalid_refresh_token".to_owned()));
    assert_eq!(refusal(&world.refresh(&first.refresh).await).0, 401, "what the first one got ends too");
    let connect = world.get("/auth/ml/connect", &[("authorization", &first.bearer())]).await;
    assert_eq!(connect.status, 401, "and nothing is begun with its access token");

    let world = World::new().await;
    let ana = world.register("ana@example.com").await;
    let answers = join_all((0..20).map(|_| world.refresh(&ana.refresh))).await;
    let won: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!(won.len(), 1);
    for lost in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!(refusal(lost), (401, "invalid_refresh_token".to_owned()));
    }
    assert_eq!(world.refresh(&SignedIn::read(won[0], 200).refresh).await.status, 401);
    for (what, token) in [
        ("an access token", ana.access.clone()),
        ("a token with a letter more", ana.refresh.clone() + "A"),
        ("another spelling", ana.refresh.to_lowercase()),
        ("a hash of a token", "0".repeat(64)),
        ("nothing", String::new()),
    ] {
        assert_eq!(
            refusal(&world.refresh(&token).await),
            (401, "invalid_refresh_token".to_owned()),
            "{what}"
        );
    }
}

/// A key that leaked is taken out of `JWT_KEYS`; until then it verifies beside its successor.
#[tokio::test]
async fn a_withdrawn_key_signs_nothing_any_more() {
    let (old, new) = (Signer::generate_pem().unwrap(), Signer::generate_pem().unwrap());
    let rotated: SecretString = format!("{}{}", new.expose_secret(), old.expose_secret()).into();
    for (keys, accepted) in [(rotated, true), (new, false)] {
        let world = World::with(|settings| settings.keys = SigningKeys::Ed25519(keys)).await;
        let ana = world.register("ana@example.com").await;
        let forger = Forger::new(&old, &ana.access);
        let of_old = Signer::from_pem(old.expose_secret()).unwrap();
        let token = forger.ours(&json!({"kid": of_old.key_set().ids()[0]}), &json!({}));
        let answer = world.get("/users/me", &[("authorization", &format!("Bearer {token}"))]).await;
        assert_eq!(answer.status == 200, accepted, "{}", text(&answer));
    }
}
