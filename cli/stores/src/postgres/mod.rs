//! PostgreSQL databases.
//!
//! Each migration is one transaction together with its record, under an advisory lock of the database: whoever comes
//! second waits, reads the history again and finds it done. Reading never creates a table. A file that is marked
//! `-- mlctl: no-transaction` holds one statement that PostgreSQL refuses within one, such as `CREATE INDEX
//! CONCURRENTLY`; killed in the middle it is run again, so it has to bear that.

mod attempt;
mod records;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mlctl_core::clock::Clock;
use mlctl_core::item::Item;
use mlctl_core::ports::{Lease, MigrationFile, MigrationState, StoreAdmin, StoreError};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Postgres, Transaction};

use crate::files::{down_file_name, up_file_name};
use crate::history::{self, MEANWHILE, Record, after};
use crate::migration::{MigrationSet, runs_outside_a_transaction};
use attempt::Attempt;

/// How long a statement waits for a lock that somebody holds, another mlctl or a service in the middle of its work:
/// behind a migration that waits, every other statement on that table waits too.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// The advisory lock of everybody who changes the schema: any number, the same for all.
const SCHEMA_LOCK: i64 = 0x6d6c_6374_6c2d_6462;

/// Runs migrations on PostgreSQL databases named by `postgresql://USER[:PASSWORD]@HOST[:PORT]/NAME`.
#[derive(Clone)]
pub struct PostgresStore {
    clock: Arc<dyn Clock>,
    lock_wait: Duration,
}

impl PostgresStore {
    /// Returns a store that dates its records by `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, lock_wait: LOCK_WAIT }
    }

    /// Changes how long to wait for a lock; 10 s unless told.
    #[must_use]
    pub const fn with_lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// Begins a transaction in which nobody else changes the schema.
    async fn begin<'c>(
        &self,
        connection: &'c mut PgConnection,
    ) -> Result<Transaction<'c, Postgres>, sqlx::Error> {
        let mut transaction = connection.begin().await?;
        let wait = format!("SET LOCAL lock_timeout = '{}ms'", self.lock_wait.as_millis());
        sqlx::raw_sql(AssertSqlSafe(wait)).execute(&mut *transaction).await?;
        let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(SCHEMA_LOCK);
        lock.execute(&mut *transaction).await?;
        Ok(transaction)
    }

    /// Applies the next pending migration; none when there is none. Read again under the lock each time: another mlctl
    /// may have been faster.
    async fn apply_next(
        &self,
        run: &Run<'_>,
        connection: &mut PgConnection,
        lease: &dyn Lease,
    ) -> Result<Option<u32>, StoreError> {
        let service = run.attempt(&run.set.service);
        let mut transaction = self.begin(connection).await.map_err(|e| service.failed(&e))?;
        records::create(&mut transaction).await.map_err(|e| service.failed(&e))?;
        let known = run.records(&mut transaction).await?;
        let next = history::next_pending(run.set, &known).map_err(|reason| service.refused(reason))?;
        let Some(file) = next else { return Ok(None) };
        let attempt = run.attempt_at(&up_file_name(file.version, &file.name));
        if runs_outside_a_transaction(&file.up) {
            transaction.commit().await.map_err(|e| attempt.failed(&e))?;
            self.alone(&attempt, connection, &file.up, lease).await?;
            transaction = self.begin(connection).await.map_err(|e| attempt.failed(&e))?;
            if run.records(&mut transaction).await?.len() != known.len() {
                return Err(attempt.refused(MEANWHILE));
            }
        } else {
            within(&attempt, &mut transaction, &file.up).await?;
        }
        self.remember(run, &attempt, &mut transaction, file).await?;
        commit(&attempt, transaction, lease).await?;
        Ok(Some(file.version))
    }

    async fn take_back(
        &self,
        run: &Run<'_>,
        connection: &mut PgConnection,
        (file, down): (&MigrationFile, &str),
        lease: &dyn Lease,
    ) -> Result<(), StoreError> {
        let attempt = run.attempt_at(&down_file_name(file.version, &file.name));
        let mut transaction = self.begin(connection).await.map_err(|e| attempt.failed(&e))?;
        let newest = async |transaction: &mut PgConnection| {
            let known = run.records(transaction).await?;
            let is_it = known.last().is_some_and(|record| record.version == file.version);
            if is_it { Ok(()) } else { Err(attempt.refused(MEANWHILE)) }
        };
        newest(&mut transaction).await?;
        if runs_outside_a_transaction(down) {
            transaction.commit().await.map_err(|e| attempt.failed(&e))?;
            self.alone(&attempt, connection, down, lease).await?;
            transaction = self.begin(connection).await.map_err(|e| attempt.failed(&e))?;
            newest(&mut transaction).await?;
        } else {
            within(&attempt, &mut transaction, down).await?;
        }
        let deleted = records::delete(&mut transaction, &run.set.service, file.version).await;
        deleted.map_err(|e| attempt.failed(&e))?;
        commit(&attempt, transaction, lease).await
    }

    /// Runs a statement that bears no transaction, while the lease is ours and nobody else changes the schema.
    async fn alone(
        &self,
        attempt: &Attempt<'_>,
        connection: &mut PgConnection,
        sql: &str,
        lease: &dyn Lease,
    ) -> Result<(), StoreError> {
        renew(attempt, lease).await?;
        let (wait, lock) = (self.lock_wait.as_millis(), SCHEMA_LOCK);
        let lock = format!("SET lock_timeout = '{wait}ms'; SELECT pg_advisory_lock({lock})");
        sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *connection).await.map_err(|e| attempt.failed(&e))?;
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await;
        // Should this fail, the lock goes with the connection.
        let free = format!("SELECT pg_advisory_unlock({SCHEMA_LOCK})");
        let _ = sqlx::raw_sql(AssertSqlSafe(free)).execute(&mut *connection).await;
        done.map(drop).map_err(|e| attempt.failed_at(&e, sql))
    }

    async fn remember(
        &self,
        run: &Run<'_>,
        attempt: &Attempt<'_>,
        connection: &mut PgConnection,
        file: &MigrationFile,
    ) -> Result<(), StoreError> {
        let inserted = records::insert(connection, &run.set.service, file, self.clock.now()).await;
        inserted.map_err(|e| attempt.failed(&e))
    }
}

