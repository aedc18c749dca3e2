//! The engine on the simulation, in paused time.

mod cancel;
mod chain;
mod clocks;
mod copies;
mod evidence;
mod failures;
mod journal;
mod kills;
mod load;
mod properties;
mod rig;
mod stories;
mod success;
mod told;
