//! What the resources know together: which card was given last, and which units belong to one container.

use super::holder::{Holder, ask};
use super::units::{Kind, Placement, Units};
use crate::changes::digest;
use crate::given::{Files, Region};
use crate::kubelet::cards::Piece;
use crate::kubelet::common::{Common, Part, limits, mounts};
use kubelet_plugin::api::device_plugin::{CdiDevice, ContainerAllocateResponse, Mount};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How long two allocations may lie apart that are of one container.
const SAME_POD: Duration = Duration::from_secs(10);
/// How often it is looked what the kubelet has forgotten, and how long what is new is not looked at.
const CLEAN: Duration = Duration::from_secs(30);
const NEW: Duration = Duration::from_secs(120);
/// How often, and how far apart, the kubelet is asked who has units that it has just allocated.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);
/// How long a preference may wait for the kubelet.
const SOON: Duration = Duration::from_secs(1);

/// What was allocated last, and may be a part of what one container asks for.
struct Recent {
    kinds: BTreeSet<Kind>,
    uuid: String,
    at: Instant,
}

/// All of it.
pub struct Books {
    common: Common,
    files: Files,
    resources: Vec<(&'static str, Units)>,
    pieces: watch::Receiver<Vec<Piece>>,
    pub placement: Placement,
    pod_resources: PathBuf,
    recent: Mutex<Option<Recent>>,
}

/// The files of these units have a name that both the allocation and the start of a container find.
fn place(units: &BTreeSet<String>) -> String {
    let all: Vec<&str> = units.iter().map(String::as_str).collect();
    digest(all.join(",").as_bytes()).chars().take(24).collect()
}

impl Books {
    pub fn new(
        common: Common,
        files: Files,
        resources: Vec<(&'static str, Units)>,
        pieces: watch::Receiver<Vec<Piece>>,
        placement: Placement,
        pod_resources: PathBuf,
    ) -> Self {
        Self { common, files, resources, pieces, placement, pod_resources, recent: Mutex::default() }
    }

    /// The cards whose units are offered.
    pub fn pieces(&self) -> Vec<Piece> {
        self.pieces.borrow().iter().filter(|piece| piece.is_shared).cloned().collect()
    }

    /// The name of the resource of a kind.
    fn name(&self, kind: Kind) -> &'static str {
        self.resources.iter().find(|(_, units)| units.kind == kind).map_or("", |(name, _)| *name)
    }

    /// The card of what was allocated just before of other kinds: most likely for the same container, which has one allocation of
    /// each kind.
    pub fn hint(&self, kind: Kind) -> Option<String> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let of =
            recent.as_ref().filter(|recent| recent.at.elapsed() < SAME_POD && !recent.kinds.contains(&kind));
        of.map(|recent| recent.uuid.clone())
    }

    /// The cards of which another kind has no unit left: a container that asks for both would be torn apart there.
    pub async fn full(&self, kind: Kind, pieces: &[Piece]) -> BTreeSet<String> {
        let others = || self.resources.iter().filter(|(_, units)| units.kind != kind);
        let of = |name: &str| others().find(|(known, _)| *known == name).map(|(_, units)| units.kind);
        // It is a preference: a kubelet that does not answer soon is not waited for.
        let Ok(Ok(holders)) = timeout(SOON, ask(&self.pod_resources, of)).await else {
            return BTreeSet::new();
        };
        let mut full = BTreeSet::new();
        for (_, units) in others() {
            let names = holders.iter().filter_map(|holder| holder.units.get(&units.kind)).flatten();
            let used = units.count(names, pieces);
            let is_full =
                |piece: &&Piece| used.get(piece.uuid.as_str()).is_some_and(|used| *used >= units.of(piece));
            full.extend(pieces.iter().filter(is_full).map(|piece| piece.uuid.clone()));
        }
        full
    }

