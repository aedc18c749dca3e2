//! An item and how one comes to be: generated for a test seller, or posted by its seller.

use rand::Rng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{CATEGORIES, World, category};
use crate::clock;
use crate::error::{Cause, MlError};

const MAKERS: &[&str] = &["Andina", "Boreal", "Cumbre", "Delta", "Estela", "Faro"];
const THINGS: &[&str] = &["Celular", "Notebook", "Auriculares", "Zapatillas", "Mochila"];
const QUALITIES: &[&str] = &["Compacto", "Liviano", "Clásico", "Urbano", "Pro"];

/// An attribute of an item, e.g. `BRAND`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// The attribute's id.
    pub id: String,
    /// Its value as text.
    #[serde(default)]
    pub value_name: Option<String>,
}

/// An item of the marketplace.
#[derive(Clone, Debug, Serialize)]
pub struct Item {
    /// `MLA` and digits.
    pub id: String,
    /// The site that lists it.
    pub site_id: &'static str,
    /// Title; frozen after a sale.
    pub title: String,
    /// Family name, of user product sellers.
    pub family_name: Option<String>,
    /// Owner.
    pub seller_id: u64,
    /// Leaf category.
    pub category_id: String,
    /// The user product that holds its stock.
    pub user_product_id: String,
    /// Price in `currency_id`.
    pub price: f64,
    /// ISO currency code.
    pub currency_id: String,
    /// Stock; only the owner sees it.
    pub available_quantity: u32,
    /// Stock when listed; only the owner sees it.
    pub initial_quantity: u32,
    /// Units sold.
    pub sold_quantity: u32,
    /// `buy_it_now`.
    pub buying_mode: String,
    /// e.g. `gold_special`; changes once.
    pub listing_type_id: String,
    /// `new` or `used`.
    pub condition: String,
    /// Public page.
    pub permalink: String,
    /// Pictures as the seller gave them.
    pub pictures: Vec<Value>,
    /// BRAND, GTIN, SELLER_SKU and more.
    pub attributes: Vec<Attribute>,
    /// Variations; a PUT that omits one deletes it.
    pub variations: Vec<Value>,
    /// `active`, `paused` or `closed`.
    pub status: String,
    /// Why it is so, e.g. `out_of_stock`.
    pub sub_status: Vec<String>,
    /// Where it sells; only the owner sees it.
    pub channels: Vec<String>,
    /// Legacy SKU.
    pub seller_custom_field: Option<String>,
    /// When listed.
    pub date_created: String,
    /// Changes with every write; writers guard on it.
    pub last_updated: String,
    /// The price is set by MercadoLibre's automation; a price alone is refused.
    #[serde(skip)]
    pub automated_price: bool,
    #[serde(skip)]
    pub(super) paused_by_seller: bool,
    #[serde(skip)]
    pub(super) listing_type_changed: bool,
    #[serde(skip)]
    pub(super) closed_at_ms: Option<i64>,
    #[serde(skip)]
    pub(super) stock_version: u64,
}

/// What `POST /items` sends. Unknown fields are ignored, as MercadoLibre does.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Draft {
    site_id: Option<String>,
    title: Option<String>,
    family_name: Option<String>,
    category_id: Option<String>,
    price: Option<f64>,
    currency_id: Option<String>,
    available_quantity: Option<u32>,
    buying_mode: Option<String>,
    listing_type_id: Option<String>,
    condition: Option<String>,
    #[serde(default)]
    pictures: Vec<Value>,
    #[serde(default)]
    attributes: Vec<Attribute>,
    variations: Option<Vec<Value>>,
    seller_custom_field: Option<String>,
}

