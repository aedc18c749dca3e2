//! Applies and takes back migrations, each in one transaction together with its record.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mlctl_core::clock::Clock;
use mlctl_core::ports::{MigrationFile, MigrationState, StoreError};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::connection::{Attempt, open_to_read, open_to_write, run_script};
use super::consent::Consent;
use super::history;
use crate::files::{down_file_name, up_file_name};
use crate::history::{MEANWHILE, Record, after, next_pending, plan_back, states};
use crate::migration::MigrationSet;

/// The migrations of one service on one database. Its calls block.
pub(super) struct Runner {
    pub(super) set: MigrationSet,
    pub(super) path: PathBuf,
    pub(super) operation: &'static str,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) busy_timeout: Duration,
}

/// A row that refers to one that is not there: table, row, table referred to, number of the key.
type Violation = (String, Option<i64>, String, i64);

impl Runner {
    /// Tells every migration and whether it is in. Creates nothing.
    pub(super) fn states(&self) -> Result<Vec<MigrationState>, StoreError> {
        Ok(states(&self.set, &self.records()?))
    }

    /// Applies what is pending; returns the versions applied.
    pub(super) fn migrate(&self, consent: &Consent) -> Result<Vec<u32>, StoreError> {
        let service = self.attempt(&self.set.service);
        // Without the write lock first: nothing to do must succeed while somebody writes.
        let pending = next_pending(&self.set, &self.records()?).map_err(|reason| service.refused(reason))?;
        if pending.is_none() {
            return Ok(Vec::new());
        }
        let mut connection = open_to_write(&self.path, self.busy_timeout).map_err(|e| service.failed(&e))?;
        let mut applied = Vec::new();
        loop {
            // Read again under the lock each time: another mlctl may have been faster.
            let transaction = begin(&mut connection).map_err(|e| after(&applied, service.failed(&e)))?;
            let records = history::create(&transaction)
                .and_then(|()| history::read(&transaction, &self.set.service))
                .map_err(|e| after(&applied, service.failed(&e)))?;
            let next = next_pending(&self.set, &records)
                .map_err(|reason| after(&applied, service.refused(reason)))?;
            let Some(file) = next else { return Ok(applied) };
            self.apply(transaction, file, consent).map_err(|error| after(&applied, error))?;
            applied.push(file.version);
        }
    }

    /// Takes back the newest `steps` applied migrations, newest first; returns the versions taken back.
    pub(super) fn roll_back(&self, steps: u32, consent: &Consent) -> Result<Vec<u32>, StoreError> {
        let service = self.attempt(&self.set.service);
        let planned =
            plan_back(&self.set, &self.records()?, steps).map_err(|reason| service.refused(reason))?;
        if planned.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = open_to_write(&self.path, self.busy_timeout).map_err(|e| service.failed(&e))?;
        let mut taken_back = Vec::new();
        for (file, down) in planned {
            let transaction = begin(&mut connection).map_err(|e| after(&taken_back, service.failed(&e)))?;
            let records = history::read(&transaction, &self.set.service)
                .map_err(|e| after(&taken_back, service.failed(&e)))?;
            if records.last().map(|record| record.version) != Some(file.version) {
                return Err(after(&taken_back, service.refused(MEANWHILE)));
            }
            self.take_back(transaction, file, down, consent).map_err(|error| after(&taken_back, error))?;
            taken_back.push(file.version);
        }
        Ok(taken_back)
    }

    fn apply(
        &self,
        transaction: Transaction<'_>,
        file: &MigrationFile,
        consent: &Consent,
    ) -> Result<(), StoreError> {
        let attempt = self.attempt_at(&up_file_name(file.version, &file.name));
        self.change(&attempt, &transaction, &file.up)?;
        history::insert(&transaction, &self.set.service, file, self.clock.now())
            .map_err(|e| attempt.failed(&e))?;
        commit(transaction, &attempt, consent)
    }

    fn take_back(
        &self,
        transaction: Transaction<'_>,
        file: &MigrationFile,
        down: &str,
        consent: &Consent,
    ) -> Result<(), StoreError> {
        let attempt = self.attempt_at(&down_file_name(file.version, &file.name));
        self.change(&attempt, &transaction, down)?;
        history::delete(&transaction, &self.set.service, file.version).map_err(|e| attempt.failed(&e))?;
        commit(transaction, &attempt, consent)
    }

    /// Runs statements and looks for rows that refer to nothing since then. An error leaves the transaction to be
    /// rolled back by its drop.
    fn change(
        &self,
        attempt: &Attempt<'_>,
        transaction: &Transaction<'_>,
        sql: &str,
    ) -> Result<(), StoreError> {
        let before = violations(transaction).map_err(|e| attempt.failed(&e))?;
        run_script(transaction, sql).map_err(|e| attempt.failed_at(&e))?;
        let after = violations(transaction).map_err(|e| attempt.failed(&e))?;
        match after.difference(&before).next() {
            Some((table, _, parent, _)) => Err(attempt.refused(format!(
                "it leaves rows in `{table}` that refer to missing rows of `{parent}`: \
                 delete or move them in the same migration"
            ))),
            None => Ok(()),
        }
    }

    fn records(&self) -> Result<Vec<Record>, StoreError> {
        let attempt = self.attempt(&self.set.service);
        let opened = open_to_read(&self.path, self.busy_timeout).map_err(|e| attempt.failed(&e))?;
        let Some(connection) = opened else { return Ok(Vec::new()) };
        history::read(&connection, &self.set.service).map_err(|e| attempt.failed(&e))
    }

    fn attempt(&self, subject: &str) -> Attempt<'_> {
        Attempt {
            operation: self.operation,
            subject: subject.to_owned(),
            path: &self.path,
            busy_timeout: self.busy_timeout,
        }
    }

    fn attempt_at(&self, file_name: &str) -> Attempt<'_> {
        self.attempt(&format!("{} {file_name}", self.set.service))
    }
}

/// Commits what the lease still covers; anything else is rolled back with the transaction.
///
/// The database's write lock is held from before the question to after the commit: whoever has the lease by then
/// waits for that lock, and finds the migration in or not there, never half of it.
fn commit(transaction: Transaction<'_>, attempt: &Attempt<'_>, consent: &Consent) -> Result<(), StoreError> {
    consent.ask().map_err(|reason| attempt.refused(reason))?;
    transaction.commit().map_err(|e| attempt.failed(&e))
}

fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

fn violations(connection: &Connection) -> rusqlite::Result<BTreeSet<Violation>> {
    let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    rows.collect()
}
