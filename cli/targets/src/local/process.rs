//! Who a number of a process stands for: numbers are used again, a zombie is dead.

/// Returns when the living process of that number started, in clock ticks since boot; with its number that says who it
/// is. None when there is none, or a zombie.
pub(super) fn started(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold spaces and parentheses itself.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    // The 22nd field of proc_pid_stat(5); the state is the third.
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
