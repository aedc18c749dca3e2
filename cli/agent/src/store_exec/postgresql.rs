//! PostgreSQL: one cluster with one database and its owner, reached over TCP with a password.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Given, Orders, one_line, say, succeed, write_private};
use crate::AgentError;

/// Who may come in: whoever knows the password of the database's owner. The superuser has none and stays out.
const CLIENTS: &str = "host all all 127.0.0.1/32 scram-sha-256\n";
/// The library behind the statistics of statements.
const STATEMENTS: &str = "pg_stat_statements";

/// Makes the cluster where there is none and writes its configuration; returns the server's command line.
pub(super) fn prepare(orders: &Orders, given: &Given, home: &Path) -> Result<Command, AgentError> {
    let data = home.join("data");
    if !data.join("PG_VERSION").exists() {
        make(orders, given, home, &data)?;
    }
    let (configuration, clients) = (home.join("postgresql.conf"), home.join("pg_hba.conf"));
    write_private(&clients, CLIENTS)?;
    write_private(&configuration, &configured(orders, given, &clients))?;
    let mut command = Command::new(orders.programs.join("postgres"));
    command.arg("-D").arg(&data).arg("-c").arg(format!("config_file={}", configuration.display()));
    Ok(command)
}

/// Makes the cluster under another name and renames it when it is whole: a server finds all of it or none.
fn make(orders: &Orders, given: &Given, home: &Path, data: &Path) -> Result<(), AgentError> {
    say(&format!("makes the database {}", orders.database));
    let beside = home.join("data.new");
    match fs::remove_dir_all(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(AgentError::file("remove", &beside)(error));
        }
        _ => {}
    }
    let mut initdb = Command::new(orders.programs.join("initdb"));
    initdb.arg("-D").arg(&beside).args(["-U", "postgres", "-A", "reject", "-E", "UTF8", "--locale=C"]);
    initdb.arg("--data-checksums").stdout(Stdio::null());
    succeed(&mut initdb, "")?;
    alone(orders, &beside, "postgres", &statements(&orders.database, &given.password)?)?;
    if given.settings.contains(STATEMENTS) {
        alone(orders, &beside, &orders.database, &format!("CREATE EXTENSION {STATEMENTS};\n"))?;
    }
    fs::rename(&beside, data).map_err(AgentError::file("rename", &beside))?;
    fs::File::open(home).and_then(|folder| folder.sync_all()).map_err(AgentError::file("keep", data))
}

/// Carries statements out, one a line, while nobody can connect. By standard input and without a word of them in the
/// log: there is a password among them.
fn alone(orders: &Orders, data: &Path, database: &str, statements: &str) -> Result<(), AgentError> {
    let mut single = Command::new(orders.programs.join("postgres"));
    single.arg("--single").arg("-D").arg(data);
    for setting in ["exit_on_error=on", "log_min_error_statement=panic", "log_statement=none"] {
        single.arg("-c").arg(setting);
    }
    succeed(single.arg(database).stdout(Stdio::null()), statements)
}

fn statements(database: &str, password: &str) -> Result<String, AgentError> {
    one_line("the password", password)?;
    let (name, password) = (quoted(database, '"'), quoted(password, '\''));
    Ok(format!(
        "CREATE ROLE {name} LOGIN PASSWORD {password};\nCREATE DATABASE {name} OWNER {name};\n\
         GRANT pg_monitor TO {name};\n"
    ))
}

/// Returns the whole configuration: what the system says, and after it, which wins, what is ours.
fn configured(orders: &Orders, given: &Given, clients: &Path) -> String {
    format!(
        "{}\nlisten_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = ''\nhba_file = {}\n\
         password_encryption = 'scram-sha-256'\nlogging_collector = off\nlog_destination = 'stderr'\n\
         cluster_name = {}\n",
        given.settings,
        orders.port,
        quoted(&clients.display().to_string(), '\''),
        quoted(&orders.name, '\''),
    )
}

fn quoted(text: &str, quote: char) -> String {
    format!("{quote}{}{quote}", text.replace(quote, &format!("{quote}{quote}")))
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, orders};
    use super::*;

    #[test]
    fn statements_are_one_a_line_and_quote_what_they_are_given() {
        let made = statements("ml-eco", "it's").unwrap();
        assert_eq!(
            made.lines().collect::<Vec<_>>(),
            [
                "CREATE ROLE \"ml-eco\" LOGIN PASSWORD 'it''s';",
                "CREATE DATABASE \"ml-eco\" OWNER \"ml-eco\";",
                "GRANT pg_monitor TO \"ml-eco\";"
            ]
        );
        let error = statements("a", "two\nlines").unwrap_err().to_string();
        assert!(error.contains("the password holds a line break") && !error.contains("two"), "{error}");
    }

    #[test]
    fn what_is_ours_stands_behind_what_the_system_says() {
        let given = Given { password: "p".to_owned(), settings: "port = '1'\nwork_mem = '4MB'\n".to_owned() };
        let text = configured(&orders(Kind::Postgresql), &given, Path::new("/proc/self/fd/20/pg_hba.conf"));
        assert!(text.starts_with("port = '1'\nwork_mem = '4MB'\n"), "{text}");
        let last = |key: &str| text.lines().rfind(|line| line.starts_with(key)).unwrap();
        assert_eq!(last("port"), "port = 12345");
        assert_eq!(last("hba_file"), "hba_file = '/proc/self/fd/20/pg_hba.conf'");
    }
}
