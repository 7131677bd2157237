//! What this node has: its cards and their MIG instances, each with the attributes by which NVIDIA's own driver tells them, and
//! what is wrong with them.

use crate::agent::card::{Card, Errors};
use crate::error::Error;
use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often the cards are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Errors that programs cause, and that say nothing of the card: NVIDIA's own plugin passes over these too.
const OF_PROGRAMS: [u64; 6] = [13, 31, 43, 45, 68, 109];

/// What is wrong with a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It does not answer any more.
    Lost,
    /// It has told an error, by NVIDIA's number.
    Xid(u64),
}

impl Trouble {
    /// For people.
    pub fn words(&self) -> String {
        match self {
            Self::Lost => "does not answer any more".to_owned(),
            Self::Xid(xid) => format!("has told error Xid {xid}"),
        }
    }

    /// As the value of a taint.
    pub fn label(&self) -> String {
        match self {
            Self::Lost => "lost".to_owned(),
            Self::Xid(xid) => format!("xid-{xid}"),
        }
    }
}

/// A card, or an instance of one.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// Its name on this node, such as `gpu-0`.
    pub name: String,
    /// The UUID of NVIDIA's.
    pub uuid: String,
    /// Its number; an instance has its card's.
    pub index: u32,
    /// Bytes of its memory.
    pub memory: u64,
    /// Whether it may be divided. An instance of MIG is divided already, and a card that was named by --whole stays whole.
    pub is_shared: bool,
    /// Attributes, as a ResourceSlice has them.
    pub attributes: BTreeMap<&'static str, Value>,
    /// What is wrong with it.
    pub trouble: Option<Trouble>,
}

impl Piece {
    /// Whether it is called so: by its name or its UUID.
    fn is(&self, name: &str) -> bool {
        self.name == name || self.uuid == name
    }
}

/// A version in the form that a ResourceSlice wants: three numbers without leading zeros.
fn semantic(version: &str) -> Option<Value> {
    let parts: Result<Vec<u64>, _> = version.split('.').map(str::parse).collect();
    let mut parts = parts.ok()?;
    parts.resize(3, 0);
    let text = parts.iter().map(u64::to_string).collect::<Vec<_>>().join(".");
    Some(json!({ "version": text }))
}

/// The root of the PCI tree that a device hangs on.
fn root_of(bus: &str) -> Option<String> {
    let path = fs::canonicalize(format!("/sys/bus/pci/devices/{bus}")).ok()?;
    let root =
        path.components().find_map(|part| part.as_os_str().to_str().filter(|part| part.starts_with("pci")));
    root.map(str::to_owned)
}

/// What the driver says of itself.
struct Versions {
    driver: String,
    cuda: Option<i32>,
}

fn attributes(device: &Device<'_>, card: &Device<'_>, versions: &Versions) -> BTreeMap<&'static str, Value> {
    let mut all = BTreeMap::new();
    let mut put = |name, value: Option<Value>| value.map(|value| all.insert(name, value));
    let text = |text: String| Some(json!({ "string": text.chars().take(64).collect::<String>() }));
    put("uuid", device.uuid().ok().and_then(text));
    put("productName", card.name().ok().and_then(text));
    put("brand", card.brand().ok().and_then(|brand| text(format!("{brand:?}"))));
    put("architecture", card.architecture().ok().and_then(|of| text(format!("{of:?}"))));
    let capability = card.cuda_compute_capability().ok();
    put("cudaComputeCapability", capability.and_then(|of| semantic(&format!("{}.{}", of.major, of.minor))));
    put("driverVersion", semantic(&versions.driver));
    let cuda = versions.cuda.map(|cuda| format!("{}.{}", cuda / 1000, cuda % 1000 / 10));
    put("cudaDriverVersion", cuda.as_deref().and_then(semantic));
    if let Ok(pci) = card.pci_info() {
        // NVML writes eight digits for the domain, and Linux four.
        let bus = pci.bus_id.to_lowercase();
        let bus = if bus.len() == 16 { bus[4..].to_owned() } else { bus };
        put("resource.kubernetes.io/pcieRoot", root_of(&bus).and_then(text));
        put("resource.kubernetes.io/pciBusID", text(bus));
    }
    all
}

fn pieces_of(card: &Device<'_>, index: u32, versions: &Versions) -> Result<Vec<Piece>, NvmlError> {
    let number = card.minor_number().unwrap_or(index);
    let piece = |device: &Device<'_>, name: String, kind: &str| {
        let mut attributes = attributes(device, card, versions);
        attributes.insert("type", json!({ "string": kind }));
        let (uuid, memory) = (device.uuid()?, device.memory_info()?.total);
        Ok(Piece { name, uuid, index, memory, is_shared: kind == "gpu", attributes, trouble: None })
    };
    if card.mig_mode().map_or(true, |mode| mode.current == 0) {
        return piece(card, format!("gpu-{number}"), "gpu").map(|piece| vec![piece]);
    }
    let mut all = Vec::new();
    for at in 0..card.mig_device_count().unwrap_or(0) {
        let Ok(instance) = card.mig_device_by_index(at) else { continue };
        let mut piece = piece(&instance, format!("gpu-{number}-mig-{at}"), "mig")?;
        piece.attributes.insert("parentUUID", json!({ "string": card.uuid()? }));
        let name = instance.name().unwrap_or_default();
        if let Some((_, profile)) = name.rsplit_once("MIG ") {
            piece.attributes.insert("profile", json!({ "string": profile }));
        }
        all.push(piece);
    }
    Ok(all)
}

