//! What a pod's annotations ask for one of its containers.
//!
//! | annotation | who reads it too | value |
//! |---|---|---|
//! | `gpuquota.dev/memory`, `cores`, `cores-request`, `policy`; with `.CONTAINER` behind it for that container alone | | as the variables |
//! | `nvidia.com/container.CONTAINER.gpu-memory.limit`, `.request` | gpu-fractioning | a quantity |
//! | `nvidia.com/container.CONTAINER.gpu-compute.portion` | gpu-fractioning | a part of 1 |
//! | `gpu-memory`, `gpu-fraction`, `gpu-fraction-container-name` | KAI | MiB; a part of the device's memory |
//!
//! For each limit the first of these that says something holds. A value is read by the library's own rules, so what is accepted
//! here the library understands.

use super::quantity::{MIB, mebibytes, millionths, whole};
use crate::environment::Environment;
use gpuquota_quota::limits::{self, Origin, Selector, Severity};
use gpuquota_quota::text::Line;
use std::collections::HashMap;
use std::ffi::OsString;

/// What our own begin with.
const OWN: &str = "gpuquota.dev/";
/// What gpu-fractioning's begin with.
const FRACTIONING: &str = "nvidia.com/container.";
const KAI_MEMORY: &str = "gpu-memory";
const KAI_FRACTION: &str = "gpu-fraction";
const KAI_CONTAINER: &str = "gpu-fraction-container-name";
/// Bytes of a value.
const LONGEST: usize = 4096;

/// A limit: its annotation, the variable whose rules its value follows, and its key in the limits file.
struct Limit {
    annotation: &'static str,
    variable: &'static str,
    key: &'static str,
}

const LIMITS: [Limit; 4] = [
    Limit { annotation: "memory", variable: "GPUQUOTA_MEMORY", key: "memory" },
    Limit { annotation: "cores", variable: "GPUQUOTA_CORES", key: "cores" },
    Limit { annotation: "cores-request", variable: "GPUQUOTA_CORES_REQUEST", key: "cores_request" },
    Limit { annotation: "policy", variable: "GPUQUOTA_POLICY", key: "policy" },
];

/// A device of the node: its UUID, and the bytes of its memory.
pub type Device = (String, u64);

/// What a value is, and which annotation says so.
#[derive(Clone, Debug)]
struct Said {
    by: String,
    /// As it stands there, for messages.
    raw: String,
    value: String,
}

/// What was asked for a container.
#[derive(Debug, Default)]
pub struct Asked([Option<Said>; LIMITS.len()]);

/// A refusal: which annotation, its value, and what to do about it.
fn refused(by: &str, raw: &str, why: &str) -> String {
    let shown: String = raw.chars().take(64).collect();
    let shown = shown.escape_debug();
    format!("annotation {} = \"{shown}\": {why}", by.escape_debug())
}

/// Where a limit's place is.
fn place(of: &str) -> usize {
    LIMITS.iter().position(|limit| limit.annotation == of).unwrap_or(0)
}

impl Asked {
    fn put(&mut self, limit: &str, said: Said) {
        self.0[place(limit)].get_or_insert(said);
    }

    /// Reads the annotations of a container's pod. `None`: the pod asks for no quota.
    pub fn of(
        annotations: &HashMap<String, String>,
        container: &str,
        devices: &[Device],
    ) -> Result<Option<Self>, String> {
        let mut asked = Self::default();
        asked.own(annotations, container)?;
        asked.fractioning(annotations, container)?;
        asked.kai(annotations, container, devices)?;
        if asked.0.iter().all(Option::is_none) {
            return Ok(None);
        }
        asked.check(devices)?;
        Ok(Some(asked))
    }

