//! Who runs this command: the CI actor, or the user of the operating system, and the host.

use mlctl_core::release::Operator;

use crate::output::World;

/// Returns the operator as the environment tells it.
#[must_use]
pub fn operator(world: &World) -> Operator {
    let first =
        |names: &[&str]| names.iter().find_map(|name| world.var(name).filter(|value| !value.is_empty()));
    let name =
        first(&["MLCTL_OPERATOR", "GITHUB_ACTOR", "GITLAB_USER_LOGIN", "SUDO_USER", "USER", "LOGNAME"])
            .or_else(user_name)
            .unwrap_or_else(|| format!("uid-{}", nix::unistd::getuid()));
    let host = world.var("MLCTL_HOST").unwrap_or_else(|| {
        nix::unistd::gethostname()
            .ok()
            .and_then(|host| host.into_string().ok())
            .unwrap_or_else(|| "localhost".into())
    });
    Operator { name, host }
}

/// Returns the name the system knows this user by; a container may know none.
fn user_name() -> Option<String> {
    nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name)
}
