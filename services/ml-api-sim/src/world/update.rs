//! The rules of `PUT /items/{id}`.

use serde_json::{Map, Value, json};

use super::{Attribute, Item, World};
use crate::clock;
use crate::error::{Cause, MlError};

/// After closing, MercadoLibre's own replicas disagree for a while: a quick second write answers 409.
const CLOSE_SETTLES_MS: i64 = 3_000;

/// What a PUT led to.
#[derive(Debug)]
pub struct Updated {
    /// The item as its owner sees it, with `warnings` where a field was ignored.
    pub view: Value,
}

impl World {
    /// Applies the fields of `patch` to an item of `seller`. All or nothing.
    pub fn update_item(
        &mut self,
        seller: u64,
        id: &str,
        patch: &Map<String, Value>,
        now_ms: i64,
    ) -> Result<Updated, MlError> {
        let item = self.items.get_mut(id).ok_or_else(|| MlError::not_found("Item", id))?;
        if item.seller_id != seller {
            return Err(MlError::access_denied());
        }
        if item.closed_at_ms.is_some_and(|closed| now_ms - closed < CLOSE_SETTLES_MS) {
            return Err(MlError::conflict(
                "Optimistic locking failed: the item was just closed, retry in seconds",
            ));
        }
        let mut next = item.clone();
        let mut warnings = Vec::new();
        let mut causes = Vec::new();
        for (field, value) in patch {
            if let Err(cause) = next.set(field, value, patch.len() > 1, now_ms, &mut warnings) {
                causes.push(cause);
            }
        }
        if !causes.is_empty() {
            return Err(MlError::validation(causes));
        }
        next.touch(&item.last_updated, now_ms);
        *item = next;
        let mut view = item.view(true);
        if !warnings.is_empty() {
            view["warnings"] = Value::Array(warnings);
        }
        Ok(Updated { view })
    }
}

impl Item {
    /// Moves `last_updated` on, always forward, so that a guard on it never ties.
    pub(super) fn touch(&mut self, before: &str, now_ms: i64) {
        let mut at = now_ms;
        while clock::text(at).as_str() <= before {
            at += 1;
        }
        self.last_updated = clock::text(at);
    }

    fn set(
        &mut self,
        field: &str,
        value: &Value,
        with_others: bool,
        now_ms: i64,
        warnings: &mut Vec<Value>,
    ) -> Result<(), Cause> {
        let wrong =
            |wanted: &str| Cause::error(100, "field.invalid", field, format!("{field} must be {wanted}"));
        let frozen = || {
            Cause::error(
                225,
                "item.field.not_modifiable",
                field,
                format!("{field} cannot change after a sale"),
            )
        };
        match field {
            "price" => {
                let price =
                    value.as_f64().filter(|price| *price > 0.0).ok_or_else(|| wrong("a positive number"))?;
                if !self.automated_price {
                    self.price = price;
                } else if with_others {
                    warnings.push(json!({ "code": "item.price.not_modifiable", "message": "price is automated and was ignored" }));
                } else {
                    return Err(Cause::error(
                        3710,
                        "item.price.not_modifiable",
                        "price",
                        "The price is automated",
                    ));
                }
            }
            "available_quantity" => {
                let quantity = value.as_u64().and_then(|quantity| u32::try_from(quantity).ok());
                self.set_quantity(quantity.ok_or_else(|| wrong("a whole number"))?);
            }
            "status" => self.set_status(value.as_str().ok_or_else(|| wrong("a string"))?, now_ms)?,
            "title" | "condition" | "buying_mode" => {
                if self.sold_quantity > 0 {
                    return Err(frozen());
                }
                let text = value.as_str().ok_or_else(|| wrong("a string"))?.to_owned();
                match field {
                    "title" => self.title = text,
                    "condition" => self.condition = text,
                    _ => self.buying_mode = text,
                }
            }
            "listing_type_id" => {
                let text = value.as_str().ok_or_else(|| wrong("a string"))?;
                if text != self.listing_type_id {
                    if self.listing_type_changed {
                        return Err(Cause::error(
                            226,
                            "item.listing_type_id.not_modifiable",
                            field,
                            "The listing type changes once",
                        ));
                    }
                    self.listing_type_changed = true;
                    self.listing_type_id = text.to_owned();
                }
            }
            "attributes" => {
                let given: Vec<Attribute> =
                    serde_json::from_value(value.clone()).map_err(|_| wrong("a list of attributes"))?;
                for attribute in given {
                    self.attributes.retain(|own| own.id != attribute.id);
                    self.attributes.push(attribute);
                }
            }
            // What the list omits is deleted.
            "variations" => self.variations = value.as_array().ok_or_else(|| wrong("a list"))?.clone(),
            "pictures" => self.pictures = value.as_array().ok_or_else(|| wrong("a list"))?.clone(),
            "seller_custom_field" => self.seller_custom_field = value.as_str().map(str::to_owned),
            _ => return Err(Cause::error(101, "field.unknown", field, format!("{field} cannot be changed"))),
        }
        Ok(())
    }

