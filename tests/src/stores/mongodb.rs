//! A stand-in for MongoDB of one's own: FerretDB 2 over PostgreSQL with DocumentDB.
//!
//! FerretDB 1, which needs no such PostgreSQL, is no stand-in: it loses one of two concurrent changes
//! (`docs/decisions/0010-documents-in-mongodb.md`). Where version 2 cannot be had, nothing takes its place.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::program::{Program, is_root, wrapped};
use super::redis::asked;
use super::{MONGODB_URL, Store, cache, folder, postgresql};
use crate::free_ports;

const VERSION: &str = "v2.7.0";
const MODULE: &str = "github.com/FerretDB/FerretDB/v2";
/// The chroot's name in the cache.
pub(crate) const CHROOT: &str = "documentdb-pg18";
/// Where Debian's packages put PostgreSQL 18 inside the chroot.
const BIN: &str = "/usr/lib/postgresql/18/bin";
/// Time to answer after its start.
const PATIENCE: Duration = Duration::from_secs(20);

/// FerretDB, and the PostgreSQL that keeps its documents.
pub struct Mongodb {
    keeper: Program,
    program: Program,
    port: u16,
    data: PathBuf,
    folders: [TempDir; 2],
}

impl Mongodb {
    /// Starts PostgreSQL, then FerretDB.
    ///
    /// # Errors
    /// It cannot be had on this machine, or does not answer.
    pub fn start() -> Result<Self, String> {
        let (ferretdb, root) = prepare()?;
        let ports = free_ports(3);
        let (port, keeper_port) = (ports[0], ports[1]);
        // The documents lie inside the chroot, whose root is another one for the server that keeps them.
        let inside = folder::new_in(&root.join("srv"), "documents")?;
        super::program::give_away(inside.path())?;
        let folder = folder::new("mongodb")?;
        let data = Path::new("/srv").join(inside.path().file_name().unwrap()).join("data");
        let bin = Path::new(BIN);
        postgresql::init(bin, &data, &folder.path().join("initdb.log"), Some(&root))?;
        let mut settings = postgresql::settings(keeper_port);
        let own = [
            "shared_preload_libraries=pg_cron,pg_documentdb_core,pg_documentdb",
            "cron.database_name=postgres",
            "jit=off",
        ];
        settings.extend(own.map(str::to_owned));
        let mut keeper =
            postgresql::program("DocumentDB", bin, &data, folder.path(), keeper_port, &settings, Some(&root));
        keeper.start()?;
        let address = format!("postgres://postgres@127.0.0.1:{keeper_port}/postgres");
        let mut psql = wrapped(&bin.join("psql"), true, Some(&root));
        psql.extend(["-XAtq", "-c", "create extension documentdb cascade", &address].map(Into::into));
        let mut command = Command::new(&psql[0]);
        command.args(&psql[1..]);
        cache::run(command, "making the extension documentdb", &folder.path().join("extension.log"))?;

        let mut line = wrapped(&ferretdb, false, None);
        line.extend([
            format!("--postgresql-url={address}").into(),
            format!("--listen-addr=127.0.0.1:{port}").into(),
            format!("--debug-addr=127.0.0.1:{}", ports[2]).into(),
            format!("--state-dir={}", folder.path().display()).into(),
            "--telemetry=disable".into(),
            "--dev-repl-set-name=rs0".into(),
            "--no-auth".into(),
        ]);
        let mut program = Program::new("FerretDB", line, folder.path(), PATIENCE, move || answers(port))
            .ending_by(Signal::SIGTERM, Signal::SIGKILL);
        program.start()?;
        let data = inside.path().join("data");
        Ok(Self { keeper, program, port, data, folders: [inside, folder] })
    }

    /// Returns its address. To a client it is a set of one member.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?replicaSet=rs0", self.port)
    }
}

impl Store for Mongodb {
    fn name(&self) -> String {
        format!("FerretDB {VERSION} (in place of MongoDB)")
    }

    fn programs(&mut self) -> Vec<&mut Program> {
        vec![&mut self.keeper, &mut self.program]
    }

    fn folders(&self) -> Vec<PathBuf> {
        self.folders.iter().map(|folder| folder.path().to_path_buf()).collect()
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        vec![(MONGODB_URL, self.url()), ("MONGODB_URL", self.url())]
    }
}

