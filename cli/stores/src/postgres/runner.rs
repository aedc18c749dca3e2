//! Applies and takes back migrations, each in one transaction together with its record where it can be.

use std::sync::Arc;

use mlctl_core::clock::Clock;
use mlctl_core::ports::{Lease, MigrationFile, MigrationState, StoreError};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use super::connection::{Attempt, open, send, settle, take_turn};
use super::history;
use super::script::{Statement, statements};
use crate::files::{down_file_name, up_file_name};
use crate::history::{MEANWHILE, Record, after, next_pending, plan_back, states};
use crate::migration::{MigrationSet, runs_outside_a_transaction};

/// The migrations of one service on one database.
pub(super) struct Runner {
    pub(super) set: MigrationSet,
    pub(super) attempt: Attempt,
    pub(super) clock: Arc<dyn Clock>,
}

/// Which way a file goes, and so what becomes of its record.
#[derive(Clone, Copy)]
enum Way {
    Up,
    Down,
}

impl Runner {
    /// Tells every migration and whether it is in. Creates nothing.
    pub(super) async fn states(&self) -> Result<Vec<MigrationState>, StoreError> {
        let mut connection = open(&self.attempt).await?;
        let records = self.records(&mut connection).await?;
        end(connection).await;
        Ok(states(&self.set, &records))
    }

    /// Applies what is pending; returns the versions applied.
    pub(super) async fn migrate(&self, lease: &dyn Lease) -> Result<Vec<u32>, StoreError> {
        let refused = |reason| self.attempt.refused(reason);
        let mut connection = open(&self.attempt).await?;
        // Without the lock first: nothing to do must succeed while somebody migrates.
        let records = self.records(&mut connection).await?;
        if next_pending(&self.set, &records).map_err(refused)?.is_none() {
            end(connection).await;
            return Ok(Vec::new());
        }
        take_turn(&mut connection, &self.attempt).await?;
        let mut applied = Vec::new();
        loop {
            // Read again under the lock: another mlctl may have been faster.
            let records = self.records(&mut connection).await.map_err(|error| after(&applied, error))?;
            let next =
                next_pending(&self.set, &records).map_err(|reason| after(&applied, refused(reason)))?;
            let Some(file) = next else { break };
            let done = self.run(&mut connection, file, &file.up, Way::Up, lease).await;
            done.map_err(|error| after(&applied, error))?;
            applied.push(file.version);
        }
        end(connection).await;
        Ok(applied)
    }

    /// Takes back the newest `steps` applied migrations, newest first; returns the versions taken back.
    pub(super) async fn roll_back(&self, steps: u32, lease: &dyn Lease) -> Result<Vec<u32>, StoreError> {
        let mut connection = open(&self.attempt).await?;
        let records = self.records(&mut connection).await?;
        let planned = plan_back(&self.set, &records, steps).map_err(|reason| self.attempt.refused(reason))?;
        if !planned.is_empty() {
            take_turn(&mut connection, &self.attempt).await?;
        }
        let mut taken_back = Vec::new();
        for (file, down) in planned {
            let records = self.records(&mut connection).await.map_err(|error| after(&taken_back, error))?;
            if records.last().map(|record| record.version) != Some(file.version) {
                return Err(after(&taken_back, self.attempt.refused(MEANWHILE)));
            }
            let done = self.run(&mut connection, file, down, Way::Down, lease).await;
            done.map_err(|error| after(&taken_back, error))?;
            taken_back.push(file.version);
        }
        end(connection).await;
        Ok(taken_back)
    }

    /// Runs one file. An error leaves its transaction to be rolled back with the connection.
    async fn run(
        &self,
        connection: &mut PgConnection,
        file: &MigrationFile,
        sql: &str,
        way: Way,
        lease: &dyn Lease,
    ) -> Result<(), StoreError> {
        let name = match way {
            Way::Up => up_file_name(file.version, &file.name),
            Way::Down => down_file_name(file.version, &file.name),
        };
        let attempt = self.attempt.at(&name);
        let parts = statements(sql);
        check(&attempt, &parts)?;
        if runs_outside_a_transaction(sql) {
            self.run_one_by_one(connection, &attempt, &parts, lease).await?;
        }
        let mut transaction = connection.begin().await.map_err(|error| attempt.failed(&error))?;
        if !runs_outside_a_transaction(sql) {
            for (statement, number) in parts.iter().zip(1..) {
                let sent = send(&mut transaction, statement).await;
                sent.map_err(|error| attempt.failed_at(number, statement, &error))?;
            }
            let settled = settle(&mut transaction, attempt.busy_timeout).await;
            settled.map_err(|error| attempt.failed(&error))?;
        }
        let recorded = match way {
            Way::Up => {
                let made = history::create(&mut transaction).await;
                made.map_err(|error| attempt.failed(&error))?;
                history::insert(&mut transaction, &self.set.service, file, self.clock.now()).await
            }
            Way::Down => history::delete(&mut transaction, &self.set.service, file.version).await,
        };
        recorded.map_err(|error| attempt.failed(&error))?;
        // The lock is held from before the question to after the commit: whoever has the lease by then waits for it,
        // and finds the migration in or not there, never half of it.
        renew(&attempt, lease).await?;
        transaction.commit().await.map_err(|error| attempt.failed(&error))
    }

