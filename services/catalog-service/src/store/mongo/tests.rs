//! The adapter on a real server of the protocol; `make e2e-services` starts one.
//!
//! FerretDB 1 is none to test on: it reads, decides and writes in three steps that others come between, so that of two
//! replacements at one version both are answered as done.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mongodb::bson::{Bson, Document, doc};
use secrecy::SecretString;
use service_kit::testing::servers;
use uuid::Uuid;

use super::{Collections, MongoStore, connection, outbox, products};
use crate::event::{Event, Happened};
use crate::product::{Details, ListingStatus, Owner, Product, Source};
use crate::search::Search;
use crate::store::{Inserted, ProductStore, Replaced, StoreError, Stored, Write, contract};

async fn store_at(url: &SecretString) -> MongoStore {
    MongoStore::new(url, 10).await.unwrap()
}

fn owner(user: u128) -> Owner {
    Owner { tenant: "default".to_owned(), user_id: Uuid::from_u128(user) }
}

fn write(owner: &Owner, id: u128, version: u64) -> Write {
    let now = Timestamp::from_second(1_790_000_000).unwrap();
    let product = Product {
        id: Uuid::from_u128(id),
        ml_item_id: None,
        details: Details {
            title: format!("Lamp {id}"),
            category_id: Some(format!("MLA{}", id % 20)),
            price: None,
            currency_id: None,
            available_quantity: u32::try_from(id % 7).unwrap(),
            status: ListingStatus::Active,
            sku: None,
            attributes: Default::default(),
        },
        source: Source::Api,
        ml_last_updated: None,
        version,
        created_at: now,
        updated_at: now,
    };
    Write {
        stored: Stored { owner: owner.clone(), product, deleted_at: None },
        expires_at: None,
        event: None,
    }
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn the_store_keeps_the_contract() {
    contract::run(|| async { Arc::new(store_at(&servers::mongodb()).await) as Arc<dyn ProductStore> }).await;
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn of_several_replicas_one_wins() {
    let url = servers::mongodb();
    let mut replicas = Vec::new();
    for _ in 0..4 {
        replicas.push(Arc::new(store_at(&url).await));
    }
    let mine = owner(1);
    // All make the indexes and the same item's product at once.
    let item = |replica: usize, id: u128| {
        let mut write = write(&owner(1), id, 1);
        write.stored.product.ml_item_id = Some("MLA1".to_owned());
        let store = Arc::clone(&replicas[replica]);
        tokio::spawn(async move { store.insert(write).await.unwrap() })
    };
    let mut made = Vec::new();
    for attempt in (0..16).map(|number| item(number % 4, number as u128 + 1)).collect::<Vec<_>>() {
        made.push(attempt.await.unwrap());
    }
    assert_eq!(made.iter().filter(|inserted| **inserted == Inserted::Done).count(), 1, "{made:?}");
    assert_eq!(made.iter().filter(|inserted| **inserted == Inserted::ItemTaken).count(), 15, "{made:?}");

    replicas[0].insert(write(&mine, 100, 1)).await.unwrap();
    for version in 2..10 {
        let attempts: Vec<_> = replicas
            .iter()
            .map(|store| {
                let (store, write) = (Arc::clone(store), write(&mine, 100, version));
                tokio::spawn(async move { store.replace(write, version - 1).await.unwrap() })
            })
            .collect();
        let mut done = 0;
        for attempt in attempts {
            done += u32::from(attempt.await.unwrap() == Replaced::Done);
        }
        assert_eq!(done, 1, "version {version}");
    }
    assert_eq!(replicas[3].find(&mine, Uuid::from_u128(100)).await.unwrap().unwrap().version, 9);

    let (now, until) = (Timestamp::from_second(10).unwrap(), Timestamp::from_second(20).unwrap());
    let attempts: Vec<_> = (0..16)
        .map(|number| {
            let (store, holder) = (Arc::clone(&replicas[number % 4]), number.to_string());
            tokio::spawn(async move { store.lease("background", &holder, now, until).await.unwrap() })
        })
        .collect();
    let mut held = 0;
    for attempt in attempts {
        held += u32::from(attempt.await.unwrap());
    }
    assert_eq!(held, 1, "a lease has one holder");
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn an_erasure_amid_inserts_leaves_nothing() {
    let url = servers::mongodb();
    let (one, two) = (Arc::new(store_at(&url).await), store_at(&url).await);
    one.check().await.unwrap();
    for round in 0..5 {
        let mine = owner(round + 1);
        let inserts: Vec<_> = (0..40)
            .map(|number| {
                let (store, write) = (Arc::clone(&one), write(&mine, round * 1_000 + number + 1, 1));
                tokio::spawn(async move { store.insert(write).await.unwrap() })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(round as u64 * 3)).await;
        two.erase(&mine, Timestamp::MAX).await.unwrap();
        for insert in inserts {
            insert.await.unwrap();
        }
        let all = Search { words: Vec::new(), category: None, limit: 100, after: None };
        assert!(two.search(&mine, &all).await.unwrap().is_empty(), "round {round}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable_within_seconds() {
    let store = store_at(&SecretString::from("mongodb://127.0.0.1:9/catalog".to_owned())).await;
    let began = Instant::now();
    let error = store.check().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { operation: "reach the catalog", .. }), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(store.pool().active(), 0);
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn publishing_amid_changes_loses_no_event_and_keeps_the_order() {
    const VERSIONS: u64 = 60;
    let url = servers::mongodb();
    let store = Arc::new(store_at(&url).await);
    let with_event = |version: u64| {
        let write = write(&owner(1), 1, version);
        let Stored { owner, product, .. } = &write.stored;
        let event = Event::of(Uuid::from_u128(version.into()), Happened::Updated, owner, product);
        Write { event: Some(event), ..write }
    };
    store.insert(with_event(1)).await.unwrap();
    let relays: Vec<_> = (0..3)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut seen: Vec<u128> = Vec::new();
                while seen.last() != Some(&VERSIONS.into()) {
                    let pending = store.unpublished(10).await.unwrap();
                    let events: Vec<_> =
                        pending.iter().map(|(product, event)| (*product, event.id)).collect();
                    store.mark_published(events).await.unwrap();
                    seen.extend(pending.iter().map(|(_, event)| event.id.as_u128()));
                    if seen.is_empty() || store.unpublished(1).await.unwrap().is_empty() {
                        let version =
                            store.find(&owner(1), Uuid::from_u128(1)).await.unwrap().unwrap().version;
                        if version == VERSIONS && store.unpublished(1).await.unwrap().is_empty() {
                            break;
                        }
                    }
                }
                seen
            })
        })
        .collect();
    for version in 2..=VERSIONS {
        assert_eq!(store.replace(with_event(version), version - 1).await.unwrap(), Replaced::Done);
    }
    let mut all = BTreeSet::new();
    for relay in relays {
        let seen = relay.await.unwrap();
        assert!(seen.is_sorted(), "a relay sees the events in their order: {seen:?}");
        all.extend(seen);
    }
    assert_eq!(all, (1..=VERSIONS.into()).collect::<BTreeSet<u128>>());
    assert!(store.unpublished(1).await.unwrap().is_empty());
}

/// The texts under a key of a plan, wherever in it they stand.
fn texts_under(key: &str, plan: &Bson, found: &mut BTreeSet<String>) {
    match plan {
        Bson::Document(document) => {
            for (name, value) in document {
                match value {
                    Bson::String(text) if name == key => drop(found.insert(text.clone())),
                    value => texts_under(key, value, found),
                }
            }
        }
        Bson::Array(values) => values.iter().for_each(|value| texts_under(key, value, found)),
        _ => {}
    }
}

/// The indexes that the server uses for a query.
async fn explained(collections: &Collections, filter: Document, order: Option<Document>) -> BTreeSet<String> {
    let mut find = doc! {"find": collections.products.name(), "filter": filter, "limit": 50};
    if let Some(order) = order {
        find.insert("sort", order);
    }
    let told =
        collections.database.run_command(doc! {"explain": find, "verbosity": "queryPlanner"}).await.unwrap();
    let planner = told.get_document("queryPlanner").unwrap();
    let mut found = BTreeSet::new();
    match planner.get("winningPlan") {
        Some(plan) => texts_under("indexName", plan, &mut found),
        // FerretDB 2 shows the plan of PostgreSQL.
        None => texts_under("Index Name", planner.get("Plan").unwrap(), &mut found),
    }
    found
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn each_query_has_its_index() {
    let url = servers::mongodb();
    let (database, _) = connection::open(&url, 2).await.unwrap();
    let collections = Collections::of(database);
    let store = store_at(&url).await;
    store.check().await.unwrap();
    store.check().await.unwrap();
    store_at(&url).await.check().await.unwrap();
    let mut names = collections.products.list_index_names().await.unwrap();
    names.sort();
    assert_eq!(
        names,
        [
            "_id_",
            "category_id_1_available_quantity_1",
            "expires_at_1",
            "ml_item_id_1",
            "pending_since_1__id_1",
            "user_id_1_tenant_1_created_at_-1__id_-1",
        ],
        "made once, whoever starts"
    );

    let many: Vec<_> = (1..=2_000)
        .map(|id: u128| {
            let mut write = write(&owner(id % 50), id, 1);
            write.stored.product.ml_item_id = Some(format!("MLA{id}"));
            super::document::ProductDocument::of(&write).unwrap()
        })
        .collect();
    collections.products.insert_many(many).await.unwrap();
    let all = Search { words: Vec::new(), category: None, limit: 50, after: None };
    let (waiting, by_age) = outbox::waiting();
    for (what, filter, order, index) in [
        ("the product of an item", products::of_item("MLA77"), None, "ml_item_id_1"),
        (
            "a page of an owner",
            products::matching(&owner(1), &all),
            Some(products::newest_first()),
            "user_id_1_tenant_1_created_at_-1__id_-1",
        ),
        (
            "the stock of a category",
            doc! {"category_id": "MLA3", "available_quantity": {"$lte": 0}},
            None,
            "category_id_1_available_quantity_1",
        ),
        ("what waits for the log", waiting, Some(by_age), "pending_since_1__id_1"),
    ] {
        let used = explained(&collections, filter, order).await;
        assert_eq!(used, BTreeSet::from([index.to_owned()]), "{what}");
    }
}
