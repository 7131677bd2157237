//! What the monitors of HAMi, Volcano and KAI accept of a container's folder, as oracles on our region. Written from a description
//! of what they do; none of their code is here.

use std::fs;
use std::path::{Path, PathBuf};

const MAGIC: u32 = 19_920_718;
/// The region of version 1, and of the time before versions: a monitor tells them apart by the file's size.
const SIZE: usize = 2_008_952;
const OLD_SIZE: usize = 1_197_897;
const SLOTS: usize = 1024;
const SLOT: usize = 1960;

/// What a monitor exports of a container.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The first device's label.
    pub uuid: String,
    /// Its cap in bytes.
    pub memory_limit: u64,
    /// Its share in percent.
    pub core_limit: u64,
    /// Bytes that the container uses of it.
    pub used: u64,
}

/// HAMi's: in a container's folder at most two files called like the library or `.cache`, one of them the region.
pub fn hamis_monitor(folder: &Path) -> Result<Seen, String> {
    let names = names(folder)?;
    let known = names.iter().filter(|name| name.contains("libvgpu.so") || name.contains(".cache"));
    if known.count() > 2 {
        return Err(format!("more than two files that it knows: {names:?}"));
    }
    let region = Region::read(&folder.join(the_cache(&names)?))?;
    region.check_version()?;
    // It sums the slots in use, and leaves out those without a status.
    region.seen(region.slots_in_use()?, true)
}

/// Volcano's: at most two entries of any name, and all slots are summed.
pub fn volcanos_monitor(folder: &Path) -> Result<Seen, String> {
    let names = names(folder)?;
    if names.len() > 2 {
        return Err(format!("more than two files: {names:?}"));
    }
    let region = Region::read(&folder.join(the_cache(&names)?))?;
    region.check_version()?;
    region.seen(SLOTS, false)
}

/// KAI's: flat files `<pod UID>_<container>` without an ending in one folder of all containers; folders are skipped.
pub fn kais_monitor(folder: &Path, container: &str) -> Result<Seen, String> {
    let names = names(folder)?;
    let (pod, name) = container.split_once('_').ok_or("a name without _")?;
    if pod.is_empty() || name.is_empty() || !names.iter().any(|known| known == container) {
        return Err(format!("{container} is not among {names:?}"));
    }
    let strange = names.iter().find(|name| folder.join(name).is_file() && !name.contains('_'));
    if let Some(strange) = strange {
        return Err(format!("{strange} is no container"));
    }
    let region = Region::read(&folder.join(container))?;
    region.check_version()?;
    region.seen(region.slots_in_use()?, true)
}

fn names(folder: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

fn the_cache(names: &[String]) -> Result<PathBuf, String> {
    let caches: Vec<&String> = names.iter().filter(|name| name.ends_with(".cache")).collect();
    match caches[..] {
        [one] => Ok(PathBuf::from(one)),
        _ => Err(format!("not one region: {names:?}")),
    }
}

struct Region(Vec<u8>);

impl Region {
    fn read(path: &Path) -> Result<Self, String> {
        let bytes = fs::read(path).map_err(|why| format!("{}: {why}", path.display()))?;
        if bytes.len() < SIZE || bytes.len() == OLD_SIZE {
            return Err(format!("{} bytes are no region of version 1", bytes.len()));
        }
        Ok(Self(bytes))
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }

    fn long(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().expect("eight bytes"))
    }

    fn check_version(&self) -> Result<(), String> {
        match (self.word(0), self.word(4)) {
            (MAGIC, 1) => Ok(()),
            other => Err(format!("magic and major version {other:?}")),
        }
    }

    fn slots_in_use(&self) -> Result<usize, String> {
        let used = self.word(2_008_896) as usize;
        if used <= SLOTS { Ok(used) } else { Err(format!("{used} processes")) }
    }

    fn seen(&self, slots: usize, with_status: bool) -> Result<Seen, String> {
        // The label is a slice of exactly forty bytes, and one that is not UTF-8 is dropped.
        let label = &self.0[64..104];
        let uuid = String::from_utf8(label.to_vec()).map_err(|why| why.to_string())?;
        if self.long(56) == 0 || label[0] == 0 || label.contains(&0) {
            return Err(format!("{} devices, the first {uuid:?}", self.long(56)));
        }
        let slot = |number: usize| 1856 + number * SLOT;
        let counts = |number: &usize| !with_status || self.word(slot(*number) + 1928) != 0;
        // Context, module, data, offset, and their total.
        let used = (0..slots).filter(counts).map(|number| self.long(slot(number) + 8 + 32)).sum();
        Ok(Seen { uuid, memory_limit: self.long(1600), core_limit: self.long(1728), used })
    }
}
