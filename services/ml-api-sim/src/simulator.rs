//! The simulator's parts, held together for the routes.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::fault::Faults;
use crate::ledger::Ledger;
use crate::notify::Notifier;
use crate::world::{Seed, World};

/// Switches that change how faithful endpoints answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Switches {
    /// `GET /items?ids=` still answers; MercadoLibre shut it down on 2026-10-25.
    pub legacy_multiget: bool,
    /// Another seller's item is shown without owner-only fields instead of 403.
    pub foreign_items_public: bool,
}

/// Everything the routes need; one per process.
#[derive(Debug)]
pub struct Simulator {
    /// Simulated time.
    pub clock: Clock,
    /// The marketplace.
    pub world: Mutex<World>,
    /// Who called what.
    pub ledger: Arc<Ledger>,
    /// What goes wrong on purpose.
    pub faults: Faults,
    /// Sends notifications.
    pub notifier: Arc<Notifier>,
    /// See [`Switches`].
    pub switches: Switches,
}

impl Simulator {
    /// A marketplace without sellers, an empty ledger and no faults.
    pub fn new(clock: Clock, seed: Seed, switches: Switches, callback: Option<String>) -> Arc<Self> {
        let ledger = Arc::new(Ledger::default());
        let notifier = Arc::new(Notifier::new(Arc::clone(&ledger), callback));
        let world = Mutex::new(World::new(seed));
        Arc::new(Self { clock, world, ledger, faults: Faults::default(), notifier, switches })
    }

    /// Back to the beginning: sellers, tokens, faults, feeds and ledger are gone, the clock goes on.
    pub fn reset(&self) {
        self.world.lock().reset();
        self.faults.clear();
        self.notifier.reset();
        self.ledger.clear();
    }
}
