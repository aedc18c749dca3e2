//! The engine on the simulation, in paused time.

mod cancel;
mod clocks;
mod copies;
mod failures;
mod journal;
mod kills;
mod properties;
mod rig;
mod stories;
mod success;
mod told;
