//! Styles, named once. Four-bit colors, so that the user's own theme applies; no meaning rides on color alone.

use crate::settings::ColorChoice;

use super::World;

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A heading.
    Heading,
    /// Something that went well.
    Good,
    /// Something to know.
    Warn,
    /// Something that went wrong.
    Bad,
    /// Something one may skip.
    Dim,
    /// Something to type.
    Command,
}

/// Dresses text, or leaves it plain.
#[derive(Debug, Clone, Copy)]
pub struct Styles {
    colored: bool,
}

impl Styles {
    /// Returns styles for a stream: `--color` over `NO_COLOR` over `CLICOLOR_FORCE` over a dumb terminal over none.
    #[must_use]
    pub fn for_stream(world: &World, choice: ColorChoice, terminal: bool) -> Self {
        let set = |name: &str| world.var(name).is_some_and(|value| !value.is_empty());
        let forced = world.var("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0");
        let colored = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto if set("NO_COLOR") => false,
            ColorChoice::Auto if forced => true,
            ColorChoice::Auto => terminal && world.var("TERM").is_none_or(|term| term != "dumb"),
        };
        Self { colored }
    }

    /// Returns the text in its dress.
    #[must_use]
    pub fn paint(self, style: Style, text: &str) -> String {
        if !self.colored || text.is_empty() {
            return text.to_owned();
        }
        let code = match style {
            Style::Heading => "1",
            Style::Good => "32",
            Style::Warn => "33",
            Style::Bad => "31",
            Style::Dim => "2",
            Style::Command => "36",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}
