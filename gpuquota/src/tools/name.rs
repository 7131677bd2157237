//! Which container somebody means: by its names, a part of them, or a prefix that no other has.

use super::messages::{AMBIGUOUS, NO_CONTAINER, refused};
use super::node::{Container, Node, joined};
use crate::error::Error;

/// Candidates that are listed where a name may mean several.
const LISTED: usize = 12;

impl Container {
    /// Every way to write its name.
    fn keys(&self) -> Vec<String> {
        let names = &self.names;
        let file = std::path::Path::new(&self.path).file_stem().and_then(|stem| stem.to_str()).unwrap_or("");
        let mut keys = vec![
            names.full(),
            joined(&[&names.pod, &names.container]),
            joined(&[&names.namespace, &names.pod]),
            names.pod.clone(),
            names.container.clone(),
            file.to_owned(),
        ];
        keys.retain(|key| !key.is_empty());
        keys
    }
}

/// The container that is meant by `name`. One that lives goes before one that has ended; a whole name before a prefix.
pub fn find<'n>(node: &'n Node, name: &str) -> Result<&'n Container, Error> {
    let of = |fits: &dyn Fn(&str) -> bool, ended: bool| -> Vec<&'n Container> {
        let all = node.containers.iter().filter(|container| container.ended == ended);
        all.filter(|container| container.keys().iter().any(|key| fits(key))).collect()
    };
    let whole = |key: &str| key == name;
    let prefix = |key: &str| key.starts_with(name);
    let tiers = [of(&whole, false), of(&prefix, false), of(&whole, true), of(&prefix, true)];
    match tiers.into_iter().find(|found| !found.is_empty()).as_deref() {
        Some([one]) => Ok(one),
        Some(several) => {
            let why = format!("{name:?} may be {}: name one of them", listed(several.iter().copied()));
            Err(refused(&AMBIGUOUS, why))
        }
        None => Err(refused(
            &NO_CONTAINER,
            match node.containers.is_empty() {
                true => format!("there is no container {name:?}: no container of this node has a quota"),
                false => {
                    format!("there is no container {name:?}; there are {}", listed(node.containers.iter()))
                }
            },
        )),
    }
}

/// The full names of containers that are not the same.
pub fn all(node: &Node) -> Vec<String> {
    let living = node.containers.iter().filter(|container| !container.ended);
    let mut names: Vec<String> = living.map(|container| container.names.full()).collect();
    names.retain(|name| !name.is_empty());
    names.sort_unstable();
    names.dedup();
    names
}

fn listed<'n>(containers: impl Iterator<Item = &'n Container>) -> String {
    let mut names: Vec<String> = containers.map(|container| container.names.full()).collect();
    names.sort_unstable();
    names.dedup();
    let more = names.len().saturating_sub(LISTED);
    names.truncate(LISTED);
    match more {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::node::Names;
    use super::*;

    fn container(names: [&str; 3], path: &str, ended: bool) -> Container {
        let [namespace, pod, container] = names.map(str::to_owned);
        Container {
            names: Names { namespace, pod, container },
            path: path.into(),
            ended,
            ..Container::default()
        }
    }

    fn node() -> Node {
        let containers = vec![
            container(["team", "web-0", "main"], "/a/1.cache", false),
            container(["team", "web-0", "side"], "/a/2.cache", false),
            container(["team", "web-1", "main"], "/a/3.cache", false),
            container(["", "", "train"], "/run/gpuquota/train.cache", false),
            container(["", "", "training"], "/run/gpuquota/training.cache", false),
            container(["old", "job", "gone"], "/a/4.cache", true),
        ];
        Node { containers, ..Node::default() }
    }

    fn found(name: &str) -> Result<String, String> {
        find(&node(), name).map(|container| container.path.clone()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_container_is_found_by_any_of_its_names_and_by_a_prefix_of_its_own() {
        for (name, path) in [
            ("team/web-0/main", "/a/1.cache"),
            ("web-0/side", "/a/2.cache"),
            ("web-1", "/a/3.cache"),
            ("team/web-1", "/a/3.cache"),
            ("si", "/a/2.cache"),
            ("train", "/run/gpuquota/train.cache"),
            ("traini", "/run/gpuquota/training.cache"),
            ("gone", "/a/4.cache"),
            ("old/", "/a/4.cache"),
        ] {
            assert_eq!(found(name).as_deref(), Ok(path), "{name}");
        }
    }

    #[test]
    fn what_may_mean_several_lists_them_and_what_means_none_lists_all() {
        assert_eq!(
            found("web-0"),
            Err("\"web-0\" may be team/web-0/main, team/web-0/side: name one of them (GQ502)".into())
        );
        let unknown = found("xyz").expect_err("nobody is called so");
        assert!(
            unknown.starts_with("there is no container \"xyz\"; there are ") && unknown.contains("train")
        );
        assert!(
            find(&Node::default(), "a")
                .is_err_and(|why| why.to_string().contains("no container of this node"))
        );
    }

    #[test]
    fn a_long_list_is_cut() {
        let containers = (0..40).map(|n| container(["", "", &format!("c{n:02}")], "", false)).collect();
        let why = find(&Node { containers, ..Node::default() }, "c").expect_err("40 of them").to_string();
        assert!(why.contains("c11 and 28 more"), "{why}");
    }
}
