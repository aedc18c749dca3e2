//! What every document store must do, as one suite: each adapter runs [`run`] with a way to open an empty store.

mod keys;

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::{Inserted, PENDING_EVENTS_MAX, ProductStore, Replaced, StoreError, Stored, Write};
use crate::event::{Event, Happened};
use crate::price::Price;
use crate::product::{Details, ListingStatus, Owner, Product, Source};
use crate::search::{Mark, Search};

/// Runs the whole suite, every part on a store of its own.
pub async fn run<F, S>(open: F)
where
    F: Fn() -> S,
    S: Future<Output = Arc<dyn ProductStore>>,
{
    a_document_is_found_by_its_owner_only(&*open().await).await;
    a_replacement_needs_the_version_it_read(&*open().await).await;
    one_item_has_one_document(&*open().await).await;
    a_tombstone_is_found_by_item_only(&*open().await).await;
    a_search_pages_through_newest_first(&*open().await).await;
    a_search_matches_words_and_category(&*open().await).await;
    events_wait_in_order_until_published(&*open().await).await;
    a_change_between_reading_and_publishing_loses_no_event(&*open().await).await;
    a_product_with_too_many_events_refuses_the_next(&*open().await).await;
    an_erased_owner_leaves_nothing_and_stays_out(&*open().await).await;
    sweeping_takes_what_expired_and_is_published(&*open().await).await;
    a_lease_has_one_holder(&*open().await).await;
    of_concurrent_replacements_one_wins(open().await).await;
    what_is_stored_comes_back_as_it_was(&*open().await).await;
    an_identity_is_taken_once(&*open().await).await;
    keys::a_key_is_answered_once(&*open().await).await;
    keys::a_dead_request_is_taken_over_with_its_product(&*open().await).await;
    keys::sweeping_and_erasing_forget_keys(&*open().await).await;
    keys::of_concurrent_claims_one_is_granted(open().await).await;
    open().await.check().await.unwrap();
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

fn owner(tenant: &str, user: u128) -> Owner {
    Owner { tenant: tenant.to_owned(), user_id: Uuid::from_u128(user) }
}

fn product(id: u128, title: &str, created: i64) -> Product {
    Product {
        id: Uuid::from_u128(id),
        ml_item_id: None,
        details: Details {
            title: title.to_owned(),
            category_id: None,
            price: None,
            currency_id: None,
            available_quantity: 1,
            status: ListingStatus::Active,
            sku: None,
            attributes: [("BRAND".to_owned(), "X".to_owned())].into(),
        },
        source: Source::Api,
        ml_last_updated: Some(at(created)),
        version: 1,
        created_at: at(created),
        updated_at: at(created),
    }
}

fn of_item(product: Product, item: &str) -> Product {
    Product { ml_item_id: Some(item.to_owned()), ..product }
}

fn write(owner: &Owner, product: &Product) -> Write {
    Write {
        stored: Stored { owner: owner.clone(), product: product.clone(), deleted_at: None },
        expires_at: None,
        event: None,
    }
}

fn with_event(write: Write, id: u128) -> Write {
    let event = Event::of(Uuid::from_u128(id), Happened::Updated, &write.stored.owner, &write.stored.product);
    Write { event: Some(event), ..write }
}

fn next(product: &Product, second: i64) -> Product {
    Product { version: product.version + 1, updated_at: at(second), ..product.clone() }
}

fn everything() -> Search {
    Search { words: Vec::new(), category: None, limit: 100, after: None }
}

async fn titles(store: &dyn ProductStore, owner: &Owner, search: &Search) -> Vec<String> {
    let found = store.search(owner, search).await.unwrap();
    found.into_iter().map(|product| product.details.title).collect()
}

async fn pending(store: &dyn ProductStore) -> Vec<(u128, u128)> {
    let events = store.unpublished(1_000).await.unwrap();
    events.into_iter().map(|(product, event)| (product.as_u128(), event.id.as_u128())).collect()
}

async fn a_document_is_found_by_its_owner_only(store: &dyn ProductStore) {
    let (mine, neighbour, namesake) = (owner("a", 1), owner("a", 2), owner("b", 1));
    let lamp = of_item(product(1, "Lamp", 0), "MLA1");
    assert_eq!(store.insert(write(&mine, &lamp)).await.unwrap(), Inserted::Done);
    assert_eq!(store.find(&mine, lamp.id).await.unwrap(), Some(lamp.clone()));
    for stranger in [&neighbour, &namesake] {
        assert_eq!(store.find(stranger, lamp.id).await.unwrap(), None);
        assert!(titles(store, stranger, &everything()).await.is_empty());
        let replaced = store.replace(write(stranger, &next(&lamp, 1)), 1).await.unwrap();
        assert_eq!(replaced, Replaced::Stale, "a stranger changes nothing");
    }
    assert_eq!(store.find(&mine, lamp.id).await.unwrap(), Some(lamp));
    assert_eq!(store.find(&mine, Uuid::from_u128(99)).await.unwrap(), None);
}

async fn a_replacement_needs_the_version_it_read(store: &dyn ProductStore) {
    let mine = owner("a", 1);
    let first = product(1, "Lamp", 0);
    store.insert(write(&mine, &first)).await.unwrap();
    let mut second = next(&first, 1);
    second.details.title = "Lantern".to_owned();
    assert_eq!(store.replace(write(&mine, &second), 1).await.unwrap(), Replaced::Done);
    assert_eq!(store.replace(write(&mine, &second), 1).await.unwrap(), Replaced::Stale);
    assert_eq!(store.find(&mine, first.id).await.unwrap(), Some(second.clone()));
    let words = Search { words: vec!["lantern".to_owned()], ..everything() };
    assert_eq!(titles(store, &mine, &words).await, ["Lantern"], "a search follows the change");
    let unknown = product(2, "Never stored", 0);
    assert_eq!(store.replace(write(&mine, &unknown), 1).await.unwrap(), Replaced::Stale);
}

async fn one_item_has_one_document(store: &dyn ProductStore) {
    let lamp = of_item(product(1, "Lamp", 0), "MLA1");
    store.insert(write(&owner("a", 1), &lamp)).await.unwrap();
    let copy = of_item(product(2, "Copy", 0), "MLA1");
    assert_eq!(store.insert(write(&owner("a", 1), &copy)).await.unwrap(), Inserted::ItemTaken);
    assert_eq!(store.insert(write(&owner("b", 9), &copy)).await.unwrap(), Inserted::ItemTaken);
    for id in [3, 4] {
        let unlinked = store.insert(write(&owner("a", 1), &product(id, "Free", 0))).await.unwrap();
        assert_eq!(unlinked, Inserted::Done, "products without an item do not clash");
    }
    let known = store.find_item("MLA1").await.unwrap().unwrap();
    assert_eq!((known.owner, known.product), (owner("a", 1), lamp));
    assert_eq!(store.find_item("MLA2").await.unwrap(), None);
}

async fn a_tombstone_is_found_by_item_only(store: &dyn ProductStore) {
    let mine = owner("a", 1);
    let lamp = of_item(product(1, "Lamp", 0), "MLA1");
    store.insert(write(&mine, &lamp)).await.unwrap();
    let mut gone = write(&mine, &next(&lamp, 5));
    gone.stored.deleted_at = Some(at(5));
    assert_eq!(store.replace(gone.clone(), 1).await.unwrap(), Replaced::Done);
    assert_eq!(store.find(&mine, lamp.id).await.unwrap(), None);
    assert!(titles(store, &mine, &everything()).await.is_empty());
    assert_eq!(store.find_item("MLA1").await.unwrap(), Some(gone.stored.clone()));
    let back = next(&gone.stored.product, 6);
    assert_eq!(store.replace(write(&mine, &back), 2).await.unwrap(), Replaced::Done);
    assert_eq!(store.find(&mine, lamp.id).await.unwrap(), Some(back));
}

async fn a_search_pages_through_newest_first(store: &dyn ProductStore) {
    let mine = owner("a", 1);
    // Two pairs share their time, so that identity decides between them.
    for (id, created) in [(1, 10), (2, 10), (3, 20), (4, 20), (5, 5)] {
        store.insert(write(&mine, &product(id, &id.to_string(), created))).await.unwrap();
    }
    assert_eq!(titles(store, &mine, &everything()).await, ["4", "3", "2", "1", "5"]);
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.search(&mine, &Search { limit: 2, after, ..everything() }).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(Mark::of(last));
        assert!(page.len() <= 2);
        seen.extend(page.into_iter().map(|product| product.details.title));
    }
    assert_eq!(seen, ["4", "3", "2", "1", "5"]);
}

