//! The documents: short where they promise to be short, and true of the tree as far as a test can check.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders whose paths the documents name from the project's root.
const FOLDERS: &[&str] = &[
    "bench/",
    "cuda-shim/",
    "deploy/",
    "docs/",
    "gpu-kit/",
    "gpuquota/",
    "include/",
    "kubelet/",
    "nri/",
    "quota/",
    "region/",
    "scripts/",
    "src/",
    "tests/",
];

/// Words that stand for any name in a path.
const PLACEHOLDERS: &[&str] = &["FILE", "PART", "DATE", "NNN", "*"];

/// Marks of a table's source: a kept run, the command that makes one, the world of the tests, or a description of the
/// measurement.
const SOURCES: &[&str] = &["bench/runs/", "`make ", "quota/tests/", "Measured", "**Measured reason.**"];

#[test]
fn the_readme_and_the_glossary_are_short() {
    let readme = read(&root().join("README.md"));
    assert!(readme.lines().count() <= 120, "README.md has {} lines", readme.lines().count());
    let design = read(&root().join("docs/design.md"));
    let glossary = section(&design, "## Words");
    assert!(glossary.len() <= 40, "the glossary has {} lines", glossary.len());
    let words: Vec<_> =
        glossary.iter().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).collect();
    assert!(words.len() > 20, "the glossary is not as this test reads it: {words:?}");
    assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), words.len(), "a word stands there twice");
}

#[test]
fn every_link_of_a_document_leads_somewhere() {
    let mut dead = Vec::new();
    let mut links = 0;
    for (name, text) in documents() {
        for link in links_of(&text) {
            links += 1;
            if !leads_somewhere(&root().join(&name), link) {
                dead.push(format!("{name}: {link}"));
            }
        }
    }
    assert!(dead.is_empty(), "links that lead nowhere:\n{}", dead.join("\n"));
    assert!(links > 30, "the documents are not as this test reads them: {links} links");
}

/// The rows of SECURITY.md that name tests.
#[test]
fn every_test_that_is_named_for_an_attack_is_there() {
    let text = fs::read_to_string(root().join("SECURITY.md")).expect("a file");
    let (_, table) = text.split_once("| attack | test |").expect("a table");
    let rows =
        table.lines().skip_while(|line| !line.starts_with("| ")).take_while(|line| line.starts_with("| "));
    let named: Vec<&str> = rows.flat_map(quoted).filter(|name| name.matches('_').count() > 3).collect();
    let is_there = |name: &str| {
        let declared = [format!("fn {name}("), format!("(\"{name}\",")];
        let mut grep = Command::new("grep");
        grep.arg("-rqF").args(["-e", &declared[0], "-e", &declared[1]]);
        grep.args(["tests/tests", "gpuquota/tests", "gpuquota/src", "quota/tests"]);
        grep.current_dir(root()).status().expect("grep").success()
    };
    let missing: Vec<&&str> = named.iter().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "SECURITY.md names tests that are not there: {missing:?}");
    assert!(named.len() > 40, "the table is not as this test reads it: {named:?}");
}

