//! What the simulated marketplace holds: applications, sellers, items, tokens. Plain values behind one lock; the
//! routes speak HTTP, this speaks the marketplace's rules.

mod catalog;
mod item;
mod oauth;
mod seller;
mod stock;
mod update;

use std::collections::{BTreeMap, HashMap, VecDeque};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub use catalog::{CATEGORIES, Category, category};
pub use item::{Attribute, Draft, Item};
pub use oauth::{Application, Exchange, Presented, Token, TokenPair};
pub use seller::Seller;

/// Ids of sellers begin beyond this, ids of items too; where exactly is the seed's choice, because whoever keeps ids
/// of an earlier marketplace (and a restart begins a new one) must not meet them again on something else.
const FIRST_SELLER: u64 = 200_000_001;
const FIRST_ITEM: u64 = 1_000_000_001;
/// Sellers and items of one marketplace before the next seed's could begin.
const SELLERS_OF_A_SEED: u64 = 1_000;
const ITEMS_OF_A_SEED: u64 = 1_000_000;
/// Blocks of ids that seeds choose from.
const BLOCKS: u64 = 1_000_000_000;
/// How long a scroll_id lives (research: 5 minutes).
const SCROLL_TTL_MS: i64 = 5 * 60 * 1000;

/// What a world is built from; the same values give the same sellers, items and tokens.
#[derive(Clone, Debug)]
pub struct Seed {
    /// Start of every random choice.
    pub seed: u64,
    /// Items of each new test seller.
    pub items: u32,
    /// Life of an access token in seconds.
    pub token_seconds: u32,
    /// Requests per minute and seller before 429; 0 = no limit.
    pub per_minute: u32,
    /// The one registered application; without it, an application is registered by its first use.
    pub application: Option<Application>,
}

/// The whole state; see the module.
#[derive(Debug)]
pub struct World {
    seed: Seed,
    rng: StdRng,
    next_seller: u64,
    next_item: u64,
    sellers: BTreeMap<u64, Seller>,
    items: BTreeMap<String, Item>,
    applications: BTreeMap<String, Application>,
    oauth: oauth::Grants,
    scrolls: HashMap<String, Scroll>,
    recent: HashMap<u64, VecDeque<i64>>,
}

#[derive(Debug)]
struct Scroll {
    seller: u64,
    rest: Vec<String>,
    expires_ms: i64,
}

/// One page of a seller's item ids.
#[derive(Debug)]
pub struct Page {
    /// The ids.
    pub ids: Vec<String>,
    /// All that match.
    pub total: usize,
    /// Where to go on, for a scan.
    pub scroll_id: Option<String>,
}

impl World {
    /// An empty marketplace.
    pub fn new(seed: Seed) -> Self {
        let applications = seed.application.iter().map(|app| (app.client_id.clone(), app.clone())).collect();
        let mut rng = StdRng::seed_from_u64(seed.seed);
        let block = rng.random_range(0..BLOCKS);
        Self {
            rng,
            seed,
            next_seller: FIRST_SELLER + block * SELLERS_OF_A_SEED,
            next_item: FIRST_ITEM + block * ITEMS_OF_A_SEED,
            sellers: BTreeMap::new(),
            items: BTreeMap::new(),
            applications,
            oauth: oauth::Grants::default(),
            scrolls: HashMap::new(),
            recent: HashMap::new(),
        }
    }

    /// Back to an empty marketplace of the same seed.
    pub fn reset(&mut self) {
        *self = Self::new(self.seed.clone());
    }

    /// A new test seller with its items; its id.
    pub fn create_seller(&mut self, now_ms: i64) -> u64 {
        let id = self.next_seller;
        self.next_seller += 1;
        self.sellers.insert(id, Seller::test_user(id, &mut self.rng));
        for number in 0..self.seed.items {
            let item_id = self.new_item_id();
            let item = Item::generated(item_id, id, number, now_ms, &mut self.rng);
            self.items.insert(item.id.clone(), item);
        }
        id
    }

    /// The seller of this id.
    pub fn seller(&self, id: u64) -> Option<&Seller> {
        self.sellers.get(&id)
    }

    /// The seller of this id, to change its tags.
    pub fn seller_mut(&mut self, id: u64) -> Option<&mut Seller> {
        self.sellers.get_mut(&id)
    }

