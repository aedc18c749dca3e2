//! Letting a partition's batch take effect, and what becomes of events that cannot.

use rdkafka::consumer::CommitMode;
use rdkafka::message::{Header, OwnedHeaders};
use tokio::time::Instant;

use super::Consumer;
use crate::events::{Applied, Batch, DeadLetter, Delivered, Effect, EffectError, Partition, words};
use crate::kafka::dead_topic;

/// Longest part of a dead letter that is kept beside the effect, in characters. Its topic has the whole.
const LETTER_MAX: usize = 4_096;
/// Attempts at writing a dead letter before the partition is stopped.
const LETTER_ATTEMPTS: u32 = 3;
/// Events that the effect may refuse one after the other; more of them mean that not the events are at fault.
const REFUSED_MAX: u32 = 20;

type Read<E> = (u64, Result<E, DeadLetter>);

impl<E: Effect> Consumer<E> {
    /// Lets what was fetched of a partition take effect, if it does not wait.
    pub(super) async fn work(&mut self, number: i32) {
        if !self.awake(number).await {
            return;
        }
        // A refused batch is done one by one, so that an event which alone is refused is found.
        let mut size = usize::MAX;
        loop {
            let Some(assigned) = self.assigned.get(&number) else { return };
            let Some(after) = assigned.position else { return };
            let records: Vec<Delivered> = assigned.pending.iter().take(size).cloned().collect();
            if records.is_empty() {
                return;
            }
            let partition = assigned.partition.clone();
            let refused = assigned.refused.clone();
            let (batch, stuck) = self.read(&partition, &records, refused, assigned.told).await;
            let count = batch.len();
            if count > 0 {
                let dead = batch.iter().rev().find(|(_, read)| read.is_err()).map(|(position, _)| *position);
                let last = batch.last().map_or(after, |(position, _)| *position);
                if let (Some(told), Some(assigned)) = (dead, self.assigned.get_mut(&number)) {
                    assigned.told = told;
                }
                let applied =
                    self.effect.apply(Batch { partition: partition.clone(), after, records: batch }).await;
                match applied {
                    Ok(Applied::Done) => self.done(number, count, last).await,
                    Ok(Applied::Moved) => return self.moved(number).await,
                    Err(error @ EffectError::Unavailable(_)) => {
                        return self.wait(number, words(&error), false);
                    }
                    Err(error) if count > 1 => {
                        tracing::warn!(
                            partition = number,
                            cause = words(&error),
                            "a batch was refused; its events are tried one by one"
                        );
                        size = 1;
                        continue;
                    }
                    Err(error) => {
                        if self.refuse(number, &records[0], &error) {
                            continue;
                        }
                        return;
                    }
                }
            }
            if let Some(why) = stuck {
                return self.wait(number, why, true);
            }
        }
    }

    /// Whether a partition goes on: one that waited long enough does, from its position.
    async fn awake(&mut self, number: i32) -> bool {
        let Some(assigned) = self.assigned.get(&number) else { return false };
        let Some(pause) = &assigned.pause else { return true };
        if Instant::now() < pause.until {
            return false;
        }
        if assigned.position.is_none() {
            self.moved(number).await;
            return false;
        }
        true
    }

    /// Reads records and puts dead letters into their topic. Answers what may take effect now, and why the rest may
    /// not: its first dead letter could not be written.
    async fn read(
        &self,
        partition: &Partition,
        records: &[Delivered],
        refused: Option<(u64, DeadLetter)>,
        told: u64,
    ) -> (Vec<Read<E::Event>>, Option<String>) {
        let mut batch = Vec::with_capacity(records.len());
        for record in records {
            let read = match &refused {
                Some((position, letter)) if *position == record.position => Err(letter.clone()),
                _ => self.effect.read(record).map_err(|reason| letter(&reason, record)),
            };
            if let Err(letter) = &read
                && record.position > told
                && let Err(why) = self.tell(partition, record, &letter.reason).await
            {
                return (batch, Some(why));
            }
            batch.push((record.position, read));
        }
        (batch, None)
    }

