//! Imports of every crate go one way: down, and never in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};

/// The floors of the preloaded library, bottom up: a file imports only from its own floor and from those before it.
const FLOORS: &[&[&str]] = &[
    &["lock", "thread", "environment", "trace", "uuid"],
    &["driver"],
    &["container"],
    &["devices"],
    &["memory", "time"],
    &["view"],
    &["process"],
    &["hook"],
    &["entry"],
];

/// Every crate whose imports go one way.
const CRATES: &[&str] = &[
    "src",
    "quota/src",
    "region/src",
    "gpuquota/src",
    "nri/src",
    "kubelet/src",
    "cuda-shim/symbols/src",
    "cuda-shim/device/src",
    "cuda-shim/libcuda/src",
    "cuda-shim/libnvidia-ml/src",
    "cuda-shim/cuda-sim/src",
    "bench/src",
    "tests/src",
];

/// NVIDIA's types and slots refer to the library that holds them. They are generated, and count as part of their parent.
const GENERATED: &str = "driver/sys/";

type Module = Vec<String>;

#[test]
fn a_file_of_the_library_imports_only_from_its_own_floor_and_below() {
    let floor = |module: &Module| {
        let top = module.first()?;
        FLOORS.iter().position(|floor| floor.contains(&top.as_str()))
    };
    let mut wrong = Vec::new();
    for (from, to) in imports("src") {
        let (Some(here), Some(there)) = (floor(&from), floor(&to)) else {
            assert!(from.is_empty() || to.is_empty(), "no floor is named for {from:?} or {to:?}");
            continue;
        };
        let beside = here == there && from.first() != to.first() && FLOORS[here] == ["memory", "time"];
        if there > here || beside {
            wrong.push(format!("{} imports {}", from.join("::"), to.join("::")));
        }
    }
    assert!(wrong.is_empty(), "imports that point up or across:\n{}", wrong.join("\n"));
}

#[test]
fn no_files_of_a_crate_import_each_other_in_a_circle() {
    let circles: Vec<String> = CRATES.iter().flat_map(|name| circles(name)).collect();
    assert!(circles.is_empty(), "circles of imports:\n{}", circles.join("\n"));
}

#[test]
fn a_circle_of_imports_is_detected() {
    let edges = [("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")];
    let module = |name: &str| vec![name.to_owned()];
    let edges = edges.iter().map(|(from, to)| (module(from), module(to))).collect();
    assert_eq!(components(&edges), [BTreeSet::from([module("a"), module("b"), module("c")])]);
}

#[test]
fn unsafe_code_lies_only_in_the_files_that_the_design_names() {
    let mut files = Vec::new();
    for (path, text) in sources("src").into_iter().chain(sources("region/src")) {
        if text.contains("#![allow(unsafe_code)]") && !text.contains("# Safety") {
            files.push(path);
        }
    }
    assert!(files.is_empty(), "these files use unsafe and do not say why they may: {files:?}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the project").to_owned()
}

/// The files of a crate: path below the crate's root, and text.
fn sources(name: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let top = root().join(name);
    let mut open = vec![top.clone()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display())) {
            let path = entry.expect("an entry").path();
            let below = path.strip_prefix(&top).expect("below").to_str().expect("UTF-8").to_owned();
            if path.is_dir() {
                open.push(path);
            } else if below.ends_with(".rs") && !below.ends_with("tests.rs") && !below.starts_with(GENERATED)
            {
                found.insert(below, std::fs::read_to_string(&path).expect("a source"));
            }
        }
    }
    assert!(!found.is_empty(), "{name} has no sources");
    found
}

/// The imports of a crate's files, as pairs of modules.
fn imports(name: &str) -> BTreeSet<(Module, Module)> {
    let sources = sources(name);
    let module = |path: &str| -> Module {
        let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
        let binary = path.starts_with("bin/");
        let root = matches!(path, "lib" | "main") || binary && !path["bin/".len()..].contains('/');
        if root { vec![] } else { path.split('/').map(str::to_owned).collect() }
    };
    let files: BTreeSet<Module> = sources.keys().map(|path| module(path)).collect();
    let mut edges = BTreeSet::new();
    for (path, text) in &sources {
        let own = module(path);
        let file = syn::parse_file(text).unwrap_or_else(|why| panic!("{name}/{path}: {why}"));
        let mut reader = Reader { here: own.clone(), children: BTreeSet::new(), found: Vec::new() };
        reader.visit_file(&file);
        for target in reader.found {
            let target = (0..=target.len())
                .rev()
                .map(|length| target[..length].to_vec())
                .find(|at| files.contains(at));
            // A crate's root lists its modules, so a file that names an item of the root imports nothing that lies higher.
            if let Some(target) = target.filter(|target| !target.is_empty() && *target != own) {
                edges.insert((own.clone(), target));
            }
        }
    }
    edges
}

