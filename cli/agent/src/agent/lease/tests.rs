use super::*;

const BOOT: &str = "this boot";
const TTL: Duration = Duration::from_secs(15);

fn request(name: &str) -> LockRequest {
    LockRequest {
        operation: "deploy".to_owned(),
        operator: Operator { name: name.to_owned(), host: "h".to_owned() },
        run: format!("run of {name}"),
        pid: 1,
        pid_start: 1,
        ttl: TTL,
    }
}

/// A moment at which both clocks agree.
fn at(seconds: u32) -> Moment {
    jumped(seconds, 0)
}

/// A moment at which somebody has moved the wall clock.
fn jumped(seconds: u32, by: i64) -> Moment {
    Moment {
        wall: Timestamp::from_second(i64::from(seconds) + by).unwrap(),
        up: Duration::from_secs(u64::from(seconds)),
    }
}

fn living(_: &LockRequest) -> bool {
    false
}

fn place(answer: &Answer) -> Option<Vec<String>> {
    match answer {
        Answer::Ours(_) => None,
        Answer::Waits(state) => Some(state.line.iter().map(|w| w.request.operator.name.clone()).collect()),
    }
}

fn fence(answer: Answer) -> Fence {
    match answer {
        Answer::Ours(holder) => holder.fence,
        Answer::Waits(state) => panic!("it waits: {state:?}"),
    }
}

fn reopened(book: &LeaseBook, boot: &str, now: Moment) -> LeaseBook {
    let text = serde_json::to_string(&book.kept()).unwrap();
    LeaseBook::open(serde_json::from_str(&text).unwrap(), boot, now)
}

#[test]
fn a_held_lease_is_a_conflict_that_names_the_holder() {
    let mut book = LeaseBook::default();
    let ann = book.take(&request("ann"), at(0), living).unwrap();
    let refusal = book.take(&request("bob"), at(14), living).unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Conflict);
    assert_eq!(refusal.holder.as_deref(), Some(&ann));
    assert_eq!(refusal.reason, "deploy by ann@h holds it since 1970-01-01T00:00:00Z");
}

#[test]
fn fences_only_grow_and_old_ones_write_nothing() {
    let mut book = LeaseBook::default();
    let ann = book.take(&request("ann"), at(0), living).unwrap().fence;
    assert_eq!(book.check(ann), Ok(()));
    let bob = book.take(&request("bob"), at(15), living).unwrap().fence;
    assert!(bob > ann);
    let lost = book.check(ann).unwrap_err();
    assert_eq!(lost.kind, ErrorKind::LeaseLost);
    assert_eq!(lost.reason, "deploy by bob@h (run run of bob) holds it since 1970-01-01T00:00:15Z");
    assert_eq!(book.renew(ann, None, at(16)).unwrap_err().kind, ErrorKind::LeaseLost);
    assert!(!book.release(ann));
    assert_eq!(book.check(bob), Ok(()));
    assert!(book.release(bob));
    assert!(!book.release(bob));
    assert_eq!(book.check(bob).unwrap_err().kind, ErrorKind::LeaseLost);
    let mut again = reopened(&book, BOOT, at(17));
    assert_eq!(again.take(&request("eve"), at(18), living).unwrap().fence, Fence(3));
}

#[test]
fn renewing_prolongs_and_may_be_late_when_nobody_took_it() {
    let mut book = LeaseBook::default();
    let fence = book.take(&request("ann"), at(0), living).unwrap().fence;
    book.renew(fence, None, at(10)).unwrap();
    assert_eq!(book.state(at(24), living).standing, Standing::Held);
    assert_eq!(book.state(at(25), living).standing, Standing::Expired);
    assert_eq!(book.check(fence), Ok(()), "nobody has written since");
    book.renew(fence, Some("another".to_owned()), at(60)).unwrap();
    let state = book.state(at(61), living);
    assert_eq!(state.standing, Standing::Held);
    assert_eq!(state.holder.unwrap().request.run, "another");
}