#[test]
fn every_path_that_a_document_names_is_there() {
    let mut missing = BTreeSet::new();
    let mut paths = 0;
    for (name, text) in documents() {
        for path in text.lines().flat_map(quoted).filter_map(path_in) {
            paths += 1;
            if !root().join(path).exists() {
                missing.insert(format!("{name}: {path}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", Vec::from_iter(missing).join("\n"));
    assert!(paths > 60, "the documents are not as this test reads them: {paths} paths");
}

#[test]
fn the_pictures_name_files_and_functions_that_are_there() {
    let design = read(&root().join("docs/design.md"));
    let mut wrong = Vec::new();
    for (heading, at_least) in [("## The way of an allocation", 10), ("## The way of a launch", 14)] {
        let mut steps = 0;
        for line in section(&design, heading) {
            let mut words = line.split_whitespace().skip_while(|word| path_in(word).is_none());
            let Some(path) = words.next() else { continue };
            let Ok(text) = fs::read_to_string(root().join(path)) else {
                wrong.push(format!("{path} is not there"));
                continue;
            };
            steps += 1;
            for name in words.map_while(|word| word.strip_suffix("()")) {
                if !text.contains(&format!("fn {name}(")) && !text.contains(&format!("fn {name}<")) {
                    wrong.push(format!("{path} has no function {name}"));
                }
            }
        }
        assert!(steps >= at_least || !wrong.is_empty(), "{heading}: {steps} steps");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_table_of_figures_says_where_they_come_from() {
    let mut without = Vec::new();
    let mut tables = 0;
    for (name, text) in documents().into_iter().filter(|(name, _)| name.starts_with("docs/")) {
        let mut since_heading = String::new();
        for line in text.lines() {
            if line.starts_with('#') {
                since_heading.clear();
            }
            if line.starts_with("|-") && line.contains("--:") {
                tables += 1;
                if !SOURCES.iter().any(|source| since_heading.contains(source)) {
                    without.push(format!("{name}: {}", since_heading.lines().last().unwrap_or_default()));
                }
            }
            since_heading.push_str(line);
            since_heading.push('\n');
        }
    }
    assert!(without.is_empty(), "tables of figures without a source:\n{}", without.join("\n"));
    assert!(tables >= 8, "the documents are not as this test reads them: {tables} tables");
}

/// The table quotes the run that it names, and calls a missed goal missed.
#[test]
fn the_table_of_costs_is_that_of_its_run() {
    let numbers = read(&root().join("docs/numbers.md"));
    let lines = section(&numbers, "## What it costs");
    let text = lines.join("\n");
    let folder = text.split("(../").nth(1).and_then(|rest| rest.split(')').next()).expect("it names its run");
    let run = read(&root().join(folder).join("README.md"));
    let mut rows = 0;
    for line in lines {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, _, without, with, added, goal, verdict, ..] = cells[..] else { continue };
        if !matches!(verdict, "kept" | "missed") {
            continue;
        }
        rows += 1;
        let row = format!("| {without} | {with} |");
        let measured = run.lines().find(|measured| measured.contains(&row));
        let measured = measured.unwrap_or_else(|| panic!("{folder} has no {row}"));
        for cell in [added, goal] {
            assert!(measured.contains(cell), "{folder} says {measured}, not {cell}");
        }
        let seen = if nanoseconds(added) <= nanoseconds(goal) { "kept" } else { "missed" };
        assert_eq!(verdict, seen, "{line}");
    }
    assert!(rows >= 10, "the table is not as this test reads it: {rows} rows");
    // The README's own figures of costs are among them; those of a card have their own test.
    let readme = read(&root().join("README.md"));
    let lab = readme.split("<!-- end -->").nth(1).expect("the lines of a card end");
    let words: Vec<&str> = lab.split_whitespace().collect();
    for pair in words.windows(2).filter(|pair| matches!(pair[1], "ns" | "us") && pair[0].contains('.')) {
        assert!(text.contains(&pair.join(" ")), "{} is not in docs/numbers.md", pair.join(" "));
    }
}

/// Every figure of two decimals that is told of a run on the simulated card stands in the run that the section names.
#[test]
fn the_tables_of_accuracy_and_of_other_libraries_are_those_of_their_runs() {
    let numbers = read(&root().join("docs/numbers.md"));
    for heading in ["## How exact the share is", "## Beside other libraries, in the lab"] {
        let lines = section(&numbers, heading);
        let text = lines.join("\n");
        let folder =
            text.split("(../").nth(1).and_then(|rest| rest.split(')').next()).expect("it names its run");
        let run = read(&root().join(folder).join("README.md"));
        let cells = lines
            .iter()
            .filter(|line| line.starts_with('|'))
            .flat_map(|line| line.split(['|', ' ', ':', ',']));
        let is_exact = |cell: &&str| {
            let decimals = cell.split_once('.').map(|(_, decimals)| decimals.trim_end_matches('%'));
            decimals
                .is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let figures: Vec<&str> = cells.filter(is_exact).collect();
        assert!(figures.len() >= 20, "{heading}: the tables are not as this test reads them: {figures:?}");
        for figure in figures {
            assert!(run.contains(figure.trim_end_matches('%')), "{heading}: {folder} has no {figure}");
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the project").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

/// Every document of the project, by its path from the root. The records of kept runs are not edited, so they do not count.
fn documents() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![root()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display())) {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(root()).expect("below").to_str().expect("UTF-8").to_owned();
            let is_ours = !name.starts_with('.') && !["target", "dist"].contains(&name.as_str());
            let is_a_run = name.strip_prefix("bench/runs/").is_some_and(|rest| rest != "README.md");
            if path.is_dir() && is_ours && !is_a_run {
                open.push(path);
            } else if name.ends_with(".md") {
                found.push((name, read(&path)));
            }
        }
    }
    found
}

/// The lines below a heading, up to the next one of its kind.
fn section<'t>(text: &'t str, heading: &str) -> Vec<&'t str> {
    let lines: Vec<_> = text.lines().skip_while(|line| *line != heading).collect();
    assert!(!lines.is_empty(), "there is no {heading}");
    let rest = lines.into_iter().skip(1).take_while(|line| !line.starts_with("## "));
    rest.collect()
}

/// The targets of links within the project.
fn links_of(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://"))
}

fn leads_somewhere(document: &Path, link: &str) -> bool {
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let target = match file {
        "" => document.to_owned(),
        file => document.parent().expect("a file lies in a folder").join(file),
    };
    let headings =
        || read(&target).lines().filter(|line| line.starts_with('#')).map(anchor_of).collect::<Vec<_>>();
    target.exists() && anchor.is_none_or(|anchor| headings().iter().any(|heading| heading == anchor))
}

/// The name of a heading in links.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    text.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '_')).collect()
}

/// The words between backticks in a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The path from the project's root that a word or a command begins with, if it names one.
fn path_in(words: &str) -> Option<&str> {
    let path = words.split_whitespace().next()?;
    let path = path.trim_end_matches(['.', ',', ':']);
    // `quota/ledger::a_promise` is a promise, which another test looks up.
    let names_one = FOLDERS.iter().any(|folder| path.starts_with(folder)) && !path.contains("::");
    let stands_for_any = PLACEHOLDERS.iter().any(|word| path.contains(word));
    (names_one && !stands_for_any).then_some(path)
}

fn nanoseconds(figure: &str) -> f64 {
    let (number, unit) = figure.split_once(' ').expect("a figure with a unit");
    let number: f64 = number.parse().expect("a number");
    match unit {
        "ns" => number,
        "us" => number * 1e3,
        unit => panic!("{unit} is no unit of this table"),
    }
}
