//! One device and the containers that share it.

use super::container::{ContainerDevice, RENEWAL_NS, RegionWriter, Statement};
use gpuquota_quota::share::client::{Client, Demand};
use gpuquota_quota::share::lease::AGENT_TIMEOUT_NS;
use gpuquota_quota::share::scheduler::Scheduler;
use std::sync::Arc;

/// What containers without a share and a request have of the device together at least, in percent.
const LEAST_REST: u32 = 10;
/// How often the agent looks while no container does anything.
pub const IDLE_LOOK_NS: u64 = 20_000_000;
const _: () = assert!(RENEWAL_NS + IDLE_LOOK_NS < AGENT_TIMEOUT_NS);

/// All that share one device.
pub struct SharedDevice {
    pub uuid: String,
    containers: Vec<ContainerDevice>,
    clients: Vec<Client>,
    scheduler: Scheduler,
    next_look_ns: u64,
}

impl SharedDevice {
    pub fn new(uuid: String, container: ContainerDevice, client: Client) -> Self {
        Self {
            uuid,
            containers: vec![container],
            clients: vec![client],
            scheduler: Scheduler::default(),
            next_look_ns: 0,
        }
    }

    pub fn add(&mut self, container: ContainerDevice, client: Client) {
        self.containers.push(container);
        self.clients.push(client);
    }

    pub fn regions(&self) -> impl Iterator<Item = &Arc<RegionWriter>> {
        self.containers.iter().map(ContainerDevice::region)
    }

    /// Whether it takes leases: several containers share it, one of them by a share; or one has it alone, and may have
    /// all of it.
    pub fn needs_leases(&self) -> bool {
        let says = |holds: fn(&Statement) -> bool| {
            move |container: &ContainerDevice| container.read(0).as_ref().is_some_and(holds)
        };
        match self.containers.as_slice() {
            [alone] => says(|statement| statement.borrows)(alone),
            all => all.iter().any(says(|statement| statement.request.is_some())),
        }
    }

    /// Goes on with what was known before.
    pub fn inherit(&mut self, before: Self) {
        let same = before.containers.len() == self.containers.len()
            && before.containers.iter().zip(&self.containers).all(|(before, now)| before.is(now));
        if same {
            *self = before;
            return;
        }
        for (before, client) in before.containers.into_iter().zip(before.clients) {
            let mut now = self.containers.iter_mut().zip(&mut self.clients);
            if let Some((container, known)) = now.find(|(container, _)| container.is(&before)) {
                (*container, *known) = (before, client);
            }
        }
    }

    /// Lets every launch on it look for its lease.
    pub fn announce(&self) {
        self.containers.iter().for_each(ContainerDevice::announce);
    }

    /// Forgets the containers whose files cannot be read any more.
    fn drop_unreadable(&mut self) {
        let all = self.containers.drain(..).zip(self.clients.drain(..));
        let (containers, clients) = all.filter(|(container, _)| container.read(0).is_some()).unzip();
        (self.containers, self.clients, self.scheduler) = (containers, clients, Scheduler::default());
    }

    /// Looks, if it is time, and says when to look again.
    pub fn look(&mut self, now: u64) -> u64 {
        if now < self.next_look_ns {
            return self.next_look_ns;
        }
        let statements: Option<Vec<_>> =
            self.containers.iter().map(|container| container.read(now)).collect();
        let Some(statements) = statements else {
            self.drop_unreadable();
            return now;
        };
        let requests: u32 = statements.iter().filter_map(|statement| statement.request).sum();
        let others = statements.iter().filter(|statement| statement.request.is_none()).count().max(1) as u32;
        let rest = 100u32.saturating_sub(requests).max(LEAST_REST) / others;
        for (client, statement) in self.clients.iter_mut().zip(&statements) {
            client.see(Demand { weight: statement.request.unwrap_or(rest), ..statement.demand }, now);
        }
        self.next_look_ns = self.scheduler.look(&mut self.clients, now);
        if self.clients.len() == 1 || self.clients.iter().all(|client| client.is_away(now)) {
            self.next_look_ns = now + IDLE_LOOK_NS;
        }
        for (container, client) in self.containers.iter_mut().zip(&self.clients) {
            container.renew(client, now);
        }
        self.next_look_ns
    }
}
