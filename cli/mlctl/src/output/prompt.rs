//! Questions. Asked only where somebody can answer; elsewhere the flag that answers is named.

use super::Printer;
use crate::error::CommandError;
use crate::settings::Settings;

/// Asks for a yes. `--yes` answers; without a terminal and without it, the act is refused.
///
/// # Errors
/// A no, or nobody to ask.
pub async fn confirm(settings: &Settings, printer: &Printer, question: &str) -> Result<(), CommandError> {
    if settings.yes {
        return Ok(());
    }
    if settings.no_input {
        return Err(CommandError::refused(format!("{question} There is nobody to answer")).hint("say --yes"));
    }
    printer.world().stderr(format!("{question} [y/N] ").as_bytes());
    let world = printer.world().clone();
    // Off this thread, so that whoever waits for the answer may also be told to stop.
    let answer = tokio::task::spawn_blocking(move || world.read_line()).await.ok().flatten();
    let answer = answer.unwrap_or_default();
    if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        return Ok(());
    }
    Err(CommandError::refused("not confirmed; nothing was changed"))
}
