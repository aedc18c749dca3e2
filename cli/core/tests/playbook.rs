//! Playbooks: the ones built in, and parameters.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use indexmap::IndexMap;
use mlctl_core::playbook::{
    self, Action, BindError, GateCheck, ItemKind, OnFailure, Playbook, PlaybookFile, StepFailure,
};
use mlctl_core::system::{ServicePhase, SystemFile};

fn builtin(name: &str) -> Playbook {
    let text = playbook::builtin(name).unwrap();
    let file = PlaybookFile::parse(name, text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}"));
    file.bind(&IndexMap::new()).unwrap()
}

fn given(pairs: &[(&str, &str)]) -> IndexMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

const EMERGENCY: &str = "\
apiVersion: mlctl/v1
playbook: emergency/calm
title: Be careful for a while
params:
  mode: {type: enum, values: [normal, conservative], default: conservative}
  replicas: {type: int, default: 3}
  pause: {type: duration, default: 5s}
  service: {type: service}
guards: [{health: \"{{service}}\", is: reachable}]
phases:
  - name: calm
    steps:
      - id: mode
        env: {service: \"{{service}}\", set: {MODE: \"{{mode}}\", NOTE: \"mode {{ mode }} on {{service}}\"}}
        verify: {http: /health, json: mode, equals: \"{{mode}}\", within: \"{{pause}}\"}
        on_failure: continue
      - {id: scale, scale: {service: web, replicas: \"{{replicas}}\"}}
";

fn emergency() -> PlaybookFile {
    PlaybookFile::parse("calm.yaml", EMERGENCY.as_bytes()).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn the_deploy_has_the_three_phases_of_the_plan() {
    let deploy = builtin("deploy");
    let phases: Vec<_> = deploy.phases.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(phases, ["infrastructure", "applications", "verification"]);
    assert_eq!(
        (deploy.on_failure, deploy.rolls_back.as_slice()),
        (OnFailure::Rollback, &["applications".to_owned()][..])
    );
    let kinds: Vec<_> =
        deploy.phases.iter().flat_map(|phase| &phase.steps).map(|step| step.action.kind()).collect();
    assert_eq!(kinds, ["apply", "apply", "migrate", "apply", "gate", "gate", "load", "gate", "mark"]);
    let Action::Apply(base) = &deploy.phases[0].steps[0].action else { panic!("not an apply") };
    assert_eq!(base.items, [ItemKind::Namespace, ItemKind::Secrets, ItemKind::Config]);
    assert_eq!(deploy.phases[1].steps[0].on_failure, Some(StepFailure::Stop));
    let Action::Gate(GateCheck::Kpis(kpis)) = &deploy.phases[2].steps[3].action else {
        panic!("not a KPI gate")
    };
    assert_eq!(kpis.from, "load");
}

#[test]
fn the_rollback_touches_no_infrastructure_and_is_verified_like_a_deploy() {
    let (rollback, deploy) = (builtin("rollback"), builtin("deploy"));
    assert_eq!(rollback.on_failure, OnFailure::Stop);
    for step in rollback.phases.iter().flat_map(|phase| &phase.steps) {
        if let Action::Apply(apply) = &step.action {
            assert_eq!(apply.phase, ServicePhase::Applications);
            assert!(!apply.items.contains(&ItemKind::Stores) && !apply.items.contains(&ItemKind::Secrets));
        }
    }
    assert_eq!(rollback.phases[1].steps, deploy.phases[2].steps);
}

#[test]
fn built_in_playbooks_name_nothing_of_a_certain_system() {
    let text = "apiVersion: mlctl/v1\nsystem: bare\nservices: {web: {port: 1, command: [web]}}\n";
    let system = SystemFile::parse("mlctl.yaml", text.as_bytes()).unwrap().system().unwrap();
    for name in playbook::BUILTIN {
        let file = PlaybookFile::parse(name, playbook::builtin(name).unwrap().as_bytes()).unwrap();
        assert_eq!(file.playbook(), *name);
        assert!(file.unknown_names(&system).is_empty(), "{name}: {}", file.unknown_names(&system));
    }
    assert!(playbook::builtin("nope").is_none());
}

#[test]
fn parameters_are_filled_in_with_their_types() {
    let playbook = emergency().bind(&given(&[("service", "web"), ("replicas", "8")])).unwrap();
    assert_eq!(playbook.guards[0].health, "web");
    let [mode, scale] = playbook.phases[0].steps.as_slice() else { panic!("two steps") };
    let Action::Env(env) = &mode.action else { panic!("not env") };
    assert_eq!(
        (env.set["MODE"].as_str(), env.set["NOTE"].as_str()),
        ("conservative", "mode conservative on web")
    );
    assert_eq!(mode.verify.as_ref().unwrap().within.to_string(), "5s");
    let Action::Scale(scale) = &scale.action else { panic!("not scale") };
    assert_eq!(scale.replicas, 8);
    let json = serde_json::to_string(&playbook).unwrap();
    assert_eq!(serde_json::from_str::<Playbook>(&json).unwrap(), playbook);
}

#[test]
fn parameters_that_do_not_fit_are_refused() {
    for (pairs, expected) in [
        (&[][..], "playbook emergency/calm needs the parameter `service`: give it with -p service=VALUE"),
        (
            &[("service", "web"), ("mod", "x")],
            "playbook emergency/calm has no parameter `mod`; it has mode, replicas, pause, service",
        ),
        (
            &[("service", "web"), ("mode", "wild")],
            "playbook emergency/calm cannot take `wild` as `mode`: expected `normal` or `conservative`",
        ),
        (
            &[("service", "web"), ("replicas", "many")],
            "playbook emergency/calm cannot take `many` as `replicas`: expected a whole number",
        ),
        (
            &[("service", "web"), ("pause", "5")],
            "playbook emergency/calm cannot take `5` as `pause`: expected a duration such as 500ms, 2s, 15m or 1h30m",
        ),
        (
            &[("service", "We b")],
            "playbook emergency/calm cannot take `We b` as `service`: expected the name of a service",
        ),
        (
            &[("service", "web"), ("replicas", "-1")],
            "calm.yaml:17:53: phases[0].steps[1].scale.replicas: found `-1`, expected a whole number from 0 to 1000",
        ),
    ] {
        assert_eq!(emergency().bind(&given(pairs)).unwrap_err().to_string(), expected);
    }
    let error = emergency().bind(&given(&[("service", "web"), ("mod", "x")])).unwrap_err();
    assert!(matches!(error, BindError::Unknown { suggestion: Some(meant), .. } if meant == "mode"));
}

#[test]
fn a_value_is_text_and_not_looked_at_again() {
    let text = "apiVersion: mlctl/v1\nplaybook: p\ntitle: t\nparams: {a: {type: string}, b: {type: string, default: B}}\n\
                phases: [{name: one, steps: [{id: e, env: {service: web, set: {X: \"{{a}}{{b}}\"}}}]}]\n";
    let file = PlaybookFile::parse("p.yaml", text.as_bytes()).unwrap();
    let playbook = file.bind(&given(&[("a", "{{b}}: [\"x\", #")])).unwrap();
    let Action::Env(env) = &playbook.phases[0].steps[0].action else { panic!("not env") };
    assert_eq!(env.set["X"], "{{b}}: [\"x\", #B");
}

#[test]
fn names_a_system_does_not_have_are_told() {
    let text = "apiVersion: mlctl/v1\nsystem: shop\nservices: {web: {port: 1, command: [web]}}\n";
    let system = SystemFile::parse("mlctl.yaml", text.as_bytes()).unwrap().system().unwrap();
    let file = PlaybookFile::parse(
        "p.yaml",
        b"apiVersion: mlctl/v1\nplaybook: p\ntitle: t\nphases:\n- name: one\n  steps:\n\
          \x20 - {id: a, restart: {service: wbe}}\n\
          \x20 - {id: b, load: {profile: verify}}\n\
          \x20 - {id: c, gate: {kpis: [latency], from: b}}\n\
          \x20 - {id: d, gate: {health: [web, api], through: [direct]}}\n",
    )
    .unwrap();
    assert_eq!(
        file.unknown_names(&system).to_string(),
        "p.yaml:7:32: phases[0].steps[0].restart.service: unknown service `wbe`; the system has web; did you mean `web`?\n\
         p.yaml:8:29: phases[0].steps[1].load.profile: unknown load profile `verify`; the system has none\n\
         p.yaml:9:27: phases[0].steps[2].gate.kpis[0]: unknown KPI `latency`; the system has none\n\
         p.yaml:10:34: phases[0].steps[3].gate.health[1]: unknown service `api`; the system has web"
    );
}

#[test]
fn every_key_of_the_format_stands_in_the_deploy_playbook() {
    let text = playbook::builtin("deploy").unwrap();
    let missing: Vec<_> = (playbook::reference().lines().skip(2))
        .filter_map(|line| line.split('`').nth(1)?.rsplit(['.', ']']).next().map(str::to_owned))
        .filter(|key| key != "NAME" && !key.is_empty() && !text.contains(&format!("{key}:")))
        .collect();
    assert!(missing.is_empty(), "not shown in playbooks/deploy.yaml: {missing:?}");
}
