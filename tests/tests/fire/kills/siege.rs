//! A deployed system under load, and what a kill may cost it.
//!
//! | killed | may cost |
//! | --- | --- |
//! | agent, at rest or in a rollout | nothing: no request, no line, no process |
//! | program | the requests on its own connections |
//! | shim | the requests on its replica's own connections, and log lines it had not read |
//! | relay, or its shim | the requests through it, until its addresses listen again; none of a passed socket |
//! | agent and relay | the same: the relay's shim brings it back |
//! | agent and the relay's shim | the same, and the addresses stay closed until the next command |
//!
//! Between kills nothing may fail. After each the system settles: by itself while there is an agent, with the next
//! command where there is none.

use std::collections::BTreeSet;
use std::time::Duration;

use mlctl_tests::{Running, Sandbox, assert_settled, eventually, kill, note};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::books::{self, Book};
use super::census::{Census, Member, runs};
use super::clients::{Asked, Clients, Failure};
use super::deck::{Dice, Kill};

/// The service behind the relay.
pub(super) const BACK: &str = "back";
/// The service with a passed socket.
pub(super) const FRONT: &str = "front";
/// The service that nothing asks how it is.
pub(super) const WORKER: &str = "worker";
/// The replicas there should be.
pub(super) const WANTED: [(&str, usize); 3] = [(BACK, 2), (FRONT, 2), (WORKER, 1)];
/// Clients of a service that keep their connection, and as many that do not.
const CLIENTS: usize = 3;
/// How long the system may take to be whole again: a replica that ended often waits before it starts again.
const HEALS: Duration = Duration::from_secs(60);
/// How long addresses may be closed when only the relay has to come back.
const CLOSED: Duration = Duration::from_secs(3);