impl Drop for Mongodb {
    fn drop(&mut self) {
        self.program.quit();
        self.keeper.quit();
        postgresql::remove_shared_memory(&self.data);
    }
}

/// Builds FerretDB and the chroot of its PostgreSQL where they are not in the cache; both at once, since one waits for
/// the processor and the other for the network.
pub(crate) fn prepare() -> Result<(PathBuf, PathBuf), String> {
    if !is_root() {
        return Err("MongoDB: its stand-in needs a chroot, which only root may make and enter".to_owned());
    }
    std::thread::scope(|scope| {
        let ferretdb = scope.spawn(ferretdb);
        let root = chroot();
        let ferretdb = ferretdb.join().map_err(|_| "building FerretDB: panicked".to_owned())?;
        Ok((ferretdb?.join("ferretdb"), root?))
    })
}

fn ferretdb() -> Result<PathBuf, String> {
    let talk = format!("building FerretDB {VERSION} with Go, once (about a minute)");
    cache::cached(&format!("ferretdb-{VERSION}"), &talk, |folder| {
        let source = folder.join("source");
        let io = |what: &str, error: std::io::Error| format!("building FerretDB: {what}: {error}");
        std::fs::create_dir(&source).map_err(|error| io("making its folder", error))?;
        let go = |args: &[&str]| {
            let mut command = Command::new("go");
            command.args(args).current_dir(&source).env("GOWORK", "off").env_remove("GOFLAGS");
            cache::run(command, "building FerretDB", &folder.join("build.log"))
        };
        let program = format!("{MODULE}/cmd/ferretdb");
        go(&["mod", "init", "mlctl/ferretdb"])?;
        go(&["get", "-tool", &format!("{program}@{VERSION}")])?;
        go(&["mod", "vendor"])?;
        // The module has no such file, and without it the program does not start.
        let version = source.join("vendor").join(MODULE).join("build/version/version.txt");
        std::fs::write(version, VERSION).map_err(|error| io("writing its version", error))?;
        let made = folder.join("ferretdb");
        let out = made.display().to_string();
        go(&["build", "-mod=vendor", "-trimpath", "-o", &out, &program])?;
        std::fs::remove_dir_all(&source).map_err(|error| io("removing its source", error))
    })
}

fn chroot() -> Result<PathBuf, String> {
    let talk =
        "making a chroot of Debian sid with PostgreSQL 18 and DocumentDB, once (700 MB, two to four minutes)";
    cache::cached(CHROOT, talk, |folder| {
        let mut command = Command::new("mmdebstrap");
        command.args(["--variant=minbase", "--include=postgresql-18-documentdb"]);
        // Its list of packages can be past its date: unstable has no promise to keep.
        command.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
        command.arg("--aptopt=APT::Install-Recommends \"false\"");
        command.arg("sid").arg(folder).arg(format!("deb {} sid main", mirror()?));
        let log = tempfile::NamedTempFile::new().map_err(|error| format!("making the chroot: {error}"))?;
        cache::run(command, "making the chroot of DocumentDB", log.path())?;
        let server = folder.join(BIN.trim_start_matches('/')).join("postgres");
        if server.is_file() { Ok(()) } else { Err("making the chroot: no PostgreSQL 18 came".to_owned()) }
    })
}

/// Returns the mirror that this machine's own packages come from.
fn mirror() -> Result<String, String> {
    let told = |why: String| format!("the mirror of Debian's packages: apt-get indextargets: {why}");
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(REPO_URI) $(LABEL)", "Created-By: Packages"]);
    let output = command.output().map_err(|error| told(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let own = text.lines().find_map(|line| line.strip_suffix(" Debian"));
    own.map(str::to_owned)
        .ok_or_else(|| told("none is configured; MongoDB's stand-in comes from it".to_owned()))
}

/// `{hello: 1, $db: "admin"}` as OP_MSG.
fn answers(port: u16) -> Result<(), String> {
    let document = b"\x10hello\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0";
    let size = u32::try_from(document.len() + 4).unwrap();
    let mut message = Vec::new();
    // Behind the length: request id, the request it answers, OP_MSG, no flags, one section.
    for number in [size + 21, 1, 0, 2013, 0] {
        message.extend_from_slice(&number.to_le_bytes());
    }
    message.push(0);
    message.extend_from_slice(&size.to_le_bytes());
    message.extend_from_slice(document);
    asked(port, &message, 16).map(|_| ())
}