async fn a_search_matches_words_and_category(store: &dyn ProductStore) {
    let mine = owner("a", 1);
    let rows = [
        (1, "Cámara de fotos", "MLA10", "K-1"),
        (2, "Trípode 100%", "MLA10", "K-2"),
        (3, "Foto_marco", "MLA20", "Z"),
    ];
    for (id, title, category, sku) in rows {
        let mut product = of_item(product(id, title, id as i64), &format!("MLA{id}"));
        product.details.category_id = Some(category.to_owned());
        product.details.sku = Some(sku.to_owned());
        store.insert(write(&mine, &product)).await.unwrap();
    }
    for (words, category, expected) in [
        (&["foto"][..], None, &["Foto_marco", "Cámara de fotos"][..]),
        (&["camara", "fotos"], None, &["Cámara de fotos"]),
        (&["camara", "marco"], None, &[]),
        (&["k-"], None, &["Trípode 100%", "Cámara de fotos"]),
        (&["mla3"], None, &["Foto_marco"]),
        (&["%"], None, &["Trípode 100%"]),
        (&["_"], None, &["Foto_marco"]),
        (&[], Some("MLA20"), &["Foto_marco"]),
        (&["foto"], Some("MLA10"), &["Cámara de fotos"]),
        (&[], Some("MLA"), &[]),
        // Words are text, not patterns.
        (&["."], None, &[]),
        (&["f.to"], None, &[]),
        (&["(", "["], None, &[]),
        (&["\\"], None, &[]),
        (&["\0"], None, &[]),
        (&["^foto"], None, &[]),
    ] {
        let words = words.iter().copied().map(str::to_owned).collect();
        let search = Search { words, category: category.map(str::to_owned), ..everything() };
        assert_eq!(titles(store, &mine, &search).await, expected, "{search:?}");
    }
}