/// A system under siege.
pub(super) struct Siege {
    pub(super) sandbox: Sandbox,
    pub(super) clients: Clients,
    pub(super) dice: Dice,
    ports: [(&'static str, u16); 2],
    version: u32,
    /// Programs whose shim was killed.
    cut: BTreeSet<i32>,
}

/// What one kill did.
struct Toll {
    at: Instant,
    /// When all that was killed had ended.
    dead: Instant,
    programs: Vec<Member>,
    /// Until when the relay's addresses were closed.
    reopened: Option<Instant>,
}

impl Siege {
    /// Deploys the system and begins to ask it.
    pub(super) async fn lay(program: &str, seed: u64) -> Self {
        let sandbox = Sandbox::of_fixture("ledger", &[("ledger", program)]);
        sandbox.mlctl(&["deploy"]).await.ends(0);
        let port = |named: u16| sandbox.url(named).rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
        let ports = [(BACK, port(4001)), (FRONT, port(4000))];
        let clients = Clients::start(&ports.map(|(service, port)| Asked { service, port, clients: CLIENTS }));
        let siege = Self { sandbox, clients, dice: Dice::new(seed), ports, version: 1, cut: BTreeSet::new() };
        siege.settles("the first deploy").await;
        siege.answers().await;
        siege
    }

    /// Waits until clients were answered some dozens of times more.
    pub(super) async fn answers(&self) {
        let before = self.clients.answered();
        eventually("clients to be answered", Duration::from_secs(20), async || {
            let now = self.clients.answered();
            if now > before + 50 { Ok(()) } else { Err(format!("{} more answers", now - before)) }
        })
        .await;
    }

    /// Begins to roll every service to its next version.
    fn roll(&mut self) -> Running {
        let next = self.version + 1;
        self.sandbox.edit(&format!("LEDGER_VERSION: v{}", self.version), &format!("LEDGER_VERSION: v{next}"));
        self.version = next;
        self.sandbox.start(&["deploy"])
    }

    /// Rolls every service to its next version; nothing may fail.
    pub(super) async fn deploy(&mut self) {
        self.roll().finish().await.ends(0);
        self.settles("a deploy").await;
        self.owes_nothing("a deploy");
    }

    /// Kills once, waits until the system is whole again, and sees what that has cost.
    pub(super) async fn kill(&mut self, kind: Kill) {
        self.answers().await;
        self.owes_nothing(&format!("before {kind:?}"));
        let rollout = kind.in_rollout().then(|| self.roll());
        if let Some(rollout) = &rollout {
            self.is_rolling(rollout).await;
        }
        let before = Census::take(&self.sandbox);
        let victim = self.dice.one_of(&before.members).clone();
        let mut toll = self.strike(kind, &before, &victim).await;
        let what = format!("{kind:?} ({})", if kind.takes_replica() { &victim.name } else { "no replica" });
        if kind.takes_relay() {
            self.reopens(kind, &mut toll).await;
        }
        if let Some(rollout) = rollout {
            rollout.finish().await.ends(0);
        } else if kind.takes_agent() {
            // The next command brings it back.
            self.sandbox.query(&["status"]).await;
            if toll.reopened.is_none() && kind.takes_relay() {
                toll.reopened = Some(self.listens(CLOSED).await);
            }
        } else {
            self.heals_alone(&what).await;
        }
        self.settles(&what).await;
        // A rollout has replaced the replica whose end could be told of.
        if kind.takes_replica() && !kind.in_rollout() {
            self.tells_the_end(kind, &victim).await;
        }
        self.answers().await;
        let after = Census::take(&self.sandbox);
        self.spares(kind, &victim, &before, &after);
        let lost = self.collect(kind, &toll);
        let closed = toll.reopened.map_or(String::new(), |until| {
            format!(", addresses closed for {:.0?}", until.saturating_duration_since(toll.at))
        });
        note(&format!("{what}: whole again after {:.1?}, {lost} requests lost{closed}", toll.at.elapsed()));
    }

    /// Waits for the middle of a rollout: some replicas are new, others are not.
    async fn is_rolling(&self, rollout: &Running) {
        let pid = rollout.pid();
        eventually("the first new replica", Duration::from_secs(40), async || {
            let events = self.sandbox.newest_events();
            let rolling = events.iter().any(|event| event["kind"] == "workload" && event["updated"] == 1);
            if rolling || !runs(pid) { Ok(()) } else { Err(format!("{} events", events.len())) }
        })
        .await;
        assert!(runs(pid), "the rollout was over before it could be met in the middle");
    }

    async fn strike(&mut self, kind: Kill, before: &Census, victim: &Member) -> Toll {
        let mut killed = Vec::new();
        let at = Instant::now();
        if kind.takes_agent() {
            killed.extend(&before.agents);
        }
        match kind {
            Kill::AgentAndShim | Kill::Shim => killed.push(victim.shim),
            Kill::ShimAndProgram => killed.extend([victim.shim, victim.program]),
            Kill::Program | Kill::ProgramInRollout | Kill::AgentThenProgram => killed.push(victim.program),
            Kill::AgentAndRelay | Kill::Relay => killed.extend(&before.relays),
            Kill::AgentAndRelayShim | Kill::RelayShim => killed.extend(&before.relay_shims),
            Kill::Agent | Kill::AgentInRollout => {}
        }
        assert!(!killed.is_empty(), "{kind:?}: nobody to kill in {before:#?}");
        killed.iter().for_each(|pid| kill(*pid));
        let mut gone = killed;
        if kind.takes_replica() {
            gone.push(victim.program);
        }
        if kind.takes_relay() {
            gone.extend(&before.relays);
        }
        if kind.takes_shim() {
            self.cut.insert(victim.program);
        }
        eventually("what was killed to end", Duration::from_secs(10), async || {
            let left: Vec<&i32> = gone.iter().filter(|pid| runs(**pid)).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?} of {gone:?} run on")) }
        })
        .await;
        let programs = if kind.takes_replica() { vec![victim.clone()] } else { Vec::new() };
        Toll { at, dead: Instant::now(), programs, reopened: None }
    }

    /// Waits until the relay's addresses listen again, where that needs no command.
    async fn reopens(&self, kind: Kill, toll: &mut Toll) {
        if kind == Kill::AgentAndRelayShim {
            // Nobody is left who could: they are closed, and stay so.
            let until = Instant::now() + Duration::from_millis(700);
            while Instant::now() < until {
                let port = self.ports[0].1;
                assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err(), "somebody listens on {port}");
                sleep(Duration::from_millis(50)).await;
            }
            return;
        }
        toll.reopened = Some(self.listens(CLOSED).await);
    }