    fn note(&self, kind: Kind, uuid: &str) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let of = recent.take().filter(|recent| {
            recent.uuid == uuid && recent.at.elapsed() < SAME_POD && !recent.kinds.contains(&kind)
        });
        let mut kinds = of.map(|recent| recent.kinds).unwrap_or_default();
        kinds.insert(kind);
        // Who has all of them is complete: what comes next is another container's.
        if kinds.len() < self.resources.len() {
            *recent = Some(Recent { kinds, uuid: uuid.to_owned(), at: Instant::now() });
        }
    }

    /// What a container gets for these units. Its files come with the memory, since a container without has no part of a card.
    pub fn allocate(&self, units: &Units, names: &[String]) -> Result<ContainerAllocateResponse, String> {
        self.common.has_library()?;
        let pieces = self.pieces();
        let resource = self.name(units.kind);
        let piece = units.one_card(names, &pieces).map_err(|unfit| format!("{resource}: {unfit}"))?;
        if let Some(trouble) = &piece.trouble {
            return Err(format!("{resource}: {} ({}) {}", piece.name, piece.uuid, trouble.words()));
        }
        if units.kind == Kind::Seat && names.len() > 1 {
            return Err(format!(
                "{resource}: {}: a container gets a part of one card here. Write 1; several cards for one container take \
                 dynamic resource allocation (gpuquota dra)",
                names.len()
            ));
        }
        let (envs, cdi) = self.common.seen(&[&piece.uuid]);
        let mut answer = ContainerAllocateResponse {
            envs: envs.into_iter().collect(),
            cdi_devices: cdi.into_iter().map(|name| CdiDevice { name }).collect(),
            ..ContainerAllocateResponse::default()
        };
        if units.kind == Kind::Memory {
            let set: BTreeSet<String> = names.iter().cloned().collect();
            let (id, text) = (place(&set), limits("device-plugin", &[part(units, &set, piece, None)], &[]));
            let given = self.files.give(&id, &format!("{id}_slice"), &text, Region::Anew);
            let binds = given.and_then(|given| mounts(&self.common, &self.files, &given));
            let binds = binds
                .map_err(|error| format!("the plugin cannot keep the limits of the container: {error}"))?;
            answer.mounts = binds
                .into_iter()
                .map(|bind| Mount {
                    container_path: bind.destination,
                    host_path: bind.source.to_string_lossy().into_owned(),
                    read_only: bind.is_read_only,
                })
                .collect();
        }
        self.note(units.kind, &piece.uuid);
        Ok(answer)
    }

    /// Lays what a container has of all kinds side by side, and writes its limits.
    pub async fn start(&self, kind: Kind, names: Vec<String>) -> Result<(), String> {
        let names: BTreeSet<String> = names.into_iter().collect();
        let of =
            |name: &str| self.resources.iter().find(|(known, _)| *known == name).map(|(_, units)| units.kind);
        let mut tries = 0;
        let holder = loop {
            let asked = ask(&self.pod_resources, of).await.map_err(|error| {
                format!(
                    "the kubelet does not say what this container has ({}: {error}). Its share and its memory are tied by that: \
                     mount the socket into the plugin's pod",
                    self.pod_resources.display()
                )
            })?;
            let found = asked.into_iter().find(|holder| holder.units.get(&kind) == Some(&names));
            tries += 1;
            match found {
                Some(holder) => break holder,
                None if tries == TRIES => {
                    return Err(format!(
                        "the kubelet knows no container with these {} units of {}. Delete the pod, so that it is made anew",
                        names.len(),
                        self.name(kind)
                    ));
                }
                None => sleep(PAUSE).await,
            }
        };
        let (id, text) = self.tied(&holder).map_err(|why| format!("{}: {why}", holder.name))?;
        let written = self.files.limit(&id, &text);
        written.map_err(|error| format!("the plugin cannot keep the limits of the container: {error}"))
    }

    /// The place and the limits of a container, if what it has belongs together.
    fn tied(&self, holder: &Holder) -> Result<(String, String), String> {
        let pieces = self.pieces();
        let mut found: Option<(&Piece, Kind)> = None;
        for (_, units) in &self.resources {
            let Some(names) = holder.units.get(&units.kind) else { continue };
            let names: Vec<String> = names.iter().cloned().collect();
            let piece = units.one_card(&names, &pieces).map_err(|unfit| unfit.to_string())?;
            match found {
                Some((first, kind)) if first.uuid != piece.uuid => {
                    return Err(format!(
                        "its {} is of {} and its {} of {}: the kubelet chooses each by itself. Delete the pod, so that it is \
                         placed anew; --placement spread or dynamic resource allocation (gpuquota dra) avoid it",
                        self.name(kind),
                        first.name,
                        self.name(units.kind),
                        piece.name
                    ));
                }
                _ => found = found.or(Some((piece, units.kind))),
            }
        }
        let memory = self.resources.iter().find(|(_, units)| units.kind == Kind::Memory);
        let (Some((name, units)), Some((piece, _))) = (memory, found) else {
            return Err("it has no units".to_owned());
        };
        let Some(names) = holder.units.get(&Kind::Memory) else {
            return Err(format!(
                "it asks for a part of a card and for none of its memory, which would be all of it. Write {name} too"
            ));
        };
        let cores = holder.units.get(&Kind::Cores).map(|names| names.len() as u64);
        Ok((place(names), limits("device-plugin", &[part(units, names, piece, cores)], &[])))
    }

    /// Removes the files of containers that the kubelet does not know any more, for ever.
    pub async fn clean_for_ever(&self) {
        let memory = self.name(Kind::Memory);
        loop {
            sleep(CLEAN).await;
            // A kubelet that does not answer has forgotten nobody.
            if let Ok(holders) =
                ask(&self.pod_resources, |name| (name == memory).then_some(Kind::Memory)).await
            {
                self.clean(&holders, NEW);
            }
        }
    }

    /// The same once. What was allocated just now may not be told yet.
    fn clean(&self, holders: &[Holder], new: Duration) {
        let kept: BTreeSet<String> =
            holders.iter().filter_map(|holder| holder.units.get(&Kind::Memory)).map(place).collect();
        for id in self.files.ids().unwrap_or_default().iter().filter(|id| !kept.contains(*id)) {
            let made = self.files.made(id).unwrap_or(SystemTime::UNIX_EPOCH);
            if made.elapsed().is_ok_and(|age| age >= new)
                && let Err(error) = self.files.take(id)
            {
                tracing::warn!(
                    "the files of {id}, which no container has any more, cannot be removed: {error}"
                );
            }
        }
    }
}

