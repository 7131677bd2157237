//! One resource, as the kubelet calls it.

use super::books::Books;
use super::units::{Units, Wish};
use crate::kubelet::cards::Piece;
use kubelet_plugin::api::device_plugin::{
    ContainerAllocateResponse, ContainerPreferredAllocationRequest, Device,
};
use kubelet_plugin::{DevicePlugin, Status, Told};
use std::sync::Arc;
use tokio::sync::watch;

/// The units of one kind.
pub struct Resource {
    name: &'static str,
    units: Units,
    books: Arc<Books>,
    devices: watch::Receiver<Vec<Device>>,
}

/// The units of these cards as the kubelet lists them.
pub fn devices(units: &Units, pieces: &[Piece]) -> Vec<Device> {
    let of = |piece: &Piece| {
        let health = if piece.trouble.is_none() { "Healthy" } else { "Unhealthy" };
        let device = |id| Device { id, health: health.to_owned(), topology: None };
        units.names(piece).map(device).collect::<Vec<_>>()
    };
    pieces.iter().filter(|piece| piece.is_shared).flat_map(of).collect()
}

impl Resource {
    pub fn new(
        name: &'static str,
        units: Units,
        books: Arc<Books>,
        devices: watch::Receiver<Vec<Device>>,
    ) -> Self {
        Self { name, units, books, devices }
    }

    /// A refusal, which the pod's status and the log show.
    fn refused(&self, why: String) -> Status {
        tracing::warn!("a container is refused: {why}");
        Status::failed_precondition(format!("gpuquota: {why}"))
    }
}

impl DevicePlugin for Resource {
    fn devices(&self) -> watch::Receiver<Vec<Device>> {
        self.devices.clone()
    }

    async fn prefer(&self, request: ContainerPreferredAllocationRequest) -> Vec<String> {
        let (pieces, kind) = (self.books.pieces(), self.units.kind);
        let wish = Wish {
            placement: self.books.placement,
            hint: self.books.hint(kind),
            full: self.books.full(kind, &pieces).await,
        };
        let count = usize::try_from(request.allocation_size).unwrap_or(0);
        self.units.prefer(
            &request.available_device_ids,
            &request.must_include_device_ids,
            count,
            &pieces,
            &wish,
        )
    }

    fn allocate(&self, devices: &[String]) -> Result<ContainerAllocateResponse, Status> {
        self.books.allocate(&self.units, devices).map_err(|why| self.refused(why))
    }

    async fn pre_start(&self, devices: Vec<String>) -> Result<(), Status> {
        self.books.start(self.units.kind, devices).await.map_err(|why| self.refused(why))
    }

    fn told(&self, told: Told) {
        match told {
            Told::Registered => tracing::info!("the kubelet has taken in {}", self.name),
            Told::NotRegistered(why) => tracing::warn!("the kubelet does not take in {}: {why}", self.name),
            Told::Again => tracing::info!("the kubelet was started anew: {} registers again", self.name),
        }
    }
}
