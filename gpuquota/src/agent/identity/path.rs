//! What the place of a region says: each engine names its directories by pod and container.
//!
//! It is a claim and no proof. Some engines mount one directory into all pods, so a tenant can make a file there under
//! another pod's name: what the kernel says of the processes outranks it ([`super::cgroup`]).

use std::ffi::OsStr;
use std::path::Path;

/// What a path claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clue {
    /// The engine whose layout it is.
    pub engine: &'static str,
    /// The pod's UID.
    pub pod_uid: Option<String>,
    /// The container's name in its pod.
    pub container: Option<String>,
}

/// Reads a region's path.
pub fn clue(path: &Path) -> Clue {
    let words: Vec<&str> = path.iter().filter_map(OsStr::to_str).collect();
    let engine = |engine| Clue { engine, ..Clue::default() };
    let (Some((file, above)), true) = (words.split_last(), path.is_absolute()) else { return engine("") };
    let stem = file.strip_suffix(".cache").unwrap_or(file);
    match above {
        // Places in which every user makes directories: their names say nothing.
        [.., "tmp", user] if user.starts_with("gpuquota-") => engine("gpuquota"),
        [.., "gpuquota"] => engine("gpuquota"),
        [.., "claims", _claim] => engine("hami-dra"),
        [.., "vgpu-manager", pod] => of_pod("vgpu-manager", pod),
        [.., "vgpu-manager", pod, _] => of_pod("vgpu-manager", pod),
        [.., "vgpu", "vgpu", "containers", pod] | [.., "tmp", "vgpu", "containers", pod] => {
            of_pod("volcano", pod)
        }
        [.., "vgpu", "containers", pod] if stem == *pod => of_pod("koordinator", pod),
        [.., "vgpu", "containers", pod] => of_pod("hami", pod),
        [.., "vgpu", "containers"] => of_pod("kai", stem),
        [.., directory] if split(directory).is_some() => of_pod("", directory),
        _ => of_pod("", stem),
    }
}

fn of_pod(engine: &'static str, name: &str) -> Clue {
    match split(name) {
        Some((uid, container)) => Clue { engine, pod_uid: Some(uid), container: Some(container) },
        None => Clue { engine, ..Clue::default() },
    }
}

/// `<pod UID>_<container>`: no container's name has an underscore.
fn split(name: &str) -> Option<(String, String)> {
    let (uid, container) = name.split_once('_')?;
    (is_pod_uid(uid) && is_label(container)).then(|| (uid.to_owned(), container.to_owned()))
}

/// A pod's UID: a UUID, or the hash of a static pod's file.
pub fn is_pod_uid(text: &str) -> bool {
    let hexadecimal =
        |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'));
    match text.len() {
        32 => hexadecimal(text),
        36 => text.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && text.split('-').all(hexadecimal),
        _ => false,
    }
}

/// A name as Kubernetes allows one for a container: small letters, digits and `-`.
pub fn is_label(text: &str) -> bool {
    is_name(text, 63) && !text.contains(['.', '_']) && !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// A name that anybody here may have: letters, digits, `.`, `_` and `-`, so many at most.
pub fn is_name(text: &str, longest: usize) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=longest).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f4c2d1e-5a6b-4c7d-8e9f-0a1b2c3d4e5f";

    #[test]
    fn every_layout_of_the_engines_is_told_apart() {
        let dir = format!("{UID}_main");
        for (path, engine) in [
            (format!("/usr/local/vgpu/containers/{dir}/8f3a.cache"), "hami"),
            (format!("/usr/local/vgpu/containers/{dir}/{dir}.cache"), "koordinator"),
            (format!("/usr/local/vgpu/containers/{dir}"), "kai"),
            (format!("/usr/local/vgpu/vgpu/containers/{dir}/8f3a.cache"), "volcano"),
            (format!("/tmp/vgpu/containers/{dir}/8f3a.cache"), "volcano"),
            (format!("/etc/vgpu-manager/{dir}/region.cache"), "vgpu-manager"),
            (format!("/etc/vgpu-manager/{dir}/vmem_node/region.cache"), "vgpu-manager"),
            (format!("/mnt/host/usr/local/vgpu/containers/{dir}/8f3a.cache"), "hami"),
            (format!("/srv/{dir}/x.cache"), ""),
            (format!("/srv/{dir}"), ""),
        ] {
            let found = clue(Path::new(&path));
            let expected = Clue { engine, pod_uid: Some(UID.into()), container: Some("main".into()) };
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn the_directory_of_a_static_pod_is_read_too() {
        let hash = "9b1c5e0f6d4a3b2c1d0e9f8a7b6c5d4e";
        let found = clue(Path::new(&format!("/usr/local/vgpu/containers/{hash}_etcd/x.cache")));
        assert_eq!(found.pod_uid.as_deref(), Some(hash));
    }

    #[test]
    fn names_that_any_user_may_choose_name_no_pod() {
        let dir = format!("{UID}_main");
        for path in [
            format!("/tmp/gpuquota-1000/{dir}.cache"),
            format!("/run/gpuquota/{dir}.cache"),
            "/usr/local/vgpu/claims/77aa/x.cache".to_owned(),
            "/usr/local/vgpu/containers/4711_main/x.cache".to_owned(),
            format!("/usr/local/vgpu/containers/{UID}_Main/x.cache"),
            format!("/usr/local/vgpu/containers/{UID}_a\u{1b}[2J/x.cache"),
            "x.cache".to_owned(),
            "/".to_owned(),
        ] {
            assert_eq!(clue(Path::new(&path)).pod_uid, None, "{path}");
        }
    }
}
