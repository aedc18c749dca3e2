//! Access tokens under attack, and keys that change.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use futures::future::join_all;
use jiff::Timestamp;
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use service_kit::auth::{AuthError, Internal, JWKS_PATH, KeySet, Principal, SharedToken, Signer, Verifier};
use service_kit::clock::{Clock, ManualClock};
use service_kit::extract::Json;
use service_kit::testing::{Running, TestIdentity, Wire};
use service_kit::{Base, Identity, Kit, ServeError};
use uuid::Uuid;

const IDENTITY: Identity = Identity::new("test-service", "1.2.3", 1);
const LIFETIME: Duration = Duration::from_secs(900);

fn clock() -> (Clock, ManualClock) {
    Clock::manual(Timestamp::from_second(1_800_000_000).unwrap())
}

fn alice() -> Principal {
    Principal { user_id: Uuid::from_u128(7), tenant: "default".to_owned() }
}

fn signer() -> Signer {
    Signer::from_pem(Signer::generate_pem().unwrap().expose_secret()).unwrap()
}

/// A token with parts of its header or claims replaced; its signature is left as it was.
fn altered(token: &str, header: &Value, claims: &Value) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let patch = |part: &str, with: &Value| {
        let mut value: Value = serde_json::from_slice(&BASE64.decode(part).unwrap()).unwrap();
        for (name, new) in with.as_object().unwrap() {
            value[name] = new.clone();
        }
        BASE64.encode(value.to_string())
    };
    format!("{}.{}.{}", patch(parts[0], header), patch(parts[1], claims), parts[2])
}

/// The token signed anew with HMAC-SHA256 over `secret`: the forgery that a verifier which trusts `alg` lets in.
fn hmac_signed(token: &str, secret: &[u8]) -> String {
    let unsigned = altered(token, &json!({"alg": "HS256"}), &json!({}));
    let (message, _) = unsigned.rsplit_once('.').unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
    let signature = aws_lc_rs::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", BASE64.encode(signature.as_ref()))
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let (clock, _) = clock();
    let ours = TestIdentity::new(clock.clone()).unwrap();
    let verifier = ours.verifier();
    let good = ours.signer.sign(&alice(), clock.now(), LIFETIME).unwrap();
    assert_eq!(verifier.verify(&good).await.unwrap(), alice());

    let foreign = signer().sign(&alice(), clock.now(), LIFETIME).unwrap();
    let kid: String = ours.signer.key_set().ids()[0].to_owned();
    let public = ours.jwks().unwrap()["keys"][0]["x"].as_str().unwrap().to_owned();
    let (message, _) = good.rsplit_once('.').unwrap();
    let none = altered(&good, &json!({"alg": "none"}), &json!({}));
    let (none_message, _) = none.rsplit_once('.').unwrap();
    let table = [
        ("alg none", none.clone()),
        ("alg none without a signature", format!("{none_message}.")),
        ("HS256 with the public key as it is published", hmac_signed(&good, public.as_bytes())),
        ("HS256 with the public key's bytes", hmac_signed(&good, &BASE64.decode(&public).unwrap())),
        ("another user", altered(&good, &json!({}), &json!({"sub": Uuid::from_u128(8)}))),
        ("another tenant", altered(&good, &json!({}), &json!({"tenant": "other"}))),
        ("a longer life", altered(&good, &json!({}), &json!({"exp": 1_900_000_000}))),
        ("unknown key", foreign.clone()),
        ("a foreign signature under our key's name", altered(&foreign, &json!({"kid": kid}), &json!({}))),
        ("no key id", altered(&good, &json!({"kid": null}), &json!({}))),
        ("a signature cut off", format!("{message}.")),
        ("no token at all", "nonsense".to_owned()),
        ("empty", String::new()),
        ("far too long", "x".repeat(5000)),
    ];
    for (name, token) in table {
        assert!(matches!(verifier.verify(&token).await, Err(AuthError::Invalid)), "{name}");
    }
}

