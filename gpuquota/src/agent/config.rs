//! The agent's settings: each is a flag, a variable and a key of one TOML file, in this order of rank.

mod file;
mod keys;

use crate::error::Error;
use clap::{Arg, ArgAction, ArgMatches};
pub use keys::{KEYS, Key, Listen, LogFormat, Settings};
use keys::{nearest, take};
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The file that is read where none is named.
pub const DEFAULT_FILE: &str = "/etc/gpuquota/agent.toml";
/// What every variable begins with.
const PREFIX: &str = "GPUQUOTA_AGENT_";
/// Variables that Kubernetes sets for a Service called gpuquota-agent begin with these, behind the prefix.
const OF_KUBERNETES: [&str; 2] = ["SERVICE_", "PORT"];

/// The flags as they were given.
#[derive(Clone, Debug)]
pub struct Flags {
    config: Option<OsString>,
    values: Vec<(&'static Key, Vec<OsString>)>,
}

/// The variable of a setting.
pub fn variable(name: &str) -> String {
    PREFIX.to_owned() + &name.to_uppercase().replace('-', "_")
}

fn long_help(help: &str, name: &str) -> String {
    let stop = if help.ends_with('.') { "" } else { "." };
    format!("{help}{stop} Variable: {}", variable(name))
}

impl clap::Args for Flags {
    fn augment_args(command: clap::Command) -> clap::Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(OsString))
            .help(format!("Read settings from this file instead of {DEFAULT_FILE}"))
            .long_help(long_help(
                &format!("Read settings from this file instead of {DEFAULT_FILE}, which need not be there"),
                "config",
            ));
        KEYS.iter().fold(command.arg(config), |command, key| {
            let arg =
                Arg::new(key.name).long(key.name).help(key.help).long_help(long_help(key.help, key.name));
            let Some(value) = key.value else { return command.arg(arg.action(ArgAction::SetTrue)) };
            let arg = match key.alone {
                Some(alone) => arg.num_args(0..=1).require_equals(true).default_missing_value(alone),
                None => arg,
            };
            let action = if key.many { ArgAction::Append } else { ArgAction::Set };
            command.arg(arg.value_name(value).action(action).value_parser(clap::value_parser!(OsString)))
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let all = |name: &str| -> Vec<OsString> {
            matches.get_many::<OsString>(name).into_iter().flatten().cloned().collect()
        };
        let of = |key: &Key| match key.value {
            Some(_) => all(key.name),
            None => matches.get_flag(key.name).then(|| "true".into()).into_iter().collect(),
        };
        let given = KEYS.iter().map(|key| (key, of(key))).filter(|(_, values)| !values.is_empty());
        Ok(Self { config: all("config").pop(), values: given.collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Flags {
    /// All settings, of flags, this process's variables and the file. Every value is looked at, those that another one
    /// outranks too.
    pub fn settle(self) -> Result<Settings, Error> {
        self.settle_with(std::env::vars_os().collect())
    }

    fn settle_with(self, variables: Vec<(OsString, OsString)>) -> Result<Settings, Error> {
        let variables: Vec<(String, OsString)> = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_str()?.strip_prefix(PREFIX)?.to_owned(), value)))
            .collect();
        let of = |name: &str| {
            let suffix = &variable(name)[PREFIX.len()..];
            variables.iter().find(|(known, _)| known == suffix).map(|(_, value)| value)
        };
        let mut settings = Settings::default();
        let named = self.config.as_ref().map(|path| (path, "--config".to_owned()));
        let named = named.or(of("config").map(|path| (path, variable("config"))));
        match named {
            Some((path, by)) => file::apply(&mut settings, Path::new(path), Some(&by))?,
            None => file::apply(&mut settings, Path::new(DEFAULT_FILE), None)?,
        }
        for key in &KEYS {
            if let Some(value) = of(key.name) {
                let values = if key.many { listed(value) } else { vec![value.clone()] };
                take(&mut settings, key, &values, &variable(key.name))?;
            }
        }
        for (key, values) in self.values {
            take(&mut settings, key, &values, &format!("--{}", key.name))?;
        }
        settings.unknown_variables = variables
            .iter()
            .filter(|(name, _)| !OF_KUBERNETES.iter().any(|theirs| name.starts_with(theirs)))
            .filter(|(name, _)| {
                name != "CONFIG" && !KEYS.iter().any(|key| variable(key.name)[PREFIX.len()..] == **name)
            })
            .map(|(name, _)| {
                format!(
                    "{PREFIX}{name}{}",
                    nearest(&name.to_lowercase().replace('_', "-"))
                        .map_or_else(String::new, |near| format!(", did you mean {}?", variable(near)))
                )
            })
            .collect();
        settings.check()?;
        Ok(settings)
    }
}

/// The parts of a variable that lists several values.
fn listed(value: &OsStr) -> Vec<OsString> {
    use std::os::unix::ffi::OsStrExt;
    let parts = value.as_bytes().split(|byte| *byte == b',').filter(|part| !part.is_empty());
    parts.map(|part| OsStr::from_bytes(part).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn flags(of: &[(&str, &str)], config: Option<&Path>) -> Flags {
        let key = |name: &str| KEYS.iter().find(|key| key.name == name).expect("a key");
        let values = of.iter().map(|(name, value)| (key(name), vec![value.into()])).collect();
        Flags { config: config.map(Into::into), values }
    }

    fn settle(given: &[(&str, &str)], variables: &[(&str, &str)], file: &str) -> Result<Settings, String> {
        let path =
            std::env::temp_dir().join(format!("gpuquota-agent-{}-{}.toml", std::process::id(), line!()));
        let path = path.with_extension(format!("{:?}", std::thread::current().id()).replace(['(', ')'], ""));
        std::fs::write(&path, file).expect("a file");
        let variables = variables.iter().map(|(name, value)| (variable(name).into(), value.into())).collect();
        let settled = flags(given, Some(&path)).settle_with(variables);
        std::fs::remove_file(&path).expect("it is there");
        settled.map_err(|error| error.to_string().replace(&*path.to_string_lossy(), "FILE"))
    }

    #[test]
    fn a_flag_outranks_a_variable_and_a_variable_the_file() {
        let file =
            "grace = \"1m\"\nnode-name = \"file\"\nlog-level = \"warn\"\nlisten = [\"[::1]:1\", \"unix:/x\"]";
        let settings =
            settle(&[("node-name", "flag")], &[("node-name", "variable"), ("log-level", "debug")], file)
                .expect("right");
        assert_eq!(settings.node_name, "flag");
        assert_eq!(settings.log_level, tracing::Level::DEBUG);
        assert_eq!(settings.grace, Duration::from_secs(60));
        assert_eq!(settings.listen.len(), 2);
        let settings = settle(&[("listen", "127.0.0.1:2")], &[("listen", "127.0.0.1:3,127.0.0.1:4")], file);
        assert_eq!(
            settings.expect("right").listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["127.0.0.1:2"]
        );
    }

    #[test]
    fn a_wrong_value_is_named_with_its_place() {
        let of = |given: &[(&str, &str)], variables: &[(&str, &str)], file: &str| {
            settle(given, variables, file).expect_err("wrong")
        };
        for (error, told) in [
            (of(&[("listen", "nowhere")], &[], ""), "--listen: \"nowhere\" is "),
            (of(&[], &[("log-format", "xml")], ""), "GPUQUOTA_AGENT_LOG_FORMAT: \"xml\" is "),
            (of(&[], &[], "connections = 0"), "FILE: connections: \"0\" is "),
            (of(&[], &[], "grace = [1]"), "FILE: grace: "),
            (of(&[], &[], "hami-metrics = \"yes\""), "FILE: hami-metrics: \"yes\" is "),
            (of(&[], &[], "lsten = \"x\""), "FILE: lsten is no setting; did you mean listen?"),
            (of(&[], &[], "listen = "), "FILE: line 1: "),
            (of(&[], &[], "tls-key = \"/k\""), "tls-key is set and tls-certificate is not"),
            // What another place outranks is looked at too.
            (of(&[("grace", "1s")], &[("grace", "soon")], ""), "GPUQUOTA_AGENT_GRACE: \"soon\" is "),
        ] {
            assert!(error.starts_with(told), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn variables_that_kubernetes_sets_are_no_mistakes() {
        let settings =
            settle(&[], &[("service-host", "10.0.0.1"), ("port-9394-tcp", "x"), ("lisen", "x")], "");
        let told = settings.expect("right").unknown_variables;
        assert_eq!(told, ["GPUQUOTA_AGENT_LISEN, did you mean GPUQUOTA_AGENT_LISTEN?"]);
    }

    #[test]
    fn every_setting_stands_in_the_page_of_the_agent() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/agent.md");
        let page = std::fs::read_to_string(path).expect("docs/agent.md");
        let example =
            page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
        let table: toml::Table = toml::from_str(example).expect("TOML");
        for key in &KEYS {
            assert!(table.contains_key(key.name), "docs/agent.md has no {}", key.name);
        }
        settle(&[], &[], example).expect("its example is right");
    }
}
