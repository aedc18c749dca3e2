//! What a person does with an account: register, sign in, stay signed in, sign out, look, leave.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::json;
use service_kit::Clock;
use service_kit::error::chain;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::account::{Email, Password, Tenant, User};
use crate::error::UserError;
use crate::metrics::{Metrics, RegistrationOutcome};
use crate::password::{HashError, Hasher, Verdict};
use crate::random::{self, Entropy, NoEntropy, OpaqueToken, TokenHash};
use crate::store::{
    AccountStore, Credentials, FollowUp, FollowUpTask, NewSession, NewUser, Rotation, StoreError,
};
use crate::throttle::{Throttle, ThrottleKey};
use crate::token::{ACCESS_TTL, Caller, Keyring, TokenRefused};

/// How long a refresh token lives unused; each rotation begins anew.
pub const REFRESH_TTL: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The answer to a registration, login or refresh.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SignedIn {
    /// Who signed in.
    pub user: User,
    /// Signed token for every service.
    pub access_token: String,
    /// Opaque token for the next refresh, valid once.
    pub refresh_token: String,
    /// Seconds that the access token lives.
    pub expires_in: u64,
}

/// What a registration asks for, unparsed.
#[derive(Debug)]
pub struct Registration {
    /// Address.
    pub email: String,
    /// Password.
    pub password: String,
    /// Tenant; none means the default one.
    pub tenant: Option<String>,
    /// Whether the request carried the operator token.
    pub by_operator: bool,
}

/// The use cases, over ports.
pub struct Accounts {
    /// People and sessions.
    pub store: Arc<dyn AccountStore>,
    /// Bounded password hashing.
    pub hasher: Hasher,
    /// Slows guesses down.
    pub throttle: Throttle,
    /// Signs and verifies access tokens.
    pub keyring: Arc<Keyring>,
    /// The time.
    pub clock: Clock,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Counters.
    pub metrics: Metrics,
    /// Tells the follow-up worker about work.
    pub wake: Arc<Notify>,
}

impl Accounts {
    /// Creates a user and signs them in.
    ///
    /// # Errors
    /// [`UserError`].
    pub async fn register(
        &self,
        asked: Registration,
        address: Option<IpAddr>,
    ) -> Result<SignedIn, UserError> {
        let probe = asked.tenant.as_deref() == Some(service_kit::PROBE_TENANT);
        let outcome = self.try_register(asked, address).await;
        if !probe {
            self.metrics.registration(registration_outcome(&outcome));
        }
        outcome
    }

    async fn try_register(
        &self,
        asked: Registration,
        address: Option<IpAddr>,
    ) -> Result<SignedIn, UserError> {
        let email = Email::parse(&asked.email)?;
        let password = Password::parse(asked.password)?;
        let tenant = Tenant::parse(asked.tenant.as_deref())?;
        if tenant.is_reserved() && !asked.by_operator {
            return Err(UserError::ReservedTenant);
        }
        // A known e-mail counts as a failure, or registering would be a way to ask who has an account.
        let keys: Vec<_> = address.map(ThrottleKey::address).into_iter().collect();
        self.admit(&keys).await?;
        let password_hash = self.hasher.hash(&password).await?;
        let now = self.now();
        let user =
            User { id: random::uuid(&*self.entropy)?, email, tenant, created_at: now, ml_user_id: None };
        let (session, refresh_token) = self.new_session(user.id, now)?;
        // Signed first, so that a failure leaves no user behind who never saw their tokens.
        let access_token = self.keyring.sign(&user, session.id, now)?;
        match self.store.create_user(NewUser { user: user.clone(), password_hash }, session).await {
            Ok(()) => {}
            Err(StoreError::EmailTaken) => {
                self.throttle.failed(&keys).await;
                return Err(StoreError::EmailTaken.into());
            }
            Err(error) => return Err(error.into()),
        }
        tracing::info!(user_id = %user.id, tenant = user.tenant.as_str(), "a user registered");
        Ok(signed_in(user, access_token, &refresh_token))
    }

    /// Signs a user in. Unknown e-mail and wrong password differ neither in answer nor in work.
    ///
    /// # Errors
    /// [`UserError`].
    pub async fn login(
        &self,
        email: &str,
        password: String,
        address: Option<IpAddr>,
    ) -> Result<SignedIn, UserError> {
        let password = Password::presented(password)?;
        // What is no e-mail belongs to nobody, and is treated just so.
        let email = Email::parse(email).ok();
        let account_key = email.as_ref().map(ThrottleKey::account);
        let keys: Vec<_> = account_key.into_iter().chain(address.map(ThrottleKey::address)).collect();
        self.admit(&keys).await?;
        let known = match &email {
            Some(email) => self.store.credentials(email).await?,
            None => None,
        };
        let stored = known.as_ref().map(|known| known.password_hash.as_str());
        let verdict = self.hasher.verify(&password, stored).await?;
        let (Some(known), Verdict::Match { outdated }) = (known, verdict) else {
            self.throttle.failed(&keys).await;
            return Err(UserError::BadCredentials);
        };
        if let Some(key) = &account_key {
            self.throttle.succeeded(key).await;
        }
        if outdated {
            self.rehash(&known, &password).await;
        }
        let now = self.now();
        let user = known.user;
        let (session, refresh_token) = self.new_session(user.id, now)?;
        let access_token = self.keyring.sign(&user, session.id, now)?;
        if !self.store.begin_session(session, now).await? {
            return Err(UserError::BadCredentials);
        }
        Ok(signed_in(user, access_token, &refresh_token))
    }

