//! Many deploys at once, dead and sleeping owners, jumping clocks.
