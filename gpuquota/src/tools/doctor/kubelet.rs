//! Who gives the cards of this node away, where that is Kubernetes'.

use super::finding::Finding;
use crate::kubelet::beside::others;
use crate::tools::messages::TWO_BOOKERS;
use std::path::Path;

/// Whether two do. NVIDIA's alone is fine: limits by annotations go with it.
pub fn look(system: &Path) -> Vec<Finding> {
    let found = others(Path::new("/var/lib/kubelet"), system, "");
    let (ours, theirs): (Vec<_>, Vec<_>) = found.iter().partition(|other| other.is_ours);
    let mut names: Vec<&str> = ours.iter().map(|other| other.name).collect();
    // Each of our resources has a socket of its own.
    names.dedup();
    if ours.is_empty() || theirs.is_empty() && names.len() < 2 {
        return Vec::new();
    }
    let all: Vec<String> = ours.iter().chain(&theirs).map(|other| format!("{other}.")).collect();
    vec![Finding::error(&TWO_BOOKERS, all.join(" "))]
}
