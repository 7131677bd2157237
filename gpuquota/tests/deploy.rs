//! What `deploy/` says of this program is true of it.

mod common;

use common::{gpuquota, output, stdout};
use std::collections::BTreeSet;

const ALERTS: &str = include_str!("../../deploy/alerts.yaml");
const DASHBOARD: &str = include_str!("../../deploy/dashboard.json");
const DAEMON_SET: &str = include_str!("../../deploy/helm/gpuquota/templates/daemonset.yaml");
const PLACEMENT: &str = include_str!("../../deploy/helm/gpuquota/templates/_placement.tpl");
const CHART: &str = include_str!("../../deploy/helm/gpuquota/Chart.yaml");

fn words(text: &str, begins: &str) -> BTreeSet<String> {
    let part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    let all = text.split(|letter| !part(letter)).filter(|word| word.starts_with(begins));
    all.map(str::to_owned).collect()
}

/// The names that the agent exports, those of a histogram's parts among them.
fn exported() -> BTreeSet<String> {
    let page = stdout(&output(gpuquota().args(["agent", "--help-metrics"])));
    let mut names = BTreeSet::new();
    for line in page.lines() {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (Some(name), Some(kind)) = (cells.next(), cells.next()) else { continue };
        let name = name.trim_matches('`');
        match kind {
            "histogram" => names.extend(["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}"))),
            _ => _ = names.insert(name.to_owned()),
        }
    }
    assert!(names.len() > 50, "the page is not as this test reads it");
    names
}

#[test]
fn every_metric_that_the_dashboard_asks_for_is_exported() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries = dashboard["templating"]["list"].as_array().expect("variables").iter();
    let queries = queries.filter_map(|variable| variable["definition"].as_str());
    let expressions = targets.map(|target| target["expr"].as_str().expect("an expression"));
    let asked = words(&expressions.chain(queries).collect::<Vec<_>>().join(" "), "gpuquota_");
    assert!(asked.len() >= 20, "{asked:?}");
    let exported = exported();
    let missing: Vec<_> = asked.difference(&exported).collect();
    assert!(missing.is_empty(), "nobody exports {missing:?}");
}

#[test]
fn every_metric_that_an_alert_asks_for_is_exported() {
    let exported = exported();
    let expressions: Vec<&str> =
        ALERTS.lines().filter_map(|line| line.trim_start().strip_prefix("expr: ")).collect();
    let alerts = ALERTS.lines().filter(|line| line.trim_start().starts_with("- alert: ")).count();
    assert_eq!(expressions.len(), alerts, "an expression is not on one line");
    let asked = words(&expressions.join(" "), "gpuquota_");
    assert!(asked.len() >= 10, "{asked:?}");
    let missing: Vec<_> = asked.iter().filter(|name| !exported.contains(*name)).collect();
    assert!(missing.is_empty(), "nobody exports {missing:?}");
}

#[test]
fn every_flag_that_the_chart_gives_for_placement_is_one() {
    let flags = |name: &str| {
        let part = PLACEMENT.split(&format!("{{{{- define \"gpuquota.placement.{name}\" -}}}}")).nth(1);
        part.and_then(|part| part.split("{{- end -}}").next()).expect("a part of the chart").to_owned()
    };
    let both = words(&flags("flags"), "--");
    for (command, begins) in [("dra", "    - dra\n"), ("device-plugin", "    - device-plugin\n")] {
        let known = words(&stdout(&output(gpuquota().args([command, "--help"]))), "--");
        let containers = flags("containers");
        let args = containers.split(begins).nth(1).and_then(|rest| rest.split("  env:").next());
        let given: BTreeSet<_> = words(args.expect("arguments"), "--").union(&both).cloned().collect();
        assert!(given.len() > 8 && given.is_subset(&known), "{given:?} {known:?}");
    }
}

#[test]
fn every_flag_that_the_chart_gives_is_one() {
    let help = stdout(&output(gpuquota().args(["agent", "--help"])));
    let known = words(&help, "--");
    let args =
        DAEMON_SET.split("            - agent\n").nth(1).and_then(|rest| rest.split("          env:").next());
    let given = words(args.expect("the agent's arguments"), "--");
    assert!(given.len() > 10, "{given:?}");
    assert!(given.is_subset(&known), "{given:?} {known:?}");
    let help = stdout(&output(gpuquota().args(["install", "--help"])));
    let args = DAEMON_SET
        .split("            - install\n")
        .nth(1)
        .and_then(|rest| rest.split("          securityContext:").next());
    let given = words(args.expect("the installer's arguments"), "--");
    assert!(given.len() == 2 && given.is_subset(&words(&help, "--")), "{given:?} {help}");
}

#[test]
fn the_chart_names_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    for key in ["version", "appVersion"] {
        assert!(CHART.lines().any(|line| line == format!("{key}: {version}")), "{key}: {CHART}");
    }
}
