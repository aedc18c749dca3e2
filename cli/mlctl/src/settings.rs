//! Settings: what the flags of every verb and the environment say, flags first, resolved once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;

use crate::commands::GlobalArgs;
use crate::error::CommandError;
use crate::operator::operator;
use crate::output::World;

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Text for people.
    #[default]
    Human,
    /// One JSON document for a query, one event a line for a run.
    Json,
}

/// When colors are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal that wants them.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What the printer needs to know.
#[derive(Debug, Clone, Default)]
pub struct OutputSettings {
    /// The format.
    pub format: OutputFormat,
    /// Colors.
    pub color: ColorChoice,
    /// No status, only data, warnings and errors.
    pub quiet: bool,
    /// More detail.
    pub verbose: bool,
    /// The flags that a command needs to be about the same file and target.
    pub again: String,
}

impl OutputSettings {
    /// Takes what the flags say.
    #[must_use]
    pub fn of(global: &GlobalArgs) -> Self {
        let flag = |name: &str, value: &str, default: &str| match value {
            value if value == default => String::new(),
            value if value.contains(char::is_whitespace) => format!(" --{name} '{value}'"),
            value => format!(" --{name} {value}"),
        };
        let file = flag("file", &global.file.to_string_lossy(), "mlctl.yaml");
        let target = flag("target", &global.target, "local");
        Self {
            format: global.output,
            color: global.color,
            quiet: global.quiet,
            verbose: global.verbose > 0,
            again: file + &target,
        }
    }
}

/// Everything a command may want to know about how it was called.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How results are printed.
    pub output: OutputSettings,
    /// The target's name.
    pub target: String,
    /// The system file.
    pub file: PathBuf,
    /// How long a whole run may take.
    pub timeout: Option<Duration>,
    /// Yes to what is asked.
    pub yes: bool,
    /// Never ask.
    pub no_input: bool,
    /// Journals, events, caches; none where nothing says where home is.
    state_folder: Option<PathBuf>,
    /// The local target's own data, before the system's name is added; none as above.
    local_folder: Option<PathBuf>,
    /// The folder for sockets.
    pub runtime_folder: PathBuf,
    /// Who runs the command.
    pub operator: mlctl_core::release::Operator,
}

impl Settings {
    /// Resolves the settings.
    #[must_use]
    pub fn settle(global: &GlobalArgs, world: &World) -> Self {
        let root = nix::unistd::geteuid().is_root();
        let folder = |own: &str, base: &str, below_home: &str| {
            let base = || world.path(base).or_else(|| Some(world.home()?.join(below_home)));
            world.path(own).or_else(|| Some(base()?.join("mlctl")))
        };
        let of_root = root.then(|| PathBuf::from("/var/lib/mlctl"));
        let local = world.path("MLCTL_LOCAL").or(of_root);
        let uid = nix::unistd::getuid();
        let runtime = world
            .path("XDG_RUNTIME_DIR")
            .map_or_else(|| PathBuf::from(format!("/tmp/mlctl-{uid}")), |folder| folder.join("mlctl"));
        Self {
            output: OutputSettings::of(global),
            target: global.target.clone(),
            file: world.absolute(&global.file),
            timeout: global.timeout.map(mlctl_core::system::units::TimeSpan::get),
            yes: global.yes,
            no_input: global.no_input || !world.stdin_is_terminal(),
            state_folder: folder("MLCTL_STATE", "XDG_STATE_HOME", ".local/state"),
            local_folder: local.or_else(|| folder("MLCTL_LOCAL", "XDG_DATA_HOME", ".local/share")),
            runtime_folder: runtime,
            operator: operator(world),
        }
    }

    /// Returns the folder of journals, events and caches.
    ///
    /// # Errors
    /// Nothing says where it is.
    pub fn state_folder(&self) -> Result<&Path, CommandError> {
        self.state_folder.as_deref().ok_or_else(|| homeless("keep the journals of runs", "MLCTL_STATE"))
    }

    /// Returns the folder of the local target's own data, before the system's name is added.
    ///
    /// # Errors
    /// Nothing says where it is.
    pub fn local_folder(&self) -> Result<&Path, CommandError> {
        self.local_folder.as_deref().ok_or_else(|| homeless("open target local", "MLCTL_LOCAL"))
    }

    /// Returns the folder of the system file: build commands and migrations are found from there.
    #[must_use]
    pub fn system_folder(&self) -> PathBuf {
        self.file.parent().map_or_else(|| PathBuf::from("."), PathBuf::from)
    }
}

/// Refuses to guess where data goes: a shared folder such as /tmp is anybody's to change.
fn homeless(operation: &str, variable: &str) -> CommandError {
    CommandError::refused(format!("{operation}: this user has no home folder, and {variable} names none"))
        .hint(format!("{variable}=/path/to/a/folder, or set HOME"))
}
