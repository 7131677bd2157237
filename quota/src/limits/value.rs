//! The grammars of single values: ours, and HAMi's where one of its variables is read.
//!
//! Ours is strict and says so. HAMi's own reader never checks: `10Gi` is ten bytes to it and `010g` eight
//! gigabytes. What both can only mean in one way is taken; whatever HAMi would misread is refused by name.

use super::problem::Reason;
use super::types::{Selector, Uuid};
use crate::text::{Line, split_once};

/// The first size that is out of range: 64 TiB.
pub const SIZE_END: u64 = 1 << 46;

/// The highest device index that a selector may name.
pub const INDEX_MAX: u8 = 31;

const KI: u64 = 1 << 10;
const MI: u64 = 1 << 20;
const GI: u64 = 1 << 30;
const TI: u64 = 1 << 40;

/// Every unit that we know; all of them are binary.
const UNITS: [(&str, u64); 14] = [
    ("", 1),
    ("b", 1),
    ("k", KI),
    ("ki", KI),
    ("kib", KI),
    ("m", MI),
    ("mi", MI),
    ("mib", MI),
    ("g", GI),
    ("gi", GI),
    ("gib", GI),
    ("t", TI),
    ("ti", TI),
    ("tib", TI),
];

/// Units that mean 1000 to some and 1024 to others.
const AMBIGUOUS: [&str; 4] = ["kb", "mb", "gb", "tb"];

/// A size in our grammar: `2GiB`, `1536M`, `1.5 G`, or plain bytes. A fraction is rounded down to whole bytes.
///
/// # Errors
/// The reason why it is not a size in `1..SIZE_END`.
pub fn own_size(text: &[u8]) -> Result<u64, Reason> {
    let text = text.trim_ascii();
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or((text, b""));
    match text.first() {
        None => return Err(Reason::Empty),
        Some(b'-') => return Err(Reason::Negative),
        Some(_) if number.is_empty() => return Err(Reason::NotANumber),
        Some(_) => {}
    }
    let (whole, fraction) = match split_once(number, b'.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (number, None),
    };
    let unit = multiplier(unit.trim_ascii_start())?;
    let bytes = decimal(whole)?.checked_mul(unit).ok_or(Reason::TooLarge)?;
    let bytes = match fraction {
        None => bytes,
        Some(_) if unit == 1 => return Err(Reason::FractionOfAByte),
        Some(digits) => bytes.checked_add(part(digits, unit)?).ok_or(Reason::TooLarge)?,
    };
    in_range(bytes)
}

/// A share of GPU time in our grammar: `30` or `30%`, from 1 to 100.
///
/// # Errors
/// The reason why it is not such a percentage.
pub fn own_percent(text: &[u8]) -> Result<u8, Reason> {
    let text = text.trim_ascii();
    let number = text.strip_suffix(b"%").unwrap_or(text).trim_ascii_end();
    match percent(number)? {
        0 => Err(Reason::Zero),
        value => Ok(value),
    }
}

/// A size as HAMi writes it: a whole number with `g`, `m`, `k` (binary), or plain bytes.
///
/// # Errors
/// [`Reason::ZeroMeansNone`] and [`Reason::EmptyMeansNone`] where HAMi means no limit, else why it is no size.
pub fn hami_size(text: &[u8]) -> Result<u64, Reason> {
    let (number, unit) = match text.split_last() {
        None => return Err(Reason::EmptyMeansNone),
        Some((b'g' | b'G', number)) => (number, GI),
        Some((b'm' | b'M', number)) => (number, MI),
        Some((b'k' | b'K', number)) => (number, KI),
        Some(_) => (text, 1),
    };
    match plain_number(number)?.checked_mul(unit) {
        Some(0) => Err(Reason::ZeroMeansNone),
        Some(bytes) => in_range(bytes),
        None => Err(Reason::TooLarge),
    }
}