async fn events_wait_in_order_until_published(store: &dyn ProductStore) {
    let mine = owner("a", 1);
    let (old, new) = (product(1, "Old", 0), product(2, "New", 1));
    store.insert(with_event(write(&mine, &new), 21)).await.unwrap();
    store.insert(with_event(write(&mine, &old), 11)).await.unwrap();
    store.replace(with_event(write(&mine, &next(&old, 9)), 12), 1).await.unwrap();
    store.insert(write(&mine, &product(3, "Silent", 0))).await.unwrap();
    assert_eq!(pending(store).await, [(1, 11), (1, 12), (2, 21)], "the longest waiting document first");
    assert_eq!(store.unpublished(1).await.unwrap().len(), 2, "a document is never split");

    store.mark_published(vec![(old.id, Uuid::from_u128(11))]).await.unwrap();
    assert_eq!(pending(store).await, [(2, 21), (1, 12)], "what was published no longer makes a document old");
    store.mark_published(vec![(old.id, Uuid::from_u128(12)), (new.id, Uuid::from_u128(21))]).await.unwrap();
    store.mark_published(vec![(new.id, Uuid::from_u128(21)), (Uuid::from_u128(99), new.id)]).await.unwrap();
    assert!(pending(store).await.is_empty());
    assert_eq!(store.find(&mine, old.id).await.unwrap().unwrap().version, 2, "publishing is no change");
}

async fn a_change_between_reading_and_publishing_loses_no_event(store: &dyn ProductStore) {
    let mine = owner("a", 1);
    let lamp = product(1, "Lamp", 0);
    store.insert(with_event(write(&mine, &lamp), 11)).await.unwrap();
    let read = store.unpublished(10).await.unwrap();
    assert_eq!(
        store.replace(with_event(write(&mine, &next(&lamp, 1)), 12), 1).await.unwrap(),
        Replaced::Done
    );
    store
        .mark_published(read.into_iter().map(|(product, event)| (product, event.id)).collect())
        .await
        .unwrap();
    assert_eq!(pending(store).await, [(1, 12)]);
}

