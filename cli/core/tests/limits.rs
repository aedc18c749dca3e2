//! Files made to hurt: whatever they hold, reading them ends soon, in little memory, with a clear line.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use mlctl_core::playbook::PlaybookFile;
use mlctl_core::system::SystemFile;

/// Processor time far above what any of them takes without optimisation; a file that hangs takes hours.
const SOON: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;
const HEAD: &str = "apiVersion: mlctl/v1\nsystem: shop\n";

/// Processor time of this thread, which a loaded machine does not stretch; the time that passes where there is none.
struct Stopwatch(Instant, Option<u64>);

impl Stopwatch {
    fn start() -> Self {
        Self(Instant::now(), Self::nanos())
    }

    fn nanos() -> Option<u64> {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split_whitespace().next()?.parse().ok()
    }

    fn took(&self) -> Duration {
        match (self.1, Self::nanos()) {
            (Some(before), Some(now)) => Duration::from_nanos(now - before),
            _ => self.0.elapsed(),
        }
    }
}

/// Returns what is told of a system file, and asserts that it was told soon and briefly.
#[track_caller]
fn told(name: &str, text: &str) -> String {
    let began = Stopwatch::start();
    let told = SystemFile::parse("t.yaml", text.as_bytes()).err().map(|e| e.to_string()).unwrap_or_default();
    let took = began.took();
    assert!(took < SOON, "{name} took {took:?}");
    assert!(told.len() < 200_000, "{name} is told in {} bytes", told.len());
    told
}

fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(line).collect()
}

#[test]
fn a_hostile_system_file_is_refused_soon() {
    let many = |text: &str| text.repeat(MIB / text.len());
    for (name, text, expected) in [
        ("a line of 50 MB", "x".repeat(50 << 20), "t.yaml:1:1: found more than 1048576 bytes"),
        ("brackets", many("["), "more than 64 levels"),
        ("items in items", many("- "), "more than 64 levels"),
        ("keys in keys", format!("? {}", many("? ")).chars().take(MIB).collect(), "more than 64 levels"),
        ("aliases", many("- *a\n"), "found an alias"),
        ("anchors", many("- &a b\n"), "and more; these are the first 100"),
        ("one key again and again", many("a: 1\n"), "and more; these are the first 100"),
        ("items", many("- 1\n"), "more than 1000 entries"),
        ("keys", lines(100_000, |i| format!("k{i}: 1\n")), "more than 1000 entries"),
        (
            "values",
            format!("a:\n{}", lines(60, |i| format!("  k{i}: [{}]\n", "1,".repeat(900)))),
            "more than 50000 values",
        ),
        ("a key of a megabyte", format!("{}: 1", "k".repeat(MIB - 10)), "expected"),
        ("a key of 1,000 characters", format!("{}: 1\n", "k".repeat(1_000)), "more than 256 characters"),
        ("an open quote", format!("a: \"{}", "x ".repeat(MIB / 2 - 10)), "never closed"),
        ("quotes", many("''"), "t.yaml:"),
        ("block texts", many("- |\n x\n"), "more than 1000 entries"),
        (
            "a block text",
            format!("a: |\n{}", many(" x\n").chars().take(MIB - 10).collect::<String>()),
            "unknown key",
        ),
        ("documents", many("---\n"), "a second document"),
        ("tags", many("!a "), "t.yaml:"),
        ("directives", many("%a b\n"), "t.yaml:"),
        ("escapes", format!("a: \"{}\"", "\\x41".repeat(MIB / 4 - 10)), "unknown key"),
        ("carriage returns", many("\r"), "an empty file"),
    ] {
        let told = told(name, &text);
        assert!(told.contains(expected), "{name}: {}", told.chars().take(500).collect::<String>());
    }
}

#[test]
fn a_large_system_is_checked_soon_under_every_profile() {
    let service = |i: usize| {
        let need = if i == 0 { String::new() } else { format!("s{}", i - 1) };
        format!("  s{i}: {{port: {}, command: [x], needs: [{need}], routes: [{{path: /r{i}}}]}}\n", i + 1)
    };
    let good = format!(
        "{HEAD}services:\n{}  front: {{port: 9999, command: [x], gateway: true}}\nprofiles:\n{}",
        lines(900, service),
        lines(6, |i| format!("  p{i}: {{replicas: {{min: 2}}}}\n"))
    );
    assert_eq!(told("a chain of needs", &good), "");

    let closed = good.replacen("needs: []", "needs: [s899]", 1);
    let told_of_cycle = told("a ring of needs", &closed);
    assert!(told_of_cycle.contains("found a cycle"), "{told_of_cycle}");

    let profiles = format!(
        "{HEAD}services: {{web: {{port: 1, command: [x]}}}}\nprofiles:\n{}",
        lines(900, |i| format!("  p{i}: {{replicas: {{min: 2}}}}\n"))
    );
    assert!(told("profiles", &profiles).contains("found 900 profiles, expected at most 32"));
}

#[test]
fn mistakes_by_the_thousand_are_told_briefly() {
    let unknown = lines(40, |i| {
        let needs = lines(400, |j| format!("unknown-{j}-{},", "x".repeat(40)));
        format!("  s{i}: {{port: {}, command: [x], needs: [{needs}]}}\n", i + 1)
    });
    let told_of_needs = told("unknown needs", &format!("{HEAD}services:\n{unknown}"));
    assert!(
        told_of_needs.contains("or one of 20 more"),
        "{}",
        told_of_needs.chars().take(500).collect::<String>()
    );

    let placeholders = "{adr:x}{addr:x}".repeat(20_000);
    let text = format!("{HEAD}services: {{web: {{port: 1, command: [\"{placeholders}\"]}}}}\n");
    assert!(told("placeholders", &text).contains("unknown placeholder"));

    let variables = "{{x}}".repeat(100_000);
    let load = format!(
        "{HEAD}services: {{web: {{port: 1, command: [x]}}}}\nload: {{v: {{rate: 1/s, duration: 1s, mix: [{{name: a, weight: 1, get: \"/{variables}\"}}]}}}}\n"
    );
    assert!(told("variables", &load).contains("unknown variable"));

    let long = "9".repeat(MIB - 200);
    assert!(
        told("a number of a megabyte", &format!("{HEAD}services: {{web: {{port: {long}}}}}"))
            .contains("from 1 to 65535")
    );
}

#[test]
fn parameters_cannot_blow_a_playbook_up() {
    let mut text = String::from("apiVersion: mlctl/v1\nplaybook: p\ntitle: T\nparams:\n");
    let _ = writeln!(text, "  a: {{type: string, default: {}}}", "x".repeat(500_000));
    text.push_str("phases:\n  - name: one\n    steps:\n");
    for i in 0..900 {
        let _ = writeln!(
            text,
            "      - {{id: s{i}, env: {{service: web, set: {{A: \"{}\"}}}}}}",
            "{{a}}".repeat(90)
        );
    }
    let began = Stopwatch::start();
    let file = PlaybookFile::parse("p.yaml", text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}"));
    let refused = file.bind(&IndexMap::new()).unwrap_err().to_string();
    assert_eq!(refused, "playbook p cannot be filled in: its parameters make it larger than 1 MiB");
    assert!(began.took() < SOON, "{:?}", began.took());
}