#[test]
fn the_lease_of_a_dead_process_is_free_at_once() {
    let mut book = LeaseBook::default();
    book.take(&request("ann"), at(0), living).unwrap();
    assert_eq!(book.state(at(1), |_| true).standing, Standing::Dead);
    assert_eq!(book.take(&request("ann"), at(1), |_| true).unwrap().fence, Fence(2));
}

#[test]
fn the_first_who_waits_is_the_first_who_gets_it() {
    let mut book = LeaseBook::default();
    let ann = book.take(&request("ann"), at(0), living).unwrap().fence;
    assert_eq!(place(&book.stand_in_line(&request("bob"), at(1), living)).unwrap(), ["bob"]);
    assert_eq!(place(&book.stand_in_line(&request("eve"), at(2), living)).unwrap(), ["bob", "eve"]);
    assert_eq!(place(&book.stand_in_line(&request("bob"), at(3), living)).unwrap(), ["bob", "eve"]);
    let refused = book.take(&request("tom"), at(3), living).unwrap_err().reason;
    assert_eq!(refused, "deploy by ann@h holds it since 1970-01-01T00:00:00Z, and 2 in line");
    assert!(book.release(ann));
    // Free, and yet not for one who comes now, or asks before its turn.
    let refused = book.take(&request("tom"), at(4), living).unwrap_err().reason;
    assert_eq!(refused, "2 in line for it, deploy by bob@h since 1970-01-01T00:00:01Z the first");
    assert_eq!(place(&book.stand_in_line(&request("eve"), at(4), living)).unwrap(), ["bob", "eve"]);
    let bob = fence(book.stand_in_line(&request("bob"), at(5), living));
    assert_eq!(
        fence(book.stand_in_line(&request("bob"), at(5), living)),
        bob,
        "asked again after a lost answer"
    );
    assert_eq!(place(&book.stand_in_line(&request("eve"), at(5), living)).unwrap(), ["eve"]);
    let tickets: Vec<u64> = book.state(at(5), living).line.iter().map(|waiter| waiter.ticket).collect();
    assert_eq!(tickets, [2]);
    book.release(bob);
    assert!(fence(book.stand_in_line(&request("eve"), at(6), living)) > bob);
    // An answer that came late is worth a whole lease.
    fence(book.stand_in_line(&request("eve"), at(20), living));
    assert!(book.state(at(34), living).held().is_some());
}

#[test]
fn who_leaves_is_dead_or_no_longer_asks_holds_up_nobody() {
    for how in ["leaves", "is dead", "is silent"] {
        let mut book = LeaseBook::default();
        let ann = book.take(&request("ann"), at(0), living).unwrap().fence;
        book.stand_in_line(&request("bob"), at(1), living);
        book.stand_in_line(&request("eve"), at(1), living);
        book.release(ann);
        let dead = |request: &LockRequest| how == "is dead" && request.operator.name == "bob";
        if how == "leaves" {
            book.leave_line(&request("bob"));
        }
        let now = if how == "is silent" { at(16) } else { at(2) };
        if how == "is silent" {
            assert_eq!(place(&book.stand_in_line(&request("eve"), at(15), living)).unwrap(), ["bob", "eve"]);
        }
        fence(book.stand_in_line(&request("eve"), now, dead));
        // One who wakes up after that is the last again.
        assert_eq!(place(&book.stand_in_line(&request("bob"), now, living)).unwrap(), ["bob"], "{how}");
    }
}

#[test]
fn one_who_leaves_gives_back_what_it_was_given_meanwhile() {
    let mut book = LeaseBook::default();
    fence(book.stand_in_line(&request("bob"), at(1), living));
    book.leave_line(&request("bob"));
    assert_eq!(book.state(at(2), living), LockState::default());
}