    fn own(&mut self, annotations: &HashMap<String, String>, container: &str) -> Result<(), String> {
        // Those for the container alone go before those of the pod.
        let mut for_pod = Vec::new();
        let mut sorted: Vec<_> = annotations.iter().filter(|(key, _)| key.starts_with(OWN)).collect();
        sorted.sort();
        for (by, raw) in sorted {
            let name = &by[OWN.len()..];
            let (limit, of) = name.split_once('.').map_or((name, None), |(limit, of)| (limit, Some(of)));
            if of.is_some_and(|of| of != container) {
                continue;
            }
            if !LIMITS.iter().any(|known| known.annotation == limit) {
                let known = LIMITS.iter().map(|known| known.annotation);
                let near = known
                    .max_by(|a, b| strsim::jaro_winkler(a, limit).total_cmp(&strsim::jaro_winkler(b, limit)));
                let why = format!("there is no such annotation. Write {OWN}{}", near.unwrap_or("memory"));
                return Err(refused(by, raw, &format!("{why}, or remove it.")));
            }
            if raw.len() > LONGEST || raw.contains(|letter: char| letter.is_control() || letter == '#') {
                return Err(refused(by, raw, "a value is one line without '#'. Write it so."));
            }
            let said = Said { by: by.clone(), raw: raw.clone(), value: raw.trim().to_owned() };
            match of {
                Some(_) => self.put(limit, said),
                None => for_pod.push((limit, said)),
            }
        }
        for_pod.into_iter().for_each(|(limit, said)| self.put(limit, said));
        Ok(())
    }

    fn fractioning(&mut self, annotations: &HashMap<String, String>, container: &str) -> Result<(), String> {
        let of = |name: &str| {
            let by = format!("{FRACTIONING}{container}.{name}");
            annotations.get(&by).map(|raw| (by, raw.clone()))
        };
        if let Some((by, raw)) = of("gpu-compute.mode")
            && !matches!(raw.as_str(), "time-slicing" | "sm-sharing")
        {
            return Err(refused(&by, &raw, "this word is not known here. Write time-slicing or sm-sharing."));
        }
        // A limit that is there alone is the request too, and the other way round; what binds is the limit.
        for name in ["gpu-memory.limit", "gpu-memory.request"] {
            let Some((by, raw)) = of(name) else { continue };
            let Some(size) = mebibytes(&raw) else {
                return Err(refused(&by, &raw, "this is no quantity of memory. Write one such as 2Gi."));
            };
            self.put("memory", Said { by, raw, value: format!("{size}MiB") });
        }
        if let Some((by, raw)) = of("gpu-compute.portion") {
            let Some(part) = millionths(&raw) else {
                return Err(refused(
                    &by,
                    &raw,
                    "this is no part of a GPU. Write one above 0 up to 1, such as 0.5.",
                ));
            };
            let percent = (part / 10_000).max(1);
            self.put("cores", Said { by, raw, value: format!("{percent}%") });
        }
        Ok(())
    }

    fn kai(
        &mut self,
        annotations: &HashMap<String, String>,
        container: &str,
        devices: &[Device],
    ) -> Result<(), String> {
        if annotations.get(KAI_CONTAINER).is_some_and(|named| named != container) {
            return Ok(());
        }
        let said = |by: &str, raw: &String, value| Said { by: by.to_owned(), raw: raw.clone(), value };
        if let Some(raw) = annotations.get(KAI_MEMORY) {
            let Some(size) = whole(raw) else {
                let why = "this is no whole number of MiB. Write one such as 2048.";
                return Err(refused(KAI_MEMORY, raw, why));
            };
            self.put("memory", said(KAI_MEMORY, raw, format!("{size}MiB")));
        }
        if let Some(raw) = annotations.get(KAI_FRACTION) {
            let Some(part) = millionths(raw) else {
                let why = "this is no part of a GPU. Write one above 0 up to 1, such as 0.5.";
                return Err(refused(KAI_FRACTION, raw, why));
            };
            if self.0[place("memory")].is_some() {
                return Ok(());
            }
            let sizes = devices.iter().filter_map(|(uuid, total)| {
                let bytes = u128::from(*total) * u128::from(part) / 1_000_000;
                let mebibytes = u64::try_from(bytes).ok()? / MIB;
                (mebibytes > 0).then(|| format!("{uuid}={mebibytes}MiB"))
            });
            let value = sizes.collect::<Vec<_>>().join(",");
            if value.is_empty() {
                let why = "the agent does not know how large the GPUs of this node are (NVML does not answer). \
                           Write the size, as gpuquota.dev/memory.";
                return Err(refused(KAI_FRACTION, raw, why));
            }
            self.put("memory", said(KAI_FRACTION, raw, value));
        }
        Ok(())
    }

