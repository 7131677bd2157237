//! Functions that the benches share.

#![forbid(unsafe_code)]

pub mod gate;
pub mod peers;

use std::path::Path;

/// The median of some figures; not a number without any.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Writes `raw.json`, every figure, and `README.md`, the machine and a text about them.
pub fn store(folder: &Path, raw: &serde_json::Value, text: &str) -> std::io::Result<()> {
    let raw = serde_json::to_string_pretty(raw).expect("numbers and names are JSON");
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("raw.json"), raw + "\n")?;
    std::fs::write(folder.join("README.md"), format!("{}\n\n{text}", machine()))
}

/// The machine of the figures, in one line.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (cpus, kernel) = (read("/proc/cpuinfo"), read("/proc/sys/kernel/osrelease"));
    let models: Vec<_> = cpus.lines().filter(|line| line.starts_with("model name")).collect();
    let model =
        models.first().and_then(|line| line.split_once(": ")).map_or("unknown CPU", |(_, model)| model);
    format!("{} CPUs, {model}, Linux {}, on the simulated H100.", models.len(), kernel.trim())
}
