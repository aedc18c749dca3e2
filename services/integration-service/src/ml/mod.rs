//! MercadoLibre: how it is called, how its tokens are kept fresh, what its answers mean.

mod client;
mod cooldown;
mod error;
mod item_id;
mod session;
mod tokens;

pub use client::{Answer, Body, Credentials, MlClient, Request};
pub use error::MlError;
pub use item_id::{ItemId, NotAnItemId};
pub use session::Session;
pub use tokens::{Access, Tokens};

/// Endpoints that fail together, each with its own breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// `/oauth/...` and grants.
    OAuth,
    /// `/users/...` except item searches.
    Users,
    /// `/items/...` and item searches.
    Items,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::OAuth, Self::Users, Self::Items];

    /// The label of metrics and the name in `/ml/health`.
    pub fn name(self) -> &'static str {
        match self {
            Self::OAuth => "oauth",
            Self::Users => "users",
            Self::Items => "items",
        }
    }
}
