//! Redis: one server with a password, and a user for probes that may say PING.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Given, Orders, one_line, write_private};
use crate::AgentError;
use crate::agent::PROBE_USER;

/// Writes its configuration; returns the server's command line.
pub(super) fn prepare(orders: &Orders, given: &Given, home: &Path) -> Result<Command, AgentError> {
    let (data, configuration) = (home.join("data"), home.join("redis.conf"));
    match fs::create_dir(&data) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(AgentError::file("create", &data)(error));
        }
        _ => {}
    }
    write_private(&configuration, &configured(orders, given, &data)?)?;
    let mut command = Command::new(orders.programs.join("redis-server"));
    command.arg(&configuration);
    Ok(command)
}

/// Returns the whole configuration: what the system says, and after it, which wins, what is ours.
fn configured(orders: &Orders, given: &Given, data: &Path) -> Result<String, AgentError> {
    one_line("the password", &given.password)?;
    Ok(format!(
        "{}\nbind 127.0.0.1\nport {}\ndir {}\ndaemonize no\nlogfile \"\"\nprotected-mode yes\nrequirepass {}\n\
         user {PROBE_USER} on nopass -@all +ping\n",
        given.settings,
        orders.port,
        data.display(),
        quoted(&given.password),
    ))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, orders};
    use super::*;

    #[test]
    fn what_is_ours_stands_behind_what_the_system_says() {
        let given = Given { password: "a\"b".to_owned(), settings: "port 1\nmaxmemory 8gb\n".to_owned() };
        let text = configured(&orders(Kind::Redis), &given, Path::new("/proc/self/fd/20/data")).unwrap();
        assert!(text.starts_with("port 1\nmaxmemory 8gb\n"), "{text}");
        assert!(text.ends_with("requirepass \"a\\\"b\"\nuser mlctl-probe on nopass -@all +ping\n"), "{text}");
        assert_eq!(text.lines().rfind(|line| line.starts_with("port")), Some("port 12345"));
        let broken = Given { password: "a\nb".to_owned(), ..given };
        assert!(configured(&orders(Kind::Redis), &broken, Path::new("/d")).is_err());
    }
}
