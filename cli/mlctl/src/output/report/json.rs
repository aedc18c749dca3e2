//! JSON: one event a line on stdout, the last one the outcome (`docs/events.md`).

use mlctl_core::event::{EVENT_VERSION, Event, EventKind, EventSink, RunOutcome};
use mlctl_core::plan::{Phase, Plan};
use mlctl_core::release::Operator;

use crate::output::Printer;

/// Prints every event as it is.
pub struct Json<'a> {
    printer: &'a Printer,
}

/// Tells a run that had nothing to do: its beginning and its end, so that a reader of events need not know more.
pub fn nothing_to_do(printer: &Printer, operator: &Operator, plan: &Plan) {
    let (run, at) = (ulid::Ulid::new().to_string(), jiff::Timestamp::now());
    let started = EventKind::RunStarted {
        operation: plan.operation.clone(),
        system: plan.system.clone(),
        target: plan.target.clone(),
        operator: operator.clone(),
        release: plan.release.as_ref().map(|release| release.number),
        plan: plan.digest().as_str().to_owned(),
        resumed: false,
        phases: plan.phases.iter().map(Phase::listing).collect(),
    };
    let outcome = RunOutcome::Succeeded;
    let finished = EventKind::RunFinished {
        outcome,
        exit: outcome.exit_code(),
        reason: String::new(),
        head: plan.from,
        serving: Vec::new(),
    };
    for (seq, kind) in (1..).zip([started, finished]) {
        Json::new(printer).take(&Event { v: EVENT_VERSION, run: run.clone(), seq, at, elapsed_ms: 0, kind });
    }
}

impl<'a> Json<'a> {
    /// Returns the reader.
    #[must_use]
    pub const fn new(printer: &'a Printer) -> Self {
        Self { printer }
    }
}

impl EventSink for Json<'_> {
    fn take(&self, event: &Event) {
        // An event holds only strings, numbers and maps with string keys: it always serializes.
        self.printer.data(&serde_json::to_string(event).unwrap_or_default());
    }
}
