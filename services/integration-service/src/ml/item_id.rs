//! Ids of items, by strict grammar: what came from outside is never put into a path unread.

use std::fmt;
use std::str::FromStr;

/// `ML`, the site's letter, and digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ItemId(String);

/// The text is no item id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected ML, a capital letter and up to 19 digits, like MLA123")]
pub struct NotAnItemId;

impl FromStr for ItemId {
    type Err = NotAnItemId;

    fn from_str(text: &str) -> Result<Self, NotAnItemId> {
        let rest = text.strip_prefix("ML").ok_or(NotAnItemId)?;
        let mut letters = rest.chars();
        let site = letters.next().is_some_and(|letter| letter.is_ascii_uppercase());
        let digits = letters.as_str();
        let number = (1..=19).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
        if site && number { Ok(Self(text.to_owned())) } else { Err(NotAnItemId) }
    }
}

impl ItemId {
    /// The id in a notification's resource: `/items/{id}` and nothing else.
    ///
    /// # Errors
    /// [`NotAnItemId`] for every other text, above all for addresses.
    pub fn of_resource(resource: &str) -> Result<Self, NotAnItemId> {
        resource.strip_prefix("/items/").ok_or(NotAnItemId)?.parse()
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_ids_are_read() {
        for good in ["MLA1", "MLB1234567890", "MLM999"] {
            assert_eq!(good.parse::<ItemId>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "MLA",
            "MLa1",
            "MLA1/",
            "MLA1?x=1",
            "MLA-1",
            "MLAU12",
            "MLA1 ",
            "MLA12345678901234567890",
            "../MLA1",
            "MLA１",
        ] {
            assert!(bad.parse::<ItemId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_resource_is_never_an_address() {
        assert_eq!(ItemId::of_resource("/items/MLA7").unwrap().as_str(), "MLA7");
        for bad in [
            "MLA7",
            "/items/",
            "/items/MLA7/prices",
            "//items/MLA7",
            "http://169.254.169.254/items/MLA7",
            "/items/MLA7#",
            "/items/../MLA7",
            "/ITEMS/MLA7",
        ] {
            assert!(ItemId::of_resource(bad).is_err(), "{bad:?}");
        }
    }
}
