//! Who a number of a process stands for: numbers are used again, a zombie is dead.

/// Returns when the living process of that number started, in clock ticks since boot; with its number that says who it
/// is. None when there is none, or a zombie.
pub(super) fn started(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse(&text)
}

fn parse(text: &str) -> Option<u64> {
    // The second field is the program's name in parentheses and may hold spaces and parentheses itself.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    // Of proc_pid_stat(5): the state is the third field, then the 20th and the 22nd.
    let (state, threads, start) = (*fields.first()?, *fields.get(17)?, *fields.get(19)?);
    // One whose first thread alone has ended lives on.
    let dead = matches!(state, "X" | "x") || state == "Z" && matches!(threads, "0" | "1");
    if dead { None } else { start.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_the_last_thread_is_the_end() {
        for (state, threads, expected) in
            [("S", 1, Some(5)), ("Z", 1, None), ("Z", 3, Some(5)), ("X", 1, None)]
        {
            let line = format!("7 (a) S b) {state} 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 5 0 0");
            assert_eq!(parse(&line), expected, "{line}");
        }
        assert_eq!(parse("7 (app"), None);
    }

    #[test]
    fn a_process_has_one_start_and_a_zombie_none() {
        let own = started(std::process::id()).unwrap();
        assert_eq!(started(std::process::id()), Some(own));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        while started(child.id()).is_some() {
            std::thread::yield_now();
        }
        assert!(std::path::Path::new(&format!("/proc/{}", child.id())).exists(), "a zombie");
        child.wait().unwrap();
        assert_eq!(started(child.id()), None);
    }
}