#[tokio::test]
async fn properly_signed_tokens_of_another_kind_are_refused() {
    let (clock, _) = clock();
    let pem = Signer::generate_pem().unwrap();
    let ours = Signer::from_pem(pem.expose_secret()).unwrap();
    let verifier = Verifier::with_keys(ours.key_set(), clock.clone());
    let kid = ours.key_set().ids()[0].to_owned();
    let key = jsonwebtoken::EncodingKey::from_ed_pem(pem.expose_secret().as_bytes()).unwrap();
    let now = clock.now().as_second();
    let good = json!({"iss": "ml-ecosystem", "aud": "ml-ecosystem", "sub": Uuid::from_u128(7), "tenant": "default",
                      "iat": now, "nbf": now, "exp": now + 900});
    let table = [
        ("as it should be", "at+jwt", json!({}), true),
        ("type of another token", "JWT", json!({}), false),
        ("another issuer", "at+jwt", json!({"iss": "other"}), false),
        ("another audience", "at+jwt", json!({"aud": "other"}), false),
        ("a subject that is no user", "at+jwt", json!({"sub": "admin"}), false),
        ("not valid yet", "at+jwt", json!({"nbf": now + 60}), false),
        ("no end", "at+jwt", json!({"exp": null}), false),
    ];
    for (name, typ, patch, accepted) in table {
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA);
        (header.typ, header.kid) = (Some(typ.to_owned()), Some(kid.clone()));
        let mut claims = good.clone();
        for (claim, value) in patch.as_object().unwrap() {
            claims[claim] = value.clone();
        }
        let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
        assert_eq!(verifier.verify(&token).await.is_ok(), accepted, "{name}");
    }
}

#[tokio::test]
async fn a_remembered_token_still_expires() {
    let (clock, hand) = clock();
    let ours = TestIdentity::new(clock.clone()).unwrap();
    let verifier = ours.verifier();
    let token = ours.signer.sign(&alice(), clock.now(), LIFETIME).unwrap();
    verifier.verify(&token).await.unwrap();
    hand.advance(LIFETIME);
    // Within the leeway for clocks that differ.
    verifier.verify(&token).await.unwrap();
    hand.advance(Duration::from_secs(6));
    assert!(matches!(verifier.verify(&token).await, Err(AuthError::Expired)));
}

#[tokio::test]
async fn a_shared_secret_signs_and_verifies_and_refuses_keys() {
    let (clock, _) = clock();
    let secret = SecretString::from("a shared secret of some length".to_owned());
    let verifier = Verifier::with_secret(&secret, clock.clone());
    let token = Signer::from_secret(&secret).sign(&alice(), clock.now(), LIFETIME).unwrap();
    assert_eq!(verifier.verify(&token).await.unwrap(), alice());
    let other = signer().sign(&alice(), clock.now(), LIFETIME).unwrap();
    assert!(verifier.verify(&other).await.is_err());
}

#[test]
fn the_first_of_several_keys_signs_and_bad_keys_are_named_by_place() {
    let (first, second) = (Signer::generate_pem().unwrap(), Signer::generate_pem().unwrap());
    let both = format!("{}\n{}", first.expose_secret(), second.expose_secret());
    let rotated = Signer::from_pem(&both).unwrap();
    let ids = rotated.key_set().ids();
    assert_eq!(ids.len(), 2);
    assert!(ids.iter().all(|id| id.len() == 16));
    assert_eq!(ids[0], Signer::from_pem(first.expose_secret()).unwrap().key_set().ids()[0]);
    let broken =
        format!("{}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", first.expose_secret());
    let error = Signer::from_pem(&broken).unwrap_err().to_string();
    assert!(error.starts_with("private key 2 "), "{error}");
    assert!(Signer::from_pem("").is_err());
}

/// A user-service that only publishes keys and counts how often it is asked.
#[derive(Clone, Default)]
struct Published {
    keys: Arc<Mutex<KeySet>>,
    asked: Arc<AtomicUsize>,
}

