//! The planner from text to text, and what holds of every plan.

mod acts;
mod cases;
mod properties;
mod world;
