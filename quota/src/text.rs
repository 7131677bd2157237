//! Short texts where there is no heap and nothing may panic: a fixed byte string, and a line for people.
//!
//! The preloaded library has one chance to say what is wrong: a single write to the host application's stderr. It
//! is composed here without an allocation and without `core::fmt`; the command line prints the same lines
//! through `Display`.

use core::ffi::CStr;
use core::fmt;

/// The mark of a text that did not fit.
const CUT: &str = "...";

/// At most `N - 1` bytes, owned and copyable, always followed by a NUL; longer texts are refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fixed<const N: usize> {
    bytes: [u8; N],
    len: u16,
}

impl<const N: usize> Fixed<N> {
    /// No bytes.
    pub const fn new() -> Self {
        const { assert!(N > 0 && N <= 0xFFFF, "one byte is the NUL, and the length is a u16") };
        Self { bytes: [0; N], len: 0 }
    }

    /// A copy of `bytes`, or `None` if they are more than `N - 1`.
    pub fn copy_of(bytes: &[u8]) -> Option<Self> {
        let mut copy = Self::new();
        copy.push(bytes).then_some(copy)
    }

    /// Appends all of `more`, or nothing: `false` says that it does not fit.
    #[must_use]
    pub fn push(&mut self, more: &[u8]) -> bool {
        let len = self.len();
        let Some(room) = self.bytes.get_mut(len..) else { return false };
        if more.len() >= room.len() {
            return false;
        }
        for (to, from) in room.iter_mut().zip(more) {
            *to = *from;
        }
        self.len = u16::try_from(len.saturating_add(more.len())).unwrap_or(u16::MAX);
        true
    }

    /// The bytes, without the NUL.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len()).unwrap_or_default()
    }

    /// The bytes for the C library; a NUL among them ends it early.
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }

    fn len(&self) -> usize {
        usize::from(self.len)
    }
}

impl<const N: usize> Default for Fixed<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Debug for Fixed<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// A line of text of at most `N - 5` bytes; a longer text is cut at a character, and marked.
///
/// The five bytes are kept for the mark of the cut, the newline and the NUL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line<const N: usize> {
    text: Fixed<N>,
    cut: bool,
}

impl<const N: usize> Line<N> {
    /// An empty line.
    pub const fn new() -> Self {
        const { assert!(N > 5, "room for the mark of a cut, a newline and a NUL") };
        Self { text: Fixed::new(), cut: false }
    }

    /// Appends `more`, as far as it fits. Nothing follows a cut.
    pub fn push_str(&mut self, more: &str) -> &mut Self {
        if self.cut {
            return self;
        }
        let room = N.saturating_sub(5).saturating_sub(self.text.len());
        let mut end = more.len().min(room);
        while !more.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        let whole = self.text.push(more.get(..end).unwrap_or_default().as_bytes());
        if !whole || end < more.len() {
            self.cut = true;
            let _marked = self.text.push(CUT.as_bytes());
        }
        self
    }