    pub(super) fn set_quantity(&mut self, quantity: u32) {
        self.available_quantity = quantity;
        self.stock_version += 1;
        if quantity == 0 && self.status == "active" {
            self.status = "paused".into();
            self.sub_status = vec!["out_of_stock".into()];
        } else if quantity > 0 && self.status == "paused" && !self.paused_by_seller {
            self.status = "active".into();
            self.sub_status.clear();
        }
    }

    fn set_status(&mut self, status: &str, now_ms: i64) -> Result<(), Cause> {
        let refused =
            |cause_id, message: &str| Cause::error(cause_id, "item.status.invalid", "status", message);
        match status {
            _ if self.status == "closed" => return Err(refused(323, "A closed item stays closed")),
            "active" if self.available_quantity == 0 => {
                return Err(refused(323, "An item without stock cannot be activated"));
            }
            "active" => self.paused_by_seller = false,
            "paused" => self.paused_by_seller = true,
            "closed" => self.closed_at_ms = Some(now_ms),
            _ => return Err(refused(324, "status is active, paused or closed")),
        }
        self.status = status.to_owned();
        self.sub_status.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_seed;
    use super::*;

    struct Shop {
        world: World,
        seller: u64,
        id: String,
    }

    impl Shop {
        fn open() -> Self {
            let mut world = World::new(test_seed());
            let seller = world.create_seller(0);
            let id = world.items_of(seller).next().unwrap().id.clone();
            Self { world, seller, id }
        }

        fn put(&mut self, patch: &Value, now_ms: i64) -> Result<Value, MlError> {
            let patch = patch.as_object().unwrap();
            self.world.update_item(self.seller, &self.id, patch, now_ms).map(|updated| updated.view)
        }

        fn item(&mut self) -> &mut Item {
            self.world.items.get_mut(&self.id).unwrap()
        }
    }

    #[test]
    fn stock_pauses_and_wakes_an_item_unless_the_seller_paused_it() {
        let mut shop = Shop::open();
        let empty = shop.put(&json!({ "available_quantity": 0 }), 1).unwrap();
        assert_eq!((&empty["status"], &empty["sub_status"]), (&json!("paused"), &json!(["out_of_stock"])));
        assert_eq!(shop.put(&json!({ "status": "active" }), 2).unwrap_err().cause[0].cause_id, 323);
        assert_eq!(shop.put(&json!({ "available_quantity": 4 }), 3).unwrap()["status"], "active");
        shop.put(&json!({ "status": "paused" }), 4).unwrap();
        shop.put(&json!({ "available_quantity": 0 }), 5).unwrap();
        assert_eq!(shop.put(&json!({ "available_quantity": 9 }), 6).unwrap()["status"], "paused");
    }

    #[test]
    fn an_automated_price_alone_is_refused_and_with_others_ignored() {
        let mut shop = Shop::open();
        shop.item().automated_price = true;
        let before = shop.item().price;
        assert_eq!(
            shop.put(&json!({ "price": 1.0 }), 1).unwrap_err().cause[0].code,
            "item.price.not_modifiable"
        );
        let view = shop.put(&json!({ "price": 1.0, "seller_custom_field": "X" }), 2).unwrap();
        assert_eq!(view["warnings"].as_array().unwrap().len(), 1);
        assert_eq!((view["price"].as_f64().unwrap(), &view["seller_custom_field"]), (before, &json!("X")));
    }

    #[test]
    fn a_sale_freezes_the_title_and_a_listing_type_changes_once() {
        let mut shop = Shop::open();
        shop.put(&json!({ "title": "Otra" }), 1).unwrap();
        shop.item().sold_quantity = 1;
        assert!(shop.put(&json!({ "title": "Otra más" }), 2).is_err());
        shop.put(&json!({ "listing_type_id": "gold_pro" }), 3).unwrap();
        assert!(shop.put(&json!({ "listing_type_id": "free" }), 4).is_err());
    }

    #[test]
    fn a_refused_field_leaves_the_whole_item_as_it_was() {
        let mut shop = Shop::open();
        let before = shop.item().clone().view(true);
        assert!(shop.put(&json!({ "price": 5.0, "color": "red" }), 1).is_err());
        assert_eq!(shop.item().view(true), before);
    }

    #[test]
    fn a_write_right_after_closing_conflicts_and_every_write_moves_last_updated() {
        let mut shop = Shop::open();
        let first = shop.item().last_updated.clone();
        let second =
            shop.put(&json!({ "price": 5.0 }), 0).unwrap()["last_updated"].as_str().unwrap().to_owned();
        assert!(second > first);
        shop.put(&json!({ "status": "closed" }), 100).unwrap();
        assert_eq!(shop.put(&json!({ "price": 6.0 }), 200).unwrap_err().error, "conflict");
        assert!(shop.put(&json!({ "price": 6.0 }), 100 + CLOSE_SETTLES_MS).is_ok());
    }

    #[test]
    fn anothers_item_is_refused() {
        let mut shop = Shop::open();
        let other = shop.world.create_seller(0);
        let patch = json!({ "price": 1.0 });
        let error = shop.world.update_item(other, &shop.id, patch.as_object().unwrap(), 1).unwrap_err();
        assert_eq!((error.status.as_u16(), error.error), (403, "access_denied"));
    }
}