    /// Runs the statements of a file that says that it cannot be run in a transaction.
    ///
    /// A run may die between one of them and the record. Then the file is run again from its beginning, so each must be
    /// one that can be repeated, and an index that was half built by then is no index: it is dropped first.
    async fn run_one_by_one(
        &self,
        connection: &mut PgConnection,
        attempt: &Attempt,
        parts: &[Statement<'_>],
        lease: &dyn Lease,
    ) -> Result<(), StoreError> {
        if let Some(statement) = parts.iter().find(|statement| statement.is_unrepeatable()) {
            return Err(attempt.refused(format!(
                "`{}` runs outside a transaction and could not be repeated after a crash: say IF NOT EXISTS or IF EXISTS",
                statement.shown()
            )));
        }
        renew(attempt, lease).await?;
        self.drop_half_built(connection, attempt, parts).await?;
        for (statement, number) in parts.iter().zip(1..) {
            if let Err(error) = send(connection, statement).await {
                let failed = attempt.failed_at(number, statement, &error);
                // As far as the connection still carries it; what is left is dropped by the next run.
                let _ = self.drop_half_built(connection, attempt, parts).await;
                return Err(failed);
            }
        }
        settle(connection, attempt.busy_timeout).await.map_err(|error| attempt.failed(&error))
    }

    /// Drops the indexes named in these statements that a failed `CREATE INDEX CONCURRENTLY` left.
    async fn drop_half_built(
        &self,
        connection: &mut PgConnection,
        attempt: &Attempt,
        parts: &[Statement<'_>],
    ) -> Result<(), StoreError> {
        let names: Vec<String> = parts.iter().flat_map(Statement::names).collect();
        // Of a partitioned table (kind I) an index may rightly wait for its parts.
        let found: sqlx::Result<Vec<String>> = sqlx::query_scalar(
            "SELECT format('DROP INDEX CONCURRENTLY IF EXISTS %I.%I', n.nspname, c.relname)
             FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relname = ANY($1)",
        )
        .bind(names)
        .fetch_all(&mut *connection)
        .await;
        for drop in found.map_err(|error| attempt.failed(&error))? {
            for statement in statements(&drop) {
                send(connection, &statement)
                    .await
                    .map_err(|error| attempt.failed_at(1, &statement, &error))?;
            }
        }
        Ok(())
    }

    async fn records(&self, connection: &mut PgConnection) -> Result<Vec<Record>, StoreError> {
        history::read(connection, &self.set.service).await.map_err(|error| self.attempt.failed(&error))
    }
}

/// Looks at all statements of a file before the first one runs.
fn check(attempt: &Attempt, parts: &[Statement<'_>]) -> Result<(), StoreError> {
    if let Some(statement) = parts.iter().find(|statement| statement.ends_transaction()) {
        return Err(attempt.refused(format!(
            "`{}`: it begins or ends a transaction: remove that statement, for each migration runs in one transaction \
             together with its record",
            statement.shown()
        )));
    }
    match parts.iter().find(|statement| statement.needs_a_terminal()) {
        Some(statement) => Err(attempt.refused(format!(
            "`{}`: it is for a session at a terminal: write its rows as INSERT, or leave it out",
            statement.shown()
        ))),
        None => Ok(()),
    }
}

/// Asks whether the lease is still ours.
async fn renew(attempt: &Attempt, lease: &dyn Lease) -> Result<(), StoreError> {
    lease.renew().await.map_err(|error| attempt.refused(format!("nothing was committed: {error}")))
}

/// Says goodbye. The work is done and committed by then: a connection that breaks here harms nothing.
async fn end(connection: PgConnection) {
    let _ = connection.close().await;
}