    /// All sellers, by id.
    pub fn sellers(&self) -> impl Iterator<Item = &Seller> {
        self.sellers.values()
    }

    /// The item of this id.
    pub fn item(&self, id: &str) -> Option<&Item> {
        self.items.get(id)
    }

    /// A seller's items, by id.
    pub fn items_of(&self, seller: u64) -> impl Iterator<Item = &Item> {
        self.items.values().filter(move |item| item.seller_id == seller)
    }

    /// Starts a scan over `ids`, or goes on with one; `None` when the scroll is unknown, another's or too old.
    pub fn scan(
        &mut self,
        seller: u64,
        start: Result<Vec<String>, &str>,
        limit: usize,
        now_ms: i64,
    ) -> Option<Page> {
        self.scrolls.retain(|_, scroll| scroll.expires_ms > now_ms);
        let mut rest = match start {
            Ok(ids) => ids,
            Err(scroll_id) => {
                let scroll = self.scrolls.get(scroll_id)?;
                if scroll.seller != seller {
                    return None;
                }
                self.scrolls.remove(scroll_id)?.rest
            }
        };
        let total = rest.len();
        let tail = rest.split_off(limit.min(total));
        let scroll_id = self.random_word(40);
        let scroll = Scroll { seller, rest: tail, expires_ms: now_ms + SCROLL_TTL_MS };
        self.scrolls.insert(scroll_id.clone(), scroll);
        Some(Page { ids: rest, total, scroll_id: Some(scroll_id) })
    }

    /// Counts a request of `seller` and says whether it is within the per-minute limit.
    pub fn within_rate(&mut self, seller: u64, now_ms: i64) -> bool {
        let limit = self.seed.per_minute as usize;
        if limit == 0 {
            return true;
        }
        let recent = self.recent.entry(seller).or_default();
        while recent.front().is_some_and(|first| now_ms - first >= 60_000) {
            recent.pop_front();
        }
        if recent.len() >= limit {
            return false;
        }
        recent.push_back(now_ms);
        true
    }

    fn new_item_id(&mut self) -> String {
        let id = format!("MLA{}", self.next_item);
        self.next_item += 1;
        id
    }

    fn random_word(&mut self, length: usize) -> String {
        const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        (0..length).map(|_| char::from(LETTERS[self.rng.random_range(0..LETTERS.len())])).collect()
    }
}

#[cfg(test)]
pub(crate) fn test_seed() -> Seed {
    Seed { seed: 7, items: 25, token_seconds: 21_600, per_minute: 0, application: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_marketplace() {
        let titles = |seed: u64| {
            let mut world = World::new(Seed { seed, ..test_seed() });
            let seller = world.create_seller(0);
            world
                .items_of(seller)
                .map(|item| format!("{} {} {}", item.id, item.title, item.price))
                .collect::<Vec<_>>()
        };
        assert_eq!(titles(7), titles(7));
        assert_eq!(titles(7).len(), 25);
        assert_ne!(titles(7), titles(8));
    }

    #[test]
    fn a_scan_walks_all_ids_once_and_dies_after_five_minutes() {
        let mut world = World::new(test_seed());
        let seller = world.create_seller(0);
        let ids: Vec<String> = world.items_of(seller).map(|item| item.id.clone()).collect();
        let mut page = world.scan(seller, Ok(ids.clone()), 10, 0).unwrap();
        let mut seen = page.ids.clone();
        while !page.ids.is_empty() {
            let scroll = page.scroll_id.unwrap();
            assert!(world.scan(seller + 1, Err(&scroll), 10, 1).is_none(), "another seller's scroll");
            page = world.scan(seller, Err(&scroll), 10, 1).unwrap();
            seen.extend(page.ids.clone());
        }
        assert_eq!(seen, ids);
        let late = world.scan(seller, Ok(ids), 10, 0).unwrap().scroll_id.unwrap();
        assert!(world.scan(seller, Err(&late), 10, SCROLL_TTL_MS).is_none());
    }

    #[test]
    fn the_minute_limit_is_a_rolling_window_per_seller() {
        let mut world = World::new(Seed { per_minute: 2, ..test_seed() });
        assert!(world.within_rate(1, 0));
        assert!(world.within_rate(1, 30_000));
        assert!(!world.within_rate(1, 59_999));
        assert!(world.within_rate(2, 59_999));
        assert!(world.within_rate(1, 60_000));
    }
}