    /// What the library would say of these values, in the words of the annotations; and whether a device has so much memory.
    fn check(&self, devices: &[Device]) -> Result<(), String> {
        let given = || LIMITS.iter().zip(&self.0).filter_map(|(limit, said)| Some((limit, said.as_ref()?)));
        let variables: Vec<(&'static str, OsString)> =
            given().map(|(limit, said)| (limit.variable, OsString::from(&said.value))).collect();
        let environment = Environment::of(&variables);
        let reading = limits::read(&|name| environment.get(name), None);
        let wrong = reading.problems.iter().find(|problem| problem.reason.severity() == Severity::Error);
        if let Some(problem) = wrong {
            let is_of = |limit: &Limit| matches!(problem.origin, Origin::Env(name) if name.as_bytes() == limit.variable.as_bytes());
            let mut why = Line::<512>::new();
            problem.write_reason(&mut why);
            let said = given().find(|(limit, _)| is_of(limit)).map(|(_, said)| said);
            let (by, raw) = said.map_or(("", ""), |said| (said.by.as_str(), said.raw.as_str()));
            return Err(refused(by, raw, &why.to_string()));
        }
        for entry in reading.limits.memory.iter() {
            let known = devices.iter().filter(|(uuid, _)| match &entry.selector {
                Selector::Uuid(named) => named.as_bytes() == uuid.as_bytes(),
                _ => true,
            });
            let Some(largest) = known.map(|(_, total)| *total).max() else { continue };
            if entry.value > largest
                && let Some(said) = &self.0[place("memory")]
            {
                let most = crate::words::bytes(largest);
                let why =
                    format!("no GPU of this node has more than {most}. Write less, or choose another node.");
                return Err(refused(&said.by, &said.raw, &why));
            }
        }
        Ok(())
    }

    /// The limits file, which names the region too.
    pub fn limits_file(&self, region: &str) -> String {
        let mut text = "# By gpuquota agent, from the annotations of the pod.\n".to_owned();
        for (limit, said) in LIMITS.iter().zip(&self.0) {
            if let Some(said) = said {
                text.push_str(&format!("{} = {}\n", limit.key, said.value));
            }
        }
        text + &format!("region = {region}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn of(annotations: &[(&str, &str)], devices: &[Device]) -> Result<Option<String>, String> {
        let annotations = annotations.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let asked = Asked::of(&annotations, "main", devices)?;
        let Some(asked) = asked else { return Ok(None) };
        let text = asked.limits_file("/r");
        // Whatever is accepted, the library understands.
        let reading = limits::read(&|_| None, Some(text.as_bytes()));
        assert_eq!(reading.problems.errors(), 0, "{text}");
        let lines: Vec<_> = text.lines().skip(1).filter(|line| !line.starts_with("region")).collect();
        Ok(Some(lines.join("; ")))
    }

    fn told(annotations: &[(&str, &str)]) -> String {
        of(annotations, &[]).expect("understood").expect("a quota")
    }

    #[test]
    fn a_pod_asks_for_all_of_its_containers_or_for_one() {
        assert_eq!(of(&[("other.dev/memory", "2GiB")], &[]), Ok(None));
        assert_eq!(told(&[("gpuquota.dev/memory", "2GiB")]), "memory = 2GiB");
        let all = [
            ("gpuquota.dev/memory", " 2GiB "),
            ("gpuquota.dev/cores", "30"),
            ("gpuquota.dev/cores-request", "10%"),
            ("gpuquota.dev/policy", "fixed-share"),
            ("gpuquota.dev/memory.main", "1GiB"),
            ("gpuquota.dev/cores.side", "nonsense"),
        ];
        assert_eq!(told(&all), "memory = 1GiB; cores = 30; cores_request = 10%; policy = fixed-share");
        assert_eq!(of(&[("gpuquota.dev/memory.side", "1GiB")], &[]), Ok(None));
        assert_eq!(told(&[("gpuquota.dev/memory", "0=1GiB,1=2GiB")]), "memory = 0=1GiB,1=2GiB");
    }

    #[test]
    fn annotations_of_other_schedulers_are_read_in_their_units() {
        let fractioning = [
            ("nvidia.com/container.main.gpu-memory.request", "1Gi"),
            ("nvidia.com/container.main.gpu-memory.limit", "1500M"),
            ("nvidia.com/container.main.gpu-compute.portion", "0.25"),
            ("nvidia.com/container.side.gpu-memory.limit", "nonsense"),
        ];
        assert_eq!(told(&fractioning), "memory = 1431MiB; cores = 25%");
        assert_eq!(told(&fractioning[..1]), "memory = 1024MiB");
        assert_eq!(told(&[("gpu-memory", "2000")]), "memory = 2000MiB");
        let other = [("gpu-memory", "2000"), ("gpu-fraction-container-name", "side")];
        assert_eq!(of(&other, &[]), Ok(None));
        let devices = [("GPU-aaaa".to_owned(), 80 * GIB), ("GPU-bbbb".to_owned(), 40 * GIB)];
        let fraction = of(&[("gpu-fraction", "0.5")], &devices);
        assert_eq!(fraction, Ok(Some("memory = GPU-aaaa=40960MiB,GPU-bbbb=20480MiB".to_owned())));
        // Ours go before theirs.
        let both = [("gpu-memory", "2000"), ("gpuquota.dev/memory", "1GiB")];
        assert_eq!(told(&both), "memory = 1GiB");
    }

    #[test]
    fn what_cannot_be_understood_is_told_with_value_origin_and_next_step() {
        let devices = [("GPU-aaaa".to_owned(), 80 * GIB)];
        for (annotations, words) in [
            (
                &[("gpuquota.dev/memory", "2GB")][..],
                &["gpuquota.dev/memory = \"2GB\"", "1000", "Write a size"][..],
            ),
            (&[("gpuquota.dev/memory", "")], &["= \"\"", "nothing is written", "Write a size"]),
            (&[("gpuquota.dev/memory.main", "-1")], &["gpuquota.dev/memory.main", "negative"]),
            (&[("gpuquota.dev/memroy", "2GiB")], &["no such annotation", "Write gpuquota.dev/memory"]),
            (&[("gpuquota.dev/cores", "101")], &["gpuquota.dev/cores = \"101\"", "100 percent"]),
            (
                &[("gpuquota.dev/cores", "30"), ("gpuquota.dev/cores-request", "50")],
                &["gpuquota.dev/cores-request", "more is guaranteed"],
            ),
            (&[("gpuquota.dev/policy", "sometimes")], &["gpuquota.dev/policy", "fixed-share"]),
            (&[("gpuquota.dev/memory", "0=1GiB,\nmode = off")], &["one line", "\\nmode"]),
            (&[("gpuquota.dev/memory", "1GiB # more")], &["one line"]),
            (&[("gpuquota.dev/memory", "81GiB")], &["no GPU of this node", "80.00 GiB"]),
            (&[("gpu-fraction", "1.5")], &["gpu-fraction = \"1.5\"", "such as 0.5"]),
            (&[("gpu-memory", "2Gi")], &["gpu-memory", "MiB"]),
            (&[("nvidia.com/container.main.gpu-memory.limit", "2GiB")], &["quantity", "2Gi"]),
            (&[("nvidia.com/container.main.gpu-compute.mode", "mps")], &["gpu-compute.mode", "sm-sharing"]),
            (&[("nvidia.com/container.main.gpu-compute.portion", "0")], &["gpu-compute.portion"]),
        ] {
            let why = of(annotations, &devices).expect_err("wrong");
            assert!(words.iter().all(|word| why.contains(word)), "{annotations:?}: {why}");
            assert!(!why.contains('\n') && why.ends_with('.'), "{why}");
        }
        let unknown = of(&[("gpu-fraction", "0.5")], &[]).expect_err("unknown size");
        assert!(unknown.contains("gpuquota.dev/memory"), "{unknown}");
        let long = of(&[("gpuquota.dev/memory", &"9".repeat(100_000))], &[]).expect_err("long");
        assert!(long.len() < 300, "{long}");
    }
}