/// All of them now. One that `known` has and that does not answer is told as lost.
fn read(card: &Card, known: &[Piece]) -> Vec<Piece> {
    let nvml = card.library();
    let versions = Versions { driver: card.driver(), cuda: nvml.sys_cuda_driver_version().ok() };
    let lost = |index: u32| {
        let of = known.iter().filter(move |piece| piece.index == index).cloned();
        of.map(|piece| Piece { trouble: Some(Trouble::Lost), ..piece }).collect::<Vec<_>>()
    };
    let count = nvml.device_count().unwrap_or(0);
    let of = |index| {
        let read = nvml.device_by_index(index).and_then(|device| pieces_of(&device, index, &versions));
        read.unwrap_or_else(|_| lost(index))
    };
    let mut all: Vec<Piece> = (0..count).flat_map(of).collect();
    let beyond: Vec<u32> = known.iter().map(|piece| piece.index).filter(|index| *index >= count).collect();
    all.extend(beyond.iter().flat_map(|index| lost(*index)));
    all
}

/// What has changed, for the log.
fn tell(before: &[Piece], now: &[Piece]) {
    for piece in now {
        let was = before.iter().find(|was| was.uuid == piece.uuid);
        let words = crate::words::bytes(piece.memory);
        match (was.map(|was| &was.trouble), &piece.trouble) {
            (None, None) => tracing::info!("{} is {} and has {words}", piece.name, piece.uuid),
            (Some(Some(_)), None) => tracing::info!("{} ({}) is well again", piece.name, piece.uuid),
            (was, Some(trouble)) if was != Some(&Some(trouble.clone())) => {
                tracing::warn!(
                    "{} ({}) {}: nothing more is placed on it",
                    piece.name,
                    piece.uuid,
                    trouble.words()
                );
            }
            _ => {}
        }
    }
}

/// Watches them on a thread of its own, for ever. What is watched is nothing until NVML answers.
pub fn watch(whole: Vec<String>) -> Result<watch::Receiver<Vec<Piece>>, Error> {
    let (sender, receiver) = watch::channel(Vec::new());
    let work = move || {
        let mut why = String::new();
        loop {
            match Card::open() {
                Ok(card) => look(&card, &whole, &sender),
                Err(error) if error != why => {
                    tracing::warn!("NVML does not answer: {error}; there are no cards until it does");
                    why = error;
                }
                Err(_) => {}
            }
            thread::sleep(LOOK);
        }
    };
    thread::Builder::new().name("cards".to_owned()).spawn(work).map_err(Error::system("start a thread"))?;
    Ok(receiver)
}

/// Looks until no card answers any more.
fn look(card: &Card, whole: &[String], sender: &watch::Sender<Vec<Piece>>) {
    let errors: Errors<'_> = card.errors();
    // An error stays until this program is started anew: nothing says that it is over.
    let mut xids: BTreeMap<String, u64> = BTreeMap::new();
    loop {
        let begun = Instant::now();
        let before = sender.borrow().clone();
        let mut now = read(card, &before);
        for piece in &mut now {
            piece.is_shared &= !whole.iter().any(|name| name == "all" || piece.is(name));
            let parent = piece.attributes.get("parentUUID").and_then(|parent| parent["string"].as_str());
            let told = xids.get(parent.unwrap_or(&piece.uuid)).map(|xid| Trouble::Xid(*xid));
            piece.trouble = piece.trouble.take().or(told);
        }
        if before.is_empty() {
            for name in whole.iter().filter(|name| *name != "all" && !now.iter().any(|piece| piece.is(name)))
            {
                tracing::warn!("--whole {name}: no card of this node is called so");
            }
        }
        // A driver that was exchanged answers nothing to who has opened the one before.
        let is_over = !now.is_empty() && now.iter().all(|piece| piece.trouble == Some(Trouble::Lost));
        if now != before {
            tell(&before, &now);
            sender.send_replace(now);
        }
        if is_over {
            return;
        }
        while begun.elapsed() < LOOK {
            let told = errors.next();
            let grave: Vec<_> = told.into_iter().filter(|(_, xid)| !OF_PROGRAMS.contains(xid)).collect();
            if !grave.is_empty() {
                xids.extend(grave);
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_of_nvidias_becomes_one_of_three_numbers() {
        assert_eq!(semantic("580.105.08"), Some(json!({ "version": "580.105.8" })));
        assert_eq!(semantic("9.0"), Some(json!({ "version": "9.0.0" })));
        assert_eq!(semantic("615"), Some(json!({ "version": "615.0.0" })));
        assert_eq!(semantic("unknown"), None);
        assert_eq!(semantic(""), None);
    }
}