    /// Exchanges a refresh token for a new pair. A token used before is taken for a stolen one: its session ends.
    ///
    /// # Errors
    /// [`UserError`].
    pub async fn refresh(&self, presented: &str) -> Result<SignedIn, UserError> {
        let now = self.now();
        let next = OpaqueToken::generate(&*self.entropy)?;
        let rotation =
            self.store.rotate(TokenHash::of(presented), next.hash(), now, after(now, REFRESH_TTL)).await?;
        match rotation {
            Rotation::Rotated { session_id, user } => {
                let access_token = self.keyring.sign(&user, session_id, now)?;
                Ok(signed_in(user, access_token, &next))
            }
            Rotation::Reused { session_id } => {
                tracing::warn!(%session_id, "a refresh token came twice; its session is revoked");
                Err(UserError::RefreshRefused)
            }
            Rotation::Refused => Err(UserError::RefreshRefused),
        }
    }

    /// Ends the session of a refresh token. Whether there was one is not told.
    ///
    /// # Errors
    /// [`UserError`].
    pub async fn logout(&self, presented: &str) -> Result<(), UserError> {
        Ok(self.store.end_session(TokenHash::of(presented), self.now()).await?)
    }

    /// Who a bearer token speaks for.
    ///
    /// # Errors
    /// [`UserError::Token`].
    pub async fn caller(&self, token: &str) -> Result<Caller, UserError> {
        Ok(self.keyring.verify(token).await?)
    }

    /// The caller's own account.
    ///
    /// # Errors
    /// [`UserError::Token`] if the user is gone.
    pub async fn me(&self, caller: &Caller) -> Result<User, UserError> {
        self.store.user(caller.user_id).await?.ok_or(UserError::Token(TokenRefused))
    }

    /// Removes the caller's account. Other services hear of it soon after, also if this process dies now.
    ///
    /// # Errors
    /// [`UserError::Token`] if the user is gone already.
    pub async fn leave(&self, caller: &Caller) -> Result<(), UserError> {
        let user = self.me(caller).await?;
        let now = self.now();
        let event_id = random::uuid(&*self.entropy)?;
        let mut event = json!({
            "id": event_id,
            "type": "user.deleted",
            "tenant": user.tenant,
            "user_id": user.id,
            "at": now,
            "data": {},
        });
        service_kit::trace::keep_in(&mut event);
        let mut follow_ups =
            vec![FollowUp { id: event_id, user_id: user.id, task: FollowUpTask::Publish(event) }];
        // Asked whether or not an account is noted here: a callback may have ended between exchange and note.
        if !user.tenant.is_probe() || user.ml_user_id.is_some() {
            let id = random::uuid(&*self.entropy)?;
            follow_ups.push(FollowUp { id, user_id: user.id, task: FollowUpTask::Disconnect });
        }
        if !self.store.delete_user(user.id, now, follow_ups).await? {
            return Err(UserError::Token(TokenRefused));
        }
        self.wake.notify_one();
        tracing::info!(user_id = %user.id, tenant = user.tenant.as_str(), "a user left");
        Ok(())
    }

    /// Refuses while an earlier failure still makes the caller wait.
    async fn admit(&self, keys: &[ThrottleKey]) -> Result<(), UserError> {
        match self.throttle.wait(keys).await {
            Some(wait) => Err(UserError::Throttled { wait }),
            None => Ok(()),
        }
    }

    /// Hashes a right password at today's cost. The login succeeds in any case; the next one tries again.
    async fn rehash(&self, known: &Credentials, password: &Password) {
        let replaced = async {
            let new = self.hasher.hash(password).await?;
            self.store.replace_password_hash(known.user.id, &known.password_hash, &new).await?;
            Ok::<_, UserError>(())
        };
        if let Err(error) = replaced.await {
            tracing::warn!(user_id = %known.user.id, error = chain(&error), "an outdated password hash stays for now");
        }
    }

    fn new_session(&self, user_id: Uuid, now: Timestamp) -> Result<(NewSession, OpaqueToken), NoEntropy> {
        let token = OpaqueToken::generate(&*self.entropy)?;
        let id = random::uuid(&*self.entropy)?;
        let session = NewSession { id, user_id, token: token.hash(), expires_at: after(now, REFRESH_TTL) };
        Ok((session, token))
    }

    /// Now, as precisely as it is stored.
    fn now(&self) -> Timestamp {
        let now = self.clock.now();
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }
}

/// A later time; the end of time if there is none.
pub(crate) fn after(now: Timestamp, span: SignedDuration) -> Timestamp {
    now.saturating_add(span).unwrap_or(Timestamp::MAX)
}

fn signed_in(user: User, access_token: String, refresh_token: &OpaqueToken) -> SignedIn {
    SignedIn {
        user,
        access_token,
        refresh_token: refresh_token.expose().to_owned(),
        expires_in: ACCESS_TTL.as_secs(),
    }
}

fn registration_outcome(outcome: &Result<SignedIn, UserError>) -> RegistrationOutcome {
    match outcome {
        Ok(_) => RegistrationOutcome::Created,
        Err(UserError::Store(StoreError::EmailTaken)) => RegistrationOutcome::EmailTaken,
        Err(UserError::Account(_) | UserError::ReservedTenant) => RegistrationOutcome::Invalid,
        Err(UserError::Throttled { .. }) => RegistrationOutcome::Throttled,
        Err(UserError::Hash(HashError::Overloaded { .. })) => RegistrationOutcome::Overloaded,
        Err(_) => RegistrationOutcome::Error,
    }
}