impl Item {
    pub(super) fn generated(id: String, seller_id: u64, number: u32, now_ms: i64, rng: &mut StdRng) -> Self {
        let kind = rng.random_range(0..CATEGORIES.len());
        let maker = MAKERS[rng.random_range(0..MAKERS.len())];
        let quality = QUALITIES[rng.random_range(0..QUALITIES.len())];
        let quantity = rng.random_range(1..200);
        let sku = format!("SKU-{seller_id}-{number:04}");
        let draft = Draft {
            title: Some(format!("{} {maker} {quality} {number:03}", THINGS[kind])),
            category_id: Some(CATEGORIES[kind].id.to_owned()),
            // Whole cents, so that a price survives any JSON reader.
            price: Some(f64::from(rng.random_range(100_000..90_000_000_u32)) / 100.0),
            available_quantity: Some(quantity),
            attributes: vec![
                Attribute { id: "BRAND".into(), value_name: Some(maker.to_owned()) },
                Attribute { id: "ITEM_CONDITION".into(), value_name: Some("Nuevo".into()) },
                Attribute { id: "SELLER_SKU".into(), value_name: Some(sku.clone()) },
            ],
            seller_custom_field: Some(sku),
            ..Draft::default()
        };
        Self::from_draft(id, seller_id, draft, now_ms)
    }

    fn from_draft(id: String, seller_id: u64, draft: Draft, now_ms: i64) -> Self {
        let now = clock::text(now_ms);
        let quantity = draft.available_quantity.unwrap_or(0);
        let family_name = draft.family_name;
        let title = draft.title.or_else(|| family_name.clone()).unwrap_or_default();
        Self {
            permalink: format!("https://articulo.mercadolibre.example/{id}"),
            user_product_id: id.replacen("MLA", "MLAU", 1),
            id,
            site_id: "MLA",
            title,
            family_name,
            seller_id,
            category_id: draft.category_id.unwrap_or_default(),
            price: draft.price.unwrap_or(0.0),
            currency_id: draft.currency_id.unwrap_or_else(|| "ARS".into()),
            available_quantity: quantity,
            initial_quantity: quantity,
            sold_quantity: 0,
            buying_mode: draft.buying_mode.unwrap_or_else(|| "buy_it_now".into()),
            listing_type_id: draft.listing_type_id.unwrap_or_else(|| "gold_special".into()),
            condition: draft.condition.unwrap_or_else(|| "new".into()),
            pictures: draft.pictures,
            attributes: draft.attributes,
            variations: draft.variations.unwrap_or_default(),
            status: if quantity == 0 { "paused".into() } else { "active".into() },
            sub_status: if quantity == 0 { vec!["out_of_stock".into()] } else { Vec::new() },
            channels: vec!["marketplace".into()],
            seller_custom_field: draft.seller_custom_field,
            date_created: now.clone(),
            last_updated: now,
            automated_price: false,
            paused_by_seller: false,
            listing_type_changed: false,
            closed_at_ms: None,
            stock_version: 1,
        }
    }

    /// The item as JSON; without the owner-only fields for anyone else.
    pub fn view(&self, owner: bool) -> Value {
        let mut view = serde_json::to_value(self).unwrap_or_default();
        if let (false, Some(fields)) = (owner, view.as_object_mut()) {
            for hidden in ["available_quantity", "initial_quantity", "channels"] {
                fields.remove(hidden);
            }
        }
        view
    }

    /// Today's SKU: the `SELLER_SKU` attribute.
    pub fn seller_sku(&self) -> Option<&str> {
        let sku = self.attributes.iter().find(|attribute| attribute.id == "SELLER_SKU")?;
        sku.value_name.as_deref()
    }

    /// Stock of the user product as `/user-products/{id}/stock` shows it.
    pub fn stock_view(&self) -> Value {
        json!({
            "id": self.user_product_id,
            "user_id": self.seller_id,
            "locations": [{ "type": "seller_warehouse", "quantity": self.available_quantity }],
        })
    }
}

impl World {
    /// Lists a new item of `seller`; its id.
    pub fn create_item(&mut self, seller: u64, draft: Draft, now_ms: i64) -> Result<String, MlError> {
        self.check_draft(seller, &draft)?;
        let id = self.new_item_id();
        self.items.insert(id.clone(), Item::from_draft(id.clone(), seller, draft, now_ms));
        Ok(id)
    }

