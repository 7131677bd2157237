//! What the benches share.

#![forbid(unsafe_code)]

/// The middle one of some figures; of none, no number.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What the figures were taken on, in one line.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (cpus, kernel) = (read("/proc/cpuinfo"), read("/proc/sys/kernel/osrelease"));
    let models: Vec<_> = cpus.lines().filter(|line| line.starts_with("model name")).collect();
    let model =
        models.first().and_then(|line| line.split_once(": ")).map_or("unknown CPU", |(_, model)| model);
    format!("{} CPUs, {model}, Linux {}, on the simulated H100.", models.len(), kernel.trim())
}
