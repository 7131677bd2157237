//! What a test asserts for a row of `docs/complaints.md`, as its source says.
//!
//! A promise is a function of the name, a test of a list of trials, or a function of the conformance suite. It names the row
//! (`Promise::to`) and marks the assertion (`asserts`); the test itself fails if it ends without having made it
//! (`tests/src/promise.rs`). Here it is seen that both are there, and that what is marked can fail.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};

/// Why the promise of this name does not answer a complaint, if it does not.
pub fn fault(source: &str, name: &str, complaint: &str) -> Option<String> {
    if !source.contains(name) {
        return Some("it is not there".to_owned());
    }
    if source.starts_with("#include") || source.starts_with("/*") {
        return fault_in_c(source, name, complaint);
    }
    let file: TokenStream = source.parse().unwrap_or_else(|why| panic!("{name} is in no Rust: {why}"));
    let functions = functions(file.clone());
    let Some(body) = listed(source, file, name).or_else(|| functions.get(name).cloned()) else {
        return Some("it is no test".to_owned());
    };
    // A trial of the list may be a function of another name.
    let body = match body.to_string() {
        word if functions.contains_key(&word) => functions[&word].clone(),
        _ => body,
    };
    let before = tokens(body.clone()).into_iter().take_while(|token| !is(token, "Promise"));
    if before.collect::<Vec<_>>().windows(2).any(|pair| is(&pair[0], "return") && !skips(&pair[1])) {
        return Some("it may end before it promises anything".to_owned());
    }
    if !complaints(body.clone()).contains(complaint) {
        return Some(format!("it does not name {complaint}"));
    }
    let marked = arguments_of(body, "asserts");
    if marked.is_empty() {
        return Some("it marks no assertion".to_owned());
    }
    let mut seen = BTreeSet::new();
    let vain = marked.into_iter().any(|marked| !can_fail(marked, &functions, &mut seen));
    vain.then(|| "what it marks cannot fail".to_owned())
}

/// The complaints that promises in a source answer.
pub fn complaints(source: TokenStream) -> BTreeSet<String> {
    let lists = arguments_of(source, "to").into_iter().flat_map(tokens);
    lists.filter_map(|token| text(&token)).filter(|word| word.contains('#')).collect()
}

/// The same of a function in C: its own line names the complaint, and nothing returns before.
fn fault_in_c(source: &str, name: &str, complaint: &str) -> Option<String> {
    let Some(body) =
        source.split(&format!("void {name}(void)\n{{")).nth(1).and_then(|rest| rest.split("\n}").next())
    else {
        return Some("it is no promise of the suite".to_owned());
    };
    let mark = format!("promised(\"{complaint}\", ");
    let mut lines = body.lines().take_while(|line| !line.contains("return"));
    let marked = lines.find_map(|line| line.strip_prefix("    ")?.strip_prefix(&mark));
    let asserts =
        marked.is_some_and(|marked| ["same(", "ok(", "holds("].iter().any(|word| marked.starts_with(word)));
    (!asserts).then(|| format!("it does not assert anything for {complaint}"))
}

/// The bodies of a file's functions by name, those within macros too.
fn functions(file: TokenStream) -> BTreeMap<String, TokenStream> {
    let mut found = BTreeMap::new();
    let mut after: Option<String> = None;
    let mut name_is_next = false;
    for token in file {
        match token {
            TokenTree::Ident(word) if word == "fn" => name_is_next = true,
            TokenTree::Ident(word) if name_is_next => (after, name_is_next) = (Some(word.to_string()), false),
            TokenTree::Group(group) => {
                if group.delimiter() == Delimiter::Brace
                    && let Some(name) = after.take()
                {
                    found.insert(name, group.stream());
                } else {
                    found.extend(functions(group.stream()));
                }
            }
            _ => {}
        }
    }
    found
}

/// What stands behind a name in the file's list of trials, if it has one.
fn listed(source: &str, file: TokenStream, name: &str) -> Option<TokenStream> {
    if source.contains("trials(&[") { trial(file, name) } else { None }
}

/// What stands behind a name at the beginning of a group.
fn trial(file: TokenStream, name: &str) -> Option<TokenStream> {
    let all: Vec<_> = file.into_iter().collect();
    if all.first().and_then(text).as_deref() == Some(name) {
        return Some(all.into_iter().skip(2).collect());
    }
    let groups = all.into_iter().filter_map(|token| match token {
        TokenTree::Group(group) => Some(group.stream()),
        _ => None,
    });
    groups.into_iter().find_map(|group| trial(group, name))
}

/// All tokens, those within groups behind the group itself.
fn tokens(stream: TokenStream) -> Vec<TokenTree> {
    let with_inner = |token: TokenTree| {
        let inner = match &token {
            TokenTree::Group(group) => tokens(group.stream()),
            _ => Vec::new(),
        };
        [token].into_iter().chain(inner)
    };
    stream.into_iter().flat_map(with_inner).collect()
}

/// The arguments of each call of a function.
fn arguments_of(stream: TokenStream, function: &str) -> Vec<TokenStream> {
    let all = tokens(stream);
    let calls = all.windows(2).filter(|pair| is(&pair[0], function));
    calls.filter_map(|pair| group(&pair[1])).collect()
}

