//! PTX, read for names: the kernels of a module and the sizes of its variables.

use crate::model::objects::contents::Contents;

/// Notes what a module declares. What cannot be read makes the contents partial, never wrong.
pub fn read(text: &str, found: &mut Contents) {
    let text = without_comments(text);
    let mut depth = 0;
    let mut statement = String::new();
    for c in text.chars() {
        match c {
            '{' => {
                if depth == 0 {
                    declare(&statement, found);
                    statement.clear();
                }
                depth += 1;
            }
            '}' => {
                depth -= 1;
                statement.clear();
            }
            ';' if depth == 0 => {
                declare(&statement, found);
                statement.clear();
            }
            _ if depth == 0 => statement.push(c),
            _ => {}
        }
    }
}

fn without_comments(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('/') {
        plain.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = match rest.as_bytes().get(1) {
            Some(b'/') => rest.find('\n'),
            Some(b'*') => rest.find("*/").map(|end| end + 2),
            _ => Some(1),
        };
        rest = end.map_or("", |end| &rest[end..]);
    }
    plain.push_str(rest);
    plain
}

/// One declaration of the module's scope.
fn declare(statement: &str, found: &mut Contents) {
    // Version, target and address size stand before it without an end of their own.
    let words: Vec<&str> =
        statement.split(|c: char| c.is_whitespace() || c == '(').filter(|word| !word.is_empty()).collect();
    if let Some(place) = words.iter().position(|word| *word == ".entry") {
        if let Some(name) = words.get(place + 1) {
            found.kernels.insert((*name).to_owned());
        }
        return;
    }
    let Some(place) = words.iter().position(|word| matches!(*word, ".global" | ".const")) else { return };
    let declaration = words[place + 1..].join(" ");
    let declaration = declaration.split('=').next().unwrap_or_default();
    let element = declaration.split(' ').filter_map(type_bytes).product::<u64>();
    let known = declaration.split(' ').any(|word| type_bytes(word).is_some());
    let (name, sizes) = match declaration.split_once('[') {
        Some((head, sizes)) => (head, sizes),
        None => (declaration, ""),
    };
    let sizes = sizes.split(['[', ']']).map(str::trim).filter(|size| !size.is_empty());
    let count = sizes.map(|size| size.parse::<u64>().ok()).try_fold(1u64, |all, size| all.checked_mul(size?));
    match (name.split_whitespace().next_back(), count.and_then(|count| count.checked_mul(element))) {
        (Some(name), Some(bytes)) if known => drop(found.variables.insert(name.to_owned(), bytes)),
        _ => found.partial = true,
    }
}

/// Bytes of a type, or how many of them a vector has.
fn type_bytes(word: &str) -> Option<u64> {
    Some(match word {
        ".v2" => 2,
        ".v4" => 4,
        ".b8" | ".u8" | ".s8" | ".pred" => 1,
        ".b16" | ".u16" | ".s16" | ".f16" | ".bf16" => 2,
        ".b32" | ".u32" | ".s32" | ".f32" | ".f16x2" => 4,
        ".b64" | ".u64" | ".s64" | ".f64" | ".texref" | ".surfref" | ".samplerref" => 8,
        ".b128" => 16,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_and_variables_are_named_with_their_sizes() {
        let mut found = Contents::default();
        read(
            ".version 8.0 // .entry none(\n.target sm_90\n.address_size 64\n
             .visible .global .align 4 .u32 counter;\n.const .align 16 .v4 .f32 table[3][2] = {1.0};\n
             .extern .func (.param .b32 r) helper(.param .b64 p);\n
             /* .entry none( */ .visible .entry _Z3addPf(\n .param .u64 a\n)\n.maxntid 32\n{\n .shared .u32 x[4]; ret;\n}\n
             .entry second()\n{\nret;\n}\n",
            &mut found,
        );
        assert!(!found.partial);
        let mut kernels: Vec<_> = found.kernels.into_iter().collect();
        kernels.sort();
        assert_eq!(kernels, ["_Z3addPf", "second"]);
        let mut variables: Vec<_> = found.variables.into_iter().collect();
        variables.sort();
        assert_eq!(variables, [("counter".into(), 4), ("table".into(), 96)]);
    }
}
