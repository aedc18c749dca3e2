//! A seller's profile.

use rand::Rng;
use rand::rngs::StdRng;
use serde::Serialize;
use serde_json::{Value, json};

/// A seller of the simulated site, always a test user.
#[derive(Clone, Debug, Serialize)]
pub struct Seller {
    /// MercadoLibre's user id.
    pub id: u64,
    /// Public nickname.
    pub nickname: String,
    /// Tags that change behaviour: `user_product_seller`, `warehouse_management`, `test_user`.
    pub tags: Vec<String>,
    /// Power seller level, as the reputation shows it.
    pub level: &'static str,
}

impl Seller {
    pub(super) fn test_user(id: u64, rng: &mut StdRng) -> Self {
        let level = ["3_yellow", "4_light_green", "5_green"][rng.random_range(0..3)];
        Self { id, nickname: format!("TESTUSER{id}"), tags: vec!["normal".into(), "test_user".into()], level }
    }

    /// True when the seller has this tag.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|own| own == tag)
    }

    /// The profile as `/users/me` shows it to its owner.
    pub fn view(&self) -> Value {
        json!({
            "id": self.id,
            "nickname": self.nickname,
            "site_id": "MLA",
            "country_id": "AR",
            "email": format!("{}@testuser.example", self.nickname.to_lowercase()),
            "user_type": "normal",
            "tags": self.tags,
            "status": { "site_status": "active", "list": { "allow": true }, "sell": { "allow": true } },
            "seller_reputation": { "level_id": self.level, "power_seller_status": null },
            "credit": { "consumed": 0, "credit_level_id": "MLA5" },
        })
    }
}