/// Runs the statements of a file in the transaction, which has to be the same one afterwards.
async fn within(
    attempt: &Attempt<'_>,
    transaction: &mut Transaction<'_, Postgres>,
    sql: &str,
) -> Result<(), StoreError> {
    let before = records::transaction(transaction).await.map_err(|e| attempt.failed(&e))?;
    let ran = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut **transaction).await;
    ran.map_err(|e| attempt.failed_at(&e, sql))?;
    let now = records::transaction(transaction).await.map_err(|e| attempt.failed(&e))?;
    if before == now {
        return Ok(());
    }
    Err(attempt.refused(
        "it ends the transaction that it runs in, so what it did is in without a record: take BEGIN, COMMIT and \
         ROLLBACK out of it, undo it by hand and try again",
    ))
}

/// Commits what the lease still covers; anything else is rolled back with the transaction.
///
/// The advisory lock is held from before the question to after the commit: whoever has the lease by then waits for it,
/// and finds the migration in or not there, never half of it.
async fn commit(
    attempt: &Attempt<'_>,
    transaction: Transaction<'_, Postgres>,
    lease: &dyn Lease,
) -> Result<(), StoreError> {
    renew(attempt, lease).await?;
    transaction.commit().await.map_err(|e| attempt.failed(&e))
}

async fn renew(attempt: &Attempt<'_>, lease: &dyn Lease) -> Result<(), StoreError> {
    lease.renew().await.map_err(|error| attempt.refused(format!("nothing was committed: {error}")))
}

/// One call on one service's database.
struct Run<'a> {
    set: &'a MigrationSet,
    operation: &'static str,
    place: String,
}

impl Run<'_> {
    fn attempt(&self, subject: &str) -> Attempt<'_> {
        Attempt { operation: self.operation, subject: subject.to_owned(), place: &self.place }
    }

    fn attempt_at(&self, file_name: &str) -> Attempt<'_> {
        self.attempt(&format!("{} {file_name}", self.set.service))
    }

    async fn records(&self, connection: &mut PgConnection) -> Result<Vec<Record>, StoreError> {
        let service = &self.set.service;
        records::read(connection, service).await.map_err(|e| self.attempt(service).failed(&e))
    }
}

/// Opens the database of an item.
async fn open<'a>(
    set: &'a MigrationSet,
    operation: &'static str,
) -> Result<(Run<'a>, PgConnection), StoreError> {
    let (place, options) = attempt::place(set, operation)?;
    let run = Run { set, operation, place };
    let connection = attempt::connect(&run.attempt(&set.service), &options).await?;
    Ok((run, connection))
}

#[async_trait]
impl StoreAdmin for PostgresStore {
    async fn migrations(&self, migration: &Item) -> Result<Vec<MigrationState>, StoreError> {
        let set = MigrationSet::of(migration, "read the migrations of")?;
        let (run, mut connection) = open(&set, "read the migrations of").await?;
        let records = run.records(&mut connection).await?;
        Ok(history::states(&set, &records))
    }

    async fn migrate(&self, migration: &Item, lease: &dyn Lease) -> Result<Vec<u32>, StoreError> {
        let set = MigrationSet::of(migration, "migrate")?;
        let (run, mut connection) = open(&set, "migrate").await?;
        // Without the lock first: nothing to do must succeed while somebody writes.
        let records = run.records(&mut connection).await?;
        let pending = history::next_pending(&set, &records)
            .map_err(|reason| run.attempt(&set.service).refused(reason))?;
        if pending.is_none() {
            return Ok(Vec::new());
        }
        let mut applied = Vec::new();
        while let Some(version) =
            self.apply_next(&run, &mut connection, lease).await.map_err(|error| after(&applied, error))?
        {
            applied.push(version);
        }
        Ok(applied)
    }

    async fn roll_back(
        &self,
        migration: &Item,
        steps: u32,
        lease: &dyn Lease,
    ) -> Result<Vec<u32>, StoreError> {
        let set = MigrationSet::of(migration, "roll back")?;
        let (run, mut connection) = open(&set, "roll back").await?;
        let records = run.records(&mut connection).await?;
        let planned = history::plan_back(&set, &records, steps)
            .map_err(|reason| run.attempt(&set.service).refused(reason))?;
        let mut taken_back = Vec::new();
        for step in planned {
            let done = self.take_back(&run, &mut connection, step, lease).await;
            done.map_err(|error| after(&taken_back, error))?;
            taken_back.push(step.0.version);
        }
        Ok(taken_back)
    }
}
