//! Paths that this crate puts together, without memory of its own.

use core::ffi::CStr;

/// Bytes of the longest path that this crate makes.
pub const PATH_BYTES: usize = 1152;

/// A path that this crate has put together.
pub struct PathBuffer([u8; PATH_BYTES], usize);

impl PathBuffer {
    /// The parts, one after the other; `None` where they do not fit, or contain a NUL.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Option<Self> {
        let mut path = Self([0; PATH_BYTES], 0);
        for part in parts {
            path.push(part)?;
        }
        Some(path)
    }

    /// Adds a part.
    pub fn push(&mut self, part: &[u8]) -> Option<()> {
        let end = self.1.checked_add(part.len())?;
        // One byte stays for the NUL.
        if end >= PATH_BYTES || part.contains(&0) {
            return None;
        }
        for (to, from) in self.0.iter_mut().skip(self.1).zip(part) {
            *to = *from;
        }
        self.1 = end;
        Some(())
    }

    /// Adds a number in decimal digits.
    pub fn push_number(&mut self, number: u32) -> Option<()> {
        let mut digits = [0u8; 10];
        let (mut rest, mut used) = (number, 0usize);
        for digit in digits.iter_mut().rev() {
            *digit = u8::try_from(rest % 10).map_or(b'0', |digit| b'0'.wrapping_add(digit));
            rest /= 10;
            used = used.wrapping_add(1);
            if rest == 0 {
                break;
            }
        }
        self.push(digits.get(10usize.checked_sub(used)?..)?)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.get(..self.1).unwrap_or(&[])
    }

    /// As a C string.
    #[must_use]
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}

/// `/proc/PID/WHAT`.
#[must_use]
pub fn proc_path(pid: u32, what: &[u8]) -> Option<PathBuffer> {
    let mut path = PathBuffer::of(&[b"/proc/"])?;
    path.push_number(pid)?;
    path.push(what)?;
    Some(path)
}

/// A path split into its directory, with the slash behind it, and the name in it.
#[must_use]
pub fn split(path: &CStr) -> (&[u8], &[u8]) {
    let bytes = path.to_bytes();
    let name = bytes.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at.wrapping_add(1));
    bytes.split_at_checked(name).unwrap_or((&[], bytes))
}

/// A number in decimal digits.
#[must_use]
pub fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_put_together_and_taken_apart() {
        assert_eq!(split(c"/tmp/x.cache"), (&b"/tmp/"[..], &b"x.cache"[..]));
        assert_eq!(split(c"x.cache"), (&b""[..], &b"x.cache"[..]));
        let path = proc_path(4711, b"/maps").expect("short");
        assert_eq!(path.as_c_str(), c"/proc/4711/maps");
        assert!(PathBuffer::of(&[&[b'x'; PATH_BYTES]]).is_none());
        assert!(PathBuffer::of(&[b"a\0b"]).is_none());
    }

    #[test]
    fn only_digits_are_a_number() {
        assert_eq!(
            [&b"17"[..], b"", b"self", b"99999999999999999999"].map(number),
            [Some(17), None, None, None]
        );
    }
}
