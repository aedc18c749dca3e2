//! Stock of a user product, guarded by `x-version`.

use super::{Item, World};
use crate::error::MlError;

impl World {
    /// The item behind a user product of `seller`, and the version of its stock.
    pub fn stock(&self, seller: u64, user_product: &str) -> Result<(&Item, u64), MlError> {
        let item = self.items.values().find(|item| item.user_product_id == user_product);
        let item = item.ok_or_else(|| MlError::not_found("User product", user_product))?;
        if item.seller_id != seller {
            return Err(MlError::access_denied());
        }
        Ok((item, item.stock_version))
    }

    /// Sets the warehouse's quantity; `version` must be the one last read. The item's id and the new version.
    pub fn set_stock(
        &mut self,
        seller: u64,
        user_product: &str,
        version: Option<u64>,
        quantity: u32,
        now_ms: i64,
    ) -> Result<(String, u64), MlError> {
        let (item, current) = self.stock(seller, user_product)?;
        let id = item.id.clone();
        let Some(version) = version else {
            return Err(MlError::bad_request("The header x-version is required"));
        };
        if version != current {
            return Err(MlError::conflict(format!("Stock is at version {current}: read it again")));
        }
        let item = self.items.get_mut(&id).ok_or_else(|| MlError::not_found("Item", &id))?;
        let before = item.last_updated.clone();
        item.set_quantity(quantity);
        item.touch(&before, now_ms);
        Ok((id, current + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_seed;
    use super::*;

    #[test]
    fn a_stale_or_missing_version_is_refused() {
        let mut world = World::new(test_seed());
        let seller = world.create_seller(0);
        let product = world.items_of(seller).next().unwrap().user_product_id.clone();
        let version = world.stock(seller, &product).unwrap().1;
        assert_eq!(world.set_stock(seller, &product, None, 5, 1).unwrap_err().status.as_u16(), 400);
        let (_, next) = world.set_stock(seller, &product, Some(version), 5, 1).unwrap();
        assert_eq!(world.set_stock(seller, &product, Some(version), 6, 1).unwrap_err().status.as_u16(), 409);
        assert!(world.set_stock(seller, &product, Some(next), 6, 1).is_ok());
        assert_eq!(world.stock(seller, &product).unwrap().0.available_quantity, 6);
    }
}
