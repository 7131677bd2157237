//! The region's C header, its Rust layout, the Python reader and `docs/region.md` agree.
//!
//! The tests turn each into a set of lines, one for a number, a field or a length, and compare the sets. A failure names the
//! lines that one set lacks. The records cover every byte, so no field can be missing in all of them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gpuquota_promises::Scratch;
use gpuquota_region::abi::{NUMBERS, RECORDS};
use gpuquota_region::check::Record;
use serde_json::Value;

fn root(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// A name in Rust as it stands in C.
fn c_name(name: &str) -> &str {
    name.trim_start_matches('_')
}

fn is_reserved(name: &str) -> bool {
    name.starts_with('_')
}

fn number(name: &str, value: impl std::fmt::Display) -> String {
    format!("{name} is {value}")
}

fn field(record: &str, name: &str, offset: impl std::fmt::Display, bytes: impl std::fmt::Display) -> String {
    format!("{record}.{name} lies at {offset} and takes {bytes} bytes")
}

fn length(record: &str, bytes: impl std::fmt::Display) -> String {
    format!("{record} takes {bytes} bytes")
}

#[track_caller]
fn assert_same(a: (&str, &BTreeSet<String>), b: (&str, &BTreeSet<String>)) {
    let only = |has: &BTreeSet<String>, lacks: &BTreeSet<String>| {
        has.difference(lacks).map(|line| format!("\n  {line}")).collect::<String>()
    };
    let (only_a, only_b) = (only(a.1, b.1), only(b.1, a.1));
    assert!(a.1 == b.1, "only {} says:{only_a}\nonly {} says:{only_b}", a.0, b.0);
}

/// Numbers, fields and lengths as Rust has them.
fn rust() -> BTreeSet<String> {
    let numbers = NUMBERS.into_iter().flatten().map(|(name, value)| number(name, value));
    let records = RECORDS.into_iter().flat_map(|record| {
        let of =
            |of: &gpuquota_region::check::Field| field(record.name, c_name(of.name), of.offset, of.bytes);
        record.fields.iter().map(of).chain([length(record.name, record.bytes)])
    });
    numbers.chain(records).collect()
}

/// The structs of the header, each with the names of its fields.
fn structs(header: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let mut inside = false;
    for line in header.lines().map(|line| line.split("/*").next().unwrap_or("").trim()) {
        if let Some(name) = line.strip_prefix("struct ").and_then(|line| line.strip_suffix(" {")) {
            found.push((name.to_owned(), Vec::new()));
            inside = true;
        } else if line == "};" {
            inside = false;
        } else if inside && let Some(declaration) = line.strip_suffix(';') {
            let name = declaration.split('[').next().and_then(|name| name.split_whitespace().last());
            let fields = &mut found.last_mut().expect("a struct is open").1;
            fields.push(name.unwrap_or_else(|| panic!("{line}: no name")).to_owned());
        }
    }
    found
}

/// Runs the C compiler on a source, and answers its output.
fn compile(arguments: &[&str], source: &str) -> String {
    let mut compiler = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-x", "c"])
        .arg("-I")
        .arg(root("include"))
        .args(arguments)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a C compiler");
    compiler.stdin.take().expect("a pipe").write_all(source.as_bytes()).expect("the source");
    let output = compiler.wait_with_output().expect("its end");
    assert!(output.status.success(), "the compiler refused:\n{source}");
    String::from_utf8(output.stdout).expect("text")
}

/// Numbers, fields and lengths as the C compiler understands the header.
fn c() -> BTreeSet<String> {
    const INCLUDE: &str = "#include \"gpuquota_region.h\"\n";
    let macros = compile(&["-E", "-dM"], INCLUDE);
    let numbers = macros.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix("#define ")?.split_once(' ')?;
        (name.starts_with("GPUQUOTA_") && !value.is_empty()).then_some(name)
    });
    let mut source = format!("#include <stdio.h>\n{INCLUDE}int main(void)\n{{\n");
    for name in numbers {
        let line = number(name, "%llu");
        writeln!(source, "    printf(\"{line}\\n\", (unsigned long long)({name}));").expect("memory");
    }
    for (name, fields) in structs(&text("include/gpuquota_region.h")) {
        let line = length(&name, "%zu");
        writeln!(source, "    printf(\"{line}\\n\", sizeof(struct {name}));").expect("memory");
        for of in fields {
            let line = field(&name, &of, "%zu", "%zu");
            let bytes = format!("sizeof(((struct {name} *)0)->{of})");
            writeln!(source, "    printf(\"{line}\\n\", offsetof(struct {name}, {of}), {bytes});")
                .expect("memory");
        }
    }
    source.push_str("}\n");
    let scratch = Scratch::new();
    let program = scratch.path().join("header");
    compile(&["-o", program.to_str().expect("text")], &source);
    let output = Command::new(&program).output().expect("it was just compiled");
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn the_c_header_and_the_rust_layout_agree() {
    assert_same(("the C header", &c()), ("the Rust layout", &rust()));
}

