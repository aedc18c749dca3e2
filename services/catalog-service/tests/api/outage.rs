//! The service on a real server of MongoDB's protocol that goes away, hangs and comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use service_kit::testing::{eventually, servers};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::running::{System, id};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// Nothing passes, and nobody is told.
    Silent,
    /// Connections break, and new ones break at once: what a client sees of a server that was killed.
    Broken,
}

/// The way to the server, which the test can close.
struct Gate {
    way: Arc<watch::Sender<Way>>,
    address: SocketAddr,
}

impl Gate {
    async fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = Arc::new(watch::Sender::new(Way::Open));
        let (server, set) = (server.to_owned(), Arc::clone(&way));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server.clone(), set.subscribe()));
            }
        });
        Self { way, address }
    }

    fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn pass(mut client: TcpStream, server: String, mut way: watch::Receiver<Way>) {
    loop {
        let now = *way.borrow_and_update();
        match now {
            Way::Broken => return,
            Way::Silent => drop(way.changed().await),
            Way::Open => break,
        }
    }
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    loop {
        let now = *way.borrow_and_update();
        tokio::select! {
            _ = tokio::io::copy(&mut from_client, &mut to_server), if now == Way::Open => return,
            _ = tokio::io::copy(&mut from_server, &mut to_client), if now == Way::Open => return,
            changed = way.changed() => if changed.is_err() || *way.borrow() == Way::Broken { return },
        }
    }
}

/// The address of the server by way of a gate. Without `directConnection` the driver would go to where the server says
/// that it is, past the gate.
async fn gated() -> (Gate, SecretString) {
    let url = servers::mongodb();
    let rest = url.expose_secret().strip_prefix("mongodb://").unwrap().to_owned();
    let (server, path) = rest.split_once('/').unwrap();
    let gate = Gate::to(server).await;
    let path = path.split('?').next().unwrap();
    let url = SecretString::from(format!("mongodb://{}/{path}?directConnection=true", gate.address));
    (gate, url)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real server: make e2e-services"]
async fn an_outage_is_told_as_503_and_passes() {
    let (gate, url) = gated().await;
    let system = System::on_mongodb(&url).await;
    let replica = system.start().await;
    let user = system.user(&replica, "default");
    let made = user.product("Lamp").await;
    let path = format!("/products/{}", id(&made));
    assert_eq!(user.get(&path).await.0, 200);
    assert_eq!(replica.metric("database_connections_max{store=\"mongodb\"}").await, 10.0);

    for way in [Way::Broken, Way::Silent] {
        gate.set(way);
        let began = Instant::now();
        let (status, body) = user.get(&path).await;
        assert_eq!((status, &body["error"]), (503, &json!("store_unavailable")), "{way:?}");
        assert!(began.elapsed() < Duration::from_secs(7), "{way:?} took {:?}", began.elapsed());
        assert_eq!(user.post(&json!({"title": "Lost", "price": 1})).await.0, 503, "{way:?}");
        eventually("the service to be unready", || async {
            (replica.status("/readyz").await == 503).then_some(())
        })
        .await;
        gate.set(Way::Open);
        eventually("the service to be ready", || async {
            (replica.status("/readyz").await == 200).then_some(())
        })
        .await;
        assert_eq!(user.get(&path).await, (200, made.clone()), "{way:?}");
    }
    let (status, changed) = user.put(id(&made), &json!({"version": 1, "price": 2})).await;
    assert_eq!(status, 200, "{changed}");
    eventually("every connection to be back", || async {
        (replica.metric("database_connections_active{store=\"mongodb\"}").await < 2.0).then_some(())
    })
    .await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real server: make e2e-services"]
async fn a_start_without_the_server_waits_for_it() {
    let (gate, url) = gated().await;
    gate.set(Way::Broken);
    let system = System::on_mongodb(&url).await;
    let replica = system.start_unready().await;
    assert_eq!(replica.status("/livez").await, 200);
    assert_eq!(replica.status("/readyz").await, 503);
    gate.set(Way::Open);
    eventually("the service to be ready", || async {
        (replica.status("/readyz").await == 200).then_some(())
    })
    .await;
    let user = system.user(&replica, "default");
    user.product("Lamp").await;
    assert_eq!(user.titles("?query=lamp").await, ["Lamp"]);
    system.events(1).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real server: make e2e-services"]
async fn a_product_is_made_once_through_an_outage() {
    let (gate, url) = gated().await;
    let system = System::on_mongodb(&url).await;
    let replica = system.start().await;
    let user = system.user(&replica, "default");
    let breaking = {
        let way = Arc::clone(&gate.way);
        tokio::spawn(async move {
            for _ in 0..6 {
                tokio::time::sleep(Duration::from_millis(150)).await;
                way.send_replace(Way::Broken);
                tokio::time::sleep(Duration::from_millis(50)).await;
                way.send_replace(Way::Open);
            }
        })
    };
    for number in 0..30 {
        let title = format!("Lamp {number}");
        let draft = json!({"title": title, "price": 1});
        let key = format!("key-{number}");
        eventually("the product", || async {
            let (status, _, body) = user.post_once(&draft, &key).await;
            assert!(matches!(status, 201 | 409 | 503), "{status} {body}");
            if status == 409 {
                // The first request broke off without giving its key back; it ends by the clock.
                system.hand.advance(Duration::from_secs(31));
            }
            (status == 201).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    breaking.await.unwrap();
    let mut titles = user.titles("?limit=100").await;
    titles.sort();
    let mut expected: Vec<_> = (0..30).map(|number| format!("Lamp {number}")).collect();
    expected.sort();
    assert_eq!(titles, expected, "each once");
    replica.stop().await;
}