#[test]
fn a_lease_is_taken_away_only_by_force_or_when_it_is_over() {
    let bob = Operator { name: "bob".to_owned(), host: "h".to_owned() };
    let mut book = LeaseBook::default();
    assert_eq!(book.take_away(Fence(1), &bob, true, at(0), living).unwrap_err().kind, ErrorKind::Conflict);
    let ann = book.take(&request("ann"), at(0), living).unwrap().fence;
    let refusal = book.take_away(ann, &bob, false, at(1), living).unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Denied);
    assert_eq!(refusal.reason, "deploy by ann@h holds and renews it since 1970-01-01T00:00:00Z");
    let other = book.take_away(Fence(9), &bob, true, at(1), living).unwrap_err();
    assert_eq!(other.kind, ErrorKind::Conflict, "{}", other.reason);
    book.take_away(ann, &bob, true, at(2), living).unwrap();
    assert_eq!(
        book.renew(ann, None, at(3)).unwrap_err().reason,
        "bob@h took it away at 1970-01-01T00:00:02Z (mlctl lock release)"
    );
    for (now, dead) in [(at(30), false), (at(10), true)] {
        let eve = book.take(&request("eve"), at(5), living).unwrap().fence;
        book.take_away(eve, &bob, false, now, |_| dead).unwrap();
        assert_eq!(book.state(now, living).standing, Standing::Free);
    }
}

#[test]
fn a_jump_of_the_wall_clock_moves_nothing() {
    for by in [-3_600, 3_600] {
        let mut book = LeaseBook::default();
        let ann = book.take(&request("ann"), at(0), living).unwrap().fence;
        book.stand_in_line(&request("bob"), at(1), living);
        assert_eq!(book.state(jumped(14, by), living).standing, Standing::Held, "{by}");
        assert_eq!(book.state(jumped(14, by), living).line.len(), 1, "{by}");
        book.renew(ann, None, jumped(14, by)).unwrap();
        assert_eq!(book.state(at(28), living).standing, Standing::Held, "{by}");
        assert_eq!(book.state(jumped(29, by), living).standing, Standing::Expired, "{by}");
    }
}

#[test]
fn a_successor_of_the_same_boot_goes_on_and_one_of_another_finds_nobody() {
    let mut book = LeaseBook::open(Kept::default(), BOOT, at(0));
    let ann = book.take(&request("ann"), at(0), living).unwrap().fence;
    book.stand_in_line(&request("bob"), at(1), living);
    let mut same = reopened(&book, BOOT, at(14));
    assert_eq!(same.check(ann), Ok(()));
    assert_eq!(same.state(at(15), living).standing, Standing::Expired, "the time without an agent counts");
    assert_eq!(same.state(at(28), living).line.len(), 1, "but nobody could hear a question then");
    fence(same.stand_in_line(&request("bob"), at(28), living));

    // Less time has passed since that boot than the lease had left.
    let mut other = reopened(&book, "another boot", at(3));
    assert_eq!(other.state(at(3), living), LockState::default());
    assert_eq!(other.check(ann).unwrap_err().kind, ErrorKind::LeaseLost);
    assert!(other.take(&request("eve"), at(3), living).unwrap().fence > ann);
}

#[test]
fn the_book_of_an_older_agent_is_read() {
    let text = r#"{"holder": {"request": {"operation": "deploy", "operator": {"name": "ann", "host": "h"},
        "run": "r", "pid": 1, "pid_start": 1, "ttl": 15000}, "since": "1970-01-01T00:00:00Z",
        "expires": "1970-01-01T00:00:15Z", "fence": 7}, "highest": 7}"#;
    let mut book = LeaseBook::open(serde_json::from_str(text).unwrap(), BOOT, at(100));
    book.renew(Fence(7), None, at(101)).unwrap();
    assert_eq!(book.state(at(102), living).standing, Standing::Held);
    assert!(book.release(Fence(7)));
    assert_eq!(book.take(&request("bob"), at(103), living).unwrap().fence, Fence(8));
}
