//! The shipped `mlctl.yaml`: read, overlaid, explained.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::{Path, PathBuf};

use mlctl_core::system::{
    self, EnvValue, MatchKind, SaidBy, SecretForm, ServicePhase, Socket, System, SystemFile, TargetKind,
};
use mlctl_core::yaml::Problems;
use proptest::prelude::*;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text() -> String {
    std::fs::read_to_string(repository().join("mlctl.yaml")).unwrap()
}

fn parse(text: &str) -> Result<SystemFile, Problems> {
    SystemFile::parse("mlctl.yaml", text.as_bytes())
}

fn shipped() -> SystemFile {
    parse(&text()).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn without_a_profile_the_file_describes_production() {
    let system = shipped().system().unwrap();
    assert_eq!(system.name, "ml-ecosystem");
    let names: Vec<_> = system.services.keys().map(String::as_str).collect();
    let production =
        ["user-service", "integration-service", "catalog-service", "analytics-service", "gateway"];
    assert_eq!(names, production, "the simulator stays at home");
    let user = &system.services["user-service"];
    assert_eq!((user.port, user.replicas.min, user.replicas.max), (3001, 2, 5));
    assert_eq!(user.env["JWT_KEYS"], EnvValue::Secret { secret: "jwt-keys".into(), form: SecretForm::File });
    assert_eq!(user.env["ML_AUTH_URL"], EnvValue::Text("https://auth.mercadolibre.com.ar".into()));
    let (name, gateway) = system.gateway().unwrap();
    assert_eq!((name, gateway.socket), ("gateway", Socket::Passed));
    assert_eq!(system.services["catalog-service"].routes[0].kind, MatchKind::Prefix);
    assert_eq!(system.stores["redis"].settings["save"], "900 1 300 10 60 10000");
    assert_eq!(system.stores["postgresql"].settings["random_page_cost"], "1.1", "numbers stay as written");
    let kinds: Vec<_> = system.targets.values().map(|target| target.kind).collect();
    assert_eq!(kinds, [TargetKind::Local, TargetKind::Kubernetes, TargetKind::Swarm]);
    assert!(
        system.secrets.contains_key("ml-client-secret") && !system.secrets.contains_key("sim-client-secret")
    );
}

#[test]
fn the_profile_for_one_machine_scales_down_and_brings_the_simulator() {
    let system = shipped().with_profile("dev").unwrap();
    assert_eq!(system.profile.as_deref(), Some("dev"));
    let infrastructure: Vec<_> =
        system.services_in(ServicePhase::Infrastructure).map(|(name, _)| name.to_owned()).collect();
    assert_eq!(infrastructure, ["ml-api-sim"]);
    let integration = &system.services["integration-service"];
    assert_eq!((integration.replicas.min, integration.replicas.max), (2, 10), "the profile wins, key by key");
    assert_eq!(integration.update.min_ready.to_string(), "1s");
    assert_eq!(integration.update.surge, 1, "what the profile leaves unsaid stays");
    assert_eq!(integration.env["ML_API_URL"], EnvValue::Text("http://{addr:ml-api-sim}".into()));
    assert_eq!(integration.env["RATE_LIMIT_MODE"], EnvValue::Text("normal".into()));
    assert_eq!(integration.needs.last().map(String::as_str), Some("ml-api-sim"));
    let simulator = &system.services["ml-api-sim"];
    assert_eq!((simulator.replicas.min, simulator.replicas.max), (1, 1), "what is said of one wins over all");
    assert!(!system.secrets.contains_key("ml-client-secret"), "nobody asks a laptop for the real secret");
}

#[test]
fn an_unknown_profile_is_named_with_those_there_are() {
    let error = shipped().with_profile("deev").unwrap_err().to_string();
    assert_eq!(error, "mlctl.yaml has no profile `deev`; it has dev, small. Did you mean `dev`?");
}

#[test]
fn the_load_of_verification_is_judged_by_kpis() {
    let system = shipped().with_profile("dev").unwrap();
    let load = &system.load["verify"];
    assert_eq!((load.rate.to_string(), load.duration.to_string()), ("250/s".to_owned(), "20s".to_owned()));
    assert_eq!(load.mix.iter().map(|entry| entry.weight).sum::<u32>(), 100);
    assert_eq!(load.setup[0].call.path(), "/api/auth/register");
    assert_eq!(load.setup[1].save["token"], "/access_token");
    assert_eq!(load.setup[2].body.as_ref().unwrap()["price"], serde_json::json!(10.5));
    let thresholds: Vec<_> =
        system.kpis.values().filter_map(|kpi| kpi.load_threshold()).map(|each| each.to_string()).collect();
    assert_eq!(thresholds, ["p99<500ms", "errors<0.1%", "rate>10000/min"]);
}

#[test]
fn a_system_survives_serialisation() {
    for system in [shipped().system().unwrap(), shipped().with_profile("dev").unwrap()] {
        let json = serde_json::to_string(&system).unwrap();
        assert_eq!(serde_json::from_str::<System>(&json).unwrap(), system);
    }
}

#[test]
fn every_value_says_where_it_comes_from() {
    let text = text();
    let file = shipped();
    let lines: Vec<_> = text.lines().collect();
    let explained = file.explain(Some("dev")).unwrap();
    let find =
        |path: &str| explained.iter().find(|each| each.path == path).unwrap_or_else(|| panic!("no {path}"));
    let line_of = |said: &SaidBy| match said {
        SaidBy::File { line } | SaidBy::Profile { line, .. } => lines[line - 1],
        SaidBy::Default => "",
    };
    let port = find("services.user-service.port");
    assert_eq!((port.value.as_str(), line_of(&port.said_by).trim()), ("3001", "port: 3001"));
    let replicas = find("services.user-service.replicas.min");
    assert!(matches!(&replicas.said_by, SaidBy::Profile { name, .. } if name == "dev"), "{replicas:?}");
    assert!(line_of(&replicas.said_by).contains("replicas: {min: 2}"));
    let surge = find("services.catalog-service.update.surge");
    assert_eq!((surge.value.as_str(), &surge.said_by), ("1", &SaidBy::Default));
    assert_eq!(
        find("services.gateway.env.OPERATOR_TOKEN").value,
        r#"{"secret":"operator-token","as":"file"}"#
    );
    assert!(file.explain(Some("nope")).is_err());
    assert!(
        !explained.iter().any(|each| each.path.starts_with("profiles")),
        "profiles are already laid over"
    );
}

#[test]
fn missing_folders_are_told_with_their_place() {
    let file = parse(
        "apiVersion: mlctl/v1\nsystem: shop\nservices:\n  web:\n    port: 1\n    command: [web]\n    \
         env: {DATABASE_URL: {store: db}}\n    migrations: web/migrations\nstores: {db: {kind: postgresql}}\n\
         profiles: {old: {services: {web: {migrations: web/old}}}}\n",
    )
    .unwrap();
    assert!(file.missing_files(|folder| folder.starts_with("web/")).is_empty());
    assert_eq!(
        file.missing_files(|_| false).to_string(),
        "mlctl.yaml:8:17: services.web.migrations: found `web/migrations`, expected a folder that exists\n\
         mlctl.yaml:10:47: services.web.migrations: found `web/old`, expected a folder that exists"
    );
}

#[test]
fn a_foreign_system_needs_little() {
    let file = parse(
        "apiVersion: mlctl/v1\nsystem: files\nservices:\n  web:\n    port: 8000\n    \
         command: [python3, -m, http.server, \"{port}\"]\ntargets: {local: {}}\n",
    )
    .unwrap();
    let system = file.system().unwrap();
    let web = &system.services["web"];
    assert_eq!((web.health.ready.as_deref(), web.replicas.min, web.update.surge), (None, 1, 1));
    assert_eq!(system.targets["local"].kind, TargetKind::Local);
    assert!(system.gateway().is_none());
}

/// The commented example is what people read: a key that is not in it does not exist for them.
#[test]
fn every_key_of_the_format_stands_in_the_shipped_file() {
    let text = text();
    let missing: Vec<_> = (system::reference().lines().skip(2))
        .filter_map(|line| line.split('`').nth(1)?.rsplit(['.', ']']).next().map(str::to_owned))
        .filter(|key| key != "NAME" && !key.is_empty())
        .filter(|key| !text.contains(&format!("{key}:")) && !text.contains(&format!("`{key}`")))
        .filter(|key| {
            !["patch", "put", "get"].contains(&key.as_str())
                || !text.contains("get, post, put, patch or delete")
        })
        .collect();
    assert!(missing.is_empty(), "not shown in mlctl.yaml: {missing:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever a slip of the hand does to the file: it is read, or refused with problems inside the file.
    #[test]
    fn a_damaged_file_is_read_or_refused(at in any::<prop::sample::Index>(), length in 0_usize..40, put in "[-:{}\\[\\]\t\n\"'#&*!|>%@`, a1]{0,6}") {
        let text = text();
        let mut characters: Vec<char> = text.chars().collect();
        let start = at.index(characters.len());
        let end = (start + length).min(characters.len());
        characters.splice(start..end, put.chars());
        let damaged: String = characters.into_iter().collect();
        let lines = damaged.split('\n').count();
        if let Err(problems) = parse(&damaged) {
            prop_assert!(!problems.is_empty());
            for problem in &problems {
                prop_assert!((1..=lines + 1).contains(&problem.line) && problem.column >= 1, "{problem}");
            }
        }
    }
}
