//! What a person sees of our own bug: one line, what became of the work, where to report it. Never a hang.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::text::{SHOWN, shortened};
use crate::error::ExitStatus;

/// How long the thread that ends the process may take to unwind.
const UNWINDING: Duration = Duration::from_secs(2);

/// True once a panic was told.
static TOLD: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// True while this thread tries something whose panic is an answer.
    static TRYING: Cell<bool> = const { Cell::new(false) };
}

/// Has every panic told in our words from now on.
///
/// To be called by the thread that ends the process. It unwinds, so that what it started is ended with it, but not for
/// ever: what unwinding waits for may be what is broken. In any other thread a panic ends the process, since nobody
/// would miss that thread's work but the person who waits.
pub fn tell_panics() {
    let main = std::thread::current().id();
    set_hook(Box::new(move |panic| {
        // One bug is told; what unwinding breaks besides is its consequence.
        if TRYING.get() || TOLD.swap(true, Ordering::Relaxed) {
            return;
        }
        // Past the queue of what else is to be said: its thread may be the one that panics.
        let _ = std::io::stderr().write_all(words(panic).as_bytes());
        let watch = move || {
            unwinds();
            end()
        };
        if std::thread::current().id() != main || std::thread::Builder::new().spawn(watch).is_err() {
            end();
        }
    }));
}

/// Ends the process where no thread is left that could return to main.
#[expect(
    clippy::disallowed_methods,
    reason = "the journal is ahead of what is lost, and a dead owner's lock is free"
)]
fn end() -> ! {
    std::process::exit(i32::from(ExitStatus::Bug as u8))
}

/// Gives unwinding its time.
#[expect(clippy::disallowed_methods, reason = "a thread of its own: the runtime may be what is broken")]
fn unwinds() {
    std::thread::sleep(UNWINDING);
}

/// Does what may panic where the system refuses something (a thread, a descriptor); the panic's text is the error.
///
/// # Errors
/// The text of the panic.
pub fn without_telling<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    TRYING.set(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    TRYING.set(false);
    result.map_err(|payload| message(payload.as_ref()).to_owned())
}

fn words(panic: &PanicHookInfo<'_>) -> String {
    let place = panic.location().map(|place| format!(" ({}:{})", place.file(), place.line()));
    let text = shortened(&message(panic.payload()).replace('\n', " "), SHOWN);
    let to = match env!("CARGO_PKG_REPOSITORY") {
        "" => String::new(),
        repository => format!(" at {repository}/issues"),
    };
    let mut words = format!(
        "error: mlctl has a bug: {text}{}\n\n\
         hint: what runs goes on; `mlctl runs` shows what was begun, `mlctl deploy --resume` carries it on\n\
         hint: please report these lines{to}, with what the same command prints with -v and RUST_BACKTRACE=1\n",
        place.unwrap_or_default()
    );
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        words.push_str(&format!("\n{trace}\n"));
    }
    words
}

fn message(payload: &(dyn std::any::Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use super::without_telling;

    #[test]
    fn a_panic_that_is_an_answer_is_an_error() {
        assert_eq!(without_telling(|| 7), Ok(7));
        let refused = without_telling(|| -> u8 { panic!("no thread for {}", "you") });
        assert_eq!(refused, Err("no thread for you".to_owned()));
    }
}
