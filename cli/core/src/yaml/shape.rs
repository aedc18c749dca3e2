//! The words in which a format is described: kinds of values, keys, defaults, one sentence each.
//!
//! Tables built of these are `static`, so that a format reads as one page and costs nothing.

use super::unit::{Unit, UnitError};

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number within bounds.
    Int {
        /// Smallest allowed.
        min: i64,
        /// Largest allowed.
        max: i64,
    },
    /// A text that follows a rule.
    Text(&'static TextRule),
    /// A value with a unit.
    Unit(&'static UnitRule),
    /// One of several words.
    Choice(&'static [Choice]),
    /// A list.
    List {
        /// What each item is.
        of: &'static Self,
        /// Items there have to be at least.
        min: usize,
    },
    /// A map whose keys are names somebody chose.
    Map {
        /// What a name has to look like.
        key: &'static TextRule,
        /// What each value is.
        of: &'static Self,
    },
    /// A map with known keys.
    Struct(&'static Struct),
    /// The same, with every key optional: a part that is laid over a whole one.
    Partial(&'static Struct),
    /// One of several forms, told apart by being a scalar, a list, or a map with a certain first key.
    OneOf(&'static OneOf),
    /// Any data, kept as JSON.
    Json,
}

/// A rule for texts.
#[derive(Debug)]
pub struct TextRule {
    /// What is expected, as the end of a sentence.
    pub expected: &'static str,
    /// Regular expression for the JSON Schema, when one says it all.
    pub pattern: Option<&'static str>,
    /// Whether a text follows the rule.
    pub accepts: fn(&str) -> bool,
}

/// A value with a unit: its parser and what to say of it.
#[derive(Debug)]
pub struct UnitRule {
    /// What is expected, as the end of a sentence.
    pub expected: &'static str,
    /// Regular expression for the JSON Schema.
    pub pattern: &'static str,
    /// Reads a text and returns it in its canonical form.
    pub canonical: fn(&str) -> Result<String, UnitError>,
}

impl UnitRule {
    /// Makes the rule of a unit.
    pub const fn of<U: Unit>() -> Self {
        Self {
            expected: U::EXPECTED,
            pattern: U::PATTERN,
            canonical: |text| text.parse::<U>().map(|value| value.to_string()),
        }
    }
}

/// A word of a choice.
#[derive(Debug)]
pub struct Choice {
    /// The word.
    pub word: &'static str,
    /// What it means, in a few words.
    pub doc: &'static str,
}

/// A map with known keys.
#[derive(Debug)]
pub struct Struct {
    /// Name in the JSON Schema.
    pub name: &'static str,
    /// What it is, in one sentence.
    pub doc: &'static str,
    /// Its keys, in the order people write them.
    pub keys: &'static [Key],
    /// Keys of which exactly one has to be there.
    pub one_of: Option<&'static Group>,
    /// Keys that are known and not available, with what to say of them.
    pub refused: &'static [(&'static str, &'static str)],
}

/// Keys of which exactly one has to be there.
#[derive(Debug)]
pub struct Group {
    /// What one of them says, as in "expected one ...".
    pub noun: &'static str,
    /// The keys.
    pub keys: &'static [&'static str],
}

/// A key of a [`Struct`].
#[derive(Debug)]
pub struct Key {
    /// The key.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// What holds when it is not there.
    pub presence: Presence,
    /// What it says, in one sentence.
    pub doc: &'static str,
}

/// What holds when a key is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// That is an error.
    Required,
    /// It stays absent.
    Optional,
    /// This scalar is meant.
    Default(&'static str),
    /// An empty list or map is meant; keys inside have their own defaults.
    Empty,
}

/// One of several forms.
#[derive(Debug)]
pub struct OneOf {
    /// What is expected, as the end of a sentence.
    pub expected: &'static str,
    /// The forms: at most one scalar, one list, and structs with different first keys.
    pub forms: &'static [Kind],
}

/// Makes a required key.
pub const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, presence: Presence::Required, doc }
}

/// Makes an optional key.
pub const fn optional(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, presence: Presence::Optional, doc }
}

/// Makes a key with a scalar default.
pub const fn default(name: &'static str, kind: Kind, value: &'static str, doc: &'static str) -> Key {
    Key { name, kind, presence: Presence::Default(value), doc }
}

/// Makes a key whose default is an empty list or map.
pub const fn empty(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, presence: Presence::Empty, doc }
}

/// Makes a struct with keys only.
pub const fn keys(name: &'static str, doc: &'static str, keys: &'static [Key]) -> Struct {
    Struct { name, doc, keys, one_of: None, refused: &[] }
}

/// Makes a word of a choice.
pub const fn word(word: &'static str, doc: &'static str) -> Choice {
    Choice { word, doc }
}

/// Any text that is not empty.
pub static TEXT: TextRule =
    TextRule { expected: "a text", pattern: Some("."), accepts: |text| !text.trim().is_empty() };

/// Any text, also an empty one.
pub static ANY_TEXT: TextRule = TextRule { expected: "a text", pattern: None, accepts: |_| true };
