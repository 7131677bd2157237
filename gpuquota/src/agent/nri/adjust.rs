//! What a container is given, as the runtime is told it.

use crate::given::{Bind, Given, binds};
use nri_plugin::Adjust;
use nri_plugin::api::{Container, ContainerAdjustment, Mount};
use std::path::Path;

const VARIABLE: &str = "LD_PRELOAD";

fn mount(bind: Bind) -> Mount {
    let access = if bind.is_read_only { "ro" } else { "rw" };
    let options = ["bind", access, "nosuid", "nodev"].map(str::to_owned).into();
    let source = bind.source.to_string_lossy().into_owned();
    Mount { destination: bind.destination, r#type: "bind".to_owned(), source, options }
}

/// The library for a container, its line in the loader's list, and what it was given.
///
/// What the image or the pod has the loader preload stays, behind the library; a list of the loader's that was
/// mounted is replaced.
pub fn adjustment(
    container: &Container,
    library: &Path,
    preload: &Path,
    given: &Given,
) -> ContainerAdjustment {
    let own = library.to_string_lossy();
    let all = binds(library, preload, given).into_iter();
    let adjustment =
        all.fold(ContainerAdjustment::default(), |adjustment, bind| adjustment.with_mount(mount(bind)));
    let prefix = format!("{VARIABLE}=");
    // Of a variable that is there twice the last one counts.
    let inherited = container.env.iter().rev().find_map(|variable| variable.strip_prefix(&prefix));
    match inherited.filter(|value| !value.is_empty()) {
        Some(value) if value.split([':', ' ']).next() != Some(&own) => {
            adjustment.with_variable(VARIABLE, &format!("{own}:{value}"))
        }
        _ => adjustment,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(env: &[&str]) -> ContainerAdjustment {
        let env = env.iter().map(|variable| (*variable).to_owned()).collect();
        let container = Container { env, ..Container::default() };
        let given = Given { limits: "/b/.nri/1/limits".into(), directory: "/b/u_c".into() };
        adjustment(&container, Path::new("/l/q.so"), Path::new("/b/.nri/ld.so.preload"), &given)
    }

    #[test]
    fn the_directory_of_the_region_cannot_be_written_and_its_file_can() {
        let mounts = of(&[]).mounts;
        let of = |destination: &str| {
            let mount = mounts.iter().find(|mount| mount.destination == destination).expect("a mount");
            (mount.source.as_str(), mount.options.iter().any(|option| option == "ro"))
        };
        assert_eq!(of("/run/gpuquota"), ("/b/u_c", true));
        assert_eq!(of("/run/gpuquota/region.cache"), ("/b/u_c/region.cache", false));
        assert_eq!(of("/etc/gpuquota/limits"), ("/b/.nri/1/limits", true));
        assert_eq!(of("/etc/ld.so.preload"), ("/b/.nri/ld.so.preload", true));
        assert_eq!(of("/l/q.so"), ("/l/q.so", true));
    }

    #[test]
    fn what_is_preloaded_already_comes_behind_the_library() {
        let value = |env: &[&str]| of(env).env.last().map(|variable| variable.value.clone());
        assert_eq!(value(&["PATH=/bin"]), None);
        assert_eq!(value(&["LD_PRELOAD="]), None);
        assert_eq!(value(&["LD_PRELOAD=/a.so /b.so"]).as_deref(), Some("/l/q.so:/a.so /b.so"));
        assert_eq!(value(&["LD_PRELOAD=/a.so", "LD_PRELOAD=/b.so"]).as_deref(), Some("/l/q.so:/b.so"));
        assert_eq!(value(&["LD_PRELOAD=/l/q.so:/a.so"]), None);
        assert_eq!(value(&["LD_PRELOAD=/a.so:/l/q.so"]).as_deref(), Some("/l/q.so:/a.so:/l/q.so"));
    }
}
