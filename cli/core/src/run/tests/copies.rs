//! The two copies of a journal: the mirror on the target is written first, the one at home after it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::ports::{Journal, JournalError};
use crate::sim::SimJournal;

/// The copies at home, as text by run.
#[derive(Clone, Default)]
pub(super) struct Home(Arc<Mutex<BTreeMap<String, String>>>);

impl Home {
    /// Returns the journal of a run that is kept here and in the mirror, in the order of the real store.
    pub(super) fn journal(&self, run: &str, mirror: SimJournal) -> TwoCopies {
        TwoCopies { home: self.clone(), run: run.to_owned(), mirror }
    }

    /// Returns the same copies, apart from these.
    pub(super) fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().unwrap().clone())))
    }

    /// Returns the copy of a run.
    pub(super) fn text(&self, run: &str) -> String {
        self.0.lock().unwrap().get(run).cloned().unwrap_or_default()
    }

    /// Makes the copy what the mirror says: it is the one that counts.
    pub(super) fn restore(&self, run: &str, text: &str) {
        self.0.lock().unwrap().insert(run.to_owned(), text.to_owned());
    }
}

/// A journal in two places.
pub(super) struct TwoCopies {
    home: Home,
    run: String,
    mirror: SimJournal,
}

#[async_trait]
impl Journal for TwoCopies {
    async fn append(&self, line: &str) -> Result<(), JournalError> {
        self.mirror.append(line).await?;
        {
            let mut copies = self.home.0.lock().unwrap();
            let copy = copies.entry(self.run.clone()).or_default();
            copy.push_str(line);
            copy.push('\n');
        }
        Ok(())
    }
}
