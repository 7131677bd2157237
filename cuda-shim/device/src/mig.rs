//! Devices that are split: which instances a device can be split into, and what each of them is. Pure.
//!
//! The profiles are those of NVIDIA's user guide: sevenths of the multiprocessors and eighths of the memory.

use crate::spec::{DeviceSpec, Part};

/// A kind of instance.
struct Profile {
    /// Sevenths of the multiprocessors, by which it is named.
    slices: u32,
    /// Eighths of the memory.
    memory: u64,
    /// The first number that the driver gives to such an instance.
    first: u32,
    /// Multiprocessors on Ampere and on later devices.
    sms: [u32; 2],
}

const PROFILES: [Profile; 6] = [
    Profile { slices: 1, memory: 1, first: 7, sms: [14, 16] },
    Profile { slices: 1, memory: 2, first: 3, sms: [14, 26] },
    Profile { slices: 2, memory: 2, first: 3, sms: [28, 32] },
    Profile { slices: 3, memory: 4, first: 1, sms: [42, 60] },
    Profile { slices: 4, memory: 4, first: 1, sms: [56, 64] },
    Profile { slices: 7, memory: 8, first: 0, sms: [98, 132] },
];

/// Whether the device can be split at all.
pub fn is_capable(spec: &DeviceSpec) -> bool {
    spec.part.is_none() && matches!((spec.cc_major, spec.cc_minor), (8, 0) | (9.., _))
}

/// How the instances of a device with so much memory are written.
fn names(total_bytes: u64) -> String {
    let name = |profile: &Profile| {
        format!("{}g.{}gb", profile.slices, (total_bytes * profile.memory / 8).div_ceil(1 << 30))
    };
    PROFILES.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// The profile that is written `3g.40gb`. Gigabytes are whole ones of an eighth of 80 on most devices; others have their
/// own names, so what is asked of them is that they come near an eighth's multiple.
fn named<'p>(text: &str, total_bytes: u64) -> Option<(&'p Profile, u64)> {
    let (slices, memory) = text.strip_suffix("gb")?.split_once("g.")?;
    let (slices, gigabytes): (u32, u64) = (slices.parse().ok()?, memory.parse().ok()?);
    let near = |profile: &&Profile| {
        profile.slices == slices
            && (total_bytes * profile.memory / 8).div_ceil(1 << 30).abs_diff(gigabytes) <= 1
    };
    PROFILES.iter().find(near).map(|profile| (profile, total_bytes * profile.memory / 8))
}

/// As many instances of one profile as a whole device has room for; `None` if it has room for none.
pub fn filled(whole: &DeviceSpec, index: usize, profile: &str) -> Option<Vec<DeviceSpec>> {
    (1..=7).rev().find_map(|count| instances(whole, index, &vec![profile; count]).ok())
}

/// The instances of a whole device.
///
/// # Errors
/// It cannot be split, or not so.
pub fn instances(whole: &DeviceSpec, index: usize, profiles: &[&str]) -> Result<Vec<DeviceSpec>, String> {
    if !is_capable(whole) {
        return Err(format!("a {} cannot be split", whole.name));
    }
    let (mut slices, mut memory, mut instances) = (0, 0, Vec::<DeviceSpec>::new());
    for text in profiles {
        let known = named(text, whole.total_bytes);
        let (profile, total_bytes) = known.ok_or_else(|| {
            format!("{text:?} is no instance of a {}: write one of {}", whole.name, names(whole.total_bytes))
        })?;
        slices += profile.slices;
        memory += profile.memory;
        if slices > 7 || memory > 8 {
            return Err(format!("a {} has no room for {}", whole.name, profiles.join(" and ")));
        }
        let taken: Vec<_> = instances.iter().filter_map(|spec| spec.part).map(|part| part.instance).collect();
        let instance = (profile.first..).find(|number| !taken.contains(number)).unwrap_or(profile.first);
        let mut spec = whole.clone();
        spec.name = format!("{} MIG {text}", whole.name);
        spec.uuid[10] = instances.len() as u8 + 1;
        spec.total_bytes = total_bytes;
        spec.sm_count = profile.sms[usize::from(whole.cc_major >= 9)].min(whole.sm_count);
        spec.l2_bytes = (u64::from(whole.l2_bytes) * profile.memory / 8) as u32;
        spec.context_bytes = whole.context_bytes.min(total_bytes / 8);
        spec.unlisted_bytes = whole.unlisted_bytes.min(total_bytes / 8);
        spec.part = Some(Part { of: index, instance, slices: profile.slices });
        instances.push(spec);
    }
    Ok(instances)
}

#[cfg(test)]
mod tests {
    use crate::machine::Machine;

    #[test]
    fn a_device_is_split_into_what_it_has_room_for() {
        for (name, count, sms) in [
            ("H100-MIG-3g.40gb", 2, 60),
            ("H100-MIG-1g.10gb", 7, 16),
            ("2xA100-MIG-2g.20gb", 6, 28),
            ("H200-MIG-1g.18gb", 7, 16),
            ("H100-MIG-7g.80gb", 1, 132),
        ] {
            let machine = Machine::preset(name).expect(name);
            let whole = machine.whole();
            assert_eq!(machine.devices.len() - whole, count, "{name}");
            assert_eq!(machine.devices[whole].sm_count, sms, "{name}");
            let mut uuids: Vec<_> = machine.devices.iter().map(|spec| spec.uuid).collect();
            uuids.sort_unstable();
            uuids.dedup();
            assert_eq!(uuids.len(), machine.devices.len(), "{name}");
        }
        for bad in ["T4-MIG-3g.40gb", "H100-MIG-5g.40gb", "H100-MIG-", "H100-MIG-3g.20gb", "H100-MIG-3g"] {
            assert!(Machine::preset(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn instances_of_different_kinds_share_a_device() {
        let mut machine = Machine::preset("H100").expect("a machine");
        assert!(machine.split(0, &["4g.40gb", "3g.40gb", "1g.10gb"]).is_err());
        let error = machine.split(0, &["3g.70gb"]).expect_err("it is none");
        assert!(error.ends_with("one of 1g.10gb, 1g.20gb, 2g.20gb, 3g.40gb, 4g.40gb, 7g.80gb"), "{error}");
        machine.split(0, &["3g.40gb", "2g.20gb", "1g.10gb"]).expect("they fit");
        let parts: Vec<_> = machine.devices.iter().filter_map(|spec| spec.part).collect();
        let told: Vec<_> = parts.iter().map(|part| (part.of, part.instance, part.slices)).collect();
        assert_eq!(told, [(0, 1, 3), (0, 3, 2), (0, 7, 1)]);
        assert_eq!(machine.devices[1].uuid_string(), "MIG-513dc0da-2330-4000-8000-010000000000");
        assert_eq!(machine.instances(0).collect::<Vec<_>>(), [1, 2, 3]);
    }
}