    /// What `POST /items/validate` says of a draft.
    pub fn check_draft(&self, seller: u64, draft: &Draft) -> Result<(), MlError> {
        let mut causes = Vec::new();
        let mut missing = |field: &str| {
            causes.push(Cause::error(147, "item.required", field, format!("The field {field} is required")));
        };
        let by_family = self.seller(seller).is_some_and(|own| own.has_tag("user_product_seller"));
        let named = if by_family { draft.family_name.is_some() } else { draft.title.is_some() };
        let required = [
            (if by_family { "family_name" } else { "title" }, named),
            ("category_id", draft.category_id.is_some()),
            ("price", draft.price.is_some()),
            ("currency_id", draft.currency_id.is_some()),
            ("available_quantity", draft.available_quantity.is_some()),
            ("buying_mode", draft.buying_mode.is_some()),
            ("listing_type_id", draft.listing_type_id.is_some()),
            ("pictures", !draft.pictures.is_empty()),
        ];
        for (field, present) in required {
            if !present {
                missing(field);
            }
        }
        for attribute in ["BRAND", "ITEM_CONDITION"] {
            if !draft.attributes.iter().any(|given| given.id == attribute && given.value_name.is_some()) {
                missing(attribute);
            }
        }
        if by_family && (draft.title.is_some() || draft.variations.is_some()) {
            let text = "Sellers of user products name a family_name and neither title nor variations";
            causes.push(Cause::error(369, "body.invalid_fields", "title", text));
        }
        if let Some(id) = draft.category_id.as_deref().filter(|id| category(id).is_none()) {
            let text = format!("Category {id} does not exist");
            causes.push(Cause::error(126, "item.category_id.invalid", "category_id", text));
        }
        if draft.price.is_some_and(|price| price <= 0.0 || !price.is_finite()) {
            causes.push(Cause::error(122, "item.price.invalid", "price", "The price must be positive"));
        }
        if draft.site_id.as_deref().is_some_and(|site| site != "MLA") {
            causes.push(Cause::error(101, "item.site_id.invalid", "site_id", "Only site MLA is simulated"));
        }
        if causes.is_empty() { Ok(()) } else { Err(MlError::validation(causes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_seed;
    use super::*;

    fn draft(value: Value) -> Draft {
        serde_json::from_value(value).unwrap()
    }

    fn full() -> Value {
        json!({
            "title": "Mochila Andina", "category_id": "MLA1161", "price": 10.5, "currency_id": "ARS",
            "available_quantity": 3, "buying_mode": "buy_it_now", "listing_type_id": "gold_special",
            "pictures": [{ "source": "https://pictures.example/1.jpg" }],
            "attributes": [{ "id": "BRAND", "value_name": "Andina" }, { "id": "ITEM_CONDITION", "value_name": "Nuevo" }],
        })
    }

    #[test]
    fn each_required_field_is_missed_by_name() {
        let mut world = World::new(test_seed());
        let seller = world.create_seller(0);
        assert!(world.check_draft(seller, &draft(full())).is_ok());
        for field in [
            "title",
            "category_id",
            "price",
            "currency_id",
            "available_quantity",
            "buying_mode",
            "listing_type_id",
            "pictures",
        ] {
            let mut body = full();
            body.as_object_mut().unwrap().remove(field);
            let error = world.check_draft(seller, &draft(body)).unwrap_err();
            assert_eq!(error.cause.len(), 1, "{field}");
            assert_eq!(error.cause[0].references, [field]);
        }
    }

    #[test]
    fn sellers_of_user_products_send_a_family_name_only() {
        let mut world = World::new(test_seed());
        let seller = world.create_seller(0);
        world.seller_mut(seller).unwrap().tags.push("user_product_seller".into());
        assert!(world.check_draft(seller, &draft(full())).is_err());
        let mut body = full();
        body.as_object_mut().unwrap().remove("title");
        body["family_name"] = json!("Mochila Andina");
        assert!(world.check_draft(seller, &draft(body)).is_ok());
    }

    #[test]
    fn only_the_owner_sees_stock_and_channels() {
        let mut world = World::new(test_seed());
        let seller = world.create_seller(0);
        let item = world.items_of(seller).next().unwrap();
        for field in ["available_quantity", "initial_quantity", "channels"] {
            assert!(item.view(true).get(field).is_some());
            assert!(item.view(false).get(field).is_none());
        }
        assert!(item.view(false).get("price").is_some());
    }
}
