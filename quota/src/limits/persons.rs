//! `/etc/gpuquota/limits.d`: limits of a machine without containers, by user, cgroup and group. Which file is a process's?

use super::path::Path;
use crate::text::{Fixed, Line};
use core::ffi::CStr;

/// The folder of limits by person.
pub const LIMITS_FOLDER: &CStr = c"/etc/gpuquota/limits.d";

/// The file of those for whom there is none.
pub const DEFAULT_NAME: &[u8] = b"default";

/// In a region's path, who this is.
const WHO: &[u8] = b"%u";

/// The path of a file in that folder.
pub type FilePath = Fixed<512>;

/// Who a process is, as the kernel says it.
#[derive(Clone, Copy, Debug)]
pub struct Person<'p> {
    /// Its real user; nothing where it may have chosen that itself, as in a user namespace of its own.
    pub user: Option<u32>,
    /// Its groups, the real one first.
    pub groups: &'p [u32],
    /// The text of `/proc/self/cgroup`.
    pub cgroup: &'p [u8],
}

impl Person<'_> {
    /// Calls `visit` with the path of each file that may be this person's, the first that is there decides: `user-UID`;
    /// `cgroup-PATH` with colons for slashes, from the whole path up; `group-GID`; `default`. It ends at the first `true`.
    ///
    /// A user can make cgroups only below its own, and the whole path counts: so it cannot make itself another's.
    pub fn files(&self, visit: &mut dyn FnMut(&FilePath) -> bool) -> bool {
        let mut named = |kind: &[u8], name: &[u8]| {
            let mut path = FilePath::new();
            let parts = [LIMITS_FOLDER.to_bytes(), b"/", kind];
            let fits = parts.iter().all(|part| path.push(part));
            let fits = fits && name.iter().all(|byte| path.push(&[if *byte == b'/' { b':' } else { *byte }]));
            fits && visit(&path)
        };
        let number = |number: u32| {
            let mut text = Line::<16>::new();
            text.push_u64(number.into());
            text
        };
        if let Some(user) = self.user {
            if named(b"user-", number(user).as_bytes()) {
                return true;
            }
            for line in self.cgroup.split(|byte| *byte == b'\n') {
                let path = line.splitn(3, |byte| *byte == b':').nth(2).unwrap_or_default();
                let mut path = path.strip_prefix(b"/").unwrap_or_default();
                while !path.is_empty() {
                    if named(b"cgroup-", path) {
                        return true;
                    }
                    let above = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                    path = path.get(..above).unwrap_or_default();
                }
            }
            if self.groups.iter().any(|group| named(b"group-", number(*group).as_bytes())) {
                return true;
            }
        }
        named(DEFAULT_NAME, b"")
    }

    /// A region's path from such a file: `%u` in it is the user's number, so that one file gives each user a region.
    pub fn region(&self, path: &Path) -> Option<Path> {
        let bytes = path.as_bytes();
        let Some(at) = bytes.windows(WHO.len()).position(|window| window == WHO) else { return Some(*path) };
        let mut who = Line::<16>::new();
        match self.user {
            Some(user) => who.push_u64(user.into()),
            None => who.push_str("unknown"),
        };
        let (before, after) = (bytes.get(..at)?, bytes.get(at.saturating_add(WHO.len())..)?);
        let mut expanded = Path::new();
        [before, who.as_bytes(), after].iter().all(|part| expanded.push(part)).then_some(expanded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn files(person: Person<'_>) -> Vec<String> {
        let mut found = Vec::new();
        person.files(&mut |path| {
            let path = String::from_utf8_lossy(path.as_bytes());
            found.push(path.strip_prefix("/etc/gpuquota/limits.d/").expect("in the folder").to_string());
            false
        });
        found
    }

    #[test]
    fn the_most_special_file_comes_first() {
        let cgroup = b"1:name=systemd:/\n0::/user.slice/user-7.slice/session-2.scope\n";
        let person = Person { user: Some(7), groups: &[100, 27], cgroup };
        let wanted = [
            "user-7",
            "cgroup-user.slice:user-7.slice:session-2.scope",
            "cgroup-user.slice:user-7.slice",
            "cgroup-user.slice",
            "group-100",
            "group-27",
            "default",
        ];
        assert_eq!(files(person), wanted);
        let visited = person.files(&mut |path| path.as_bytes().ends_with(b"user.slice:user-7.slice"));
        assert!(visited);
    }

    #[test]
    fn who_may_have_chosen_its_user_has_only_the_default() {
        let person = Person { user: None, groups: &[0], cgroup: b"0::/trusted.slice\n" };
        assert_eq!(files(person), ["default"]);
    }

    #[test]
    fn odd_cgroups_name_nothing_outside_the_folder_and_end() {
        let long = [b"0::/".as_slice(), &b"x/".repeat(400)].concat();
        for cgroup in [b"".as_slice(), b"0::", b"nonsense", b"0::/../../etc/shadow\n", &long, b"0::/\xff//\n"]
        {
            for name in files(Person { user: Some(1), groups: &[], cgroup }) {
                assert!(!name.contains('/'), "{name}");
            }
        }
    }

    #[test]
    fn a_region_may_have_the_users_number_in_its_path() {
        let path = |text: &str| Path::copy_of(text.as_bytes()).expect("short");
        let of = |user, text: &str| {
            let person = Person { user, groups: &[], cgroup: b"" };
            person.region(&path(text)).map(|path| String::from_utf8(path.as_bytes().to_vec()).expect("text"))
        };
        assert_eq!(of(Some(7), "/run/a/%u.cache").as_deref(), Some("/run/a/7.cache"));
        assert_eq!(of(None, "/run/a/%u.cache").as_deref(), Some("/run/a/unknown.cache"));
        assert_eq!(of(Some(7), "/run/a.cache").as_deref(), Some("/run/a.cache"));
    }
}
