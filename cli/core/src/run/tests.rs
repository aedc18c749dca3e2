//! The engine on the simulation, in paused time.

mod cancel;
mod chain;
mod clocks;
mod evidence;
mod failures;
mod journal;
mod kills;
mod rig;
mod success;