/// A size as gpu-fractioning writes it: a whole number of MiB.
///
/// # Errors
/// The reason why it is none. That engine writes no 0 and nothing empty, so either is a mistake.
pub fn mebibytes(text: &[u8]) -> Result<u64, Reason> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err(Reason::Empty);
    }
    in_range(plain_number(text)?.checked_mul(MI).ok_or(Reason::TooLarge)?)
}

/// By how much vgpu-manager oversells memory, in hundredths: a number from 1 on, of which two decimals count.
///
/// # Errors
/// The reason why it is none.
pub fn ratio(text: &[u8]) -> Result<u64, Reason> {
    let (whole, decimals) = split_once(text, b'.').unwrap_or((text, b"0"));
    let hundredths = match decimals {
        [tens] => plain_number(&[*tens, b'0']),
        [tens, ones, ..] => plain_number(&[b'1', *tens, *ones]).map(|number| number.wrapping_sub(100)),
        [] => Err(Reason::Empty),
    };
    let hundredths = if decimals == b"0" { Ok(0) } else { hundredths };
    let whole = plain_number(whole)?.checked_mul(100).ok_or(Reason::TooLarge)?;
    match whole.checked_add(hundredths?) {
        Some(0..100) => Err(Reason::RatioBelowOne),
        Some(ratio) => Ok(ratio),
        None => Err(Reason::TooLarge),
    }
}

/// A share of GPU time as HAMi writes it: a whole number; 100 is no limit, and so are 0 and nothing.
///
/// # Errors
/// [`Reason::ZeroMeansNone`] and [`Reason::EmptyMeansNone`] where HAMi means no limit, else why it is no share.
pub fn hami_percent(text: &[u8]) -> Result<u8, Reason> {
    if text.is_empty() {
        return Err(Reason::EmptyMeansNone);
    }
    match percent(text)? {
        0 => Err(Reason::ZeroMeansNone),
        value => Ok(value),
    }
}

/// `true` and `false` as Kubernetes software writes them; empty is false.
///
/// # Errors
/// [`Reason::NotABool`].
pub fn boolean(text: &[u8]) -> Result<bool, Reason> {
    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()));
    match () {
        () if is(&["1", "t", "true"]) => Ok(true),
        () if is(&["", "0", "f", "false"]) => Ok(false),
        () => Err(Reason::NotABool),
    }
}

/// How long to wait, in milliseconds: `0`, or a whole number with `ms` or `s`, at most a minute.
///
/// # Errors
/// [`Reason::NotATime`], or why the number is none.
pub fn wait_ms(text: &[u8]) -> Result<u32, Reason> {
    let text = text.trim_ascii();
    let (number, factor) = match (text.strip_suffix(b"ms"), text.strip_suffix(b"s")) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1000),
        (None, None) => (text, 0),
    };
    match plain_number(number.trim_ascii_end())?.checked_mul(factor) {
        // A number without a unit is no time, unless it is 0.
        Some(0) if factor != 0 || text == b"0" => Ok(0),
        Some(wait @ 1..=60_000) => u32::try_from(wait).map_err(|_| Reason::NotATime),
        _ => Err(Reason::NotATime),
    }
}

/// A task's priority: a whole number, 0 is the highest.
///
/// # Errors
/// [`Reason::NotAPriority`].
pub fn priority(text: &[u8]) -> Result<i32, Reason> {
    plain_number(text).ok().and_then(|number| i32::try_from(number).ok()).ok_or(Reason::NotAPriority)
}

/// The device that a value is for: `0`..=`31`, or a UUID that starts with `GPU-` or `MIG-`.
///
/// # Errors
/// [`Reason::BadSelector`] or [`Reason::IndexTooHigh`].
pub fn selector(text: &[u8]) -> Result<Selector, Reason> {
    if text.starts_with(b"GPU-") || text.starts_with(b"MIG-") {
        let known = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'/');
        return match Uuid::copy_of(text) {
            Some(uuid) if text.len() > 4 && text.iter().all(known) => Ok(Selector::Uuid(uuid)),
            _ => Err(Reason::BadSelector),
        };
    }
    let index = plain_number(text).map_err(|_| Reason::BadSelector)?;
    match u8::try_from(index) {
        Ok(index) if index <= INDEX_MAX => Ok(Selector::Index(index)),
        _ => Err(Reason::IndexTooHigh),
    }
}

