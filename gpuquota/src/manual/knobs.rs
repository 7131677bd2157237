//! `docs/knobs.md`: every name of every engine, from the table that the library reads by. What 0, nothing and nonsense mean is not
//! written down there: the reader itself is asked.

use gpuquota_quota::limits::{KNOBS, Key, Knob, Reason, Severity, Source, read, region_path};
use std::fmt::Write;

/// What stands before the tables.
const HEAD: &str = "\
# Names of limits

Every variable that the library reads, by engine. This page is made by `gpuquota man --knobs`, and a test holds that it is current.

- The engines stand in order of rank: for each device, the first that says anything about it is obeyed. Above them all stands a
  limits file ([limits.md](limits.md)); within one engine a UUID outranks an index, and an index the name without one.
- `_<i>` may follow the name: the limit of one device, 0 to 15.
- **refused**: the container has no GPU until the value is mended, and one line on stderr names the variable, the value and what to write
  (`GPUQUOTA_ON_ERROR=open`: as if it were not given, and the line). **none**: no limit, and one line says so.
- A name that is misspelled is another program's variable, and no limit: NVIDIA's `NVIDIA_GPU_MEMORY_LIMITS`, in the plural, is one.
";

/// What stands behind them.
const TAIL: &str = "
## Files

| File | Read where | Meaning |
|---|---|---|
| `/etc/gpuquota/limits` | always | [limits.md](limits.md). It outranks everything |
| `/etc/gpuquota/limits.d/` | there is no limits file | the same, by user, cgroup and group: [limits.md](limits.md#limits-by-user) |
| `/etc/vgpu-manager/config/vgpu.config` | there is neither | vgpu-manager's own: layout 1, each device by its UUID; read where vgpu-manager has mounted its library. It counts as a limits file. `hard_core` alone is a fixed share; with a larger `soft_core` it is the guarantee, and `soft_core` the share. `real_memory` below `total_memory` is `memory_physical` |

## Units

| Engine | Memory | Share | Devices are counted |
|---|---|---|---|
| HAMi, Volcano | `<MiB>m`, by index | one value for all devices | in the order of the pod's annotation |
| HAMi DRA | `<MiB>m`, by index | by index | in no order |
| KAI with kai-resource-isolator | `<MiB>m`, one value | none | |
| Koordinator | bytes, one value | one value | |
| vgpu-manager | `<MiB>m`, by index | by index | as the host does; `MANAGER_VISIBLE_DEVICES` has their UUIDs |
| KAI with gpu-fractioning | MiB without a unit, one value | by MPS, which the driver enforces | |
";

/// The page.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for source in [Source::Own, Source::Hami, Source::VgpuManager, Source::Fractioning] {
        let _infallible = write!(
            page,
            "\n## {}\n\n| Variable | Sets | Values | Absent | 0 | Empty | Nonsense |\n|---|---|---|---|---|---|---|\n",
            source.engines()
        );
        for knob in KNOBS.iter().filter(|knob| knob.source == source) {
            let index = if knob.indexed { "[_<i>]" } else { "" };
            let [zero, empty, nonsense] = ["0", "", "nonsense"].map(|text| outcome(knob, text));
            let _infallible = writeln!(
                page,
                "| `{}{index}` | {} | {} | {} | {zero} | {empty} | {nonsense} |",
                knob.name, knob.about, knob.values, knob.default
            );
        }
    }
    page + TAIL
}

/// What a value means to the reader.
fn outcome(knob: &Knob, text: &str) -> String {
    // The mount counts beside the other two alone.
    let is_mount = knob.name == "CONTAINER_VGPU_MOUNT";
    let env = |name: &str| match name {
        _ if name == knob.name => Some(text.as_bytes()),
        "POD_UID" | "CONTAINER_NAME" if is_mount => Some(b"x".as_slice()),
        _ => None,
    };
    if knob.key == Key::Region {
        return match region_path(&env) {
            Err(_) => "refused".to_owned(),
            Ok(_) if text.is_empty() => "as absent".to_owned(),
            Ok(_) => "taken".to_owned(),
        };
    }
    let reading = read(&env, None);
    match reading.problems.iter().next().map(|problem| problem.reason) {
        Some(Reason::ZeroMeansNone | Reason::EmptyMeansNone) => "none".to_owned(),
        Some(Reason::PolicyUnknown) => "`default`, and a line".to_owned(),
        Some(Reason::NotABool) => "`false`, and a line".to_owned(),
        Some(Reason::NotAPriority) => "1, and a line".to_owned(),
        Some(reason) if reason.severity() == Severity::Error => "refused".to_owned(),
        Some(reason) => reason.words().to_owned(),
        None if matches!(knob.key, Key::SoftCores | Key::Ratio | Key::DeviceMap) && text != "0" => {
            "as absent".to_owned()
        }
        None if matches!(knob.key, Key::Off | Key::Oversubscribe | Key::OomKill) => "`false`".to_owned(),
        None => "taken".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_of_names_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/knobs.md");
        let kept = std::fs::read_to_string(path).expect("docs/knobs.md");
        assert!(kept == super::page(), "docs/knobs.md is old: gpuquota man --knobs > docs/knobs.md");
    }
}