fn part(units: &Units, names: &BTreeSet<String>, piece: &Piece, cores: Option<u64>) -> Part {
    let count = names.len() as u64;
    // All units are the whole card, and with it what is less than a unit.
    let memory = if count == units.of(piece) { piece.memory } else { count * units.size };
    Part { uuid: piece.uuid.clone(), memory, cores, cores_limit: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::Path;

    #[test]
    fn the_files_of_a_container_that_the_kubelet_forgot_go_and_no_others() {
        let home = std::env::temp_dir().join(format!("gpuquota-books-{}", std::process::id()));
        let common = Common::of_test(&home, Path::new("/proc/self/exe"));
        let files = common.files(".device-plugin").expect("files");
        let piece = Piece {
            name: "gpu-0".to_owned(),
            uuid: "GPU-513dc0da-2330-4000-8000-000000000000".to_owned(),
            index: 0,
            memory: 8 << 30,
            is_shared: true,
            attributes: BTreeMap::new(),
            trouble: None,
        };
        let units = Units { kind: Kind::Memory, size: 1 << 30, is_short: false };
        let names: Vec<String> = units.names(&piece).collect();
        let (_sender, pieces) = watch::channel(vec![piece]);
        let resources = vec![("gpuquota.dev/memory", units.clone())];
        let books = Books::new(common, files, resources, pieces, Placement::Pack, home.join("none.sock"));
        for names in [&names[..2], &names[2..4]] {
            books.allocate(&units, names).expect("memory");
        }
        let set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
        let stays = Holder { name: "a".to_owned(), units: [(Kind::Memory, set(&names[..2]))].into() };
        let ids = || books.files.ids().expect("ids");
        books.clean(std::slice::from_ref(&stays), NEW);
        assert_eq!(ids().len(), 2, "what is new stays");
        books.clean(std::slice::from_ref(&stays), Duration::ZERO);
        assert_eq!(ids(), [place(&set(&names[..2]))]);
        books.clean(&[], Duration::ZERO);
        assert_eq!(ids(), [""; 0]);
        std::fs::remove_dir_all(&home).expect("it is there");
    }
}
