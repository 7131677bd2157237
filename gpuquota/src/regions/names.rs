//! Names that tenants chose, as text that harms neither a terminal nor a label, and of which no two become the same.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A name, with everything that a terminal might obey or a reader cannot see written as `\xNN` or `\u{NNNN}`; the backslash
/// too, so that different names stay different.
pub fn plain(name: &OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\x5c"),
                _ => push(&mut text, character),
            }
        }
        for byte in chunk.invalid() {
            let _infallible = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

fn push(text: &mut String, character: char) {
    let _infallible = match character {
        '\0'..='\u{7f}' if character.is_control() => write!(text, "\\x{:02x}", u32::from(character)),
        _ if is_unseen(character) => write!(text, "\\u{{{:x}}}", u32::from(character)),
        _ => write!(text, "{character}"),
    };
}

/// A message of ours in which a tenant's name may stand, for a terminal: of what that might obey only ends of lines are left.
pub fn harmless(message: &str) -> String {
    let mut text = String::new();
    for character in message.chars() {
        match character {
            '\n' => text.push('\n'),
            _ => push(&mut text, character),
        }
    }
    text
}

/// A path for people.
pub fn shown(path: &Path) -> String {
    plain(path.as_os_str())
}

/// Controls, and what moves or hides its neighbours: marks of direction, joiners, separators of lines, fillers.
fn is_unseen(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(character, '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        || matches!(character, '\u{3164}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_different_and_harmless() {
        let names: [&[u8]; 8] =
            [b"a\x01", b"a\x02", b"a\\x01", b"a\xff", b"a\xc2\x80", b"a", "a\u{202e}".as_bytes(), b"\x1b[2J"];
        let texts = names.map(|name| plain(OsStr::from_bytes(name)));
        let all: std::collections::HashSet<&String> = texts.iter().collect();
        assert_eq!(all.len(), names.len(), "{texts:?}");
        assert!(texts.iter().all(|text| !text.chars().any(is_unseen)), "{texts:?}");
        assert_eq!(plain(OsStr::new("8f3a-1c_main.pod")), "8f3a-1c_main.pod");
        assert_eq!(texts[7], "\\x1b[2J");
    }
}
