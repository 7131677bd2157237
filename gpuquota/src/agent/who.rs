//! Whose a region is, and what its card says: from those who know it into the snapshot.

use super::card::{CardDevice, Cards, OnCard, Seated, Standing, View, throttle_reasons};
use super::events::EventLog;
use super::identity::{Health, Identity, Naming};
use super::nri;
use super::snapshot::{Card, Container, Names, What, printable};
use crate::regions::Found;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

/// Those who know it. A test has neither.
#[derive(Default)]
pub struct Who {
    naming: Option<Arc<Naming>>,
    cards: Option<Arc<Cards>>,
    nri: Option<Arc<nri::Board>>,
    view: Arc<View>,
}

impl From<Identity> for Names {
    fn from(identity: Identity) -> Self {
        let Identity { namespace, pod, container, .. } = identity;
        Self { namespace, pod, container: printable(&container) }
    }
}

impl Who {
    pub fn new(naming: Arc<Naming>, cards: Arc<Cards>, nri: Option<Arc<nri::Board>>) -> Self {
        Self { naming: Some(naming), cards: Some(cards), nri, view: Arc::default() }
    }

    /// Without a thread that watches the cards: [`Self::show`] tells what they say.
    pub fn without_watch(naming: Arc<Naming>) -> Self {
        Self { naming: Some(naming), ..Self::default() }
    }

    /// What the cards say now.
    pub fn show(&mut self, view: Arc<View>) {
        self.view = view;
    }

    /// A look begins: everything of it is told of one moment. Events of the cards go into the log.
    pub fn begin(&mut self, log: &mut EventLog) {
        for event in self.nri.iter().flat_map(|nri| nri.take_events()) {
            log.put(event.identity.clone().into(), None, What::Nri(event));
        }
        let Some(cards) = &self.cards else { return };
        self.view = cards.view();
        for event in cards.take_events() {
            log.put(event.identity.clone().into(), Some(event.uuid.clone()), What::Card(event));
        }
    }

    /// Whose region was found, and who made that container.
    pub fn whose(&self, found: &Found) -> (Names, &'static str) {
        let Some(naming) = &self.naming else {
            return (Names { container: printable(&found.container), ..Names::default() }, "");
        };
        let identity = naming.of_region(found);
        let engine = identity.engine;
        (identity.into(), engine)
    }

    /// Adds what the cards say of containers.
    pub fn add_cards(&self, containers: &mut [Container]) {
        let by_path: HashMap<&Path, &OnCard> =
            self.view.containers.iter().map(|on_card| (on_card.path.as_path(), on_card)).collect();
        for container in containers.iter_mut().filter(|container| !container.ended) {
            if let Some(on_card) = by_path.get(Path::new(&container.path)) {
                container.unprotected = on_card.unprotected.clone();
                container.card_bytes = on_card.bytes.clone();
            }
        }
    }

    /// The cards themselves.
    pub fn cards(&self) -> Vec<Card> {
        self.view.devices.iter().map(|device| card(&self.view, device)).collect()
    }

    /// The same as they are now, whatever is told of them.
    pub fn cards_now(&self) -> Vec<Card> {
        let view = self.cards.as_ref().map_or_else(|| Arc::clone(&self.view), |cards| cards.view());
        view.devices.iter().map(|device| card(&view, device)).collect()
    }

    /// The processes at the cards.
    pub fn processes(&self) -> Vec<Seated> {
        self.view.seated.clone()
    }

    /// How the plugin of NRI does, if there is one.
    pub fn nri(&self) -> Option<nri::Figures> {
        self.nri.as_ref().map(|nri| nri.figures())
    }

    /// How the sources of names do.
    pub fn sources(&self) -> Vec<Health> {
        self.naming.as_ref().map(|naming| naming.health()).unwrap_or_default()
    }
}

fn card(view: &View, device: &CardDevice) -> Card {
    let health = &device.health;
    let ratio = |percent: Option<u32>| percent.map(|percent| f64::from(percent) / 100.0);
    let watts = |mw: Option<u32>| mw.map(|mw| f64::from(mw) / 1e3);
    let ecc = [("corrected", health.ecc_corrected), ("uncorrected", health.ecc_uncorrected)];
    let by = health.throttled_by.iter();
    let throttled = by.flat_map(|by| throttle_reasons().map(|reason| (reason, by.contains(&reason))));
    let standings = [Standing::Counted, Standing::Unprotected, Standing::Outside].into_iter();
    let processes: BTreeMap<&'static str, u64> = standings
        .map(|standing| {
            let of =
                view.seated.iter().filter(|seated| seated.uuid == device.uuid && seated.standing == standing);
            (standing.word(), of.count() as u64)
        })
        .collect();
    let xids = view.xids.get(&device.uuid);
    let all = Card {
        uuid: device.uuid.clone(),
        index: device.index,
        model: Some(device.name.clone()),
        driver: view.driver.clone(),
        lost: Some(device.is_lost),
        memory_total_bytes: Some(device.total),
        xids: xids.map(|xids| xids.counts.clone()).unwrap_or_default(),
        last_xid: Some(xids.map_or(0, |xids| xids.last)),
        ..Card::default()
    };
    // Of a device that does not answer nothing else is true.
    if device.is_lost {
        return all;
    }
    Card {
        memory_used_bytes: Some(device.used),
        utilization_ratio: ratio(health.busy_percent),
        memory_utilization_ratio: ratio(health.memory_busy_percent),
        power_watts: watts(health.power_mw),
        power_limit_watts: watts(health.power_limit_mw),
        temperature_celsius: health.temperature.map(f64::from),
        ecc_errors: ecc.into_iter().filter_map(|(kind, errors)| Some((kind, errors?))).collect(),
        throttled: throttled.collect(),
        processes,
        context_bytes: view.context_bytes.get(&device.uuid).copied(),
        ..all
    }
}
