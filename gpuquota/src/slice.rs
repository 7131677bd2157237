//! A slice of a GPU in one word, as in the name of a CDI device: `2GiB-30`, `2GiB` or `30%`.

use crate::error::Error;
use gpuquota_quota::limits::{own_percent, own_size, write_size};
use gpuquota_quota::text::Line;
use std::fmt::Write;

/// Memory, a share of time, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Bytes.
    pub memory: Option<u64>,
    /// Percent.
    pub cores: Option<u8>,
}

impl Slice {
    /// Reads the word that `origin` was given.
    pub fn parse(text: &str, origin: &str) -> Result<Self, Error> {
        let refused = |part: &str, why: &str| {
            Error::Asked(format!(
                "{origin} {text:?}: {part:?}: {why}. Write a size, a size and a percentage, or a percentage: 2GiB, 2GiB-30, 30%"
            ))
        };
        let percent = |part: &str| own_percent(part.as_bytes()).map_err(|why| refused(part, why.words()));
        let size = |part: &str| own_size(part.as_bytes()).map_err(|why| refused(part, why.words()));
        match text.split_once('-') {
            None if text.ends_with('%') => Ok(Self { memory: None, cores: Some(percent(text)?) }),
            None => Ok(Self { memory: Some(size(text)?), cores: None }),
            Some((memory, cores)) => Ok(Self { memory: Some(size(memory)?), cores: Some(percent(cores)?) }),
        }
    }

    /// The word, always written in one way.
    pub fn name(self) -> String {
        let mut name = Line::<48>::new();
        if let Some(bytes) = self.memory {
            write_size(&mut name, bytes);
        }
        match (self.memory, self.cores) {
            (Some(_), Some(cores)) => name.push_str("-").push_u64(cores.into()),
            (None, Some(cores)) => name.push_u64(cores.into()).push_str("pct"),
            _ => &mut name,
        };
        name.to_string()
    }

    /// The lines of a limits file.
    pub fn limits(self) -> String {
        let mut text = String::new();
        if let Some(bytes) = self.memory {
            let mut size = Line::<48>::new();
            write_size(&mut size, bytes);
            let _infallible = writeln!(text, "memory = {size}");
        }
        if let Some(cores) = self.cores {
            let _infallible = writeln!(text, "cores = {cores}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_read_and_written_in_one_word() {
        let read = |text: &str| Slice::parse(text, "--slice");
        let both = read("2048MiB-30%").expect("a slice");
        assert_eq!((both.memory, both.cores, both.name().as_str()), (Some(2 << 30), Some(30), "2GiB-30"));
        assert_eq!(both.limits(), "memory = 2GiB\ncores = 30\n");
        assert_eq!(read("1.5GiB").expect("a slice").name(), "1536MiB");
        assert_eq!(read("30%").expect("a slice").name(), "30pct");
        for (wrong, part) in
            [("", "\"\""), ("2GB-30", "2GB"), ("2GiB-0", "\"0\""), ("2GiB-30-1", "30-1"), ("x", "x")]
        {
            let told = read(wrong).expect_err(wrong).to_string();
            assert!(told.starts_with("--slice ") && told.contains(part) && told.contains("Write "), "{told}");
        }
    }
}