/// Whether there is an assertion about something that is not fixed, here or in a function of the file that is named here.
fn can_fail(
    stream: TokenStream,
    functions: &BTreeMap<String, TokenStream>,
    seen: &mut BTreeSet<String>,
) -> bool {
    let all = tokens(stream);
    let asserts = |window: &[TokenTree]| {
        let is_macro = window[0].to_string().contains("assert") && is_sign(&window[1], '!');
        is_macro && group(&window[2]).is_some_and(|arguments| !is_vain(arguments))
    };
    // These answer an error that their caller cannot overlook.
    all.windows(3).any(asserts)
        || all.iter().any(|token| {
            let name = token.to_string();
            let body = functions.get(&name).filter(|_| seen.insert(name));
            is(token, "twice")
                || is(token, "on_each")
                || body.is_some_and(|body| can_fail(body.clone(), functions, seen))
        })
}

/// Whether what an assertion says is so whatever a program does: it has no word of the program's, compares something with itself, or
/// has a way out.
fn is_vain(arguments: TokenStream) -> bool {
    let words: Vec<_> = arguments.clone().into_iter().collect();
    let mut sides = words.split(|token| is_sign(token, ',')).map(|side| {
        let side: Vec<_> = side.iter().map(ToString::to_string).collect();
        side.join(" ")
    });
    let [first, second] = [sides.next(), sides.next()];
    let all = tokens(arguments);
    let is_open = all
        .windows(3)
        .any(|window| is_sign(&window[0], '|') && is_sign(&window[1], '|') && is(&window[2], "true"));
    !all.iter().any(varies) || first == second || is_open
}

/// Whether a word of an assertion stands for something that a program has said.
fn varies(token: &TokenTree) -> bool {
    let TokenTree::Ident(word) = token else { return false };
    let word = word.to_string();
    word.starts_with(|letter: char| letter.is_ascii_lowercase())
        && !["true", "false", "as"].contains(&word.as_str())
}

fn is(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == word)
}

fn is_sign(token: &TokenTree, sign: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == sign)
}

/// What a test returns that is skipped.
fn skips(token: &TokenTree) -> bool {
    is(token, "Verdict") || is(token, "skipped")
}

fn group(token: &TokenTree) -> Option<TokenStream> {
    match token {
        TokenTree::Group(group) => Some(group.stream()),
        _ => None,
    }
}

/// The text of a literal.
fn text(token: &TokenTree) -> Option<String> {
    let TokenTree::Literal(literal) = token else { return None };
    Some(literal.to_string().strip_prefix('"')?.strip_suffix('"')?.to_owned())
}

/// A row that lost its assertion is found.
#[test]
fn a_promise_that_no_longer_asserts_is_found() {
    let whole = r#"
        fn holds(outcome: Outcome) { assert_eq!(outcome.value("total"), CAP); }
        fn kept() { let promise = &Promise::to(&["HAMi#1"]); promise.asserts(|| holds(run())); }
        fn listed() -> Verdict {
            if nothing_here() { return Verdict::Skipped("why".into()); }
            let promise = &Promise::to(&["HAMi#1"]);
            promise.asserts(|| assert!(run() < 3));
            Verdict::Kept
        }
        fn main() { trials(&[("by_name", listed), ("by_closure", || Promise::to(&["HAMi#1"]).asserts(listed))]) }
    "#;
    for name in ["kept", "by_name", "by_closure"] {
        assert_eq!(fault(whole, name, "HAMi#1"), None, "{name}");
    }
    assert!(fault(whole, "kept", "HAMi#2").is_some_and(|why| why.contains("HAMi#2")));
    assert_eq!(fault(whole, "gone", "HAMi#1").as_deref(), Some("it is not there"));
    for (was, is, why) in [
        ("assert_eq!(outcome.value(\"total\"), CAP);", "let _ = outcome;", "what it marks cannot fail"),
        (
            "assert_eq!(outcome.value(\"total\"), CAP);",
            "assert_eq!(CAP, 1 + 1);",
            "what it marks cannot fail",
        ),
        (
            "assert_eq!(outcome.value(\"total\"), CAP);",
            "assert_eq!(outcome.value(\"total\"), outcome.value(\"total\"));",
            "what it marks cannot fail",
        ),
        (
            "assert_eq!(outcome.value(\"total\"), CAP);",
            "assert!(outcome.value(\"total\") == CAP || true);",
            "what it marks cannot fail",
        ),
        ("promise.asserts(|| holds(run()));", "holds(run());", "it marks no assertion"),
        (
            "let promise = &Promise::to(&[\"HAMi#1\"]); promise",
            "if idle() { return; } let promise = &Promise::to(&[\"HAMi#1\"]); promise",
            "it may end before it promises anything",
        ),
    ] {
        assert!(whole.contains(was), "{was}");
        assert_eq!(fault(&whole.replace(was, is), "kept", "HAMi#1").as_deref(), Some(why), "{is}");
    }
    let suite =
        "/* C */\nstatic void kept(void)\n{\n    int one;\n    promised(\"HAMi#1\", same(one, 0));\n}\n";
    assert_eq!(fault(suite, "kept", "HAMi#1"), None);
    for (was, is) in [
        ("promised(\"HAMi#1\", same(one, 0))", "same(one, 0)"),
        ("    promised", "    return;\n    promised"),
        ("    promised", "    if (one)\n        promised"),
    ] {
        assert!(fault(&suite.replace(was, is), "kept", "HAMi#1").is_some(), "{is}");
    }
}
