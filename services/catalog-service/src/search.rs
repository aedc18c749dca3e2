//! Searching an owner's products: the words, the page, and the mark where the next page begins.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use crate::product::{Details, Product};

/// Products of a page when the client names no limit.
const LIMIT_DEFAULT: u32 = 50;
/// Most products of a page.
const LIMIT_MAX: u32 = 100;
/// Most words of a query; each is one condition in the store.
const WORDS_MAX: usize = 8;
/// Longest query, in characters.
const QUERY_MAX: usize = 200;

/// Query string of `GET /products`.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SearchParams {
    #[cfg_attr(test, schemars(length(max = QUERY_MAX)))]
    query: Option<String>,
    category: Option<String>,
    #[cfg_attr(test, schemars(range(min = 1, max = LIMIT_MAX)))]
    limit: Option<u32>,
    cursor: Option<String>,
}

/// A checked search. Products come newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// Folded words; a product matches when its [`searchable`] text holds every one of them.
    pub words: Vec<String>,
    /// Only this category.
    pub category: Option<String>,
    /// Most products of the page, 1 to 100.
    pub limit: u32,
    /// Begin after this product.
    pub after: Option<Mark>,
}

/// The place of a product in the order of a search: by age, and among equals by identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// When the product was made.
    pub created_at: Timestamp,
    /// The product.
    pub id: Uuid,
}

/// What is wrong with a query string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// `limit` is 0 or too large.
    #[error("limit must be a whole number from 1 to {LIMIT_MAX}")]
    Limit,
    /// `query` is too long.
    #[error("query must have at most {QUERY_MAX} characters and {WORDS_MAX} words")]
    Query,
    /// `cursor` is none of ours.
    #[error("cursor must be the next_cursor of the answer before, unchanged")]
    Cursor,
}

impl SearchParams {
    /// Checks the query string.
    ///
    /// # Errors
    /// [`SearchError`] names the first parameter that is refused.
    pub fn check(self) -> Result<Search, SearchError> {
        let query = self.query.unwrap_or_default();
        let words: Vec<String> = fold(&query).split_whitespace().map(str::to_owned).collect();
        if query.chars().count() > QUERY_MAX || words.len() > WORDS_MAX {
            return Err(SearchError::Query);
        }
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(SearchError::Limit);
        }
        let after =
            self.cursor.as_deref().map(|cursor| Mark::read(cursor).ok_or(SearchError::Cursor)).transpose()?;
        Ok(Search { words, category: self.category.filter(|category| !category.is_empty()), limit, after })
    }
}

impl Mark {
    /// Where a search goes on after `product`.
    #[must_use]
    pub fn of(product: &Product) -> Self {
        Self { created_at: product.created_at, id: product.id }
    }

    /// The mark as clients carry it; they are not to look inside.
    #[must_use]
    pub fn write(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}.{}", self.created_at.as_microsecond(), self.id))
    }

    fn read(cursor: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        let (created_at, id) = text.split_once('.')?;
        Some(Self {
            created_at: Timestamp::from_microsecond(created_at.parse().ok()?).ok()?,
            id: id.parse().ok()?,
        })
    }
}

/// The text that a search looks at: title, SKU and MercadoLibre item, folded.
#[must_use]
pub fn searchable(details: &Details, ml_item_id: Option<&str>) -> String {
    let parts = [Some(details.title.as_str()), details.sku.as_deref(), ml_item_id];
    fold(&parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
}

/// Lower case without the accents of Spanish and Portuguese, so that `camara` finds `Cámara`.
fn fold(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).filter(|letter| !is_combining(*letter)).map(plain).collect()
}

/// Accents that stand as characters of their own after their letter (decomposed text).
fn is_combining(letter: char) -> bool {
    ('\u{300}'..='\u{36f}').contains(&letter)
}

fn plain(letter: char) -> char {
    match letter {
        'á' | 'à' | 'â' | 'ã' | 'ä' | 'å' => 'a',
        'é' | 'è' | 'ê' | 'ë' => 'e',
        'í' | 'ì' | 'î' | 'ï' => 'i',
        'ó' | 'ò' | 'ô' | 'õ' | 'ö' => 'o',
        'ú' | 'ù' | 'û' | 'ü' => 'u',
        'ç' => 'c',
        'ñ' => 'n',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_makes_spellings_equal() {
        for (text, folded) in [
            ("CÁMARA", "camara"),
            ("Coração", "coracao"),
            ("niño", "nin\u{303}o"),
            ("Pingüino", "PINGUINO"),
            ("İ", "i"),
            ("Straße", "straße"),
        ] {
            assert_eq!(fold(text), fold(folded), "{text}");
        }
    }

    #[test]
    fn a_query_string_is_checked() {
        let check = |query: Option<&str>, limit, cursor: Option<&str>| {
            SearchParams {
                query: query.map(str::to_owned),
                category: Some(String::new()),
                limit,
                cursor: cursor.map(str::to_owned),
            }
            .check()
        };
        let search = check(Some("  Cámara  de FOTOS "), None, None).unwrap();
        assert_eq!(search.words, ["camara", "de", "fotos"]);
        assert_eq!((search.limit, search.category, search.after), (50, None, None));
        assert_eq!(check(None, Some(0), None), Err(SearchError::Limit));
        assert_eq!(check(None, Some(101), None), Err(SearchError::Limit));
        assert_eq!(check(Some(&"x".repeat(201)), None, None), Err(SearchError::Query));
        assert_eq!(check(Some("a b c d e f g h i"), None, None), Err(SearchError::Query));
        for cursor in ["", "%", "bm9uZQ", "MS4x"] {
            assert_eq!(check(None, None, Some(cursor)), Err(SearchError::Cursor), "{cursor:?}");
        }
    }

    #[test]
    fn a_mark_survives_the_round_trip() {
        let mark = Mark {
            created_at: Timestamp::from_microsecond(1_790_000_000_123_456).unwrap(),
            id: Uuid::from_u128(7),
        };
        assert_eq!(Mark::read(&mark.write()), Some(mark));
    }
}