    /// Writes one dead letter.
    async fn tell(&self, partition: &Partition, record: &Delivered, reason: &str) -> Result<(), String> {
        let topic = dead_topic(&partition.topic);
        tracing::warn!(
            partition = partition.number,
            position = record.position,
            reason,
            "an event has no effect and goes to {topic}"
        );
        let mut last = String::new();
        for _ in 0..LETTER_ATTEMPTS {
            let mut headers = OwnedHeaders::new();
            for (name, value) in &record.headers {
                headers = headers.insert(Header { key: name, value: Some(value.as_slice()) });
            }
            for (key, value) in [
                ("dead-reason", reason.to_owned()),
                ("dead-topic", partition.topic.clone()),
                ("dead-partition", partition.number.to_string()),
                ("dead-offset", record.position.saturating_sub(1).to_string()),
                ("dead-group", partition.group.clone()),
            ] {
                headers = headers.insert(Header { key, value: Some(value.as_bytes()) });
            }
            let message = (record.key.clone(), record.payload.clone(), headers);
            match self.dead.send(&topic, vec![message]).await {
                Ok(()) => return Ok(()),
                Err(error) => last = words(&error),
            }
        }
        Err(format!("offset {} cannot be put into {topic}: {last}", record.position.saturating_sub(1)))
    }

    /// A batch is stored: on to the next, and Kafka is told.
    async fn done(&mut self, number: i32, count: usize, last: u64) {
        let Some(assigned) = self.assigned.get_mut(&number) else { return };
        let held = assigned.pause.is_some();
        assigned.worked();
        assigned.position = Some(last);
        assigned.pending.drain(..count.min(assigned.pending.len()));
        // A refused event that was put aside leaves the count; any other ends it.
        if assigned.refused.take().is_none() {
            assigned.refused_in_a_row = 0;
        }
        if held {
            self.hold(number, false);
        }
        self.commit(&[(number, last)], CommitMode::Async).await;
    }

    /// Another consumer was faster, or the position was unknown: goes on from where the effect ends.
    async fn moved(&mut self, number: i32) {
        let Some(mut assigned) = self.assigned.remove(&number) else { return };
        assigned.pending.clear();
        let placed = match self.place(&mut assigned).await {
            Ok(position) => self.seek(number, position).await,
            Err(why) => Err(why),
        };
        let was_held = assigned.pause.is_some();
        match placed {
            Ok(()) => assigned.worked(),
            Err(why) => {
                assigned.position = None;
                assigned.pause(why, false);
            }
        }
        if assigned.pause.is_some() != was_held {
            self.hold(number, assigned.pause.is_some());
        }
        self.assigned.insert(number, assigned);
    }

    /// Notes that an event was refused alone; it becomes a dead letter. Answers whether to go on.
    fn refuse(&mut self, number: i32, record: &Delivered, error: &EffectError) -> bool {
        let why = words(error);
        let Some(assigned) = self.assigned.get_mut(&number) else { return false };
        if assigned.refused.is_some() {
            self.wait(number, format!("not even a dead letter is taken: {why}"), true);
            return false;
        }
        assigned.refused_in_a_row += 1;
        if assigned.refused_in_a_row > REFUSED_MAX {
            self.wait(number, format!("{REFUSED_MAX} events in a row were refused: {why}"), true);
            return false;
        }
        assigned.refused = Some((record.position, letter(&format!("it was refused: {why}"), record)));
        true
    }

    /// Fetches nothing more of a partition for a while.
    fn wait(&mut self, number: i32, why: String, stopped: bool) {
        let Some(assigned) = self.assigned.get_mut(&number) else { return };
        tracing::warn!(partition = number, why, stopped, "a partition waits");
        let held = assigned.pause.is_some();
        // After a stop the event is looked at anew.
        assigned.refused = None;
        assigned.pause(why, stopped);
        if !held {
            self.hold(number, true);
        }
    }
}

/// What is kept beside the effect. A database may refuse the zero character.
fn letter(reason: &str, record: &Delivered) -> DeadLetter {
    let clean = |text: &str| -> String {
        text.chars().take(LETTER_MAX).map(|c| if c == '\0' { '\u{fffd}' } else { c }).collect()
    };
    DeadLetter { reason: clean(reason), payload: clean(&String::from_utf8_lossy(&record.payload)) }
}