impl Published {
    async fn start(&self) -> Running<ServeError> {
        let published = self.clone();
        Running::start(move |listener, shutdown| async move {
            let handler = move || async move {
                published.asked.fetch_add(1, Ordering::SeqCst);
                let keys = published.keys.lock().clone();
                Json(keys)
            };
            let base = Base { drain: Duration::ZERO, ..Base::new(IDENTITY) };
            Kit::new(IDENTITY, &base)
                .serve(Router::new().route(JWKS_PATH, get(handler)), listener, shutdown)
                .await
        })
        .await
        .unwrap()
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn keys_are_fetched_once_and_again_after_a_rotation() {
    let (clock, _) = clock();
    let (old, new) = (signer(), signer());
    let published = Published::default();
    *published.keys.lock() = old.key_set().clone();
    let service = published.start().await;
    let verifier = Verifier::fetching(service.url().parse().unwrap(), clock.clone());

    let token = old.sign(&alice(), clock.now(), LIFETIME).unwrap();
    let all = join_all((0..20).map(|_| verifier.verify(&token))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(published.asked(), 1);

    // A key id that is not there: no more than one question in five seconds, however often it is tried.
    let unknown = new.sign(&alice(), clock.now(), LIFETIME).unwrap();
    let all = join_all((0..20).map(|_| verifier.verify(&unknown))).await;
    assert!(all.iter().all(Result::is_err));
    assert_eq!(published.asked(), 1);

    *published.keys.lock() = new.key_set().clone();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    tokio::time::resume();
    verifier.verify(&unknown).await.unwrap();
    assert_eq!(published.asked(), 2);
    // The old key was withdrawn; its tokens are no longer good, although one was remembered.
    assert!(verifier.verify(&token).await.is_err());
}

#[tokio::test]
async fn without_keys_the_answer_is_to_try_again() {
    let (clock, _) = clock();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap()).parse().unwrap();
    drop(nobody);
    let verifier = Verifier::fetching(url, clock.clone());
    let token = signer().sign(&alice(), clock.now(), LIFETIME).unwrap();
    let error = verifier.verify(&token).await.unwrap_err();
    assert_eq!(service_kit::ApiError::from(error).status().as_u16(), 503);
}

#[derive(Clone)]
struct Guarded {
    verifier: Verifier,
    internal: SharedToken,
}

impl FromRef<Guarded> for Verifier {
    fn from_ref(state: &Guarded) -> Self {
        state.verifier.clone()
    }
}

impl FromRef<Guarded> for SharedToken {
    fn from_ref(state: &Guarded) -> Self {
        state.internal.clone()
    }
}

#[tokio::test]
async fn routes_answer_401_to_who_is_not_known() {
    let identity = TestIdentity::new(Clock::system()).unwrap();
    let internal = SharedToken::new(SecretString::from("internal-secret".to_owned()));
    let state = Guarded { verifier: identity.verifier(), internal };
    let service = Running::start(move |listener, shutdown| async move {
        let routes = Router::new()
            .route("/me", get(|who: Principal| async move { who.tenant }))
            .route("/internal/thing", get(|_: Internal| async { "inside" }))
            .with_state(state);
        let base = Base { drain: Duration::ZERO, ..Base::new(IDENTITY) };
        Kit::new(IDENTITY, &base).serve(routes, listener, shutdown).await
    })
    .await
    .unwrap();
    let bearer = identity.bearer(Uuid::from_u128(7), "mlctl-probe").unwrap();
    let lower = bearer.replace("Bearer", "bearer");
    let table = [
        ("/me", ("authorization", bearer.as_str()), 200),
        ("/me", ("authorization", &lower), 200),
        ("/me", ("x-nothing", ""), 401),
        ("/me", ("authorization", "Bearer "), 401),
        ("/me", ("authorization", "Basic YTpi"), 401),
        ("/internal/thing", ("x-internal-token", "internal-secret"), 200),
        ("/internal/thing", ("x-internal-token", "internal-secre"), 401),
        ("/internal/thing", ("authorization", &bearer), 401),
    ];
    let mut wire = Wire::connect(service.address).await.unwrap();
    for (path, header, status) in table {
        assert_eq!(wire.get(path, &[header]).await.unwrap().status, status, "{path} {header:?}");
    }
}