#[test]
fn every_constant_of_the_rust_layout_is_compared() {
    for path in ["region/src/layout.rs", "region/src/lock.rs", "region/src/hami.rs"] {
        let lines = text(path);
        let outside = lines.lines().map(str::trim).find(|line| {
            let name = line.strip_prefix("pub const ").and_then(|rest| rest.chars().next());
            name.is_some_and(|first| first.is_ascii_uppercase())
        });
        assert_eq!(outside, None, "{path}: it belongs into `numbers!`");
    }
}

#[test]
fn the_head_of_the_c_header_names_its_version() {
    use gpuquota_region::layout::{ABI_MAJOR, ABI_MINOR};
    let version = format!("ABI {ABI_MAJOR}.{ABI_MINOR}:");
    let header = text("include/gpuquota_region.h");
    assert!(header.lines().nth(1).is_some_and(|line| line.contains(&version)), "its second line: {version}");
}

/// The records that are ours and not HAMi's, without the ones that only hold others.
fn own_records() -> impl Iterator<Item = &'static Record> {
    let whole = ["gpuquota_ours", "gpuquota_file"];
    RECORDS.into_iter().filter(move |record| !record.name.contains("_hami_") && !whole.contains(&record.name))
}

/// Every field of our records that has a meaning.
fn own_fields() -> BTreeSet<String> {
    let named = own_records().flat_map(|record| {
        let fields = record.fields.iter().filter(|of| !is_reserved(of.name));
        fields.map(|of| field(record.name, of.name, of.offset, of.bytes))
    });
    named.collect()
}

#[test]
fn the_python_reader_knows_every_field_and_no_number_otherwise() {
    let program = "
import json, struct, gpuquota_region as reader
fields = [[record, name, offset, struct.calcsize('<' + form)]
          for record, fields in reader.RECORDS.items() for name, (offset, form) in fields.items()]
print(json.dumps({'fields': fields, 'numbers': list(reader.NUMBERS.items())}))
";
    let output = Command::new("python3")
        .args(["-B", "-c", program])
        .env("PYTHONPATH", root("include"))
        .output()
        .expect("python3");
    let said: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|why| panic!("{why}: {}", String::from_utf8_lossy(&output.stderr)));
    let list = |key: &str| said[key].as_array().expect("a list").clone();
    let word = |value: &Value| value.as_str().expect("a name").to_owned();
    let fields = list("fields").into_iter().map(|of| {
        let record = format!("gpuquota_{}", word(&of[0]));
        field(&record, &word(&of[1]), &of[2], &of[3])
    });
    assert_same(("the Python reader", &fields.collect()), ("the Rust layout", &own_fields()));
    let rust = rust();
    for pair in list("numbers") {
        let line = number(&format!("GPUQUOTA_{}", word(&pair[0])), &pair[1]);
        assert!(rust.contains(&line), "the Python reader says: {line}");
    }
}

#[test]
fn the_tables_of_the_documentation_name_every_field_at_its_place() {
    let mut record = String::new();
    let mut said = BTreeSet::new();
    let mut lengths = BTreeSet::new();
    let page = text("docs/region.md");
    for line in page.lines() {
        // ### `gpuquota_lease`, 64 bytes
        if let Some(head) = line.strip_prefix("### `") {
            let (name, rest) = head.split_once("`, ").unwrap_or_else(|| panic!("{line}: no length"));
            record = name.to_owned();
            let bytes = rest.split_whitespace().next().unwrap_or_default().replace(',', "");
            lengths.insert(length(name, bytes));
        } else if let Some(row) = line.strip_prefix("| ").filter(|_| !record.is_empty()) {
            // | 0 | 8 | `lease` | what it is |
            let mut cells = row.split('|').map(str::trim);
            let mut cell = || cells.next().unwrap_or_default();
            let (offset, bytes, name) = (cell(), cell(), cell().trim_matches('`'));
            if offset.parse::<u32>().is_ok() {
                said.insert(field(&record, name, offset, bytes));
            }
        } else if line.starts_with("## ") {
            record.clear();
        }
    }
    assert_same(("docs/region.md", &said), ("the Rust layout", &own_fields()));
    let expected = own_records().map(|record| length(record.name, record.bytes)).collect();
    assert_same(("docs/region.md", &lengths), ("the Rust layout", &expected));
}
