//! `gpuquota completions` and `gpuquota man`: what shells and manual pages know of the command line is all of it.

mod common;

use common::{Scratch, gpuquota, output, stderr, stdout};
use std::collections::BTreeSet;

use std::process::{Command, Stdio};

/// The commands that `gpuquota --help` lists.
fn commands() -> Vec<String> {
    let help = stdout(&output(gpuquota().arg("--help")));
    let list = help.split("Commands:\n").nth(1).expect("a list of commands");
    let lines = list.lines().take_while(|line| line.starts_with("  "));
    lines.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

/// The long options that the help of a command lists.
fn options(command: &str) -> BTreeSet<String> {
    let help = stdout(&output(gpuquota().args([command, "--help"])));
    let list = help.split("Options:\n").nth(1).expect("a list of options");
    let list = list.split("\nExamples:\n").next().unwrap_or(list);
    let words =
        list.lines().filter(|line| line.trim_start().starts_with('-')).flat_map(str::split_whitespace);
    // One whose value may be left out stands there with it, as `--nri[=<SOCKET>]`.
    let bare = |word: &str| word.split('[').next().unwrap_or(word).trim_end_matches(',').to_owned();
    words.filter(|word| word.starts_with("--")).map(bare).collect()
}

fn completions(shell: &str) -> String {
    let printed = output(gpuquota().args(["completions", shell]));
    assert!(printed.status.success(), "{}", stderr(&printed));
    stdout(&printed)
}

/// What bash offers for the last of these words.
fn completed(words: &[&str]) -> BTreeSet<String> {
    let (last, before) = words.split_last().expect("a word to complete");
    let previous = before.last().expect("a program");
    let script = format!(
        "{}\nCOMP_WORDS=({} '{last}'); COMP_CWORD={}; _gpuquota_with_names gpuquota '{last}' '{previous}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        completions("bash"),
        before.join(" "),
        before.len(),
    );
    let offered = output(Command::new("bash").args(["--norc", "-c", &script]));
    assert!(offered.status.success() && offered.stderr.is_empty(), "{}", stderr(&offered));
    stdout(&offered).lines().filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn every_command_has_a_manual_page_with_its_options_and_examples() {
    let home = Scratch::new();
    let written = output(gpuquota().arg("man").arg(home.join("new")).env("SOURCE_DATE_EPOCH", "86400"));
    assert!(written.status.success(), "{}", stderr(&written));
    let page = |name: &str| {
        let page = std::fs::read_to_string(home.join("new").join(format!("{name}.1"))).expect(name);
        page.replace("\\-", "-")
    };
    let known = commands();
    assert!(known.iter().any(|name| name == "run"), "{known:?}");
    for name in known.iter().filter(|name| *name != "help") {
        let page = page(&format!("gpuquota-{name}"));
        assert!(page.contains(&format!("gpuquota-{name} - ")), "{page}");
        assert!(page.contains(&format!(".TH gpuquota-{name} 1 1970-01-02 ")), "{page}");
        // The synopsis names them too.
        let explained = page.split(".SH OPTIONS").nth(1).and_then(|rest| rest.split(".SH ").next());
        let explained = explained.expect("options");
        for option in options(name) {
            assert!(explained.contains(&option), "{name}'s page does not explain {option}");
        }
        let examples = page.split(".SH EXAMPLES").nth(1).expect("examples");
        assert!(examples.contains(&format!("gpuquota {name}")), "{examples}");
    }
    let own = page("gpuquota");
    for name in known.iter().filter(|name| *name != "help") {
        assert!(own.contains(&format!("gpuquota-{name}(1)")), "{own}");
    }
    assert!(page("gpuquota-run").contains("GPUQUOTA_MEMORY_WAIT"));
    let pages = std::fs::read_dir(home.join("new")).expect("a directory").count();
    assert_eq!(pages, known.len(), "the program's own page in place of that for help");
}

#[test]
fn a_manual_page_that_cannot_be_written_is_said() {
    let written = output(gpuquota().args(["man", "/proc/nowhere"]));
    assert_eq!(written.status.code(), Some(1));
    assert!(stderr(&written).contains("/proc/nowhere"), "{}", stderr(&written));
}

#[test]
fn bash_completes_commands_options_and_values() {
    let parsed = output(Command::new("bash").args(["-n", "-c", &completions("bash")]));
    assert!(parsed.status.success() && parsed.stderr.is_empty(), "{}", stderr(&parsed));
    let offered = completed(&["gpuquota", ""]);
    for command in commands() {
        assert!(offered.contains(&command), "{command} is not among {offered:?}");
    }
    assert_eq!(completed(&["gpuquota", "in"]), set(&["inspect", "install"]));
    assert_eq!(completed(&["gpuquota", "run", "--mode", ""]), set(&["enforce", "observe", "off"]));
    assert_eq!(
        completed(&["gpuquota", "completions", ""])
            .intersection(&set(&["bash", "zsh", "fish", "tcsh"]))
            .count(),
        3
    );
    for command in ["run", "inspect", "limit", "agent"] {
        let offered = completed(&["gpuquota", command, "--"]);
        assert!(options(command).is_subset(&offered), "{command}: {offered:?}");
    }
}

#[test]
fn zsh_and_fish_have_completions_of_every_command() {
    for (shell, first) in [("zsh", "#compdef gpuquota"), ("fish", "complete -c gpuquota")] {
        let text = completions(shell);
        assert!(text.contains(first), "{text}");
        for command in commands() {
            assert!(text.contains(&command), "{shell}: {command}");
        }
    }
}

#[test]
fn another_shell_is_refused_by_name() {
    let refused = output(gpuquota().args(["completions", "tcsh"]));
    assert_eq!((refused.status.code(), stdout(&refused).as_str()), (Some(2), ""));
    assert!(stderr(&refused).contains("tcsh"), "{}", stderr(&refused));
}

#[test]
fn a_reader_that_wants_no_more_is_no_failure() {
    let mut printing = gpuquota()
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("gpuquota starts");
    drop(printing.stdout.take());
    let ended = printing.wait_with_output().expect("an end");
    assert_eq!((ended.status.code(), stderr(&ended).as_str()), (Some(0), ""));
}