/// Appends `bytes` in the largest unit that gives a whole number; [`own_size`] reads it back unchanged.
pub fn write_size<const N: usize>(line: &mut Line<N>, bytes: u64) {
    let fits = |unit: u64| bytes != 0 && bytes & unit.wrapping_sub(1) == 0;
    match () {
        () if fits(TI) => line.push_u64(bytes / TI).push_str("TiB"),
        () if fits(GI) => line.push_u64(bytes / GI).push_str("GiB"),
        () if fits(MI) => line.push_u64(bytes / MI).push_str("MiB"),
        () if fits(KI) => line.push_u64(bytes / KI).push_str("KiB"),
        () => line.push_u64(bytes).push_str("B"),
    };
}

fn in_range(bytes: u64) -> Result<u64, Reason> {
    match bytes {
        0 => Err(Reason::Zero),
        1..SIZE_END => Ok(bytes),
        SIZE_END.. => Err(Reason::TooLarge),
    }
}

fn percent(text: &[u8]) -> Result<u8, Reason> {
    match plain_number(text) {
        Ok(number @ 0..=100) => u8::try_from(number).map_err(|_| Reason::AboveHundred),
        Ok(_) | Err(Reason::TooLarge) => Err(Reason::AboveHundred),
        Err(reason) => Err(reason),
    }
}

fn multiplier(unit: &[u8]) -> Result<u64, Reason> {
    let is = |name: &str| unit.eq_ignore_ascii_case(name.as_bytes());
    match UNITS.iter().find(|(name, _)| is(name)) {
        Some((_, multiplier)) => Ok(*multiplier),
        None if AMBIGUOUS.iter().any(|name| is(name)) => Err(Reason::AmbiguousUnit),
        None => Err(Reason::UnknownUnit),
    }
}

/// A whole number and nothing else, with the reason told as exactly as the text allows.
fn plain_number(text: &[u8]) -> Result<u64, Reason> {
    match text.first() {
        None => Err(Reason::Empty),
        Some(b'-') => Err(Reason::Negative),
        Some(byte) if !byte.is_ascii_digit() => Err(Reason::NotANumber),
        Some(_) if text.contains(&b'.') => Err(Reason::Fraction),
        Some(_) => decimal(text),
    }
}

/// Digits, not one of them superfluous.
fn decimal(digits: &[u8]) -> Result<u64, Reason> {
    if digits.len() > 1 && digits.starts_with(b"0") {
        return Err(Reason::LeadingZero);
    }
    if digits.is_empty() {
        return Err(Reason::NotANumber);
    }
    digits.iter().try_fold(0_u64, |number, byte| {
        let digit = digit(*byte)?;
        number.checked_mul(10).and_then(|tens| tens.checked_add(digit)).ok_or(Reason::TooLarge)
    })
}

/// `unit` times the fraction `.digits`, rounded down. From the last digit on, so that nothing is lost before
/// the end: a floor of floors by ten is the floor of the whole.
fn part(digits: &[u8], unit: u64) -> Result<u64, Reason> {
    if digits.is_empty() {
        return Err(Reason::NotANumber);
    }
    digits.iter().rev().try_fold(0_u64, |lower, byte| {
        let here = digit(*byte)?.checked_mul(unit).and_then(|here| here.checked_add(lower));
        Ok(here.ok_or(Reason::TooLarge)? / 10)
    })
}

