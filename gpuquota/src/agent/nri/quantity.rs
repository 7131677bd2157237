//! Numbers as Kubernetes and the schedulers of GPUs write them in annotations.

/// A mebibyte.
pub const MIB: u64 = 1 << 20;

/// What may stand behind a quantity's number, and the factor that it means.
const SUFFIXES: [(&str, u128); 13] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
    ("", 1),
];

/// Digits behind the point that are looked at; the rest rounds up.
const DIGITS: usize = 18;

/// A number without a sign or an exponent, as a whole number of `10^-DIGITS`, and whether more digits follow that are not 0.
fn decimal(text: &str) -> Option<(u128, bool)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !digits(whole) || !digits(fraction) || whole.len() > 19 {
        return None;
    }
    let kept = &fraction[..fraction.len().min(DIGITS)];
    let more = fraction[kept.len()..].bytes().any(|byte| byte != b'0');
    let all = format!("{whole}{kept:0<DIGITS$}");
    Some((all.parse().ok()?, more))
}

/// A quantity of bytes as Kubernetes has it (`2Gi`, `1500M`, `1.5Gi`), in MiB, rounded up; at least one.
pub fn mebibytes(text: &str) -> Option<u64> {
    let at = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(at);
    let (_, factor) = SUFFIXES.iter().find(|(known, _)| *known == suffix)?;
    let (number, more) = decimal(number)?;
    let unit = u128::from(MIB).checked_mul(10_u128.pow(DIGITS as u32))?;
    // A factor of MiB and more is taken out of both, so that nothing overflows.
    let (number, unit) = match factor.is_power_of_two() && *factor >= u128::from(MIB) {
        true => (number.checked_mul(factor / u128::from(MIB))?, unit / u128::from(MIB)),
        false => (number.checked_mul(*factor)?, unit),
    };
    let rounded = number / unit + u128::from(!number.is_multiple_of(unit) || more);
    u64::try_from(rounded).ok().filter(|mebibytes| *mebibytes > 0)
}

/// A part of a whole: above 0, at most 1; in millionths, rounded down, at least one.
pub fn millionths(text: &str) -> Option<u64> {
    let (number, _) = decimal(text)?;
    let whole = 10_u128.pow(DIGITS as u32);
    if number == 0 || number > whole {
        return None;
    }
    u64::try_from(number / (whole / 1_000_000)).ok().map(|part| part.max(1))
}

/// A whole number of MiB.
pub fn whole(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them_and_rounded_up() {
        for (text, expected) in [
            ("2Gi", Some(2048)),
            ("1.5Gi", Some(1536)),
            ("512Mi", Some(512)),
            ("1", Some(1)),
            ("1048577", Some(2)),
            ("1000M", Some(954)),
            ("0.1Ki", Some(1)),
            ("4Ti", Some(4 << 20)),
            ("8Ei", Some(8 << 40)),
            ("0.0000000000000000001Gi", Some(1)),
            ("0", None),
            ("0Gi", None),
            ("", None),
            (".", None),
            ("-1Gi", None),
            ("2GiB", None),
            ("2gi", None),
            ("1e3", None),
            ("1.2.3", None),
            ("99999999999999999999", None),
            ("9999999999999999999Ei", None),
            ("٣Gi", None),
        ] {
            assert_eq!(mebibytes(text), expected, "{text}");
        }
    }

    #[test]
    fn a_part_is_above_0_and_at_most_1() {
        for (text, expected) in
            [("0.5", Some(500_000)), ("1", Some(1_000_000)), ("1.0", Some(1_000_000)), (".25", Some(250_000))]
        {
            assert_eq!(millionths(text), expected, "{text}");
        }
        for wrong in ["0", "0.0", "1.0001", "2", "half", "", "-0.5", "0,5", "50%"] {
            assert_eq!(millionths(wrong), None, "{wrong}");
        }
        assert_eq!(millionths("0.00000000001"), Some(1));
    }
}