async fn a_product_with_too_many_events_refuses_the_next(store: &dyn ProductStore) {
    let mine = owner("a", 1);
    let mut lamp = product(1, "Lamp", 0);
    store.insert(with_event(write(&mine, &lamp), 1)).await.unwrap();
    for count in 2..=PENDING_EVENTS_MAX as u128 {
        let expected = lamp.version;
        lamp = next(&lamp, 1);
        store.replace(with_event(write(&mine, &lamp), count), expected).await.unwrap();
    }
    let refused = store.replace(with_event(write(&mine, &next(&lamp, 2)), 5_000), lamp.version).await;
    assert!(matches!(refused, Err(StoreError::Backlog { product, .. }) if product == lamp.id), "{refused:?}");
    assert_eq!(store.find(&mine, lamp.id).await.unwrap(), Some(lamp), "nothing was written");
}

async fn an_erased_owner_leaves_nothing_and_stays_out(store: &dyn ProductStore) {
    let (mine, other) = (owner("a", 1), owner("a", 2));
    let lamp = of_item(product(1, "Lamp", 0), "MLA1");
    store.insert(with_event(write(&mine, &lamp), 1)).await.unwrap();
    store.insert(with_event(write(&other, &product(2, "Other", 0)), 2)).await.unwrap();
    assert_eq!(store.erase(&mine, at(100)).await.unwrap(), 1);
    assert_eq!(store.erase(&mine, at(50)).await.unwrap(), 0, "erasing twice is harmless");
    assert_eq!(store.find_item("MLA1").await.unwrap(), None);
    assert_eq!(pending(store).await, [(2, 2)]);
    assert_eq!(store.insert(write(&mine, &product(3, "Late", 0))).await.unwrap(), Inserted::OwnerErased);
    assert_eq!(store.replace(write(&mine, &next(&lamp, 1)), 1).await.unwrap(), Replaced::Stale);
    assert_eq!(
        store.insert(write(&other, &of_item(product(4, "Free", 0), "MLA1"))).await.unwrap(),
        Inserted::Done
    );

    store.sweep(at(99)).await.unwrap();
    assert_eq!(store.insert(write(&mine, &product(3, "Late", 0))).await.unwrap(), Inserted::OwnerErased);
    store.sweep(at(100)).await.unwrap();
    assert_eq!(store.insert(write(&mine, &product(3, "Late", 0))).await.unwrap(), Inserted::Done);
}

async fn sweeping_takes_what_expired_and_is_published(store: &dyn ProductStore) {
    let mine = owner("a", 1);
    let expiring = |write: Write, second| Write { expires_at: Some(at(second)), ..write };
    store.insert(expiring(write(&mine, &product(1, "Early", 0)), 10)).await.unwrap();
    store.insert(expiring(write(&mine, &product(2, "Late", 0)), 20)).await.unwrap();
    store.insert(expiring(with_event(write(&mine, &product(3, "Unpublished", 0)), 7), 10)).await.unwrap();
    store.insert(write(&mine, &product(4, "Lasting", 0))).await.unwrap();
    assert_eq!(store.sweep(at(9)).await.unwrap(), 0);
    assert_eq!(store.sweep(at(10)).await.unwrap(), 1);
    assert_eq!(titles(store, &mine, &everything()).await, ["Lasting", "Unpublished", "Late"]);
    store.mark_published(vec![(Uuid::from_u128(3), Uuid::from_u128(7))]).await.unwrap();
    assert_eq!(store.sweep(at(1_000)).await.unwrap(), 2);
    assert_eq!(titles(store, &mine, &everything()).await, ["Lasting"]);
}

async fn a_lease_has_one_holder(store: &dyn ProductStore) {
    let lease = |holder: &'static str, now, until| store.lease("relay", holder, at(now), at(until));
    assert!(lease("one", 0, 10).await.unwrap());
    assert!(!lease("two", 5, 15).await.unwrap(), "it is taken");
    assert!(lease("one", 5, 15).await.unwrap(), "the holder renews");
    assert!(!lease("two", 14, 24).await.unwrap(), "until its end");
    assert!(lease("two", 15, 25).await.unwrap(), "an ended lease is free");
    assert!(!lease("one", 16, 26).await.unwrap());
    store.release("relay", "one").await.unwrap();
    assert!(!lease("one", 16, 26).await.unwrap(), "only the holder gives it back");
    assert!(store.lease("other", "one", at(16), at(26)).await.unwrap(), "names are apart");
    store.release("relay", "two").await.unwrap();
    assert!(lease("one", 16, 26).await.unwrap());
}