fn digit(byte: u8) -> Result<u64, Reason> {
    match byte {
        b'0'..=b'9' => Ok(u64::from(byte & 15)),
        _ => Err(Reason::TrailingJunk),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_unit_is_binary_and_its_case_does_not_matter() {
        let sizes = [
            ("1", 1),
            ("512B", 512),
            ("4k", 4 << 10),
            ("4KiB", 4 << 10),
            ("3m", 3 * MI),
            ("3Mi", 3 * MI),
            ("2GiB", 2 * GI),
            ("2gib", 2 * GI),
            (" 2 G ", 2 * GI),
            ("1.5GiB", 3 * GI / 2),
            ("0.1k", 102),
            ("63.999TiB", 70_367_644_666_036),
            ("70368744177663", (1 << 46) - 1),
        ];
        for (text, bytes) in sizes {
            assert_eq!(own_size(text.as_bytes()), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn a_size_that_is_none_is_refused_with_its_reason() {
        let wrong = [
            ("", Reason::Empty),
            ("  ", Reason::Empty),
            ("0", Reason::Zero),
            ("0GiB", Reason::Zero),
            ("0.0001k", Reason::Zero),
            ("-1", Reason::Negative),
            ("+1", Reason::NotANumber),
            ("GiB", Reason::NotANumber),
            ("unlimited", Reason::NotANumber),
            (".5GiB", Reason::NotANumber),
            ("5.GiB", Reason::NotANumber),
            ("1.2.3GiB", Reason::TrailingJunk),
            ("010GiB", Reason::LeadingZero),
            ("0x10", Reason::UnknownUnit),
            ("1.5x", Reason::UnknownUnit),
            ("2GiB!", Reason::UnknownUnit),
            ("2GB", Reason::AmbiguousUnit),
            ("2kb", Reason::AmbiguousUnit),
            ("1.5", Reason::FractionOfAByte),
            ("1.5B", Reason::FractionOfAByte),
            ("64TiB", Reason::TooLarge),
            ("70368744177664", Reason::TooLarge),
            ("99999999999999999999", Reason::TooLarge),
            ("18446744073709551615T", Reason::TooLarge),
        ];
        for (text, reason) in wrong {
            assert_eq!(own_size(text.as_bytes()), Err(reason), "{text}");
        }
    }

    #[test]
    fn a_share_is_a_whole_percentage_from_1_to_100() {
        for (text, share) in [("30", 30), ("30%", 30), (" 1 % ", 1), ("100", 100)] {
            assert_eq!(own_percent(text.as_bytes()), Ok(share), "{text}");
        }
        let wrong = [
            ("", Reason::Empty),
            ("%", Reason::Empty),
            ("0", Reason::Zero),
            ("0%", Reason::Zero),
            ("101", Reason::AboveHundred),
            ("300", Reason::AboveHundred),
            ("99999999999999999999", Reason::AboveHundred),
            ("-1", Reason::Negative),
            ("030", Reason::LeadingZero),
            ("0.3", Reason::Fraction),
            ("30%%", Reason::TrailingJunk),
            ("half", Reason::NotANumber),
        ];
        for (text, reason) in wrong {
            assert_eq!(own_percent(text.as_bytes()), Err(reason), "{text}");
        }
    }

    #[test]
    fn a_wait_has_a_unit_and_an_end() {
        let read = |text: &str| wait_ms(text.as_bytes());
        assert_eq!(["0", "0s", "1ms", "500 ms", "2s", "60s"].map(read), [0, 0, 1, 500, 2000, 60_000].map(Ok));
        for wrong in ["5", "61s", "60001ms", "1.5s", "s", "", "-1s", "1m", "forever"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_size_that_is_printed_reads_back_unchanged(bytes in 1..SIZE_END, shift in 0_u32..46) {
            for size in [bytes, bytes >> shift << shift] {
                if size > 0 {
                    let mut line = Line::<40>::new();
                    write_size(&mut line, size);
                    prop_assert_eq!(own_size(line.as_bytes()), Ok(size), "{}", line);
                }
            }
        }

        #[test]
        fn a_decimal_fraction_is_rounded_down_to_the_byte(whole in 0_u64..1000, fraction in 0_u64..1_000_000) {
            let exact = u128::from(whole) * u128::from(GI) + u128::from(fraction) * u128::from(GI) / 1_000_000;
            let text = std::format!("{whole}.{fraction:06}GiB");
            let expected = if exact == 0 { Err(Reason::Zero) } else { Ok(u64::try_from(exact).unwrap()) };
            prop_assert_eq!(own_size(text.as_bytes()), expected);
        }
    }
}
