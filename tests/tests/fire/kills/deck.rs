//! Which kill comes next: random, and the same again for the same seed.

/// What is killed, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kill {
    /// The agent.
    Agent,
    /// The agent, in the middle of a rollout.
    AgentInRollout,
    /// The agent, and a program while there is no agent.
    AgentThenProgram,
    /// The agent and a shim.
    AgentAndShim,
    /// The agent and the relay.
    AgentAndRelay,
    /// The agent, the relay's shim, and so the relay.
    AgentAndRelayShim,
    /// A program.
    Program,
    /// A program, in the middle of a rollout.
    ProgramInRollout,
    /// A shim.
    Shim,
    /// A shim and its program at once.
    ShimAndProgram,
    /// The relay.
    Relay,
    /// The relay's shim, and so the relay.
    RelayShim,
}

impl Kill {
    /// Every kind once.
    pub(super) const ALL: [Self; 12] = [
        Self::Agent,
        Self::AgentInRollout,
        Self::AgentThenProgram,
        Self::AgentAndShim,
        Self::AgentAndRelay,
        Self::AgentAndRelayShim,
        Self::Program,
        Self::ProgramInRollout,
        Self::Shim,
        Self::ShimAndProgram,
        Self::Relay,
        Self::RelayShim,
    ];

    /// Kills that leave agent and relay alone.
    pub(super) const OF_REPLICAS: [Self; 4] =
        [Self::Program, Self::ProgramInRollout, Self::Shim, Self::ShimAndProgram];

    /// Says whether the agent dies.
    pub(super) const fn takes_agent(self) -> bool {
        matches!(
            self,
            Self::Agent
                | Self::AgentInRollout
                | Self::AgentThenProgram
                | Self::AgentAndShim
                | Self::AgentAndRelay
                | Self::AgentAndRelayShim
        )
    }

    /// Says whether the relay dies.
    pub(super) const fn takes_relay(self) -> bool {
        matches!(self, Self::AgentAndRelay | Self::AgentAndRelayShim | Self::Relay | Self::RelayShim)
    }

    /// Says whether a shim of a replica dies.
    pub(super) const fn takes_shim(self) -> bool {
        matches!(self, Self::AgentAndShim | Self::Shim | Self::ShimAndProgram)
    }

    /// Says whether a replica dies.
    pub(super) const fn takes_replica(self) -> bool {
        self.takes_shim() || matches!(self, Self::AgentThenProgram | Self::Program | Self::ProgramInRollout)
    }

    /// Says whether a rollout is under way.
    pub(super) const fn in_rollout(self) -> bool {
        matches!(self, Self::AgentInRollout | Self::ProgramInRollout)
    }
}

/// Numbers that look random and follow from their seed (SplitMix64).
#[derive(Debug)]
pub(super) struct Dice {
    state: u64,
}

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `limit`.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    /// Chooses one.
    pub(super) fn one_of<'a, T>(&mut self, many: &'a [T]) -> &'a T {
        &many[self.below(many.len())]
    }

    /// Returns so many kills in random order: every kind once before one comes again.
    pub(super) fn kills(&mut self, count: usize) -> Vec<Kill> {
        let mut kills = Vec::new();
        while kills.len() < count {
            let mut deck = Kill::ALL;
            for last in (1..deck.len()).rev() {
                deck.swap(last, self.below(last + 1));
            }
            kills.extend(deck);
        }
        kills.truncate(count);
        kills
    }
}

/// Returns the seed: `MLCTL_TEST_SEED`, or one of the clock.
pub(super) fn seed() -> u64 {
    match std::env::var("MLCTL_TEST_SEED") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("MLCTL_TEST_SEED is `{text}`: expected a number")),
        Err(_) => {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            u64::from(since.subsec_nanos())
        }
    }
}