/// Reads the paths of a file that lead into its crate.
struct Reader {
    here: Module,
    children: BTreeSet<String>,
    found: Vec<Module>,
}

impl Reader {
    fn path(&mut self, segments: &[String]) {
        let Some(first) = segments.first() else { return };
        let supers = segments.iter().take_while(|segment| *segment == "super").count();
        let base = match first.as_str() {
            "crate" | "$crate" => vec![],
            "self" => self.here.clone(),
            "super" => self.here[..self.here.len().saturating_sub(supers)].to_vec(),
            child if self.children.contains(child) => {
                self.found.push([self.here.clone(), segments.to_vec()].concat());
                return;
            }
            _ => return,
        };
        self.found.push([base, segments[supers.max(1)..].to_vec()].concat());
    }

    fn tree(&mut self, before: &[String], tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                self.tree(&[before, &[path.ident.to_string()]].concat(), &path.tree);
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(before, item)),
            syn::UseTree::Name(name) if name.ident == "self" => self.path(before),
            syn::UseTree::Name(name) => self.path(&[before, &[name.ident.to_string()]].concat()),
            syn::UseTree::Rename(rename) => self.path(&[before, &[rename.ident.to_string()]].concat()),
            syn::UseTree::Glob(_) => self.path(before),
        }
    }

    /// This does not expand macros: it reads the paths that begin with `crate` from their tokens.
    fn tokens(&mut self, tokens: proc_macro2::TokenStream) {
        use proc_macro2::TokenTree::{Group, Ident, Punct};
        let mut path: Vec<String> = Vec::new();
        for token in tokens {
            match token {
                Ident(ident) if path.is_empty() && ident != "crate" => {}
                Ident(ident) => path.push(ident.to_string()),
                Punct(punct) if punct.as_char() == ':' => {}
                other => {
                    self.path(&std::mem::take(&mut path));
                    if let Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.path(&path);
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    let mentions = |attribute: &syn::Attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        attribute.path().is_ident("cfg") && list.tokens.to_string().contains("test")
    };
    attributes.iter().any(mentions)
}

impl<'a> Visit<'a> for Reader {
    fn visit_file(&mut self, file: &'a syn::File) {
        for item in &file.items {
            if let syn::Item::Mod(child) = item
                && child.content.is_none()
                && !is_test(&child.attrs)
            {
                self.children.insert(child.ident.to_string());
            }
        }
        visit::visit_file(self, file);
    }

    fn visit_item_mod(&mut self, module: &'a syn::ItemMod) {
        if !is_test(&module.attrs) {
            self.here.push(module.ident.to_string());
            visit::visit_item_mod(self, module);
            self.here.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        if !is_test(&item.attrs) {
            self.tree(&[], &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 {
            self.path(&segments);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'a syn::Macro) {
        self.tokens(call.tokens.clone());
    }
}

fn circles(name: &str) -> Vec<String> {
    let edges = imports(name);
    let describe = |circle: &BTreeSet<Module>| {
        let within = edges.iter().filter(|(from, to)| circle.contains(from) && circle.contains(to));
        let lines: Vec<String> =
            within.map(|(from, to)| format!("    {} -> {}", from.join("::"), to.join("::"))).collect();
        format!("{name}, {} files:\n{}", circle.len(), lines.join("\n"))
    };
    components(&edges).iter().map(describe).collect()
}

/// The groups of more than one module of which each leads to each other.
fn components(edges: &BTreeSet<(Module, Module)>) -> Vec<BTreeSet<Module>> {
    let reach = |start: &Module| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![start.clone()]);
        while let Some(at) = open.pop() {
            for (_, to) in edges.iter().filter(|(from, _)| *from == at) {
                if seen.insert(to.clone()) {
                    open.push(to.clone());
                }
            }
        }
        seen
    };
    let reaches: BTreeMap<Module, BTreeSet<Module>> =
        edges.iter().map(|(from, _)| (from.clone(), reach(from))).collect();
    let mut found: Vec<BTreeSet<Module>> = Vec::new();
    for (module, to) in &reaches {
        let circle: BTreeSet<Module> = to
            .iter()
            .filter(|other| reaches.get(*other).is_some_and(|back| back.contains(module)))
            .cloned()
            .collect();
        if circle.len() > 1 && !found.contains(&circle) {
            found.push(circle);
        }
    }
    found
}