async fn what_is_stored_comes_back_as_it_was(store: &dyn ProductStore) {
    let mine = owner("a.$tenant", 1);
    let micros = Timestamp::from_microsecond(1_790_000_000_123_456).unwrap();
    let mut full = of_item(product(1, "Lámpara \"100%\" 🪔", 0), "MLA1");
    full.details.price = Some(Price::parse("99999999999.9999").unwrap());
    full.details.category_id = Some("MLA1055".to_owned());
    full.details.currency_id = Some("ARS".to_owned());
    full.details.available_quantity = 99_999_999;
    full.details.status = ListingStatus::Unknown;
    full.details.sku = Some("$set".to_owned());
    for (name, value) in
        [("a.b", "dotted"), ("$set", "dollar"), ("ñ", "x"), (".", "."), ("_id", "no identity")]
    {
        full.details.attributes.insert(name.to_owned(), value.to_owned());
    }
    full.source = Source::Webhook;
    full.ml_last_updated = Some("2026-11-24T03:00:00.123456789Z".parse().unwrap());
    (full.created_at, full.updated_at) = (micros, micros);
    store.insert(with_event(write(&mine, &full), 1)).await.unwrap();
    assert_eq!(store.find(&mine, full.id).await.unwrap().as_ref(), Some(&full));
    let events = store.unpublished(10).await.unwrap();
    let event = Event::of(Uuid::from_u128(1), Happened::Updated, &mine, &full);
    assert_eq!(events, [(full.id, event)]);

    let mut bare = next(&full, 1);
    (bare.details.price, bare.details.category_id, bare.details.currency_id) = (None, None, None);
    (bare.details.sku, bare.ml_last_updated) = (None, None);
    bare.details.attributes.clear();
    let gone = Write { expires_at: Some(at(10)), ..write(&mine, &bare) };
    assert_eq!(store.replace(gone, 1).await.unwrap(), Replaced::Done);
    assert_eq!(store.find(&mine, full.id).await.unwrap().as_ref(), Some(&bare), "what is empty is gone");
    let lasting = next(&bare, 2);
    assert_eq!(store.replace(write(&mine, &lasting), 2).await.unwrap(), Replaced::Done);
    store.mark_published(vec![(full.id, Uuid::from_u128(1))]).await.unwrap();
    assert_eq!(store.sweep(at(100)).await.unwrap(), 0, "it no longer expires");
}

async fn an_identity_is_taken_once(store: &dyn ProductStore) {
    let mine = owner("a", 1);
    let lamp = of_item(product(1, "Lamp", 0), "MLA1");
    store.insert(with_event(write(&mine, &lamp), 1)).await.unwrap();
    for twin in [product(1, "Twin", 0), lamp.clone()] {
        for owner in [&mine, &owner("b", 1)] {
            let inserted = store.insert(with_event(write(owner, &twin), 2)).await.unwrap();
            assert_eq!(inserted, Inserted::IdTaken);
        }
    }
    assert_eq!(store.find(&mine, lamp.id).await.unwrap(), Some(lamp));
    assert_eq!(pending(store).await, [(1, 1)]);
}

async fn of_concurrent_replacements_one_wins(store: Arc<dyn ProductStore>) {
    let mine = owner("a", 1);
    let lamp = product(1, "Lamp", 0);
    store.insert(write(&mine, &lamp)).await.unwrap();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let store = Arc::clone(&store);
            let write = with_event(write(&mine, &next(&lamp, 1)), writer);
            tokio::spawn(async move { store.replace(write, 1).await.unwrap() })
        })
        .collect();
    let mut done = 0;
    for writer in writers {
        done += u32::from(writer.await.unwrap() == Replaced::Done);
    }
    assert_eq!(done, 1);
    assert_eq!(pending(&*store).await.len(), 1, "a losing write leaves no event");
}