    async fn listens(&self, limit: Duration) -> Instant {
        let port = self.ports[0].1;
        eventually("the relay's address to listen again", limit, async || {
            TcpStream::connect(("127.0.0.1", port)).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
        Instant::now()
    }

    /// Waits until everything runs again, asking nobody.
    async fn heals_alone(&self, what: &str) {
        eventually(&format!("the system to heal by itself from {what}"), HEALS, async || {
            Census::take(&self.sandbox).is_whole(&WANTED)
        })
        .await;
    }

    /// Waits until everything runs as the release says, each process accounted for.
    pub(super) async fn settles(&self, what: &str) {
        eventually(&format!("the system to settle after {what}"), HEALS, async || {
            let status = self.sandbox.query(&["status"]).await;
            let items = status["items"].as_array().unwrap();
            if items.iter().all(|item| item["status"] == "current" && item["drift"] == false) {
                return Census::take(&self.sandbox).is_whole(&WANTED);
            }
            Err(format!("{status:#}"))
        })
        .await;
        assert_settled(&self.sandbox.query(&["status"]).await);
        // What is told to be there is what is there.
        let census = Census::take(&self.sandbox);
        for (service, _) in WANTED {
            let status = self.sandbox.query(&["status", service]).await;
            let replicas = status["replicas"].as_array().unwrap();
            let told: BTreeSet<&str> = replicas.iter().map(|each| each["name"].as_str().unwrap()).collect();
            let there: BTreeSet<&str> = census.of(service).iter().map(|each| each.name.as_str()).collect();
            assert_eq!(told, there, "{what}: {status:#}");
            assert!(replicas.iter().all(|each| each["ready"] == true), "{what}: {status:#}");
        }
    }

    /// Asserts that how a replica ended is known.
    async fn tells_the_end(&self, kind: Kill, victim: &Member) {
        let status = self.sandbox.query(&["status", &victim.service]).await;
        let replicas = status["replicas"].as_array().unwrap();
        let replica = replicas.iter().find(|each| each["name"] == victim.name.as_str()).unwrap();
        let told = replica["last_exit"].as_str().unwrap_or("nothing");
        // A killed shim tells nobody. Its program dies with it, which the agent may see or not.
        let unseen = kind.takes_shim() && told == "unknown end (its shim died)";
        assert!(unseen || told == "signal 9 (SIGKILL)", "{kind:?}: {told}: {status:#}");
    }

    /// Asserts that nothing but what was killed is another process than before.
    fn spares(&self, kind: Kill, victim: &Member, before: &Census, after: &Census) {
        if kind.in_rollout() {
            return;
        }
        for member in &before.members {
            let now = after.members.iter().find(|each| each.name == member.name);
            let now = now.unwrap_or_else(|| panic!("{kind:?}: {} is gone", member.name));
            if kind.takes_replica() && member == victim {
                assert_ne!(now.program, member.program, "{kind:?}");
            } else {
                assert_eq!(now, member, "{kind:?} was to spare it");
            }
        }
        if !kind.takes_agent() {
            assert_eq!(after.agents, before.agents, "{kind:?} was to spare the agent");
        }
        if !kind.takes_relay() {
            assert_eq!(after.relays, before.relays, "{kind:?} was to spare the relay");
        }
    }

    /// Asserts that no request has failed since the last look.
    pub(super) fn owes_nothing(&self, when: &str) {
        let failures = self.clients.take_failures();
        assert!(failures.is_empty(), "{when}: requests failed that nothing was to cost: {failures:#?}");
    }

    /// Asserts that each failed request was on a connection that the kill may cost; returns how many there were.
    fn collect(&self, kind: Kill, toll: &Toll) -> usize {
        let failures = self.clients.take_failures();
        let books = [BACK, FRONT].map(|service| (service, Book::read(&self.sandbox, service)));
        for failure in &failures {
            let begun = books.iter().find(|(service, _)| *service == failure.service);
            let begun = begun.and_then(|(_, book)| book.begun.get(&failure.id)).copied();
            let owed = is_owed(failure, begun, toll);
            let reason = &failure.reason;
            assert!(owed, "{kind:?} was not to cost `{reason}`: {failure:#?}, begun by {begun:?}");
        }
        // Each client asks one thing at a time, and one connection is lost once.
        if toll.reopened.is_none() {
            let most = 2 * CLIENTS * toll.programs.len();
            assert!(failures.len() <= most, "{kind:?}: {} of at most {most}", failures.len());
        }
        failures.len()
    }

    /// Takes everything down after having seen that nothing was lost.
    pub(super) async fn lift(self) {
        self.owes_nothing("at the end");
        let seen = self.clients.stop().await;
        assert!(seen.failures.is_empty(), "at the end: {:#?}", seen.failures);
        books::check(&self.sandbox, &WANTED.map(|(service, _)| service), &seen.answered, &self.cut).await;
        note(&format!(
            "{} requests answered, every answer in the books, no gap in the logs",
            seen.answered.len()
        ));
        self.sandbox.end().await;
    }
}

/// Says whether a kill may have cost a request.
fn is_owed(failure: &Failure, begun: Option<i32>, toll: &Toll) -> bool {
    if failure.failed < toll.at {
        return false;
    }
    if let Some(reopened) = toll.reopened {
        // Its connection went through the relay that was killed, or it was begun while nobody listened.
        let through = failure.peer.is_some_and(|(_, made)| made <= toll.dead);
        return failure.service == BACK && (through || failure.began <= reopened);
    }
    toll.programs.iter().any(|killed| {
        let by = failure.peer.map(|(pid, _)| pid).or(begun);
        let its_own = match by {
            Some(by) => by == killed.program,
            // It was never read: its connection waited in the queue of the one that was killed, and was made before
            // that one was dead, since nobody connects to a dead one.
            None => failure.began <= toll.dead,
        };
        failure.service == killed.service && its_own
    })
}
