//! The engine on the simulation, in paused time.

mod cancel;
mod clocks;
mod failures;
mod journal;
mod kills;
mod load;
mod rig;
mod success;