    /// Appends `number` in decimal.
    pub fn push_u64(&mut self, number: u64) -> &mut Self {
        let mut digits = [0_u8; 20];
        let mut used = 0_usize;
        let mut rest = number;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' | low_byte(rest % 10);
            rest /= 10;
            used = used.saturating_add(1);
            if rest == 0 {
                break;
            }
        }
        let written = digits.get(digits.len().saturating_sub(used)..).unwrap_or_default();
        self.push_ascii(written)
    }

    /// Appends bytes for people: a unit, and one digit behind the point.
    pub fn push_size(&mut self, bytes: u64) -> &mut Self {
        let units = [("TiB", 40_u32), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        let Some((name, shift)) = units.into_iter().find(|(_, shift)| bytes >> shift != 0) else {
            return self.push_u64(bytes).push_str(" B");
        };
        let tenths = (bytes >> shift.saturating_sub(10)).wrapping_mul(10) >> 10;
        self.push_u64(tenths / 10).push_str(".").push_u64(tenths % 10).push_str(" ").push_str(name)
    }

    /// Appends at most `max` bytes of a foreign value: a byte that is not printable ASCII, a quote
    /// or a backslash is written as `\xNN`, so that no value can end the line, colour it or quote itself out.
    pub fn push_escaped(&mut self, value: &[u8], max: usize) -> &mut Self {
        for byte in value.iter().take(max) {
            match *byte {
                b'"' | b'\\' | 0..=0x1f | 0x7f.. => {
                    self.push_str("\\x").push_ascii(&[hex(byte >> 4), hex(byte & 15)]);
                }
                plain => {
                    self.push_ascii(&[plain]);
                }
            }
        }
        if value.len() > max {
            self.push_str(CUT);
        }
        self
    }

    /// The text so far.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The text so far.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Ends the line and gives it whole, newline included, for a single write.
    pub fn end(&mut self) -> &[u8] {
        if !self.as_bytes().ends_with(b"\n") {
            let _room_was_kept = self.text.push(b"\n");
        }
        self.cut = true;
        self.as_bytes()
    }

    fn push_ascii(&mut self, ascii: &[u8]) -> &mut Self {
        self.push_str(core::str::from_utf8(ascii).unwrap_or("?"))
    }
}

impl<const N: usize> fmt::Display for Line<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The parts before and after the first `mark`.
pub(crate) fn split_once(text: &[u8], mark: u8) -> Option<(&[u8], &[u8])> {
    let mut halves = text.splitn(2, |byte| *byte == mark);
    Some((halves.next()?, halves.next()?))
}

fn hex(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0'.saturating_add(nibble),
        _ => b'a'.saturating_add(nibble.saturating_sub(10)),
    }
}

fn low_byte(number: u64) -> u8 {
    let [low, ..] = number.to_le_bytes();
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    #[test]
    fn a_fixed_text_refuses_what_does_not_fit_and_keeps_its_nul() {
        let mut text = Fixed::<4>::copy_of(b"ab").unwrap();
        assert!(!text.push(b"cd"));
        assert!(text.push(b"c"));
        assert_eq!(text.as_bytes(), b"abc");
        assert_eq!(text.as_c_str(), c"abc");
        assert!(Fixed::<4>::copy_of(b"abcd").is_none());
    }

    #[test]
    fn a_line_that_does_not_fit_says_so_and_still_ends() {
        let mut line = Line::<16>::new();
        line.push_str("0123456789abcdef").push_str("more");
        assert_eq!(line.as_str(), "0123456789a...");
        assert_eq!(line.end(), b"0123456789a...\n");
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        let mut line = Line::<9>::new();
        line.push_str("aaa\u{20ac}");
        assert_eq!(line.as_str(), "aaa...");
    }

    #[test]
    fn a_strangers_value_cannot_leave_its_quotes() {
        let mut line = Line::<99>::new();
        line.push_escaped(b"a\"\n\x1b[31m\\\xff", 99);
        assert_eq!(line.as_str(), "a\\x22\\x0a\\x1b[31m\\x5c\\xff");
        let mut line = Line::<99>::new();
        line.push_escaped(b"0123456789", 4);
        assert_eq!(line.as_str(), "0123...");
    }

    proptest! {
        #[test]
        fn a_number_is_printed_as_everybody_prints_it(number: u64) {
            let mut line = Line::<40>::new();
            line.push_u64(number);
            prop_assert_eq!(line.as_str(), number.to_string());
        }

        #[test]
        fn a_line_is_always_text_whatever_is_pushed(parts: std::vec::Vec<(std::string::String, std::vec::Vec<u8>)>) {
            let mut line = Line::<64>::new();
            for (text, value) in &parts {
                line.push_str(text).push_escaped(value, 9);
            }
            prop_assert!(core::str::from_utf8(line.as_bytes()).is_ok());
            prop_assert!(line.end().ends_with(b"\n"));
        }
    }
}
