//! Which replicas come and go next: the rolling update as a pure function.
//!
//! Called again after every change, so it keeps no state of its own: a newer revision put in the middle of a rollout
//! simply makes other replicas the newest, those of an earlier rollout that still run included.

/// A replica that is not on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Its name.
    pub(super) name: String,
    /// True when it is of the newest revision.
    pub(super) newest: bool,
    /// True while it takes requests.
    pub(super) ready: bool,
    /// True once it stayed ready long enough.
    pub(super) available: bool,
    /// True when it ever was available: such a replica is not given up for a rollout that may fail.
    pub(super) proven: bool,
}

/// How many may be over and under the count meanwhile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Width {
    /// Above; a replica that drains already is not counted.
    pub(super) surge: u32,
    /// Below.
    pub(super) unavailable: u32,
}

/// What to do next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// Replicas of the newest revision to start.
    pub(super) create: u32,
    /// Replicas to take out of the routes and stop.
    pub(super) remove: Vec<String>,
}

/// Returns the next moves. `members` are ordered from the oldest to the youngest.
pub(super) fn decide(desired: u32, width: Width, members: &[Member]) -> Decision {
    let desired = desired as usize;
    let (newest, old): (Vec<&Member>, Vec<&Member>) = members.iter().partition(|m| m.newest);
    let available = newest.iter().filter(|m| m.available).count();
    let mut remove: Vec<&Member> = Vec::new();

    // What a failed rollout left behind serves nobody and holds a place.
    remove.extend(old.iter().filter(|m| !m.ready && !m.proven));
    // A proven replica that is not ready now goes once the new revision has shown that it works.
    if available > 0 || desired == 0 {
        remove.extend(old.iter().filter(|m| !m.ready && m.proven));
    }
    let serving: Vec<&&Member> = old.iter().filter(|m| m.ready).collect();
    let floor = desired.saturating_sub(width.unavailable as usize);
    let spare = (serving.len() + available).saturating_sub(floor);
    remove.extend(serving.iter().copied().copied().take(spare));

    if newest.len() > desired {
        let mut surplus: Vec<&&Member> = newest.iter().collect();
        // First those that serve nobody, then the youngest; the sort is stable, so it keeps their order otherwise.
        surplus.reverse();
        surplus.sort_by_key(|m| (m.available, m.ready));
        remove.extend(surplus.into_iter().copied().take(newest.len() - desired));
    }

    let remaining_old = old.len() - remove.iter().filter(|m| !m.newest).count();
    let missing = desired.saturating_sub(newest.len());
    let room = if remaining_old == 0 {
        missing
    } else {
        (desired + width.surge as usize).saturating_sub(newest.len() + remaining_old)
    };
    Decision {
        create: u32::try_from(missing.min(room)).unwrap_or(u32::MAX),
        remove: remove.into_iter().map(|m| m.name.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_MORE: Width = Width { surge: 1, unavailable: 0 };

    /// Reads `oA nR n.`: old or new; `A` available, `R` ready, `r` ready again after having been available,
    /// `u` unready but proven, `.` never ready. Names are the positions.
    fn members(text: &str) -> Vec<Member> {
        text.split_whitespace()
            .enumerate()
            .map(|(index, word)| {
                let state = word.chars().nth(1).unwrap();
                Member {
                    name: index.to_string(),
                    newest: word.starts_with('n'),
                    ready: matches!(state, 'A' | 'R' | 'r'),
                    available: state == 'A',
                    proven: matches!(state, 'A' | 'r' | 'u'),
                }
            })
            .collect()
    }

    fn next(desired: u32, width: Width, text: &str) -> String {
        let decision = decide(desired, width, &members(text));
        format!("+{} -[{}]", decision.create, decision.remove.join(" "))
    }

    #[test]
    fn one_more_then_one_less() {
        for (desired, now, expected) in [
            (3, "", "+3 -[]"),
            (2, "oA oA", "+1 -[]"),
            (2, "oA oA n.", "+0 -[]"),
            (2, "oA oA nR", "+0 -[]"),
            (2, "oA oA nA", "+1 -[0]"),
            (2, "oA nA", "+1 -[]"),
            (2, "oA nA n.", "+0 -[]"),
            (2, "oA nA nA", "+0 -[0]"),
            (2, "nA nA", "+0 -[]"),
        ] {
            assert_eq!(next(desired, ONE_MORE, now), expected, "{now}");
        }
    }

    #[test]
    fn the_old_revision_is_untouched_while_the_new_one_fails() {
        for now in ["oA oA n.", "oA ou n.", "oA oA nR", "ou ou n."] {
            assert_eq!(next(2, ONE_MORE, now), "+0 -[]", "{now}");
        }
    }

    #[test]
    fn what_a_failed_rollout_left_goes_at_once_and_makes_room() {
        assert_eq!(next(2, ONE_MORE, "nA nA o."), "+0 -[2]");
        assert_eq!(next(2, ONE_MORE, "oA oA o."), "+1 -[2]");
        assert_eq!(next(2, ONE_MORE, "o. o."), "+2 -[0 1]");
    }

    #[test]
    fn scaling_starts_all_at_once_and_stops_the_least_useful_first() {
        for (desired, now, expected) in [
            (4, "nA nA", "+2 -[]"),
            (1, "nA nA nA", "+0 -[2 1]"),
            (2, "nA nR nA", "+0 -[1]"),
            (1, "nA n. nR", "+0 -[1 2]"),
            (0, "nA oA ou", "+0 -[2 1 0]"),
            (1, "oA oA oA", "+1 -[0 1]"),
        ] {
            assert_eq!(next(desired, ONE_MORE, now), expected, "{desired} of {now}");
        }
    }

    #[test]
    fn without_surge_one_goes_first() {
        let one_less = Width { surge: 0, unavailable: 1 };
        assert_eq!(next(2, one_less, "oA oA"), "+1 -[0]");
        assert_eq!(next(2, one_less, "oA n."), "+0 -[]");
        assert_eq!(next(2, one_less, "oA nA"), "+1 -[0]");
        assert_eq!(next(1, one_less, "oA"), "+1 -[0]");
    }

    #[test]
    fn every_rollout_ends_and_never_serves_with_fewer() {
        for desired in 1..5_u32 {
            for surge in 1..4 {
                let mut members = members(&"oA ".repeat(desired as usize));
                let mut rounds = 0;
                loop {
                    let width = Width { surge, unavailable: 0 };
                    let decision = decide(desired, width, &members);
                    if decision == Decision::default() {
                        break;
                    }
                    members.retain(|m| !decision.remove.contains(&m.name));
                    assert!(members.iter().filter(|m| m.available).count() >= desired as usize);
                    for index in 0..decision.create {
                        let name = format!("{rounds}-{index}");
                        members.push(Member {
                            name,
                            newest: true,
                            ready: true,
                            available: true,
                            proven: true,
                        });
                    }
                    assert!(members.len() <= (desired + surge) as usize);
                    rounds += 1;
                    assert!(rounds < 50, "no end");
                }
                assert!(members.len() == desired as usize && members.iter().all(|m| m.newest));
            }
        }
    }
}
