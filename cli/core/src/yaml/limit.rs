//! What a file may cost: far above anything people write, low enough that a hostile file ends at once.

/// Bytes of a file.
pub const LARGEST: usize = 1 << 20;
/// Levels of lists and maps: deep enough for every shape, shallow enough for recursion over the tree.
pub(super) const DEEPEST: usize = 64;
/// Values of a file, keys not counted. Profiles copy the whole tree, so this bounds them too.
pub(super) const MOST_VALUES: usize = 50_000;
/// Entries of one list or map: checks compare entries of a list with each other.
pub(super) const MOST_ENTRIES: usize = 1_000;
/// Characters of a key: every path below it repeats it.
pub(super) const LONGEST_KEY: usize = 256;
/// Problems that are told of one file; nobody reads more at once.
pub(super) const MOST_PROBLEMS: usize = 100;
/// Characters of a message.
pub(super) const LONGEST_MESSAGE: usize = 1_000;
/// Characters of a word that is looked up among others by likeness.
pub(super) const LONGEST_WORD: usize = 100;
