//! From what was asked to files: limits by person, and where each region is.

use crate::error::Error;
use crate::regions::{OF_OTHERS, OF_USERS};
use crate::slice::Slice;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write;
use std::path::PathBuf;

/// The folder of limits by person.
pub const FOLDER: &str = "/etc/gpuquota/limits.d";
/// The folder of regions, of root.
pub const HOME: &str = OF_USERS;
/// The folder in which users make their own.
pub const OTHERS: &str = OF_OTHERS;

/// A region that is made before anybody needs it.
#[derive(Debug, PartialEq, Eq)]
pub struct Region {
    pub path: PathBuf,
    pub user: u32,
    pub mode: u32,
}

/// All files.
#[derive(Debug, Default)]
pub struct Files {
    /// Of the folder: name and text.
    pub limits: BTreeMap<String, String>,
    pub regions: Vec<Region>,
}

/// `WHO=SLICE`.
pub fn rule<'t>(text: &'t str, origin: &str) -> Result<(&'t str, Slice), Error> {
    match text.rsplit_once('=') {
        Some((who, slice)) if !who.is_empty() => Ok((who, Slice::parse(slice, &format!("{origin} {who}"))?)),
        _ => Err(Error::Asked(format!("{origin} {text:?}: nobody is named. Write WHO=2GiB-30"))),
    }
}

/// Where the kernel has a systemd slice: `a-b.slice` is in `a.slice`.
pub fn slice_path(name: &str) -> Result<String, Error> {
    let stem = name.strip_suffix(".slice").unwrap_or("");
    let is_slice = !stem.is_empty() && stem.split('-').all(|part| !part.is_empty()) && !stem.contains('/');
    if !is_slice {
        return Err(Error::Asked(format!(
            "--slice {name:?}: this is no slice. Write its name, such as user-1000.slice"
        )));
    }
    let ends = stem.char_indices().filter(|(_, letter)| *letter == '-').map(|(at, _)| at).chain([stem.len()]);
    let path: Vec<String> = ends.map(|end| format!("{}.slice", &stem[..end])).collect();
    Ok(path.join("/"))
}

impl Files {
    fn add(&mut self, name: String, text: String) -> Result<(), Error> {
        match self.limits.entry(name) {
            Entry::Vacant(place) => {
                place.insert(text);
                Ok(())
            }
            Entry::Occupied(taken) => Err(Error::Asked(format!(
                "two limits are given for {}. Leave one of them out (root is exempt always)",
                taken.key()
            ))),
        }
    }

    fn region(&mut self, name: &str, user: u32, mode: u32) -> String {
        let path = format!("{HOME}/{name}.cache");
        self.regions.push(Region { path: path.clone().into(), user, mode });
        path
    }

    /// A user without limits.
    pub fn exempt(&mut self, user: u32) -> Result<(), Error> {
        self.add(format!("user-{user}"), "mode = off\n".to_owned())
    }

    /// A user with limits and a region that only root can remove.
    pub fn user(&mut self, user: u32, slice: Slice) -> Result<(), Error> {
        let name = format!("user-{user}");
        let region = self.region(&name, user, 0o600);
        self.add(name, format!("{}region = {region}\n", slice.limits()))
    }

    /// Each member of a group by itself.
    pub fn group(&mut self, group: u32, slice: Slice) -> Result<(), Error> {
        self.add(format!("group-{group}"), format!("{}region = {OTHERS}/%u.cache\n", slice.limits()))
    }

    /// Everybody else, each by itself.
    pub fn each(&mut self, slice: Slice) -> Result<(), Error> {
        self.add("default".to_owned(), format!("{}region = {OTHERS}/%u.cache\n", slice.limits()))
    }

    /// The regions of those who are known by now: one that its user makes itself is open to all.
    pub fn people(&mut self, users: &[u32]) {
        for user in users {
            let path = format!("{OTHERS}/{user}.cache").into();
            self.regions.push(Region { path, user: *user, mode: 0o600 });
        }
    }

    /// All processes of a cgroup together, whoever's they are.
    pub fn cgroup(&mut self, path: &str, slice: Slice, origin: &str) -> Result<(), Error> {
        let name = path.trim_matches('/').replace('/', ":");
        let is_plain = !name.is_empty()
            && name.len() < 200
            && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%')
            && path.split('/').all(|part| part != "." && part != "..");
        if !is_plain {
            return Err(Error::Asked(format!(
                "{origin} {path:?}: this is no cgroup's path. Write it as /proc/PID/cgroup has it, such as /system.slice/docker.service"
            )));
        }
        let name = format!("cgroup-{name}");
        let region = self.region(&name, 0, 0o666);
        self.add(name, format!("{}region = {region}\n", slice.limits()))
    }

    /// What systemd-tmpfiles does at each boot.
    pub fn tmpfiles(&self) -> String {
        let mut text = format!(
            "# Regions of gpuquota enforce. A user can remove none that is made here.\nd {HOME} 0755 root root -\nd {OTHERS} 1777 root root -\n"
        );
        for Region { path, user, mode } in &self.regions {
            let _infallible = writeln!(text, "f {} {mode:04o} {user} root -", path.display());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_lies_in_the_slices_of_its_name() {
        let path = |name: &str| slice_path(name).expect(name);
        assert_eq!(path("user-1000.slice"), "user.slice/user-1000.slice");
        assert_eq!(path("lab.slice"), "lab.slice");
        assert_eq!(path("a-b-c.slice"), "a.slice/a-b.slice/a-b-c.slice");
        for wrong in ["", ".slice", "user", "a--b.slice", "a/b.slice", "-.slice"] {
            assert!(slice_path(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nobody_has_two_limits_and_root_none() {
        let slice = Slice { memory: Some(1 << 30), cores: Some(10) };
        let mut files = Files::default();
        files.exempt(0).expect("root");
        assert!(files.user(0, slice).is_err());
        files.user(1001, slice).expect("a user");
        assert!(files.exempt(1001).is_err());
        assert_eq!(
            files.limits["user-1001"],
            "memory = 1GiB\ncores = 10\nregion = /run/gpuquota/user-1001.cache\n"
        );
        files.cgroup("/user.slice/user-7.slice", slice, "--cgroup").expect("a cgroup");
        assert!(files.limits.contains_key("cgroup-user.slice:user-7.slice"));
        for wrong in ["", "/", "/a/../b", "/a b", "/a%u"] {
            assert!(files.cgroup(wrong, slice, "--cgroup").is_err(), "{wrong}");
        }
        assert!(rule("2GiB", "--user").is_err() && rule("=2GiB", "--user").is_err());
    }
}
